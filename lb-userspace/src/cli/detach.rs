//! `weir detach`: takes the balancer from all interfaces, with its maps and counters. The agent does
//! it and ends; where none is running, what an earlier one left pinned is removed from here.

use lb_userspace::api::client::{Client, Error};
use lb_userspace::api::types::Detached;
use lb_userspace::dataplane;

use super::Bpffs;
use super::failure::Failure;
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bpffs: Bpffs,
}

pub(super) async fn run(args: &Args, client: &Client, output: Output) -> Result<(), Failure> {
    let detached = match client.detach().await {
        Ok(detached) => detached,
        Err(Error::NotRunning(_)) => Detached {
            interfaces: dataplane::detach(&args.bpffs.bpffs)?,
        },
        Err(error) => return Err(error.into()),
    };
    output.show(&detached, text)
}

fn text(detached: &Detached) -> String {
    if detached.interfaces.is_empty() {
        "nothing was attached".to_owned()
    } else {
        format!("detached from {}", detached.interfaces.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_interfaces() {
        let detached = |interfaces: &[&str]| {
            let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
            text(&Detached { interfaces })
        };
        assert_eq!(detached(&[]), "nothing was attached");
        assert_eq!(detached(&["eth0", "eth1"]), "detached from eth0, eth1");
    }
}

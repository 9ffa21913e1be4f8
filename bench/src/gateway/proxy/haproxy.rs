//! HAProxy: threads as CPUs, idle connections to the origin shared by all, no log.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{CONNECTIONS_MAX, Setup, write};

pub(super) fn command(program: &Path, setup: &Setup) -> Result<Command> {
    let path = write(setup, "haproxy.cfg", &configuration(setup))?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(path);
    Ok(command)
}

fn configuration(setup: &Setup) -> String {
    let Setup {
        certificate,
        origin,
        plain,
        tls,
        cpus,
        routes,
        busy_poll,
        ..
    } = setup;
    let threads = cpus.len();
    let certificate = certificate.display();
    let busy_poll = if *busy_poll { "\tbusy-polling\n" } else { "" };
    let mut text = format!(
        "global\n\
         \tnbthread {threads}\n\
         \tmaxconn {CONNECTIONS_MAX}\n\
         \tno strict-limits\n{busy_poll}\
         defaults\n\
         \tmode http\n\
         \ttimeout connect 5s\n\ttimeout client 75s\n\ttimeout server 75s\n\
         \ttimeout http-keep-alive 75s\n\
         \thttp-reuse always\n\
         \toption forwardfor\n\
         frontend all\n\
         \tmaxconn {CONNECTIONS_MAX}\n\
         \tbind {plain} backlog 4096\n\
         \tbind {tls} ssl crt {certificate} alpn h2,http/1.1 backlog 4096\n\
         \thttp-request set-header X-Forwarded-Proto http%[ssl_fc,iif(s,)]\n"
    );
    for route in 0..*routes {
        let _ = writeln!(text, "\tuse_backend r{route} if {{ path_beg /r/{route}/ }}");
    }
    text.push_str("\tdefault_backend origin\n");
    let mut backend = |name: &str| {
        let _ = writeln!(text, "backend {name}\n\tserver origin {origin}");
    };
    backend("origin");
    (0..*routes).for_each(|route| backend(&format!("r{route}")));
    text
}

//! `weir reload`: the agent reads its configuration file again, and says what changed.

use lb_userspace::api::client::Client;
use lb_userspace::api::types::Reloaded;

use super::failure::Failure;
use super::output::Output;

pub(super) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    output.show(&client.reload().await?, text)
}

fn text(reloaded: &Reloaded) -> String {
    if reloaded.changes.is_empty() {
        return "nothing changed".to_owned();
    }
    let lines: Vec<String> = reloaded.changes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

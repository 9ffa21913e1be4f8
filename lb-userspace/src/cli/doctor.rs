//! `weir doctor`: what the agent finds when it examines itself and its host. Where none is running, the
//! host alone is examined from here, which often says why.

use lb_userspace::api::client::{Client, Error};
use lb_userspace::api::types::{Doctor, Verdict};
use lb_userspace::doctor;

use super::Bpffs;
use super::failure::Failure;
use super::output::{Output, count};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bpffs: Bpffs,
}

/// Fails if anything examined fails, so that a script can ask.
pub(super) async fn run(args: &Args, client: &Client, output: Output) -> Result<(), Failure> {
    let doctor = match client.doctor().await {
        Ok(doctor) => doctor,
        Err(error @ Error::NotRunning(_)) => {
            let findings = doctor::host(&args.bpffs.bpffs);
            output.show(&Doctor { findings }, text)?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    output.show(&doctor, text)?;
    if doctor
        .findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Failure)
    {
        return Err(Failure::Silent);
    }
    Ok(())
}

fn text(doctor: &Doctor) -> String {
    let mut lines = Vec::new();
    for finding in &doctor.findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failure => "FAILED",
        };
        lines.push(format!(
            "{verdict:7}  {}: {}",
            finding.check, finding.detail
        ));
        if let Some(hint) = &finding.hint {
            lines.push(format!("{:7}  hint: {hint}", ""));
        }
    }
    let with = |verdict| {
        doctor
            .findings
            .iter()
            .filter(|f| f.verdict == verdict)
            .count()
    };
    lines.push(String::new());
    lines.push(format!(
        "{}, {}, {} ok",
        count(with(Verdict::Failure), "failure"),
        count(with(Verdict::Warning), "warning"),
        with(Verdict::Ok),
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use lb_userspace::api::types::Finding;

    use super::*;

    #[test]
    fn every_finding_has_a_line_and_its_hint() {
        let finding = |check: &str, verdict, detail: &str, hint: Option<&str>| Finding {
            check: check.to_owned(),
            verdict,
            detail: detail.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let doctor = Doctor {
            findings: vec![
                finding("bpffs", Verdict::Ok, "mounted", None),
                finding(
                    "eth0",
                    Verdict::Warning,
                    "generic mode",
                    Some("use another driver"),
                ),
                finding(
                    "web/gateway-2",
                    Verdict::Failure,
                    "no next hop",
                    Some("add a route"),
                ),
            ],
        };
        insta::assert_snapshot!(text(&doctor), @r#"
        ok       bpffs: mounted
        warning  eth0: generic mode
                 hint: use another driver
        FAILED   web/gateway-2: no next hop
                 hint: add a route

        1 failure, 1 warning, 1 ok
        "#);
    }
}

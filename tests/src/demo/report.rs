//! What the demo says, and what it remembers for the last line.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::failover::Failover;
use super::scenes::Asked;
use super::spread::Spread;
use super::topology::{API_HOST, Family, VIP_V4, VIP_V6, World};
use crate::binaries;
use crate::client::{Reply, RequestError};
use crate::host::Host;

/// What has been sent and seen so far.
#[derive(Debug)]
pub struct Report {
    voice: fn(&str),
    sent: usize,
    failed: usize,
    failed_in_failover: usize,
    spread: Spread,
    failover_ms: BTreeMap<&'static str, u128>,
    problems: Vec<String>,
}

impl Report {
    /// A report that prints each line with `voice`.
    #[must_use]
    pub fn new(voice: fn(&str)) -> Self {
        Self {
            voice,
            sent: 0,
            failed: 0,
            failed_in_failover: 0,
            spread: Spread::default(),
            failover_ms: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    fn say(&self, line: &str) {
        (self.voice)(line);
    }

    /// Begins a part.
    pub fn title(&mut self, title: &str) {
        self.say(&format!("\n== {title}"));
    }

    /// Shows who is where.
    pub fn hosts(&mut self, world: &World) {
        self.host(&world.client, "");
        self.host(
            world.balancer.host(),
            &format!("XDP on eth0 for {VIP_V4} and {VIP_V6}, port 443"),
        );
        for gateway in &world.gateways {
            self.host(
                gateway.host(),
                "opens tunnels, holds the VIP, answers the client directly",
            );
        }
        for instance in &world.instances {
            self.host(&instance.host, "");
        }
        self.say(&format!(
            "   files and logs: {}",
            world.directory().display()
        ));
    }

    fn host(&self, host: &Host, remark: &str) {
        let addresses = host.addresses();
        let (v4, v6) = (addresses.v4.to_string(), addresses.v6.to_string());
        let (name, namespace) = (host.name(), host.namespace().name());
        let line = format!("   {name:<11} {v4:<10} {v6:<15} netns {namespace:<22} {remark}");
        self.say(line.trim_end());
    }

    /// One request and whether its answer is the right one.
    pub fn answer(&mut self, asked: &Asked, outcome: &Result<Reply, RequestError>, told: &str) {
        let Asked {
            family,
            path,
            description,
            expected,
        } = asked;
        self.sent += 1;
        let status = outcome.as_ref().map(|reply| reply.status.as_u16()).ok();
        let right = status == Some(*expected);
        let mark = if right { "ok " } else { "BAD" };
        let status = status.map_or("none".to_owned(), |status| status.to_string());
        let family = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        self.say(&format!(
            "   {mark} {family}  GET {path:<17} {description:<22} {status}  {told}"
        ));
        if !right {
            self.failed += 1;
            let wanted = format!("{family} GET {path} {description}: {expected} is right");
            self.problem(&format!("{wanted}, {status} came: {told}"));
        }
    }

    /// Counts requests that were answered as they should be.
    pub fn passed(&mut self, count: usize) {
        self.sent += count;
    }

    /// Counts a request that failed.
    pub fn failure(&mut self, problem: &str) {
        self.sent += 1;
        self.failed += 1;
        self.problem(problem);
    }

    /// Remembers what did not hold, and says so at once.
    pub fn problem(&mut self, problem: &str) {
        self.say(&format!("   BAD {problem}"));
        self.problems.push(problem.to_owned());
    }

    /// Shows where many requests went.
    pub fn spread(&mut self, spread: Spread) {
        for line in spread.table() {
            self.say(&format!("   {line}"));
        }
        self.spread = spread;
    }

    /// Shows what users felt when `victim` was killed.
    pub fn failover(&mut self, kind: &'static str, victim: &str, felt: &Failover) {
        let Failover {
            answered,
            failed_before,
            failed_after,
            last_failure_ms,
            ..
        } = felt;
        let Failover {
            survivors,
            survivor_requests,
            broken,
            ended,
            ended_requests,
            ..
        } = felt;
        let broken = broken.len();
        let while_failing_over = failed_after + ended;
        let failed = failed_before + broken + while_failing_over;
        self.sent += answered + survivor_requests + ended_requests + failed;
        self.failed += failed;
        self.failed_in_failover += while_failing_over;
        self.failover_ms.insert(kind, *last_failure_ms);
        self.say(&format!(
            "   {victim} killed; new connections: {answered} answered, {failed_after} failed"
        ));
        self.say(&format!(
            "   last failure {last_failure_ms} ms after the kill"
        ));
        if *ended > 0 {
            self.say(&format!(
                "   connections held through it: {ended} ended with it"
            ));
        }
        self.say(&format!(
            "   connections held through others: {survivors}, with {survivor_requests} requests \
             and {broken} failures"
        ));
        self.judge(victim, felt);
    }

    fn judge(&mut self, victim: &str, felt: &Failover) {
        if felt.failed_before > 0 {
            let count = felt.failed_before;
            self.problem(&format!(
                "{count} requests failed before {victim} was killed"
            ));
        }
        if felt.survivors == 0 {
            self.problem("no held connection could show that survivors are untouched");
        }
        for broken in &felt.broken {
            self.problem(&format!(
                "a connection broke that {victim} did not carry: {broken}"
            ));
        }
    }

    /// Shows that requests pass while nobody is in control, and that a new agent takes over.
    pub fn agent_killed(&mut self, unattended: usize, adopted: bool) {
        self.passed(unattended);
        self.say(&format!(
            "   weir killed; {unattended} requests answered without it"
        ));
        self.say("   weir started again: it took over what it found in the kernel");
        if !adopted {
            self.problem("the new agent did not take over what the first one left");
        }
    }

    /// Shows that what was killed takes part again.
    pub fn back(&mut self, name: &str, after: Duration) {
        self.say(&format!(
            "   {name} started again: used again {} ms later",
            after.as_millis()
        ));
    }

    /// Shows what the programs said last, for whoever looks for the cause of a failure.
    pub fn last_words(&mut self, world: &mut World) {
        for gateway in &mut world.gateways {
            let name = gateway.host().name().to_owned();
            self.say(&format!("--- last lines of weir-gateway on {name}:"));
            self.say(&gateway.process().log_tail());
        }
        self.say("--- last lines of weir on balancer:");
        self.say(&world.balancer.log_tail());
    }

    /// Tells the user what to try.
    ///
    /// # Errors
    ///
    /// When the path of `weir` is not known.
    pub fn invitation(&mut self, world: &World) -> Result<()> {
        let weir = binaries::path("weir").context("where weir is")?;
        let weir = format!(
            "{} --socket {}",
            weir.display(),
            world.balancer.socket().display()
        );
        let files = &world.credentials;
        let client = world.client.namespace().name();
        let source = world.client.addresses().v4;
        self.say("   a request from the client, over IPv4 or IPv6:");
        for vip in [VIP_V4.to_string(), format!("[{VIP_V6}]")] {
            self.say(&format!(
                "     ip netns exec {client} curl -i --cacert {} -H @{} \\\n       \
                 --resolve {API_HOST}:443:{vip} https://{API_HOST}/users/whoami",
                files.authority_file.display(),
                files.header_file.display()
            ));
        }
        self.say("   the balancer:");
        for command in [
            "status".to_owned(),
            "stats".to_owned(),
            format!("explain {source}:40000 {VIP_V4}:443/tcp"),
            "backend drain api-v4 gateway-1".to_owned(),
        ] {
            self.say(&format!("     {weir} {command}"));
        }
        self.say("   press Enter or Ctrl-C to end and clean up");
        Ok(())
    }

    /// Says the last line; true if all held.
    #[must_use]
    pub fn conclude(self) -> bool {
        for problem in &self.problems {
            self.say(&format!("BAD {problem}"));
        }
        self.say("");
        self.say(&self.summary());
        self.problems.is_empty()
    }

    fn summary(&self) -> String {
        let failover = |kind| {
            self.failover_ms
                .get(kind)
                .map_or("-".to_owned(), u128::to_string)
        };
        format!(
            "demo: {} requests sent, {} failed ({} of them while failing over); spread: {}; \
             failover: instance {} ms, gateway {} ms; {}",
            self.sent,
            self.failed,
            self.failed_in_failover,
            self.spread.shares(),
            failover("instance"),
            failover("gateway"),
            if self.problems.is_empty() {
                "all held"
            } else {
                "NOT all held"
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::spread;

    #[test]
    fn the_last_line_names_every_figure() {
        let mut report = Report::new(|_| {});
        report.spread(spread::example());
        report.passed(8);
        let felt = Failover {
            answered: 90,
            failed_after: 2,
            last_failure_ms: 412,
            ..Failover::default()
        };
        report.failover(
            "gateway",
            "gateway-1",
            &Failover {
                survivors: 1,
                ..felt
            },
        );
        assert_eq!(
            report.summary(),
            "demo: 100 requests sent, 2 failed (2 of them while failing over); spread: \
             gateway-1 3 (38 %), gateway-2 5 (62 %); failover: instance - ms, gateway 412 ms; all held"
        );
    }

    #[test]
    fn a_failure_is_counted_and_remembered() {
        let mut report = Report::new(|_| {});
        report.failure("connection refused");
        assert_eq!(
            (report.sent, report.failed, report.problems.len()),
            (1, 1, 1)
        );
        assert!(report.summary().ends_with("NOT all held"));
    }
}

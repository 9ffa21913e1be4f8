//! What a proxy has used: CPU time and memory of all its processes.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Bytes of a kB line in `/proc`.
const KIB: u64 = 1024;

/// CPU time since the processes began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// To the nanosecond, from the processes' CPU clocks.
    pub(crate) cpu: Duration,
    /// Ticks of 10 ms from `/proc/PID/stat`; the kernel samples which of the two it is.
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
}

impl Usage {
    /// Of `pids` together.
    pub(crate) fn of(pids: &[Pid]) -> Result<Self> {
        let mut all = Self::default();
        for &pid in pids {
            let clock = clock_getcpuclockid(pid).with_context(|| format!("process {pid}"))?;
            all.cpu += Duration::from(clock.now()?);
            let path = format!("/proc/{pid}/stat");
            let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
            let (user, system) = ticks(&stat).with_context(|| path)?;
            all.user_ticks += user;
            all.system_ticks += system;
        }
        Ok(all)
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }

    /// Percent of the time that was the kernel's; nothing without a tick.
    pub(crate) fn system_percent(self) -> Option<u64> {
        let all = self.user_ticks + self.system_ticks;
        (self.system_ticks * 100).checked_div(all)
    }
}

/// `utime` and `stime`, fields 14 and 15 of `/proc/PID/stat` (proc(5)).
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The second field is the program's name in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Bytes of memory of `pids`, shared pages by their share (PSS).
pub(crate) fn memory(pids: &[Pid]) -> Result<u64> {
    let mut bytes = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        bytes += pss(&text).with_context(|| path)?;
    }
    Ok(bytes)
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * KIB)
}

/// `pid` and the processes below it.
pub(crate) fn family(pid: Pid) -> Vec<Pid> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        next += 1;
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        family.extend(children.map(Pid::from_raw));
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 12 34 0 0 20 0";
        assert_eq!(ticks(stat), Some((12, 34)));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_the_line_of_the_share() {
        let text = "00-ff ---p 00 00:00 0 [rollup]\nRss:  900 kB\nPss:  3 kB\nPss_Dirty:  1 kB\n";
        assert_eq!(pss(text), Some(3072));
    }

    #[test]
    fn we_have_used_something() {
        let us = [Pid::this()];
        assert!(Usage::of(&us).unwrap().cpu > Duration::ZERO);
        assert!(memory(&us).unwrap() > KIB);
        assert_eq!(family(us[0])[0], us[0]);
    }

    #[test]
    fn what_was_used_meanwhile() {
        let usage = |ms, user_ticks, system_ticks| Usage {
            cpu: Duration::from_millis(ms),
            user_ticks,
            system_ticks,
        };
        let used = usage(90, 5, 8).since(usage(50, 4, 5));
        assert_eq!(used, usage(40, 1, 3));
        assert_eq!(used.system_percent(), Some(75));
        assert_eq!(Usage::default().system_percent(), None);
    }
}

//! What the process takes of the machine, under the names every Prometheus client library uses.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::page::Page;

/// Jiffies per second as `/proc` counts them: fixed for user space, whatever the kernel's own
/// tick (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self` at every scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        if let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) {
            stat.show(&mut page);
        }
        if let Some(bytes) = read("/proc/self/status").as_deref().and_then(resident) {
            let help = "Resident memory in bytes.";
            page.gauge("process_resident_memory_bytes", help, bytes);
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory being read.
            let open = entries.count().saturating_sub(1);
            page.gauge("process_open_fds", "Open file descriptors.", open as f64);
        }
        if let Some(max) = read("/proc/self/limits").as_deref().and_then(descriptors) {
            page.gauge("process_max_fds", "File descriptors at most.", max);
        }
        page.outcome()
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What is read of `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    started_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    /// The name of the process stands in parentheses and may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first of these is field 3 in the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
        })
    }

    fn show(&self, page: &mut Page<'_>) {
        let seconds = self.cpu_ticks as f64 / TICKS_PER_SECOND;
        let help = "User and system CPU time in seconds.";
        page.amount("process_cpu_seconds", help, seconds);
        page.gauge("process_threads", "Threads.", self.threads as f64);
        let bytes = self.virtual_bytes as f64;
        page.gauge(
            "process_virtual_memory_bytes",
            "Virtual memory in bytes.",
            bytes,
        );
        let booted = read("/proc/stat").as_deref().and_then(boot_time);
        if let Some(booted) = booted {
            let started = booted + self.started_ticks as f64 / TICKS_PER_SECOND;
            let help = "When the process started, in seconds since 1970.";
            page.gauge("process_start_time_seconds", help, started);
        }
    }
}

fn boot_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn resident(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// The soft limit; `unlimited` has no number.
fn descriptors(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let text = "77 (a) b (c) S 1 77 77 0 -1 4194560 1000 0 0 0 250 50 0 0 20 0 5 0 \
            12345 104857600 2560 18446744073709551615";
        let expected = Stat {
            cpu_ticks: 300,
            threads: 5,
            started_ticks: 12_345,
            virtual_bytes: 104_857_600,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("77 (a) S 1"), None);
    }

    #[test]
    fn the_other_files_are_read_by_their_labels() {
        assert_eq!(
            resident("Name:\tx\nVmRSS:\t    2048 kB\n"),
            Some(2_097_152.0)
        );
        assert_eq!(resident("Name:\tx\n"), None);
        let limits = "Limit Soft Hard Units\nMax open files            1024   4096   files\n";
        assert_eq!(descriptors(limits), Some(1024.0));
        assert_eq!(
            descriptors("Max open files unlimited unlimited files"),
            None
        );
        assert_eq!(
            boot_time("cpu 1\nbtime 1700000000\n"),
            Some(1_700_000_000.0)
        );
    }

    #[test]
    fn this_process_has_all_of_it() {
        let stat = read("/proc/self/stat").unwrap();
        assert!(Stat::parse(&stat).unwrap().virtual_bytes > 0);
        assert!(resident(&read("/proc/self/status").unwrap()).unwrap() > 0.0);
        assert!(boot_time(&read("/proc/stat").unwrap()).unwrap() > 0.0);
    }
}

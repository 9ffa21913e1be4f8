//! Whether we may do what the kernel and network parts need, asked before minutes of building.
use anyhow::{Context, Result, ensure};

/// Bits of capabilities (linux/capability.h): interfaces, namespaces, BPF.
const NEEDED: [(&str, u32); 3] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_BPF", 39),
];

/// Fails unless we are root in full; `what` is the task, `otherwise` what can be done without.
pub(crate) fn require(what: &str, otherwise: &str) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let missing = missing(&status).join(", ");
    ensure!(
        missing.is_empty(),
        "{what} needs root with {missing}; run it as root{otherwise}"
    );
    Ok(())
}

/// The capabilities that the `CapEff` line of a process status lacks.
fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let lacking = NEEDED.iter().filter(|(_, bit)| effective & (1 << bit) == 0);
    lacking.map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_effective_set() {
        let all = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"];
        let cases = [
            ("root", "CapPrm:\t0\nCapEff:\t000001ffffffffff\n", &all[..0]),
            (
                "user",
                "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n",
                &all,
            ),
            ("container root", "CapEff:\t00000000a80425fb\n", &all),
            ("no line", "", &all),
            ("all but BPF", "CapEff:\t0000007fffffffff\n", &all[2..]),
        ];
        for (description, status, expected) in cases {
            assert_eq!(missing(status), expected, "{description}");
        }
    }
}

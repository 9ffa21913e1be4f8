//! What the kernel counts on a host: the facts about lost packets that no scheduler can blur.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::iter::Sum;

use anyhow::{Context, Result};

use crate::host::Host;

/// Counters of the TCP of a host, all connections together (`/proc/net/snmp` and `netstat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Segments sent again because no acknowledgement came in time.
    pub retransmitted: u64,
    /// How often the other side said that it had a segment already (RFC 2883): what was sent again was
    /// late, not lost.
    pub duplicates: u64,
    /// Resets sent: packets of connections that this host does not know came here.
    pub resets_sent: u64,
}

impl Tcp {
    /// What `host` has counted so far.
    ///
    /// # Errors
    ///
    /// When the kernel does not show it.
    pub fn of(host: &Host) -> Result<Self> {
        // The network of a process is that of its first thread, which is not where we are.
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let text = host
            .namespace()
            .enter(|| read("snmp").and_then(|text| Ok(text + &read("netstat")?)))?;
        Self::parse(&text).with_context(|| format!("no TCP counters in {text}"))
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            retransmitted: self.retransmitted - before.retransmitted,
            duplicates: self.duplicates - before.duplicates,
            resets_sent: self.resets_sent - before.resets_sent,
        }
    }

    /// Segments that were sent again with reason.
    #[must_use]
    pub fn lost(self) -> u64 {
        self.retransmitted.saturating_sub(self.duplicates)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            retransmitted: value(text, "Tcp: ", "RetransSegs")?,
            duplicates: value(text, "TcpExt: ", "TCPDSACKRecv")?,
            resets_sent: value(text, "Tcp: ", "OutRsts")?,
        })
    }
}

impl Sum for Tcp {
    fn sum<I: Iterator<Item = Self>>(hosts: I) -> Self {
        hosts.fold(Self::default(), |sum, one| Self {
            retransmitted: sum.retransmitted + one.retransmitted,
            duplicates: sum.duplicates + one.duplicates,
            resets_sent: sum.resets_sent + one.resets_sent,
        })
    }
}

/// The counter `name`: a line with `prefix` and names is followed by one with values.
fn value(text: &str, prefix: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, values) = (lines.next()?, lines.next()?);
    let position = names.split(' ').position(|one| one == name)?;
    values.split(' ').nth(position)?.parse().ok()
}

/// Counts the IPv4 packets that hosts drop because of a wrong header (`ipInHdrErrors` of RFC 4293).
#[derive(Debug)]
pub struct WrongHeaders(Vec<File>);

impl WrongHeaders {
    /// Of all `hosts` together.
    ///
    /// # Errors
    ///
    /// When the kernel does not show it.
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Result<Self> {
        // The network that a file tells about is decided when it is opened.
        let open = |host: &Host| {
            host.namespace()
                .enter(|| File::open("/proc/thread-self/net/snmp"))
        };
        let files = hosts.into_iter().map(open);
        Ok(Self(files.collect::<Result<_, _>>()?))
    }

    /// How many there were so far.
    ///
    /// # Errors
    ///
    /// As [`WrongHeaders::of`].
    pub fn count(&self) -> Result<u64> {
        self.0.iter().map(wrong_headers).sum()
    }
}

fn wrong_headers(mut file: &File) -> Result<u64> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    value(&text, "Ip: ", "InHdrErrors").with_context(|| format!("no InHdrErrors in {text}"))
}

/// Packets that the interfaces of `host` have dropped for lack of room, in both directions.
///
/// For a veth pair that is a full receive ring, whether its packets came from the stack or from an
/// XDP program (`veth_get_stats64` in drivers/net/veth.c).
///
/// # Errors
///
/// When the kernel does not show it.
pub fn interface_drops(host: &Host) -> Result<u64> {
    let text = host
        .namespace()
        .enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    drops(&text).with_context(|| format!("no interface counters in {text}"))
}

/// Fields after the name: eight of received packets, the fourth are drops, and then eight of sent ones.
fn drops(text: &str) -> Option<u64> {
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let drops = interfaces.map(|(_, counts)| {
        let mut fields = counts.split_whitespace();
        let received: u64 = fields.nth(3)?.parse().ok()?;
        let sent: u64 = fields.nth(7)?.parse().ok()?;
        Some(received + sent)
    });
    drops.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_counters_are_found_by_name() {
        let text = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
            Tcp: RtoAlgorithm RtoMin MaxConn RetransSegs InErrs OutRsts\n\
            Tcp: 1 200 -1 7 0 3\nUdp: InDatagrams\nUdp: 5\n\
            TcpExt: SyncookiesSent TCPDSACKRecv\nTcpExt: 0 5\n";
        let expected = Tcp {
            retransmitted: 7,
            duplicates: 5,
            resets_sent: 3,
        };
        assert_eq!(Tcp::parse(text), Some(expected));
        assert_eq!(expected.lost(), 2);
        let [one, two] = [expected; 2];
        assert_eq!([one, two].into_iter().sum::<Tcp>().since(one), two);
        assert_eq!(Tcp::parse("Udp: InDatagrams\nUdp: 5\n"), None);
    }

    #[test]
    fn drops_of_all_interfaces_and_directions_are_summed() {
        let text = "Inter-|   Receive            |  Transmit\n \
            face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop\n\
            \x20   lo: 900 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n\
            \x20 eth0: 800 8 0 5 0 0 0 0 700 7 0 2 0 0 0 0\n";
        assert_eq!(drops(text), Some(7));
        assert_eq!(drops("eth0: 1 2"), None);
    }
}

//! Syslog messages (RFC 5424) over a local socket, UDP (RFC 5426) or TCP with octet counting (RFC
//! 6587 section 3.4.1).

use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::sink::Sink;

/// Until a connection stands or a message is taken: the writer may wait, but not for ever.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a message at most; what is longer is cut. Common servers read no more (RFC 5424
/// section 6.1 leaves it to the receiver).
pub(super) const MESSAGE_BYTES_MAX: usize = 8192;
/// `informational` (RFC 5424 section 6.2.1).
const SEVERITY: u8 = 6;

/// A syslog server and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Where it listens.
    pub address: SyslogAddress,
    /// The facility, 0 to 23.
    pub facility: u8,
    /// What the sender calls itself.
    pub app_name: String,
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A local socket for datagrams, usually `/dev/log`.
    Unix(PathBuf),
    /// One datagram for each message.
    Udp(SocketAddr),
    /// A stream, each message after its length.
    Tcp(SocketAddr),
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// The facilities by number (RFC 5424 table 1).
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// A connection to a syslog server.
pub(super) struct Syslog {
    config: SyslogConfig,
    /// Host, name and process: the same for every message.
    origin: String,
    socket: Option<Socket>,
    message: Vec<u8>,
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    pub(super) fn new(config: SyslogConfig) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = Some(host.trim())
            .filter(|host| !host.is_empty())
            .unwrap_or("-");
        let origin = format!("{host} {} {} access -", config.app_name, std::process::id());
        Self {
            config,
            origin,
            socket: None,
            message: Vec::new(),
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        match &self.config.address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Ok(Socket::Unix(socket))
            }
            SyslogAddress::Udp(address) => {
                let any = if address.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Ok(Socket::Udp(socket))
            }
            SyslogAddress::Tcp(address) => {
                let socket = TcpStream::connect_timeout(address, TIMEOUT)?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Ok(Socket::Tcp(socket))
            }
        }
    }

    /// Puts a message together; for a stream with its length before it.
    fn compose(&mut self, line: &[u8], now: Timestamp) {
        let priority = self.config.facility * 8 + SEVERITY;
        let header = format!("<{priority}>1 {now:.6} {} ", self.origin);
        let room = MESSAGE_BYTES_MAX.saturating_sub(header.len());
        let line = &line[..line.len().min(room)];
        self.message.clear();
        if matches!(self.config.address, SyslogAddress::Tcp(_)) {
            // Writing to a vector cannot fail.
            let _ = write!(self.message, "{} ", header.len() + line.len());
        }
        self.message.extend_from_slice(header.as_bytes());
        self.message.extend_from_slice(line);
    }
}

impl Socket {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.send(message).map(drop),
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Tcp(socket) => socket.write_all(message),
        }
    }
}

impl Sink for Syslog {
    fn write(&mut self, lines: &[u8], at: &mut usize) -> io::Result<()> {
        let now = Timestamp::now();
        if self.socket.is_none() {
            self.socket = Some(self.connect()?);
        }
        while *at < lines.len() {
            let rest = &lines[*at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let end = end.unwrap_or(rest.len());
            self.compose(&rest[..end], now);
            let Some(socket) = &mut self.socket else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            if let Err(error) = socket.send(&self.message) {
                // A stream may hold half a message now: only a new one can be told where the
                // next begins.
                self.socket = None;
                return Err(error);
            }
            *at += (end + 1).min(rest.len());
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.socket = Some(self.connect()?);
        Ok(())
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        if let Some(Socket::Tcp(socket)) = &self.socket {
            // What was sent arrives all the same; an error means the server left first.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    fn syslog(address: SyslogAddress) -> Syslog {
        let mut syslog = Syslog::new(SyslogConfig {
            address,
            facility: 16,
            app_name: "weir-gateway".into(),
        });
        syslog.origin = "host weir-gateway 7 access -".into();
        syslog
    }

    /// The message without its time.
    fn timeless(message: &[u8]) -> String {
        let text = String::from_utf8(message.to_vec()).unwrap();
        let words: Vec<&str> = text.splitn(3, ' ').collect();
        assert!(words[1].parse::<Timestamp>().is_ok(), "{text}");
        format!("{} {}", words[0], words[2])
    }

    #[test]
    fn each_line_is_a_datagram() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (unix, udp) = (
            UnixDatagram::bind(&path).unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let address = udp.local_addr().unwrap();
        for address in [SyslogAddress::Unix(path), SyslogAddress::Udp(address)] {
            let mut at = 0;
            syslog(address).write(b"one line\ntwo\n", &mut at).unwrap();
            assert_eq!(at, 13);
        }
        let expected = ["one line", "two"];
        let mut buffer = [0; 1024];
        for expected in expected {
            let expected = format!("<134>1 host weir-gateway 7 access - {expected}");
            let length = unix.recv(&mut buffer).unwrap();
            assert_eq!(timeless(&buffer[..length]), expected);
            let length = udp.recv(&mut buffer).unwrap();
            assert_eq!(timeless(&buffer[..length]), expected);
        }
    }

    #[test]
    fn a_stream_counts_octets_and_a_long_message_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut lines = vec![b'x'; MESSAGE_BYTES_MAX + 100];
        lines.extend_from_slice(b"\nshort\n");
        let mut at = 0;
        let mut client = syslog(SyslogAddress::Tcp(address));
        client.write(&lines, &mut at).unwrap();
        drop(client);
        assert_eq!(at, lines.len());
        let mut read = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut read).unwrap();
        let mut messages = Vec::new();
        let mut rest = &read[..];
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').unwrap();
            let length: usize = str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            messages.push(&rest[space + 1..=space + length]);
            rest = &rest[space + 1 + length..];
        }
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].len(), MESSAGE_BYTES_MAX);
        assert_eq!(
            timeless(messages[1]),
            "<134>1 host weir-gateway 7 access - short"
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_and_found_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut syslog = syslog(SyslogAddress::Unix(path.clone()));
        let mut at = 0;
        assert!(syslog.write(b"one\n", &mut at).is_err());
        assert_eq!(at, 0);
        let server = UnixDatagram::bind(&path).unwrap();
        syslog.write(b"one\n", &mut at).unwrap();
        let mut buffer = [0; 1024];
        assert!(server.recv(&mut buffer).unwrap() > 0);
    }
}

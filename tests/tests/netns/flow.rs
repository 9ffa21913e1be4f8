//! Flows from the client's host to a VIP: who answers, and whether every byte comes back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use tests::host::Host;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long a flow may be silent, which says of a busy machine that the flow is cut off.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// How long to wait where nobody is expected to answer.
pub(crate) const LOST_LIMIT: Duration = Duration::from_secs(5);

/// A TCP connection to an echo backend that has said its name.
pub(crate) struct Connection {
    pub(crate) backend: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects from inside `host`; the socket stays in its namespace wherever it is used.
    pub(crate) fn open(host: &Host, vip: SocketAddr) -> io::Result<Self> {
        Self::open_within(host, vip, SILENCE_LIMIT)
    }

    /// The same with a limit for its silence: short where nobody is expected to answer.
    pub(crate) fn open_within(host: &Host, vip: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = host
            .namespace()
            .enter(|| TcpStream::connect_timeout(&vip, limit))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        stream.read_line(&mut greeting)?;
        Ok(Self {
            backend: greeting.trim_end().to_owned(),
            stream,
        })
    }

    /// Sends `payload` and reads as many bytes.
    pub(crate) fn exchange(&mut self, payload: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.get_mut().write_all(payload)?;
        let mut answer = vec![0; payload.len()];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Whether nobody answers `payload`, within a time that many answers would take.
    pub(crate) fn is_cut_off(&mut self, payload: &[u8]) -> bool {
        let limit = self.stream.get_ref().set_read_timeout(Some(LOST_LIMIT));
        limit.is_ok() && self.exchange(payload).is_err()
    }

    /// Ends our half and expects the other one to end too.
    pub(crate) fn close(mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        if rest.is_empty() {
            Ok(())
        } else {
            Err(io::Error::other("bytes nobody sent"))
        }
    }
}

/// One datagram from `source` to `vip` and the answer; returns the backend's name.
///
/// To be awaited inside the client's host, where the socket is made.
pub(crate) async fn ask_by_udp(
    source: SocketAddr,
    vip: SocketAddr,
    payload: &[u8],
) -> io::Result<String> {
    let socket = UdpSocket::bind(source).await?;
    socket.connect(vip).await?;
    socket.send(payload).await?;
    let mut answer = vec![0; payload.len() + 64];
    let length = timeout(SILENCE_LIMIT, socket.recv(&mut answer)).await??;
    let mut parts = answer[..length].splitn(2, |byte| *byte == b'\n');
    let name = parts.next().unwrap_or_default();
    if parts.next() != Some(payload) {
        return Err(io::Error::other("another payload came back"));
    }
    String::from_utf8(name.to_vec()).map_err(io::Error::other)
}

/// Any free port of any address of the family of `vip`.
pub(crate) fn any_source(vip: SocketAddr) -> SocketAddr {
    let any: IpAddr = if vip.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    SocketAddr::new(any, 0)
}

//! Listening sockets: one per worker on the same address, among which the kernel spreads clients.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections the kernel holds until they are accepted, per worker; it caps this by
/// `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// One listening socket for each of `count` workers. With port 0 all share the port the kernel
/// picks for the first.
pub(crate) fn bind(
    address: SocketAddr,
    ipv6_only: bool,
    count: usize,
) -> io::Result<Vec<TcpListener>> {
    let first = listen(address, ipv6_only)?;
    let address = first.local_addr()?;
    let others = (1..count).map(|_| listen(address, ipv6_only));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// One listening socket.
pub(super) fn listen(address: SocketAddr, ipv6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Said either way: what an address means must not depend on a sysctl.
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The options of a listener's connections.
///
/// They are set on the listening socket, from which Linux gives them to what it accepts, and not on
/// each connection.
#[derive(Debug, Default)]
pub(super) struct Options {
    stalled_max: Option<Duration>,
}

impl Options {
    /// Sees to the options of connections that are accepted from now on, and of `stream`, which was
    /// accepted just now.
    ///
    /// A client that takes nothing of a response for `stalled_max` is cut by the kernel (this covers
    /// a closed window too), since nobody polls a body that cannot be written.
    pub(super) fn see_to(
        &mut self,
        listener: &impl AsFd,
        stream: &impl AsFd,
        stalled_max: Duration,
    ) {
        if self.stalled_max.replace(stalled_max) == Some(stalled_max) {
            return;
        }
        for socket in [SockRef::from(listener), SockRef::from(stream)] {
            // A connection without these options still works; it would only be slower or live longer.
            let _ = socket.set_tcp_nodelay(true);
            let _ = socket.set_tcp_user_timeout(Some(stalled_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_one_port() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), false, 3).unwrap();
        let ports: Vec<u16> = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap().port())
            .collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn an_ipv6_listener_takes_both_families_unless_told_otherwise() {
        for (ipv6_only, reached) in [(false, true), (true, false)] {
            let sockets = bind("[::]:0".parse().unwrap(), ipv6_only, 1).unwrap();
            let port = sockets[0].local_addr().unwrap().port();
            let connected = std::net::TcpStream::connect(("127.0.0.1", port));
            assert_eq!(connected.is_ok(), reached, "{ipv6_only}");
            assert!(std::net::TcpStream::connect(("::1", port)).is_ok());
        }
    }
}

//! Listening sockets: one per worker on the same address, among which the kernel spreads clients.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections the kernel holds until they are accepted, per worker; it caps this by
/// `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// One listening socket for each of `count` workers. With port 0 all share the port the kernel
/// picks for the first.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = listen(address)?;
    let address = first.local_addr()?;
    let others = (1..count).map(|_| listen(address));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // One family per listener: what an address means must not depend on a sysctl.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets up an accepted connection.
///
/// A client that takes nothing of a response for `stalled_max` is cut by the kernel (this covers
/// a closed window too), since nobody polls a body that cannot be written.
pub(crate) fn tune(stream: &tokio::net::TcpStream, stalled_max: Duration) {
    let socket = SockRef::from(stream);
    // A connection without these options still works; it would only be slower or live longer.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(stalled_max));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_one_port() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<u16> = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap().port())
            .collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }
}

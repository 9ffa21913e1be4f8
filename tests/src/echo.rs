//! A server without any protocol above TCP and UDP: it says its name, then sends back what comes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// How many TCP connections are served at a time; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 4096;

/// The largest UDP payload there is, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Listens on `address` over TCP and UDP, and answers from that address: one that is bound to a
/// VIP answers from the VIP.
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn bind(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => break (tcp, udp),
            // Any port will do, and this one is somebody else's over UDP.
            Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    };
    // Thousands of flows may speak at once, and a datagram without room is lost in silence.
    socket2::SockRef::from(&udp).set_recv_buffer_size(8 << 20)?;
    Ok((tcp, udp))
}

/// Serves both sockets as `instance` until the runtime ends.
pub async fn serve(tcp: TcpListener, udp: UdpSocket, instance: String) {
    let greeting: Arc<[u8]> = format!("{instance}\n").into_bytes().into();
    tokio::join!(
        serve_tcp(tcp, Arc::clone(&greeting)),
        serve_udp(udp, &greeting)
    );
}

async fn serve_tcp(listener: TcpListener, greeting: Arc<[u8]>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let greeting = Arc::clone(&greeting);
        tokio::spawn(async move {
            // A broken connection is the client's business.
            let _ = echo_stream(stream, &greeting).await;
            drop(slot);
        });
    }
}

async fn echo_stream(mut stream: TcpStream, greeting: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(greeting).await?;
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

async fn serve_udp(socket: UdpSocket, greeting: &[u8]) {
    let mut buffer = vec![0; greeting.len() + DATAGRAM_BYTES_MAX];
    buffer[..greeting.len()].copy_from_slice(greeting);
    loop {
        // An ICMP error about an earlier answer arrives here too, and concerns nobody else.
        if let Ok((length, peer)) = socket.recv_from(&mut buffer[greeting.len()..]).await {
            let _ = socket
                .send_to(&buffer[..greeting.len() + length], peer)
                .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn both_protocols_give_the_name_and_then_the_bytes() {
        let (tcp, udp) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = tcp.local_addr().unwrap();
        tokio::spawn(serve(tcp, udp, "backend-1".to_owned()));

        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "backend-1\nhello");

        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(b"hello", address).await.unwrap();
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).await.unwrap();
        assert_eq!(&answer[..length], b"backend-1\nhello");
    }
}

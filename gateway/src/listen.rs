//! From the socket to a byte stream: accept, count, and finish TLS where the listener has it.

pub(crate) mod client_certificate;
pub(crate) mod set;
pub(crate) mod sni;
pub(crate) mod tcp;
pub(crate) mod tls;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use tokio::net::{TcpListener, TcpStream};

use self::client_certificate::Outcome;
use self::set::{Settings, Shared};
use self::tls::Tls;
use crate::config::ListenerConfig;
use crate::forward::forwarded;
use crate::serve::{self, Sni, Transport};
use crate::server::connections::Full;
use crate::server::worker::Worker;
use crate::socket::Socket;

/// Between attempts to accept when the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// One listener of one worker.
pub(crate) struct Listener {
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: std::net::TcpListener,
}

/// Accepts connections until the gateway closes or a reload removes the listener, then takes those that still wait in the queue:
/// closing a listening socket resets them.
pub(crate) async fn run(listener: Listener, worker: Rc<Worker>) -> io::Result<()> {
    let Listener { shared, socket } = listener;
    let socket = TcpListener::from_std(socket)?;
    let mut options = tcp::Options::default();
    let mut take =
        |socket: BorrowedFd<'_>, accepted: io::Result<(TcpStream, SocketAddr)>| match accepted {
            Ok((stream, peer)) => {
                let stalled_max = worker.plane().limits().body_idle_timeout;
                options.see_to(&socket, &stream, stalled_max);
                let settings = shared.settings.load();
                accept(stream, peer, &settings, &worker);
                true
            }
            Err(error) if is_of_one_connection(&error) => true,
            Err(error) => {
                let listener = &shared.settings.load().config.name;
                tracing::warn!(listener, %error, "cannot accept");
                false
            }
        };
    let closing = async {
        tokio::select! {
            () = worker.drain.closing() => {}
            () = shared.removed() => {}
        }
    };
    tokio::pin!(closing);
    loop {
        tokio::select! {
            accepted = socket.accept() => if !take(socket.as_fd(), accepted) {
                tokio::time::sleep(ACCEPT_RETRY).await;
            },
            () = &mut closing => break,
        }
    }
    let socket = socket.into_std()?;
    for _ in 0..tcp::BACKLOG {
        match socket.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            accepted => take(
                socket.as_fd(),
                accepted.and_then(|(stream, peer)| {
                    stream.set_nonblocking(true)?;
                    Ok((TcpStream::from_std(stream)?, peer))
                }),
            ),
        };
    }
    Ok(())
}

/// Errors that `accept` reports about a connection that is gone already.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset)
}

fn accept(stream: TcpStream, peer: SocketAddr, settings: &Settings, worker: &Rc<Worker>) {
    let reserve_percent = worker.plane().config().overload.descriptors_reserve_percent;
    if worker.strain.turns_away(stream.as_fd(), reserve_percent) {
        worker.metrics.connection_refused(false);
        return;
    }
    // Behind a trusted proxy are many clients.
    let trusted = &settings.config.trusted_proxies;
    let proxy = forwarded::is_trusted(peer.ip().to_canonical(), trusted);
    let slot = match worker.admit((!proxy).then_some(peer.ip())) {
        Ok(slot) => slot,
        Err(full) => {
            worker.metrics.connection_refused(full == Full::Source);
            return;
        }
    };
    let stream = Socket::new(stream);
    let (config, worker) = (Arc::clone(&settings.config), Rc::clone(worker));
    match settings.tls.clone() {
        None => {
            let served = serve::run(stream, Transport::plain(peer), (None, None), config, worker);
            tokio::task::spawn_local(async move {
                served.await;
                drop(slot);
            });
        }
        Some(tls) => {
            tokio::task::spawn_local(async move {
                serve_tls(stream, peer, tls, config, worker).await;
                drop(slot);
            });
        }
    }
}

async fn serve_tls(
    stream: Socket,
    peer: SocketAddr,
    tls: Tls,
    config: Arc<ListenerConfig>,
    worker: Rc<Worker>,
) {
    let timeout = worker.plane().limits().handshake_timeout;
    let accepted = Instant::now();
    // Boxed: a handshake needs room that the connection after it does not.
    let stream = match Box::pin(tls::handshake(&tls, stream, timeout)).await {
        Ok(stream) => stream,
        Err(error) => {
            worker.metrics.handshake_failed();
            tell_failure(&tls, &config.name, peer, &error, &worker);
            return;
        }
    };
    let session = stream.get_ref().1;
    let certificate = tls.clients.as_ref().and_then(|clients| {
        let (outcome, told) = clients.outcome(session);
        worker.metrics.client_certificate(outcome);
        told
    });
    let transport = Transport::tls(peer, session);
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let version = transport.tls.unwrap_or_default();
    let took = accepted.elapsed();
    worker.metrics.handshake_done(version, resumed, took);
    let sni = session.server_name().map(|name| Sni {
        name: name.to_owned(),
        resolver: Arc::clone(&tls.resolver),
    });
    serve::run(stream, transport, (sni, certificate), config, worker).await;
}

/// Counts and logs why a handshake failed. A client's certificate is for somebody to look after;
/// all else is what strangers do all day.
fn tell_failure(tls: &Tls, listener: &str, peer: SocketAddr, error: &io::Error, worker: &Worker) {
    if let Some(clients) = &tls.clients
        && let Some(outcome) = Outcome::of_failure(error)
    {
        worker.metrics.client_certificate(outcome);
        if clients.may_tell() {
            let certificate = outcome.name();
            tracing::info!(listener, %peer, certificate, %error, "client refused");
            return;
        }
    }
    tracing::debug!(listener, %peer, %error, "no TLS");
}

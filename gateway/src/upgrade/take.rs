//! The new process's side of a handover.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

use super::wire;
use super::{
    Answer, Confirmed, Inherited, Known, Offer, PROTOCOL, READY_TIMEOUT, SOCKETS_MAX, VERSION,
};
use crate::upstream::service::SharedService;

/// What `--take-over` is given by an old process that has started the new one: the socket is
/// standard input.
pub(super) const STDIN: &str = "-";

/// Bytes of the answer to an upgrade at most.
const HEAD_BYTES_MAX: usize = 4096;

/// An old process that offers its sockets.
#[derive(Debug)]
pub struct Handover {
    stream: UnixStream,
    /// Of the old process.
    pid: u32,
    inherited: RefCell<Inherited>,
    /// What the old process knew of instances, and when.
    known: RefCell<serde_json::Value>,
    told: Instant,
}

impl Handover {
    /// Asks the process behind a control socket for its sockets; `-`: standard input is a
    /// connection to it.
    ///
    /// # Errors
    ///
    /// If nobody is there, or whoever is there does not hand over.
    pub fn from(socket: &Path) -> anyhow::Result<Self> {
        let stream = if socket == Path::new(STDIN) {
            UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            let stream = UnixStream::connect(socket)
                .with_context(|| format!("nobody to take over from at {}", socket.display()))?;
            ask(&stream)?;
            stream
        };
        stream.set_read_timeout(Some(READY_TIMEOUT))?;
        stream.set_write_timeout(Some(READY_TIMEOUT))?;
        let (offer, sockets) = receive_offer(&stream).context("the handover broke off")?;
        let inherited = offer.sockets.into_iter().zip(sockets).collect();
        Ok(Self {
            stream,
            pid: offer.pid,
            inherited: RefCell::new(Inherited(inherited)),
            known: RefCell::new(offer.known),
            told: Instant::now(),
        })
    }

    /// Of the old process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The sockets, once.
    pub(crate) fn inherited(&self) -> Inherited {
        self.inherited.take()
    }

    /// Makes of the instances of these services what the old process knew of them, once.
    pub(crate) fn recall(&self, services: &[Arc<SharedService>]) {
        if let Some(known) = Known::read(self.known.take()) {
            known.recall(services, self.told);
        }
    }

    /// Says that this process serves, and waits until the old one has made room and told what it
    /// has learnt of instances meanwhile. `control`: whether this process has taken over the
    /// control socket.
    pub(crate) fn ready(
        &self,
        control: bool,
        services: &[Arc<SharedService>],
    ) -> anyhow::Result<()> {
        let ready = Answer::Ready {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control,
        };
        let confirmed = self.send(&ready).and_then(|()| {
            let Confirmed { known } = receive(&self.stream, &mut Vec::new())?;
            if let Some(known) = Known::read(known) {
                known.recall(services, Instant::now());
            }
            Ok(())
        });
        confirmed.with_context(|| format!("the process {} goes on by itself", self.pid))
    }

    /// Says why this process does not serve.
    pub(crate) fn failed(&self, reason: &str) {
        let reason = reason.to_owned();
        // If the old process is gone, there is nobody to tell.
        let _ = self.send(&Answer::Failed { reason });
    }

    fn send(&self, message: &Answer) -> io::Result<()> {
        (&self.stream).write_all(&wire::encode(message)?)
    }
}

/// Turns an HTTP connection to the control socket into a handover.
fn ask(mut stream: &UnixStream) -> anyhow::Result<()> {
    let request = format!(
        "POST /v1/handover HTTP/1.1\r\nHost: weir\r\nConnection: upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte: what follows the head comes with sockets and must not be read here.
        let mut byte = [0];
        if head.len() == HEAD_BYTES_MAX || stream.read(&mut byte)? == 0 {
            break;
        }
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        bail!("no handover: {}", String::from_utf8_lossy(line));
    }
    Ok(())
}

fn receive_offer(stream: &UnixStream) -> io::Result<(Offer, Vec<OwnedFd>)> {
    let mut sockets = Vec::new();
    let offer: Offer = receive(stream, &mut sockets)?;
    if offer.version != VERSION {
        return Err(wire::invalid("the other process hands over in another way"));
    }
    let wanted = offer.sockets.len();
    if wanted > SOCKETS_MAX {
        return Err(wire::invalid("too many sockets"));
    }
    while sockets.len() < wanted {
        let before = sockets.len();
        fill(stream, &mut [0], &mut sockets)?;
        if sockets.len() == before {
            return Err(wire::invalid("a batch without sockets"));
        }
    }
    if sockets.len() != wanted {
        return Err(wire::invalid("more sockets than were offered"));
    }
    Ok((offer, sockets))
}

fn receive<T: DeserializeOwned>(stream: &UnixStream, sockets: &mut Vec<OwnedFd>) -> io::Result<T> {
    let mut prefix = [0; wire::PREFIX_BYTES];
    fill(stream, &mut prefix, sockets)?;
    let mut json = vec![0; wire::length(prefix)?];
    fill(stream, &mut json, sockets)?;
    wire::decode(&json)
}

/// Reads until `bytes` are full.
fn fill(stream: &UnixStream, mut bytes: &mut [u8], sockets: &mut Vec<OwnedFd>) -> io::Result<()> {
    while !bytes.is_empty() {
        match wire::receive(stream, bytes, sockets) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes = &mut bytes[read..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use std::net::TcpListener;

    fn offer(count: usize) -> Vec<u8> {
        let bind = "127.0.0.1:0".parse().unwrap();
        let offer = Offer {
            version: VERSION,
            pid: 7,
            sockets: vec![Kind::Admin { bind }; count],
            known: serde_json::Value::Null,
        };
        wire::encode(&offer).unwrap()
    }

    #[test]
    fn sockets_arrive_in_order_whatever_the_batches() {
        let listeners: Vec<TcpListener> = (0..wire::BATCH + 1)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let sockets: Vec<_> = listeners.iter().map(|one| one.as_fd()).collect();
        let (mut old, new) = UnixStream::pair().unwrap();
        old.write_all(&offer(sockets.len())).unwrap();
        for batch in sockets.chunks(wire::BATCH) {
            wire::send_batch(&old, batch).unwrap();
        }
        let (_, received) = receive_offer(&new).unwrap();
        let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
        let received: Vec<u16> = received
            .into_iter()
            .map(|socket| port(&TcpListener::from(socket)))
            .collect();
        assert_eq!(received, listeners.iter().map(port).collect::<Vec<_>>());
    }

    #[test]
    fn a_broken_offer_is_refused() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let two = [socket.as_fd(), socket.as_fd()];
        let other = offer(1);
        let other = String::from_utf8(other[4..].to_vec()).unwrap();
        let other = other.replace("\"version\":1", "\"version\":2");
        let other = [&(other.len() as u32).to_be_bytes(), other.as_bytes()].concat();
        type Send<'s> = Box<dyn Fn(&UnixStream) + 's>;
        let bytes = |bytes: Vec<u8>| -> Send<'_> {
            Box::new(move |mut stream| stream.write_all(&bytes).unwrap())
        };
        let table: [(&str, Send<'_>); 6] = [
            ("end of file", bytes(offer(1)[..9].to_vec())),
            ("end of file", bytes(offer(1))),
            ("another way", bytes(other)),
            ("makes no sense", bytes(b"\0\0\0\x02{}".to_vec())),
            ("without sockets", bytes([offer(1), b"#".to_vec()].concat())),
            (
                "more sockets",
                Box::new(|mut stream| {
                    stream.write_all(&offer(1)).unwrap();
                    wire::send_batch(stream, &two).unwrap();
                }),
            ),
        ];
        for (expected, send) in table {
            let (old, new) = UnixStream::pair().unwrap();
            send(&old);
            drop(old);
            let error = receive_offer(&new).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, not {expected}");
        }
    }
}

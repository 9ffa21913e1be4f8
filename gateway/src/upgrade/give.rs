//! The old process's side of a handover.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use super::{Answer, Confirmed, Kind, Known, Offer, READY_TIMEOUT, SOCKETS_MAX, VERSION, wire};

/// A handover that the new process has answered.
pub(crate) struct Given {
    stream: UnixStream,
    /// Of the new process.
    pub(crate) pid: u32,
    /// Of the new process.
    pub(crate) version: String,
    /// Whether the control socket's file is the new process's now.
    pub(crate) control: bool,
}

/// Sockets on their way to another process.
pub(crate) type Giving = Vec<(Kind, OwnedFd)>;

/// Offers sockets, with what is `known` of instances, and waits until the new process serves.
///
/// # Errors
///
/// If it does not: as it says itself, or because it is gone or takes too long. Then nothing has
/// changed.
pub(crate) async fn give(
    mut stream: UnixStream,
    sockets: Giving,
    known: Known,
) -> anyhow::Result<Given> {
    if sockets.len() > SOCKETS_MAX {
        anyhow::bail!("more than {SOCKETS_MAX} sockets cannot be handed over");
    }
    let exchange = exchange(&mut stream, &sockets, &known);
    let exchanged = tokio::time::timeout(READY_TIMEOUT, exchange).await;
    let answer = match exchanged {
        Err(_) => anyhow::bail!("the new process was not ready within {READY_TIMEOUT:?}"),
        Ok(Err(error)) if is_end(&error) => {
            anyhow::bail!("the new process ended before it was ready")
        }
        Ok(answer) => answer?,
    };
    match answer {
        Answer::Failed { reason } => anyhow::bail!("{reason}"),
        Answer::Ready {
            pid,
            version,
            control,
        } => Ok(Given {
            stream,
            pid,
            version,
            control,
        }),
    }
}

impl Given {
    /// Tells the new process that it is the service now, and what is `known` of instances by now.
    pub(crate) async fn confirm(&mut self, known: &Known) -> io::Result<()> {
        let known = known.told();
        let confirmed = wire::encode(&Confirmed { known })?;
        self.stream.write_all(&confirmed).await
    }
}

/// Whether the other side is gone: how it shows depends on what it had not read yet.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

async fn exchange(stream: &mut UnixStream, sockets: &Giving, known: &Known) -> io::Result<Answer> {
    let offer = Offer {
        version: VERSION,
        pid: std::process::id(),
        sockets: sockets.iter().map(|(kind, _)| kind.clone()).collect(),
        known: known.told(),
    };
    stream.write_all(&wire::encode(&offer)?).await?;
    for batch in sockets.chunks(wire::BATCH) {
        let batch: Vec<_> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
        let send = || wire::send_batch(&*stream, &batch);
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    receive(stream).await
}

async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut prefix = [0; wire::PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let mut json = vec![0; wire::length(prefix)?];
    stream.read_exact(&mut json).await?;
    wire::decode(&json)
}

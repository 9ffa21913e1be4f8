//! A server that reads HTTP/1.1 by the narrowest grammar, and reports every complete request.
//!
//! What it cannot read without doubt it takes down as a fault. It shares no code with the gateway.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// What an origin made of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) method: String,
    pub(super) target: String,
    /// The path as a program in between understood it.
    pub(super) seen: Option<String>,
    pub(super) body: Vec<u8>,
}

/// The field in which a program says how it understood the path.
pub(super) const SEEN: &str = "x-seen";

/// A running reference server.
pub(super) struct Reference {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    reports: Mutex<Vec<Report>>,
    faults: Mutex<Vec<String>>,
}

impl Reference {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared::default());
        let of_task = Arc::clone(&shared);
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&of_task)));
            }
        });
        Self {
            address,
            shared,
            task: task.abort_handle(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was read since the last call.
    pub(super) fn take(&self) -> Vec<Report> {
        std::mem::take(&mut self.shared.reports.lock().unwrap())
    }

    /// What could not be read without doubt.
    pub(super) fn faults(&self) -> Vec<String> {
        self.shared.faults.lock().unwrap().clone()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a connection is not read on.
enum Stop {
    /// The other side has closed it, between messages or inside one.
    Closed,
    Fault(&'static str),
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut connection = Connection {
        stream,
        buffer: Vec::new(),
    };
    loop {
        match connection.request().await {
            Ok(report) => {
                shared.reports.lock().unwrap().push(report);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                if connection.stream.write_all(answer).await.is_err() {
                    return;
                }
            }
            Err(Stop::Closed) => return,
            Err(Stop::Fault(what)) => {
                let bytes = String::from_utf8_lossy(&connection.buffer);
                let fault = format!("{what} before {bytes:?}");
                shared.faults.lock().unwrap().push(fault);
                return;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn more(&mut self) -> Result<(), Stop> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Stop::Closed),
            Ok(_) => Ok(()),
        }
    }

    /// The bytes up to a CR LF, which is taken away too. A line holds no other CR or LF.
    async fn line(&mut self) -> Result<String, Stop> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").ok_or(Stop::Fault("bare LF"))?;
                let line = String::from_utf8_lossy(line).into_owned();
                let odd = |c: char| c.is_control() && c != '\t';
                return if line.chars().any(odd) {
                    Err(Stop::Fault("control character"))
                } else {
                    Ok(line)
                };
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Stop> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn request(&mut self) -> Result<Report, Stop> {
        let line = self.line().await?;
        let parts: Vec<&str> = line.split(' ').collect();
        let [method, target, "HTTP/1.1"] = parts[..] else {
            return Err(Stop::Fault("request line"));
        };
        let fields = self.fields().await?;
        let values = |name: &str| -> Vec<&str> {
            let of_name = fields.iter().filter(|(field, _)| field == name);
            of_name.map(|(_, value)| value.as_str()).collect()
        };
        if values("host").len() != 1 || fields.iter().any(|(name, _)| name.contains('_')) {
            return Err(Stop::Fault("fields"));
        }
        let body = match (
            &values("content-length")[..],
            &values("transfer-encoding")[..],
        ) {
            ([], []) => Vec::new(),
            ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| Stop::Fault("length"))?;
                self.exactly(length).await?
            }
            ([], ["chunked"]) => self.chunks().await?,
            _ => return Err(Stop::Fault("lengths")),
        };
        Ok(Report {
            method: method.to_owned(),
            target: target.to_owned(),
            seen: values(SEEN).first().map(|&seen| seen.to_owned()),
            body,
        })
    }

    /// Header or trailer fields up to the empty line, the names in lower case.
    async fn fields(&mut self) -> Result<Vec<(String, String)>, Stop> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(Stop::Fault("colon"))?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(plain) {
                return Err(Stop::Fault("name"));
            }
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| Stop::Fault("chunk size"))?;
            if size == 0 {
                self.fields().await?;
                return Ok(body);
            }
            body.extend(self.exactly(size).await?);
            if self.exactly(2).await? != b"\r\n" {
                return Err(Stop::Fault("chunk end"));
            }
        }
    }
}

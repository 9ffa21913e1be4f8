//! The server behind every proxy: fixed bodies from memory, on the generator's own event loop.
//!
//! On the same thread as the clients it takes the second CPU no task switches, and it can tell
//! how many requests have really arrived.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use super::{BODY_SIZES, Came, Kind, head_end};

/// Bytes of a request's head; a longer one is an error of the proxy.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Answers `GET …/BYTES` with so many bytes.
pub(crate) struct Origin {
    listener: TcpListener,
    address: SocketAddr,
    answers: Vec<(usize, Rc<[u8]>)>,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    /// Requests answered, from the beginning.
    requests: u64,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// What is being sent, and how much of it is out.
    sending: Option<(Rc<[u8]>, usize)>,
}

impl Origin {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = TcpListener::bind(loopback).context("a port for the origin")?;
        let address = listener.local_addr()?;
        registry.register(&mut listener, Kind::Listener.token(0), Interest::READABLE)?;
        Ok(Self {
            listener,
            address,
            answers: BODY_SIZES
                .iter()
                .map(|&size| (size, answer(size)))
                .collect(),
            connections: Vec::new(),
            vacant: Vec::new(),
            requests: 0,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Takes every connection that waits.
    pub(super) fn accept(&mut self, registry: &Registry) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let index = self.vacant.pop().unwrap_or(self.connections.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Kind::Origin.token(index), both)?;
            let connection = Some(Connection {
                stream,
                input: Vec::new(),
                sending: None,
            });
            match self.connections.get_mut(index) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
        }
    }

    /// Reads and answers what has come on one connection; a broken one is closed, which the
    /// clients will tell.
    pub(super) fn ready(&mut self, token: Token, came: Came, scratch: &mut [u8]) {
        let index = Kind::index(token);
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        let open = !came.something || connection.read(scratch, came.end).unwrap_or(false);
        let served = connection.serve(&self.answers, &mut self.requests);
        if !open || served.is_err() {
            self.connections[index] = None;
            self.vacant.push(index);
        }
    }
}

impl Connection {
    /// False at the end of the stream.
    fn read(&mut self, scratch: &mut [u8], ends: bool) -> io::Result<bool> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    if count < scratch.len() && !ends {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn serve(&mut self, answers: &[(usize, Rc<[u8]>)], requests: &mut u64) -> io::Result<()> {
        loop {
            if !self.flush()? {
                return Ok(());
            }
            let Some(end) = head_end(&self.input) else {
                let fits = self.input.len() <= HEAD_BYTES_MAX;
                return if fits { Ok(()) } else { Err(invalid()) };
            };
            let size = requested(&self.input[..end]).ok_or_else(invalid)?;
            let answer = answers.iter().find(|(offered, _)| *offered == size);
            let (_, answer) = answer.ok_or_else(invalid)?;
            self.sending = Some((Rc::clone(answer), 0));
            self.input.drain(..end);
            *requests += 1;
        }
    }

    /// True when nothing is left to be sent.
    fn flush(&mut self) -> io::Result<bool> {
        while let Some((answer, sent)) = &mut self.sending {
            match self.stream.write(&answer[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if *sent == answer.len() {
                self.sending = None;
            }
        }
        Ok(true)
    }
}

/// The body of `size` bytes: a JSON string, the same for everybody who asks.
pub(crate) fn body(size: usize) -> Vec<u8> {
    let mut body = vec![b'"'];
    body.extend((0..size.saturating_sub(2)).map(|place| b'a' + (place % 26) as u8));
    body.push(b'"');
    body
}

/// The whole response of `size` bytes of body, with the fields that servers usually send.
fn answer(size: usize) -> Rc<[u8]> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: origin\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         content-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    );
    [head.into_bytes(), body(size)].concat().into()
}

/// The last segment of the path of a request, as a number.
fn requested(head: &[u8]) -> Option<usize> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let path = line.split(|&byte| byte == b' ').nth(1)?;
    let size = path.rsplit(|&byte| byte == b'/').next()?;
    std::str::from_utf8(size).ok()?.parse().ok()
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_the_last_segment() {
        let cases: [(&[u8], Option<usize>); 4] = [
            (b"GET /b/95 HTTP/1.1\r\n\r\n", Some(95)),
            (b"GET /r/7/16384 HTTP/1.1\r\nhost: a\r\n\r\n", Some(16_384)),
            (b"GET / HTTP/1.1\r\n\r\n", None),
            (b"nonsense", None),
        ];
        for (head, expected) in cases {
            assert_eq!(requested(head), expected, "{head:?}");
        }
    }

    #[test]
    fn an_answer_has_the_length_it_says() {
        let answer = answer(95);
        let end = head_end(&answer).unwrap();
        assert_eq!(answer.len() - end, 95);
        assert!(String::from_utf8_lossy(&answer).contains("content-length: 95\r\n"));
    }
}

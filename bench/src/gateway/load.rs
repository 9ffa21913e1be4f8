//! The load generator and the origin, on one thread and one event loop.
//!
//! It knows what it asks for, so it can be cheap: requests are written beforehand, answers are
//! checked for status and length and not kept, long bodies are thrown away by the kernel. It
//! keeps a number of requests in flight (closed loop), or sends them when they are due and counts
//! their time from then on, whether a connection was free or not (open loop: what waits because
//! the proxy stalls is counted, not left out).

mod client;
mod h1;
mod h2;
mod origin;
mod run;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mio::{Events, Poll, Token};
use rustls::ClientConfig;

pub(crate) use self::run::Outcome;
pub(crate) use self::wire::tls_client;
use self::{origin::Origin, run::Run};

/// Whom the requests are for.
pub(crate) const HOST: &str = "bench.example";
/// The bodies that the origin has.
pub(crate) const BODY_SIZES: [usize; 3] = [95, 16 << 10, 1 << 20];

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;
/// Bytes read at once.
const SCRATCH_BYTES: usize = 1 << 20;

/// What is asked, of whom, over how many connections.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    /// Left out: plain TCP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Requests at a time on one connection of HTTP/2; left out: HTTP/1.1, one after the other.
    pub(crate) streams: Option<usize>,
    /// The requests in turn, as HTTP/1.1 writes them.
    pub(crate) requests: Arc<[Vec<u8>]>,
    /// The one path of HTTP/2.
    pub(crate) path: String,
    /// Bytes of body in every answer.
    pub(crate) body: usize,
    pub(crate) connections: usize,
    /// A new connection for each request.
    pub(crate) renew: bool,
}

impl Load {
    /// `GET /b/BODY` over plain HTTP/1.1, over connections that are kept.
    pub(crate) fn new(target: SocketAddr, body: usize, connections: usize) -> Self {
        let path = format!("/b/{body}");
        Self {
            target,
            tls: None,
            streams: None,
            requests: vec![request(&path, "")].into(),
            path,
            body,
            connections,
            renew: false,
        }
    }

    /// The same with a new connection for each request.
    pub(crate) fn renewed(mut self) -> Self {
        self.renew = true;
        self.requests = vec![request(&self.path, "connection: close\r\n")].into();
        self
    }
}

/// A request with the fields that clients usually send, and `fields`, which end with a line's end.
pub(crate) fn request(path: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: bench\r\naccept: */*\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// The next one as soon as an answer is complete.
    Closed,
    /// So many a second, evenly.
    Rate(f64),
    /// One on each connection, which is then held.
    Once,
}

/// How long, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pace: Pace,
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// Never sleep: this CPU then needs no waking, which takes longer than a request.
    pub(crate) spin: bool,
}

/// The event loop with the origin on it.
pub(crate) struct Bed {
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    origin: Origin,
}

impl Bed {
    pub(crate) fn new() -> Result<Self> {
        let poll = Poll::new().context("an event loop")?;
        Ok(Self {
            origin: Origin::new(poll.registry())?,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    /// Where the origin listens. It answers only while a load runs.
    pub(crate) fn origin(&self) -> SocketAddr {
        self.origin.address()
    }

    /// Runs `load`; `edge` is called where the window begins and ends.
    ///
    /// # Errors
    ///
    /// When nothing comes back, too much fails, or origin and clients count differently.
    pub(crate) fn run<S>(
        &mut self,
        load: &Load,
        plan: Plan,
        edge: impl FnMut() -> Result<S>,
    ) -> Result<Outcome<S>> {
        Run::new(self, load, plan)?.finish(edge)
    }
}

/// What an event says has come. Events tell of changes only, so an end that came together with
/// bytes must be looked for at once: nothing will tell of it again.
#[derive(Clone, Copy, Debug)]
struct Came {
    something: bool,
    end: bool,
}

/// Whose a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Listener,
    Origin,
    Client,
}

impl Kind {
    /// The lower two bits.
    fn token(self, index: usize) -> Token {
        Token(index << 2 | self as usize)
    }

    fn of(token: Token) -> Self {
        match token.0 & 3 {
            0 => Self::Listener,
            1 => Self::Origin,
            _ => Self::Client,
        }
    }

    fn index(token: Token) -> usize {
        token.0 >> 2
    }
}

/// Where the body begins, if the head is complete.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let place = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    place.map(|place| place + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pace: Pace) -> Plan {
        Plan {
            pace,
            warm_up: Duration::from_millis(20),
            window: Duration::from_millis(50),
            spin: false,
        }
    }

    /// The load of `change`, straight to the origin.
    fn run(pace: Pace, body: usize, change: impl FnOnce(&mut Load)) -> Result<Outcome<()>> {
        let mut bed = Bed::new()?;
        let mut load = Load::new(bed.origin(), body, 4);
        change(&mut load);
        bed.run(&load, plan(pace), || Ok(()))
    }

    #[test]
    fn every_size_comes_whole_and_every_answer_is_timed() {
        for body in BODY_SIZES {
            let outcome = run(Pace::Closed, body, |_| {}).unwrap();
            assert!(outcome.requests > 0, "{body}");
            assert_eq!(outcome.latencies.len(), outcome.requests, "{body}");
        }
    }

    #[test]
    fn once_is_one_request_on_each_connection_which_stays_open() {
        let outcome = run(Pace::Once, 95, |load| load.connections = 200).unwrap();
        assert_eq!(outcome.held.count(), 200);
        // Only those after the warm-up are counted.
        assert!(outcome.requests <= 200);
    }

    #[test]
    fn an_open_loop_sends_no_more_than_is_due() {
        let outcome = run(Pace::Rate(1000.0), 95, |_| {}).unwrap();
        let due = outcome.elapsed.as_secs_f64() * 1000.0 + 20.0;
        assert!(outcome.requests > 0 && outcome.requests as f64 <= due + 2.0);
    }

    #[test]
    fn what_goes_wrong_is_said() {
        let failure = |change: fn(&mut Load)| {
            let outcome = run(Pace::Closed, 95, change);
            format!("{:#}", outcome.err().expect("it cannot work"))
        };
        let length = failure(|load| load.body = 96);
        assert!(length.ends_with("95 bytes instead of 96"), "{length}");
        let unknown = failure(|load| load.requests = vec![request("/b/7", "")].into());
        assert!(unknown.ends_with("closed before the answer"), "{unknown}");
        let refused = failure(|load| load.target = ([127, 0, 0, 1], 1).into());
        assert!(refused.contains("Connection refused"), "{refused}");
    }

    #[test]
    fn tokens_keep_kind_and_index() {
        for kind in [Kind::Listener, Kind::Origin, Kind::Client] {
            let token = kind.token(12_345);
            assert_eq!((Kind::of(token), Kind::index(token)), (kind, 12_345));
        }
    }
}

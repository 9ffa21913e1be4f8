//! A crowd of live TCP connections that talk all the time and notice whatever happens to them.
//!
//! One thread inside the client's host holds them all. Every connection sends a message to an echo
//! server ([`crate::echo`]) and waits for the answer, at its own pace. What it sends is a stream of
//! pseudo-random bytes that no other connection has and that never repeats, so an answer that has
//! lost, doubled or swapped a byte, or comes from somebody else's stream, is seen.
//!
//! How long an answer takes is measured from the first byte sent to the last one received, in this
//! process, and so holds the delays of a busy machine too. To tell these apart, some connections
//! talk in the same way past what is under test ([`Group::Control`]): what they wait for, everybody
//! waits for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc as commands, watch};
use tokio::task::LocalSet;

use crate::host::Host;

mod ledger;
mod speech;

pub use ledger::{Broken, Report};

use ledger::Ledger;
use speech::Speech;

/// Connections that may be opening at a time.
const OPENING_MAX: usize = 128;

/// How long a connection may take to open and to hear the server's name. A lost SYN is sent again
/// after 1, 3, 7 and 15 seconds.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// How long the thread may take to answer us: it serves all connections in between.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The longest name that a server may say, bytes.
const NAME_BYTES_MAX: usize = 64;

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Through what is under test.
    Tested,
    /// Past it, over the same hosts and processes.
    Control,
}

/// The connections. Dropping it breaks them off.
#[derive(Debug)]
pub struct Crowd {
    commands: Option<commands::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Open(Opening, mpsc::Sender<Vec<Named>>),
    CountFrom(Instant),
    Peek(mpsc::Sender<Report>),
    Report(mpsc::Sender<Report>),
    Close(mpsc::Sender<Report>),
}

/// Connections to open.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Where they go.
    pub group: Group,
    /// How many.
    pub number: usize,
    /// The server, or the VIP in front of several.
    pub to: SocketAddr,
    /// The client's addresses that they come from, in turn; none leaves the choice to the kernel.
    pub sources: Vec<IpAddr>,
    /// From one message of a connection to its next.
    pub pace: Duration,
}

impl Crowd {
    /// A crowd of nobody, inside `host`.
    ///
    /// # Errors
    ///
    /// When there are no descriptors for a thread's event loop.
    pub fn new(host: &Host) -> Result<Self> {
        let (commands, received) = commands::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = host.namespace().thread(move || {
            LocalSet::new().block_on(&runtime, obey(received));
        })?;
        Ok(Self {
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Opens connections, each of which talks from then on. Returns which servers they got, by name.
    ///
    /// # Errors
    ///
    /// When a connection does not open, with the reason of the first one.
    pub fn open(&self, opening: Opening) -> Result<BTreeMap<String, usize>> {
        let to = opening.to;
        // Each connection has its own limit, and these are all that the thread waits for.
        let turns = u32::try_from(opening.number / OPENING_MAX)?;
        let limit = ANSWER_LIMIT + OPEN_LIMIT * turns;
        let mut servers = BTreeMap::new();
        for name in self.ask_within(limit, |reply| Command::Open(opening, reply))? {
            let name = name.map_err(|why| anyhow!("no connection to {to}: {why}"))?;
            *servers.entry(name).or_default() += 1;
        }
        Ok(servers)
    }

    /// Waiting before `moment` is not held against anybody from now on.
    pub fn count_from(&self, moment: Instant) {
        if let Some(commands) = &self.commands {
            // A thread that has ended is noticed at the next report.
            let _ = commands.send(Command::CountFrom(moment));
        }
    }

    /// What has happened since the last report, which the next one will tell again.
    ///
    /// # Errors
    ///
    /// When the crowd's thread has ended.
    pub fn peek(&self) -> Result<Report> {
        self.ask(Command::Peek)
    }

    /// What has happened since the last report.
    ///
    /// # Errors
    ///
    /// As [`Crowd::peek`].
    pub fn report(&self) -> Result<Report> {
        self.ask(Command::Report)
    }

    /// Ends all connections in good order, and reports what has happened since the last report.
    ///
    /// # Errors
    ///
    /// As [`Crowd::peek`].
    pub fn close(self) -> Result<Report> {
        self.ask(Command::Close)
    }

    fn ask<T>(&self, command: impl FnOnce(mpsc::Sender<T>) -> Command) -> Result<T> {
        self.ask_within(ANSWER_LIMIT, command)
    }

    fn ask_within<T>(
        &self,
        limit: Duration,
        command: impl FnOnce(mpsc::Sender<T>) -> Command,
    ) -> Result<T> {
        let (reply, answer) = mpsc::channel();
        let commands = self.commands.as_ref().context("the crowd is closed")?;
        commands
            .send(command(reply))
            .ok()
            .context("the crowd's thread has ended")?;
        answer
            .recv_timeout(limit)
            .context("the crowd's thread does not answer")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed already, and its caller has got an error.
            let _ = thread.join();
        }
    }
}

/// The name of the server that a connection has reached, or why it has not.
type Named = Result<String, String>;

/// What all connections share.
struct Shared {
    ledger: RefCell<Ledger>,
    opening: Semaphore,
    closing: watch::Sender<bool>,
}

/// The thread: does what it is told until nobody is left to tell it.
async fn obey(mut commands: commands::UnboundedReceiver<Command>) {
    let shared = Rc::new(Shared {
        ledger: RefCell::default(),
        opening: Semaphore::new(OPENING_MAX),
        closing: watch::Sender::new(false),
    });
    let mut talking = Vec::new();
    while let Some(command) = commands.recv().await {
        // Whoever asked may have given up.
        match command {
            Command::Open(opening, reply) => {
                let (names, tasks) = open(&shared, &opening).await;
                talking.extend(tasks);
                let _ = reply.send(names);
            }
            Command::CountFrom(moment) => shared.ledger.borrow_mut().count_from(moment),
            Command::Peek(reply) => {
                let _ = reply.send(shared.ledger.borrow().peek(Instant::now()));
            }
            Command::Report(reply) => {
                let _ = reply.send(shared.ledger.borrow_mut().report(Instant::now()));
            }
            Command::Close(reply) => {
                shared.closing.send_replace(true);
                let deadline = tokio::time::Instant::now() + OPEN_LIMIT;
                for task in talking {
                    // Whoever still waits then is in the report.
                    let _ = tokio::time::timeout_at(deadline, task).await;
                }
                let _ = reply.send(shared.ledger.borrow_mut().report(Instant::now()));
                return;
            }
        }
    }
}

type Task = tokio::task::JoinHandle<()>;

/// Opens connections, some at a time, and lets them talk. Returns the servers' names.
async fn open(shared: &Rc<Shared>, opening: &Opening) -> (Vec<Named>, Vec<Task>) {
    let connecting: Vec<_> = (0..opening.number)
        .map(|number| {
            let source = opening.sources.get(number % opening.sources.len().max(1));
            let (shared, source, to) = (Rc::clone(shared), source.copied(), opening.to);
            tokio::task::spawn_local(async move {
                let _permit = shared.opening.acquire().await.ok()?;
                let connected = tokio::time::timeout(OPEN_LIMIT, connect(source, to));
                Some(connected.await.unwrap_or_else(|late| Err(late.into())))
            })
        })
        .collect();
    let (mut names, mut tasks) = (Vec::new(), Vec::new());
    for connection in connecting {
        match connection.await {
            Ok(Some(Ok((name, stream)))) => {
                let index = shared
                    .ledger
                    .borrow_mut()
                    .joined(opening.group, name.clone());
                let talk = talk(Rc::clone(shared), index, opening.pace, stream);
                tasks.push(tokio::task::spawn_local(talk));
                names.push(Ok(name));
            }
            Ok(Some(Err(error))) => names.push(Err(error.to_string())),
            Ok(None) | Err(_) => names.push(Err("its task has ended".to_owned())),
        }
    }
    (names, tasks)
}

async fn connect(
    source: Option<IpAddr>,
    to: SocketAddr,
) -> std::io::Result<(String, BufReader<TcpStream>)> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    (&mut stream)
        .take(NAME_BYTES_MAX as u64)
        .read_line(&mut name)
        .await?;
    Ok((name.trim_end().to_owned(), stream))
}

/// The life of a connection.
async fn talk(shared: Rc<Shared>, index: usize, pace: Duration, mut stream: BufReader<TcpStream>) {
    let mut speech = Speech::new(index as u64);
    let mut closing = shared.closing.subscribe();
    // Spread out, so that they do not all speak in the same millisecond.
    let mut next = tokio::time::Instant::now() + pace.mul_f64(speech.fraction());
    loop {
        let closed = closing.wait_for(|closing| *closing);
        if tokio::time::timeout_at(next, closed).await.is_ok() {
            break;
        }
        next += pace;
        shared.ledger.borrow_mut().asked(index, Instant::now());
        let outcome = exchange(&mut stream, speech.message()).await;
        let now = Instant::now();
        let mut ledger = shared.ledger.borrow_mut();
        match outcome {
            Ok(()) => ledger.answered(index, now),
            Err(error) => return ledger.broke(index, speech.said(), &error),
        }
    }
    if let Err(error) = end(stream).await {
        let mut ledger = shared.ledger.borrow_mut();
        ledger.broke(index, speech.said(), &error);
    }
}

/// Sends `message` and compares what comes back.
async fn exchange(stream: &mut BufReader<TcpStream>, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(message).await?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).await?;
    if answer == message {
        Ok(())
    } else {
        Err(std::io::Error::other("other bytes came back"))
    }
}

/// Ends our half, and expects the other one to end too, within the time a connection may open.
async fn end(mut stream: BufReader<TcpStream>) -> std::io::Result<()> {
    let goodbye = async {
        stream.shutdown().await?;
        match stream.read_to_end(&mut Vec::new()).await? {
            0 => Ok(()),
            _ => Err(std::io::Error::other("bytes that nobody sent")),
        }
    };
    tokio::time::timeout(OPEN_LIMIT, goodbye).await?
}

#[cfg(test)]
mod tests;

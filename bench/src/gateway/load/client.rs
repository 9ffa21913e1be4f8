//! One connection of the generator: requests go out, answers come in, in either protocol.

use std::time::Instant;

use anyhow::Result;
use mio::{Interest, Registry};

use super::h1::Exchange;
use super::h2::Session;
use super::wire::{Received, Wire};
use super::{HOST, Kind, Load};

pub(super) struct Client {
    wire: Wire,
    codec: Codec,
    out: Vec<u8>,
    /// A request has been written.
    used: bool,
}

enum Codec {
    H1(Exchange),
    H2(Session),
}

impl Client {
    /// Begins to connect as `load` wants it.
    pub(super) fn connect(load: &Load, registry: &Registry, index: usize) -> Result<Self> {
        let mut wire = Wire::connect(load.target, load.tls.as_ref())?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(wire.source(), Kind::Client.token(index), both)?;
        let mut out = Vec::new();
        let codec = match load.streams {
            None => Codec::H1(Exchange::new(load.body)),
            Some(streams) => {
                let session = Session::new(load.body, streams, HOST, &load.path, &mut out);
                Codec::H2(session)
            }
        };
        let used = false;
        Ok(Self {
            wire,
            codec,
            out,
            used,
        })
    }

    /// Whether one more request may be sent now.
    pub(super) fn is_free(&self) -> bool {
        match &self.codec {
            Codec::H1(exchange) => exchange.is_free(),
            Codec::H2(session) => session.is_free(),
        }
    }

    /// Whether a request was sent here before.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Requests without a complete answer.
    pub(super) fn in_flight(&self) -> usize {
        match &self.codec {
            Codec::H1(exchange) => usize::from(!exchange.is_free()),
            Codec::H2(session) => session.in_flight(),
        }
    }

    /// Writes a request that was due at `since`; [`Client::flush`] sends it.
    pub(super) fn begin(&mut self, since: Instant, request: &[u8]) {
        self.used = true;
        match &mut self.codec {
            Codec::H1(exchange) => exchange.begin(since, request, &mut self.out),
            Codec::H2(session) => session.begin(since, &mut self.out),
        }
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.wire.send(&mut self.out)
    }

    /// Reads what has come; adds to `done` for each complete answer. False at the end of the
    /// stream, which is looked for if the stream `ends`.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        ends: bool,
        done: &mut Vec<Instant>,
    ) -> Result<bool> {
        let Self {
            wire, codec, out, ..
        } = self;
        let discardable = |codec: &Codec| match codec {
            Codec::H1(exchange) => exchange.discardable(),
            Codec::H2(_) => 0,
        };
        wire.receive(scratch, ends, codec, discardable, |codec, received| {
            match (codec, received) {
                (Codec::H1(exchange), Received::Bytes(bytes)) => exchange.received(bytes, done),
                (Codec::H1(exchange), Received::Discarded(count)) => {
                    exchange.discarded(count, done)
                }
                (Codec::H2(session), Received::Bytes(bytes)) => session.received(bytes, out, done),
                // Never asked for.
                (Codec::H2(_), Received::Discarded(_)) => Ok(()),
            }
        })
    }
}

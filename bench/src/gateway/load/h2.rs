//! The client's side of HTTP/2 (RFC 9113), as much of it as a load generator needs: requests
//! without a body, and answers of which status and length are checked.
//!
//! A whole HTTP/2 client would cost the generator more than the proxy under test. Requests are
//! written as browsers write them: the first on a connection puts its fields into the table
//! (RFC 7541 section 6.2.1), the others name them by number.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Flags.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// Bytes of a window before it is topped up, and what it is topped up to.
const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_DEFAULT: u32 = (1 << 16) - 1;
/// Bytes of one stream's window: more than any answer.
const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes of a frame other than DATA: the default of SETTINGS_MAX_FRAME_SIZE.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// `:status 200` in the static table of RFC 7541, as an indexed field.
const STATUS_200: u8 = 0x88;

/// One connection.
pub(super) struct Session {
    expected: usize,
    streams: usize,
    flights: Vec<Flight>,
    next_id: u32,
    /// A frame's header, or a whole frame that is not DATA, as far as it has come.
    input: Vec<u8>,
    data: Option<Data>,
    /// Bytes taken from the connection's window.
    taken: u32,
    fields: Fields,
}

struct Flight {
    id: u32,
    since: Instant,
    length: usize,
}

/// A DATA frame under way.
struct Data {
    id: u32,
    left: usize,
    ends: bool,
}

/// What requests consist of.
struct Fields {
    first: Vec<u8>,
    later: Vec<u8>,
}

impl Session {
    /// A client of `streams` requests at a time for `path`; writes the preface to `out`.
    pub(super) fn new(
        expected: usize,
        streams: usize,
        host: &str,
        path: &str,
        out: &mut Vec<u8>,
    ) -> Self {
        out.extend_from_slice(PREFACE);
        frame(out, SETTINGS, 0, 0, &setting(4, STREAM_WINDOW));
        frame(
            out,
            WINDOW_UPDATE,
            0,
            0,
            &(WINDOW_MAX - WINDOW_DEFAULT).to_be_bytes(),
        );
        Self {
            expected,
            streams,
            flights: Vec::new(),
            next_id: 1,
            input: Vec::new(),
            data: None,
            taken: 0,
            fields: Fields::new(host, path),
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.flights.len() < self.streams
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn begin(&mut self, since: Instant, out: &mut Vec<u8>) {
        let first = self.next_id == 1;
        let fields = if first {
            &self.fields.first
        } else {
            &self.fields.later
        };
        frame(out, HEADERS, END_STREAM | END_HEADERS, self.next_id, fields);
        let (id, length) = (self.next_id, 0);
        self.flights.push(Flight { id, since, length });
        self.next_id += 2;
    }

    /// Takes what has come; adds to `done` for each answer that is complete, and to `out` what
    /// the protocol wants said.
    pub(super) fn received(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        done: &mut Vec<Instant>,
    ) -> Result<()> {
        while !bytes.is_empty() || self.data.as_ref().is_some_and(|data| data.left == 0) {
            if let Some(data) = &mut self.data {
                let count = data.left.min(bytes.len());
                data.left -= count;
                bytes = &bytes[count..];
                if data.left > 0 {
                    return Ok(());
                }
                self.data_ends(done)?;
                continue;
            }
            let wanted = self.wanted()?;
            let count = (wanted - self.input.len()).min(bytes.len());
            self.input.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.input.len() == self.wanted()? {
                self.frame_ends(out, done)?;
            }
        }
        self.top_up(out);
        Ok(())
    }

    /// How long `input` must grow before it can be looked at.
    fn wanted(&self) -> Result<usize> {
        if self.input.len() < FRAME_HEADER {
            return Ok(FRAME_HEADER);
        }
        let (kind, flags) = (self.input[3], self.input[4]);
        if kind == DATA {
            return Ok(FRAME_HEADER + usize::from(flags & PADDED != 0));
        }
        let length = length_of(&self.input);
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        Ok(FRAME_HEADER + length)
    }

    /// A whole frame, or the header of a DATA frame, is in `input`.
    fn frame_ends(&mut self, out: &mut Vec<u8>, done: &mut Vec<Instant>) -> Result<()> {
        let input = std::mem::take(&mut self.input);
        let (kind, flags) = (input[3], input[4]);
        let id = u32::from_be_bytes([input[5] & 0x7f, input[6], input[7], input[8]]);
        let payload = &input[FRAME_HEADER..];
        match kind {
            DATA => {
                let length = length_of(&input);
                self.taken += length as u32;
                // With padding, its length is the payload's first byte (section 6.1).
                let padding = payload.first().map_or(0, |&padding| usize::from(padding));
                let left = length.checked_sub(payload.len()).context("no pad length")?;
                let body = left
                    .checked_sub(padding)
                    .context("more padding than data")?;
                self.flight(id)?.length += body;
                let ends = flags & END_STREAM != 0;
                self.data = Some(Data { id, left, ends });
            }
            HEADERS => {
                check_status(flags, payload)?;
                if flags & END_STREAM != 0 {
                    self.answered(id, done)?;
                }
            }
            SETTINGS if flags & ACK == 0 => {
                check_table(payload)?;
                frame(out, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            RST_STREAM => bail!("stream {id} reset, code {payload:?}"),
            GOAWAY => bail!("GOAWAY, code {:?}", payload.get(4..8)),
            _ => {}
        }
        // The memory is good for the next frame.
        self.input = input;
        self.input.clear();
        Ok(())
    }

    fn data_ends(&mut self, done: &mut Vec<Instant>) -> Result<()> {
        let Some(data) = self.data.take() else {
            return Ok(());
        };
        if data.ends {
            self.answered(data.id, done)?;
        }
        Ok(())
    }

    fn flight(&mut self, id: u32) -> Result<&mut Flight> {
        let flight = self.flights.iter_mut().find(|flight| flight.id == id);
        flight.with_context(|| format!("stream {id} is not open"))
    }

    fn answered(&mut self, id: u32, done: &mut Vec<Instant>) -> Result<()> {
        let expected = self.expected;
        let length = self.flight(id)?.length;
        ensure!(length == expected, "{length} bytes instead of {expected}");
        done.push(self.flight(id)?.since);
        self.flights.retain(|flight| flight.id != id);
        Ok(())
    }

    /// Opens the connection's window again when half of it is used.
    fn top_up(&mut self, out: &mut Vec<u8>) {
        if self.taken > WINDOW_MAX / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
            self.taken = 0;
        }
    }
}

impl Fields {
    fn new(host: &str, path: &str) -> Self {
        // GET and https have numbers in the static table.
        let mut first = vec![0x82, 0x87];
        // Names by their number in the static table: :authority, :path, user-agent, accept.
        for (name, value) in [(1, host), (4, path), (58, "bench"), (19, "*/*")] {
            first.push(0x40 | name);
            first.push(u8::try_from(value.len()).expect("the bench's fields are short"));
            first.extend_from_slice(value.as_bytes());
        }
        // The four newest entries of the table, from 62 on, the last one first.
        let later = vec![0x82, 0x87, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
        Self { first, later }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("the bench's frames are short");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn length_of(header: &[u8]) -> usize {
    u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize
}

/// The status comes first (RFC 9113 section 8.3), behind changes of the table's size.
fn check_status(flags: u8, payload: &[u8]) -> Result<()> {
    ensure!(flags & END_HEADERS != 0, "a header block in pieces");
    let padding = usize::from(flags & PADDED != 0);
    let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
    let block = payload.get(padding + priority..).unwrap_or_default();
    let mut fields = block.iter().skip_while(|&&byte| byte & 0xe0 == 0x20);
    let first = fields.next().copied();
    ensure!(
        first == Some(STATUS_200),
        "a status other than 200: {first:?}"
    );
    Ok(())
}

/// Fields are sent by numbers of a table of 4096 bytes, the default.
fn check_table(settings: &[u8]) -> Result<()> {
    for setting in settings.chunks_exact(6) {
        let is_table = setting[..2] == [0, 1];
        let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
        ensure!(
            !is_table || value >= 4096,
            "a header table of {value} bytes"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, Vec<u8>) {
        let mut out = Vec::new();
        let mut session = Session::new(5, 2, "bench.example", "/b/5", &mut out);
        session.begin(Instant::now(), &mut out);
        session.begin(Instant::now(), &mut out);
        (session, out)
    }

    /// Status 200, then `body` of stream `id`.
    fn answer(id: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, END_HEADERS, id, &[STATUS_200, 0x5f]);
        frame(&mut bytes, DATA, END_STREAM, id, body);
        bytes
    }

    #[test]
    fn answers_are_complete_however_they_are_cut() {
        let mut wire = Vec::new();
        frame(&mut wire, SETTINGS, 0, 0, &setting(3, 100));
        wire.extend(answer(3, b"world"));
        wire.extend(answer(1, b"hello"));
        for piece in [1, 2, 7, wire.len()] {
            let (mut session, mut out) = session();
            let mut done = Vec::new();
            for bytes in wire.chunks(piece) {
                session.received(bytes, &mut out, &mut done).unwrap();
            }
            assert_eq!((done.len(), session.in_flight()), (2, 0), "by {piece}");
            let mut acknowledged = Vec::new();
            frame(&mut acknowledged, SETTINGS, ACK, 0, &[]);
            assert!(out.ends_with(&acknowledged), "by {piece}");
        }
    }

    #[test]
    fn an_empty_data_frame_may_end_an_answer_and_padding_is_no_body() {
        let (mut session, mut out) = session();
        let mut wire = Vec::new();
        frame(&mut wire, HEADERS, END_HEADERS, 1, &[0x3f, STATUS_200]);
        frame(&mut wire, DATA, PADDED, 1, b"\x02hello..");
        frame(&mut wire, DATA, END_STREAM, 1, b"");
        let mut done = Vec::new();
        session.received(&wire, &mut out, &mut done).unwrap();
        assert_eq!(done.len(), 1);
    }

    #[test]
    fn another_answer_is_an_error() {
        let mut reset = Vec::new();
        frame(&mut reset, RST_STREAM, 0, 1, &[0, 0, 0, 2]);
        let mut refused = Vec::new();
        frame(&mut refused, HEADERS, END_HEADERS, 1, &[0x8d]);
        let cases = [
            (answer(1, b"hell"), "4 bytes instead of 5"),
            (answer(9, b"hello"), "stream 9 is not open"),
            (reset, "stream 1 reset, code [0, 0, 0, 2]"),
            (refused, "a status other than 200: Some(141)"),
        ];
        for (wire, expected) in cases {
            let (mut session, mut out) = session();
            let error = session.received(&wire, &mut out, &mut Vec::new());
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn later_requests_name_their_fields_by_number() {
        let (_, out) = session();
        assert!(out.ends_with(&[
            0, 0, 6, HEADERS, 5, 0, 0, 0, 3, 0x82, 0x87, 0xc1, 0xc0, 0xbf, 0xbe
        ]));
    }
}

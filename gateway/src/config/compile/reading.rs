//! `[reading]` and what `[server]` says about clients: from typed to meant.

use super::super::error::Problem;
use super::Compiler;
use crate::config::file::{Placed, Reading, Server};
use crate::config::model::{BodyRate, PathRules, ServerLimits};
use crate::config::units::{ByteRate, Duration};

/// Bytes of a trailer section at most: hyper holds 16 KiB, its last line included.
const TRAILER_BYTES_MAX: u64 = 15 << 10;
/// How long a worker may stay awake after a read. Who has waited longer than this does not notice
/// what waking takes.
const BUSY_POLL_MAX: std::time::Duration = std::time::Duration::from_millis(10);

impl Compiler<'_> {
    /// How long workers stay awake after a read.
    pub(super) fn busy_poll(&mut self, span: &Placed<Duration>) -> std::time::Duration {
        if span.0 > BUSY_POLL_MAX {
            let message = format!("`busy_poll` is {}, which is out of range", **span);
            let hint =
                "choose a time from \"0s\" to \"10ms\": in it a worker takes a whole processor";
            self.refuse(Problem::at(span.span(), message).hint(hint));
        }
        span.0
    }

    pub(super) fn server_limits(&mut self, server: &Server, reading: Reading) -> ServerLimits {
        let mut optional = |number: &Option<Placed<u64>>, name| {
            number
                .as_ref()
                .map(|number| self.within(number, 1..=1_000_000, name))
        };
        let connections_per_source_max = optional(
            &server.connections_per_source_max,
            "connections_per_source_max",
        )
        .map(|number| number as u32);
        let requests_per_connection_max = optional(
            &server.requests_per_connection_max,
            "requests_per_connection_max",
        );
        self.positive(&server.body_rate_window);
        ServerLimits {
            connections_max: self.within(&server.connections_max, 1..=1_000_000, "connections_max"),
            connections_per_source_max,
            requests_per_connection_max,
            header_bytes_max: self.bytes(&server.header_bytes_max, 8 << 10..=1 << 20),
            headers_max: self.within(&server.headers_max, 1..=1000, "headers_max"),
            uri_bytes_max: self.bytes(&server.uri_bytes_max, 64..=1 << 16),
            body_bytes_max: server.body_bytes_max.0,
            trailer_bytes_max: self.bytes(&server.trailer_bytes_max, 0..=TRAILER_BYTES_MAX),
            trailers_max: self.within(
                &server.trailers_max,
                0..=*server.headers_max,
                "trailers_max",
            ),
            streams_max: self.within(&server.streams_max, 1..=10_000, "streams_max"),
            handshake_timeout: self.positive(&server.handshake_timeout),
            header_timeout: self.positive(&server.header_timeout),
            body_idle_timeout: self.positive(&server.body_idle_timeout),
            body_rate: self.body_rate(server, &server.body_rate_min),
            idle_timeout: self.positive(&server.idle_timeout),
            upgrade_idle_timeout: self.positive(&server.upgrade_idle_timeout),
            path: PathRules {
                dot_segments: reading.dot_segments,
                empty_segments: reading.empty_segments,
                encoded_slashes: reading.encoded_slashes,
                backslashes: reading.backslashes,
                parameters: reading.parameters,
            },
            underscore_names: reading.underscore_names,
        }
    }

    /// What `rate` demands over the window of `server`.
    pub(super) fn body_rate(
        &mut self,
        server: &Server,
        rate: &Placed<ByteRate>,
    ) -> Option<BodyRate> {
        let window = server.body_rate_window.0;
        let bytes = rate.bytes_in(window);
        let demands = rate.0.0 > 0 && !window.is_zero();
        if bytes == 0 && demands {
            let message = format!(
                "`{rate}` is less than a byte in {}",
                *server.body_rate_window
            );
            let hint = "demand more, or nothing: \"0B/s\"";
            self.refuse(Problem::at(rate.span(), message).hint(hint));
        }
        (bytes > 0).then_some(BodyRate { window, bytes })
    }
}

//! `[tracing]`: from typed to meant.

use super::Compiler;
use crate::config::file::{self, Traceparent};
use crate::telemetry::trace::Tracing;

impl Compiler<'_> {
    pub(super) fn tracing(&mut self, typed: &file::Tracing) -> Tracing {
        let sampled = self.sample(&typed.sample);
        match typed.traceparent {
            Traceparent::Off => Tracing::Off,
            Traceparent::Join => Tracing::Join,
            Traceparent::Begin => Tracing::Begin { sampled },
        }
    }
}

//! All routes, arranged for look-up.

use http::{HeaderMap, Method};

use super::Match;
use crate::filter::reject::Reject;

/// All routes, arranged for look-up.
#[derive(Debug, Default)]
pub struct Table {}

impl Table {
    /// The most specific route for a request, or the refusal it gets instead.
    ///
    /// `host` is without port, in lower case; `path` without query, normalised.
    pub fn find(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Match<'_>, Reject> {
        let _ = (host, method, path, headers);
        Err(Reject::RouteNotFound)
    }
}

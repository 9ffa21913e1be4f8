//! What a route changes in a request before it is sent on: host, path, header fields.

use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;

use super::Decision;
use crate::filter::Context;
use crate::filter::reject::Reject;
use crate::route::action::Forwarding;
use crate::route::changes::{HeaderChanges, Settled};
use crate::route::rewrite;
use crate::route::split::Target;

/// What is still to be changed once the head is that of a request to an instance.
#[derive(Default)]
pub(super) struct Alteration<'r> {
    /// In place of the client's host.
    pub(super) authority: Option<&'r HeaderValue>,
    request_headers: Vec<Arc<Settled>>,
}

impl<'r> Alteration<'r> {
    /// Rewrites the path, and settles what is changed in the header fields of request and answer.
    pub(super) fn begin(
        decision: &Decision<'_>,
        forwarding: &'r Forwarding,
        target: &'r Target,
        context: &mut Context,
        head: &mut Parts,
    ) -> Result<Self, Reject> {
        let rewrite = target.rewrite.as_ref().or(forwarding.rewrite.as_ref());
        let of_request = [&forwarding.request_headers, &target.request_headers];
        let of_answer = target.response_headers.as_ref();
        let mut request_headers = Vec::new();
        if of_answer.is_some() || of_request.iter().any(|changes| changes.is_some()) {
            let facts = decision.facts(head, context);
            let settle = |changes: &HeaderChanges| changes.settle(&facts);
            let of_request = of_request.into_iter().flatten();
            request_headers = of_request.map(settle).collect();
            let of_answer = of_answer.map(settle);
            context.response_changes.extend(of_answer);
        }
        if let Some(path) = rewrite.and_then(|rewrite| rewrite.path.as_ref()) {
            let made = path.make(decision.found.path, head.uri.path());
            head.uri = rewrite::with_path(&head.uri, &made).ok_or(Reject::PathRewritten)?;
        }
        Ok(Self {
            authority: rewrite.and_then(|rewrite| rewrite.host.as_ref()),
            request_headers,
        })
    }

    /// Changes the header fields.
    pub(super) fn finish(&self, head: &mut Parts) {
        for changes in &self.request_headers {
            changes.apply(&mut head.headers);
        }
    }
}

//! Copies of requests, sent on beside them. Nobody waits for a copy: whatever becomes of it, the
//! request it was made of is served as if there were none.
//!
//! A body is copied while it is passed on, up to `body_bytes_max`; the copy is sent when the body
//! is complete, so that half a body is never sent. What came of each copy is counted.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::request::Parts;
use http_body::Body as _;

use super::body::{KeptBody, RequestBody};
use super::deliver::{discard, head_of};
use super::{Decision, headers};
use crate::filter::Context;
use crate::route::action::Forwarding;
use crate::route::mirror::Mirror;
use crate::serve::Client;
use crate::server::plane::Plane;
use crate::upstream::cluster::Affinity;

/// A copy that is to be sent.
struct Copy {
    client: Rc<Client>,
    plane: Rc<Plane>,
    /// The service's index.
    service: usize,
    affinity: Affinity,
    head: Parts,
    body_bytes_max: usize,
    timeout: Duration,
    _in_flight: InFlight,
}

/// Counts one copy while it is under way.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(mirror: &Mirror) -> Option<Self> {
        let count = Arc::clone(&mirror.in_flight);
        let guard = Self(count);
        let before = guard.0.fetch_add(1, Ordering::Relaxed);
        (before < mirror.in_flight_max).then_some(guard)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes the copies the route asks for of a request that is ready to be sent.
pub(super) fn copy(
    decision: &Decision<'_>,
    forwarding: &Forwarding,
    plane: &Rc<Plane>,
    context: &Context,
    (head, body): (&Parts, &mut RequestBody),
) {
    let client = decision.client;
    let route = decision.found.route;
    let body_bytes = body.size_hint().lower();
    let mut copies = Vec::new();
    for mirror in &forwarding.mirrors {
        if !mirror.share.takes(|| client.worker.random()) {
            continue;
        }
        let cluster = &plane.clusters[mirror.service];
        if body_bytes > mirror.body_bytes_max as u64 {
            client.worker.metrics.mirrored(&cluster.name, "too-large");
            continue;
        }
        let Some(in_flight) = InFlight::new(mirror) else {
            client.worker.metrics.mirrored(&cluster.name, "too-many");
            continue;
        };
        let mut head = head_of(head);
        let affinity = cluster.affinity(context, &head, &route.name);
        if headers::translate(&mut head, cluster).is_none() {
            continue;
        }
        copies.push(Copy {
            client: Rc::clone(client),
            plane: Rc::clone(plane),
            service: mirror.service,
            affinity,
            head,
            body_bytes_max: mirror.body_bytes_max,
            timeout: route.timeout,
            _in_flight: in_flight,
        });
    }
    let Some(bytes_max) = copies.iter().map(|copy| copy.body_bytes_max).max() else {
        return;
    };
    if body.is_end_stream() {
        launch(copies, &Ok(KeptBody::default()));
        return;
    }
    let whole = body.copy(bytes_max);
    tokio::task::spawn_local(async move {
        let body = whole.await.unwrap_or(Err("broken"));
        launch(copies, &body);
    });
}

fn launch(copies: Vec<Copy>, body: &Result<KeptBody, &'static str>) {
    for copy in copies {
        let fits = |body: &&KeptBody| body.len() <= copy.body_bytes_max as u64;
        let fitting = body.as_ref().map_err(|reason| *reason);
        let fitting = fitting.and_then(|body| Some(body).filter(fits).ok_or("too-large"));
        match fitting.cloned() {
            Ok(body) => {
                tokio::task::spawn_local(copy.send(body));
            }
            Err(reason) => copy.count(reason),
        }
    }
}

impl Copy {
    fn count(&self, result: &'static str) {
        let name = &self.plane.clusters[self.service].name;
        self.client.worker.metrics.mirrored(name, result);
    }

    async fn send(self, body: KeptBody) {
        let answered = tokio::time::timeout(self.timeout, self.exchange(&body)).await;
        self.count(match answered {
            Ok(true) => "answered",
            Ok(false) => "failed",
            Err(_elapsed) => "timeout",
        });
    }

    /// Sends the copy to one instance; a second time only where an idle connection was closed at
    /// the moment of its reuse.
    async fn exchange(&self, body: &KeptBody) -> bool {
        let cluster = &self.plane.clusters[self.service];
        let Some(endpoint) = cluster.pick(&[], self.affinity).cloned() else {
            return false;
        };
        for fresh in [false, true] {
            let Ok(mut lease) = Rc::clone(&endpoint).lease(fresh).await else {
                return false;
            };
            match lease.send(&self.head, RequestBody::copied(body)).await {
                Ok(response) => {
                    discard((response, lease));
                    return true;
                }
                Err(unanswered) => {
                    // Only what was not sent at all is sent once more.
                    if !lease.reused || unanswered.unsent.is_none() {
                        return false;
                    }
                }
            }
        }
        false
    }
}

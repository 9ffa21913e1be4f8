//! Whether a request may go on now: asked between the filters of its route and its forwarding.
//!
//! 1. The process: is it short of memory, or late? Asked before the filters too, for the highest
//!    class the request could have, so that a refusal does not cost a signature check first.
//! 2. The route's gate: a number of requests in flight.
//! 3. The service's gate: a number, fixed or adaptive, with a queue.
//!
//! A place is held until the response was sent to its end, or the upgraded connection is over. That
//! of an adaptive limit is given back with the head of the answer, where its latency ends: a limit
//! that follows the one cannot count the other, or a few long downloads, event streams and
//! WebSockets would take it up for good, with no latency left to be measured.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;
use ipnet::IpNet;
use tokio::time::Instant;

use super::adaptive::Outcome;
use super::class::{Class, ClassSource};
use super::gate::{Gate, Permit, Refused};
use crate::filter::Context;
use crate::filter::in_flight::Place;
use crate::filter::reject::Reject;
use crate::forward::body::Upload;

/// How a route's requests fare when not all can be served.
#[derive(Clone, Debug, Default)]
pub struct RoutePolicy {
    /// The class of its requests.
    pub class: Class,
    /// Where a request may say another.
    pub class_by: Option<ClassSource>,
    /// Its limit of requests in flight, if it has one.
    pub gate: Option<Arc<Gate>>,
}

impl RoutePolicy {
    /// The highest class a request could have.
    pub(crate) fn highest_class(&self) -> Class {
        let said = self.class_by.as_ref().map(ClassSource::highest);
        said.map_or(self.class, |said| said.max(self.class))
    }

    /// The class of a request. `peer` is the address the connection comes from, `trusted` those
    /// whose headers are believed.
    pub(crate) fn class(
        &self,
        context: &Context,
        head: &Parts,
        peer: IpAddr,
        trusted: &[IpNet],
    ) -> Class {
        let said = self.class_by.as_ref();
        let said = said.and_then(|source| source.class(context, head, peer, trusted));
        said.unwrap_or(self.class)
    }
}

/// The places a request holds.
#[derive(Debug)]
pub(crate) struct Admission {
    service: Option<Permit>,
    _route: Option<Permit>,
    _sender: Vec<Place>,
    since: Instant,
}

impl Admission {
    /// Takes a place at both gates, where there are such, after a wait if need be. `sender` are
    /// the places that count for the sender.
    pub(crate) async fn enter(
        sender: Vec<Place>,
        route: Option<&Arc<Gate>>,
        service: Option<&Arc<Gate>>,
        class: Class,
    ) -> Result<Self, Reject> {
        let route = match route {
            Some(gate) => Some(gate.enter(class).await.map_err(|_| Reject::RouteBusy)?),
            None => None,
        };
        let service = match service {
            Some(gate) => Some(gate.enter(class).await.map_err(refusal)?),
            None => None,
        };
        Ok(Self {
            service,
            _route: route,
            _sender: sender,
            since: Instant::now(),
        })
    }

    /// The service has answered with this status, or not at all.
    pub(crate) fn answered(&mut self, answer: Result<StatusCode, &Reject>, upload: &Upload) {
        // Given back at the end of this, so that the number in flight still includes this one.
        let permit = self.service.take_if(|permit| permit.gate().is_adaptive());
        let Some(permit) = permit else { return };
        let outcome = match answer {
            Ok(StatusCode::SERVICE_UNAVAILABLE)
            | Err(Reject::UpstreamTimeout | Reject::UpstreamTryTimeout) => Outcome::Overloaded,
            // An answer before the whole request was there says nothing about the service's pace.
            Ok(_) if upload.is_finished() => {
                let begun = self.since.into_std().max(upload.moved());
                Outcome::Answered(begun.elapsed())
            }
            _ => return,
        };
        permit.gate().observe(outcome);
    }
}

fn refusal(refused: Refused) -> Reject {
    match refused {
        Refused::Full => Reject::ServiceBusy,
        Refused::TimedOut => Reject::QueueTimeout,
        Refused::Displaced => Reject::QueueDisplaced,
        Refused::Memory => Reject::MemoryShort,
    }
}

//! A request on its way to an instance, and the response on its way back.
//!
//! Both bodies are streamed. A request is tried again only where that cannot repeat its effect:
//! nothing of it was written, or its method is idempotent and it has no body (RFC 9110 section
//! 9.2.2).

mod alter;
pub(crate) mod body;
mod deliver;
pub(crate) mod forwarded;
mod headers;
pub mod hedge;
mod mirror;
mod patience;
pub(crate) mod upgrade;
mod verdict;

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use self::alter::Alteration;
use self::body::{BodyLimits, RequestBody, TrailerFault, UploadFailure};
use self::deliver::Delivery;
pub(crate) use self::deliver::head_of;
use self::patience::Patience;
use crate::filter::Context;
use crate::filter::key::RequestKey;
use crate::filter::reject::Reject;
use crate::normalise::{self, target::Host};
use crate::overload::admission::Admission;
use crate::route::action::Forwarding;
use crate::route::split::Split;
use crate::route::template::Facts;
use crate::route::{self, Match, Route};
use crate::serve::Client;
use crate::telemetry::exchange::Exchange;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::{AnswerBody, Lease};

/// What goes back to the client.
pub(crate) enum Reply {
    /// An instance's response, and the connection its body comes from.
    Streamed(Response<AnswerBody>, Lease),
    /// The instance changes the protocol, and so do we.
    Upgraded(Response<()>),
    /// The gateway's own answer.
    Own(Response<Full<Bytes>>),
}

/// What was decided about a request: its host and its route.
pub(crate) struct Decision<'r> {
    pub(crate) client: &'r Rc<Client>,
    pub(crate) host: &'r Host,
    pub(crate) found: Match<'r>,
}

impl Decision<'_> {
    /// The request as routes see it.
    pub(crate) fn request<'f>(&'f self, head: &'f Parts) -> route::Request<'f> {
        route::Request {
            listener: &self.client.listener.name,
            host: &self.host.name,
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
        }
    }

    /// What values of header fields may be made from.
    pub(crate) fn facts<'f>(&'f self, head: &'f Parts, context: &'f Context) -> Facts<'f> {
        Facts {
            request: self.request(head),
            path: self.found.path,
            route: &self.found.route.name,
            scheme: self.scheme(&head.headers),
            context,
        }
    }

    /// The scheme the client uses.
    pub(crate) fn scheme(&self, headers: &HeaderMap) -> &'static str {
        self.client.hop.scheme(headers)
    }
}

/// Sends the request to an instance of the route's service and returns its response.
pub(crate) async fn forward(
    decision: Decision<'_>,
    forwarding: &Forwarding,
    exchange: &mut Exchange,
    context: &mut Context,
    mut head: Box<Parts>,
    body: Incoming,
) -> Result<Reply, Reject> {
    let plane = exchange.plane();
    let Decision { client, found, .. } = decision;
    let route = found.route;
    let target = choose(&decision, &forwarding.split, context, &head);
    exchange.record().target = Some(target);
    let mut admission = admit(exchange, context, route, target).await?;
    let target = &forwarding.split.targets()[target];
    let cluster = &plane.clusters[target.service];
    let limits = BodyLimits::new(route, plane.limits());
    let mut body = RequestBody::new(body, limits).map_err(|failure| broken(failure, client))?;
    let upload = body.upload();
    let affinity = cluster.affinity(context, &head, &route.name);

    let alteration = Alteration::begin(&decision, forwarding, target, context, &mut head)?;
    let upgrade = prepare(&decision, &alteration, cluster, &mut head)?;

    let started = exchange.started();
    let record = exchange.record();
    record.upload = Some(Rc::clone(&upload));
    let patience = Patience {
        response: route.timeout,
        upload_idle: plane.limits().body_idle_timeout,
    };
    let pass = cluster.care.admit().map_err(verdict::circuit_open)?;
    if !forwarding.mirrors.is_empty() && upgrade.is_none() {
        let request = (&*head, &mut body);
        mirror::copy(&decision, forwarding, &plane, context, request);
    }
    let mut delivery = Delivery::new((head, body), cluster, affinity, route, &upload);
    let timers = &client.worker.timers;
    let delivered = patience
        .spend(timers, &upload, pin!(delivery.run(record)))
        .await;
    record.upstream = Some(started.elapsed());
    verdict::settle(&delivered, pass, &cluster.care, record);
    if let Some(admission) = &mut admission {
        admission.answered(delivered.as_ref().map(|(head, _)| head.status()), &upload);
    }
    let (mut response, lease) = delivered.map_err(|reject| {
        let failure = upload.failure();
        failure.map_or(reject, |failure| broken(failure, client))
    })?;
    record.connection_reused = Some(lease.reused);

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::switch(
            upgrade,
            response,
            (lease, admission),
            client,
            plane.limits().upgrade_idle_timeout,
        )
        .map(Reply::Upgraded);
    }
    record.admission = admission;
    if matches!(response.body(), AnswerBody::Http2(_)) {
        normalise::response_length(response.headers())?;
    }
    headers::prepare_response(response.headers_mut(), &client.hop);
    cluster.stick(affinity, &lease, client, response.headers_mut());
    Ok(Reply::Streamed(response, lease))
}

/// Which of the route's targets takes the request.
fn choose(decision: &Decision<'_>, split: &Split, context: &Context, head: &Parts) -> usize {
    let key = |key: &RequestKey| key.of(context, head, &decision.found.route.name);
    let random = || decision.client.worker.random();
    split.choose(&head.headers, head.uri.query(), key, random)
}

/// Makes the client's request head the one the instance gets; takes out its wish to upgrade.
fn prepare(
    decision: &Decision<'_>,
    alteration: &Alteration<'_>,
    cluster: &Cluster,
    head: &mut Parts,
) -> Result<Option<upgrade::Asked>, Reject> {
    let upgrade = upgrade::Asked::of(head);
    let host = (decision.host, alteration.authority);
    headers::prepare_request(head, decision.client, host, cluster, upgrade.as_ref())?;
    alteration.finish(head);
    Ok(upgrade)
}

/// Takes the places the request needs, where they are limited.
async fn admit(
    exchange: &mut Exchange,
    context: &mut Context,
    route: &Route,
    target: usize,
) -> Result<Option<Admission>, Reject> {
    let plane = exchange.plane();
    let service = &plane.config().services[route.targets()[target].service];
    let (route, service) = (route.overload.gate.as_ref(), service.gate.as_ref());
    if route.is_none() && service.is_none() && context.places.is_empty() {
        return Ok(None);
    }
    let class = exchange.record().class;
    let sender = std::mem::take(&mut context.places);
    let entered = Admission::enter(sender, route, service, class);
    entered.await.map(Some)
}

/// The refusal for a request whose body was at fault.
fn broken(failure: UploadFailure, client: &Client) -> Reject {
    match failure {
        UploadFailure::TooLarge => Reject::BodyTooLarge,
        UploadFailure::TooSlow => Reject::BodyTooSlow,
        UploadFailure::Trailers(TrailerFault::TooLarge) => Reject::TrailersTooLarge,
        UploadFailure::Trailers(TrailerFault::Forbidden) => Reject::ForbiddenTrailer,
        UploadFailure::Broken => match client.verdict.last() {
            Some(violation) if violation.is_in_body() => normalise::refusal(violation),
            _ => Reject::BadRequest,
        },
    }
}

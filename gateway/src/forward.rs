//! A request on its way to an instance, and the response on its way back.
//!
//! Both bodies are streamed. A request is tried again only where that cannot repeat its effect:
//! nothing of it was written, or its method is idempotent and it has no body (RFC 9110 section
//! 9.2.2).

pub(crate) mod body;
mod deliver;
pub(crate) mod forwarded;
mod headers;
pub mod hedge;
mod patience;
pub(crate) mod upgrade;
mod verdict;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use self::body::{BodyLimits, RequestBody, TrailerFault, UploadFailure};
use self::deliver::Delivery;
use self::patience::Patience;
use crate::filter::Context;
use crate::filter::reject::Reject;
use crate::normalise::{self, target::Host};
use crate::overload::admission::Admission;
use crate::route::Route;
use crate::route::action::Action;
use crate::serve::Client;
use crate::telemetry::exchange::Exchange;
use crate::upstream::endpoint::Lease;

/// What goes back to the client.
pub(crate) enum Reply {
    /// An instance's response, and the connection its body comes from.
    Streamed(Response<Incoming>, Lease),
    /// The instance changes the protocol, and so do we.
    Upgraded(Response<()>),
}

/// Sends the request to an instance of the route's service and returns its response.
pub(crate) async fn forward(
    client: &Rc<Client>,
    exchange: &mut Exchange,
    context: &mut Context,
    route: &Arc<Route>,
    host: &Host,
    mut head: Parts,
    body: Incoming,
) -> Result<Reply, Reject> {
    let plane = exchange.plane();
    let Action::Forward(split) = &route.action;
    let target = split.choose();
    exchange.record().target = Some(target);
    let cluster = &plane.clusters[split.targets()[target].service];
    let admission = admit(exchange, context, route, target).await?;
    let limits = BodyLimits::new(route.body_bytes_max, plane.limits());
    let body = RequestBody::new(body, limits).map_err(|failure| broken(failure, client))?;
    let upload = body.upload();
    let affinity = cluster.affinity(context, &head, &route.name);

    let upgrade = upgrade::Asked::of(&head);
    headers::prepare_request(
        &mut head,
        client,
        host,
        cluster.protocol(),
        upgrade.as_ref(),
    )?;

    let started = exchange.started();
    let record = exchange.record();
    record.upload = Some(Rc::clone(&upload));
    let patience = Patience {
        response: route.timeout,
        upload_idle: plane.limits().body_idle_timeout,
    };
    let pass = cluster.care.admit().map_err(verdict::circuit_open)?;
    let request = Request::from_parts(head, body);
    let mut delivery = Delivery::new(request, cluster, affinity, route, &upload);
    let delivered = patience.spend(&upload, pin!(delivery.run(record))).await;
    record.upstream = Some(started.elapsed());
    verdict::settle(&delivered, pass, &cluster.care, record);
    if let Some(admission) = &admission {
        admission.answered(delivered.as_ref().map(|(head, _)| head.status()), &upload);
    }
    let (mut response, lease) = delivered.map_err(|reject| match upload.failure() {
        Some(failure) => broken(failure, client),
        None => reject,
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
    normalise::check_response(response.headers())?;
    headers::prepare_response(response.headers_mut());
    cluster.stick(affinity, &lease, client, response.headers_mut());
    Ok(Reply::Streamed(response, lease))
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

//! The steps every request takes, in order.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{Client, answer};
use crate::filter::Context;
use crate::filter::reject::Reject;
use crate::forward::body::ResponseBody;
use crate::forward::{self, Decision, Reply, forwarded};
use crate::route::action::Action;
use crate::telemetry::exchange::{Exchange, Record};
use crate::telemetry::trace::Trace;
use crate::{normalise, route};

/// The field that ties together what client, gateway and instance know of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids, and those with other characters than letters, digits and `-_.`, are replaced.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Handles one request. A refusal is an answer too, so this never fails.
pub(super) async fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (head, body) = request.into_parts();
    // Boxed, because it is handed from one step to the next, each of which would have room for it.
    let head = Box::new(head);
    let number = client.next_request();
    let version = head.version;
    let told = client.hop.is_trusted().then(|| request_id(&head.headers));
    let request_id = (told.flatten()).unwrap_or_else(|| client.worker.request_id());
    let mut exchange = Exchange::begin(Rc::clone(&client), request_id.clone());
    let mut context = Context::new(client.transport.peer.ip());

    let outcome = match client.verdict.of_head(number) {
        Some(violation) => Err(normalise::refusal(violation)),
        None => {
            let process = process(&client, &mut exchange, &mut context, head, body);
            // A bug in one request must not end the others of its connection.
            let caught = AssertUnwindSafe(process).catch_unwind().await;
            caught.unwrap_or(Err(Reject::Internal))
        }
    };
    let mut response = match outcome {
        Ok(reply) => respond(reply, exchange),
        Err(reject) => refuse(&reject, version, &request_id, exchange),
    };
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    for changes in &context.response_changes {
        changes.apply(headers);
    }
    headers.insert(REQUEST_ID, once(request_id, version));
    let last = client.worker.is_closing() || client.is_ending();
    if version < Version::HTTP_2 && !upgraded && last {
        // The connection's own task closes it too, but may not have heard of the end yet.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    std::mem::take(&mut context.told).write(headers);
    Ok(response)
}

async fn process(
    client: &Rc<Client>,
    exchange: &mut Exchange,
    context: &mut Context,
    mut head: Box<Parts>,
    body: Incoming,
) -> Result<Reply, Reject> {
    let plane = exchange.plane();
    let record = exchange.record();
    client.demand(plane.limits().body_rate);
    record.version = head.version;
    record.method = head.method.clone();
    // As sent, for the log of a request that is refused here.
    record.uri = head.uri.clone();

    if let Some(log) = client.worker.access_log() {
        record.captured = log.capture(&head);
    }

    let host = normalise::normalise(&mut head, plane.limits(), &client.worker.known_hosts)?;
    if head.uri != record.uri {
        record.uri = head.uri.clone();
    }
    record.host = Some(Rc::clone(&host.name));
    if client.is_misdirected(&host.name) {
        return Err(Reject::Misdirected);
    }

    if client.hop.is_trusted() {
        let trusted = &client.listener.trusted_proxies;
        context.client = forwarded::client(client.transport.peer.ip(), &head.headers, trusted);
        record.client = context.client;
    }
    let (trusted, random) = (client.hop.is_trusted(), || client.worker.random());
    record.trace = Trace::settle(plane.config().tracing, &mut head.headers, trusted, random);

    let asked = route::Request {
        listener: &client.listener.name,
        host: &host.name,
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
    };
    let routes = &plane.config().routes;
    if let Some((route, reply)) = answer::preflight(routes, &asked) {
        record.route = Some(route);
        return Ok(reply);
    }
    let found = routes.find(&asked)?;
    record.route = Some(found.position);
    client.demand(found.route.body_rate);
    let host = &host;
    let decision = Decision {
        client,
        host,
        found,
    };
    pass(&decision, context, &mut head, record)?;
    match &found.route.action {
        Action::Forward(forwarding) => {
            forward::forward(decision, forwarding, exchange, context, head, body).await
        }
        Action::Redirect(redirect) => answer::redirect(&decision, redirect, &head),
        Action::Respond(respond) => Ok(Reply::Own(respond.answer())),
    }
}

/// Runs the filters of the route, and sheds what there is no strength left for.
fn pass(
    decision: &Decision<'_>,
    context: &mut Context,
    head: &mut Parts,
    record: &mut Record,
) -> Result<(), Reject> {
    let client = decision.client;
    let route = decision.found.route;
    let strain = &client.worker.strain;
    if let Some(reject) = strain.refusal(route.overload.highest_class()) {
        answer::settle_headers(decision, context, head);
        return Err(reject);
    }
    let passed = route.chain.run(context, head, SystemTime::now);
    record.identity = context.identity.clone().or_else(|| context.api_key.clone());
    head.headers.insert(REQUEST_ID, record.request_id.clone());
    answer::settle_headers(decision, context, head);
    passed?;
    let peer = client.transport.peer.ip();
    let trusted = &client.listener.trusted_proxies;
    let class = route.overload.class(context, head, peer, trusted);
    if let Some(reject) = strain.refusal(class) {
        return Err(reject);
    }
    record.class = class;
    Ok(())
}

fn respond(reply: Reply, mut exchange: Exchange) -> Response<ResponseBody> {
    match reply {
        Reply::Streamed(response, lease) => {
            exchange.status(response.status());
            exchange.response_headers(response.headers());
            let plane = exchange.plane();
            response.map(|body| ResponseBody::upstream(body, lease, plane.limits(), exchange))
        }
        Reply::Upgraded(response) => {
            exchange.status(response.status());
            exchange.response_headers(response.headers());
            response.map(|()| ResponseBody::own(Full::default(), exchange))
        }
        Reply::Own(response) => {
            exchange.status(response.status());
            response.map(|body| ResponseBody::own(body, exchange))
        }
    }
}

fn refuse(
    reject: &Reject,
    version: Version,
    request_id: &HeaderValue,
    mut exchange: Exchange,
) -> Response<ResponseBody> {
    exchange.refused(reject);
    let mut response: Response<Full<Bytes>> =
        reject.response(request_id.to_str().unwrap_or_default());
    if version < Version::HTTP_2 && ends_connection(reject) {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.response_headers(response.headers());
    response.map(|body| ResponseBody::own(body, exchange))
}

/// Keeps a value that never comes again out of the table of an HTTP/2 connection's fields, where it
/// would drive out those that do (RFC 7541 section 6.2.3).
fn once(mut value: HeaderValue, version: Version) -> HeaderValue {
    value.set_sensitive(version == Version::HTTP_2);
    value
}

/// Whether the place where the next request starts is unknown, or too far away to read up to.
fn ends_connection(reject: &Reject) -> bool {
    matches!(
        reject.status(),
        StatusCode::BAD_REQUEST
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            | StatusCode::NOT_IMPLEMENTED
            | StatusCode::HTTP_VERSION_NOT_SUPPORTED
    )
}

/// The id a trusted peer gave the request, if it is one token of a sensible length. An id of
/// anybody else is never kept: who chooses it could pass his requests off as those of others in
/// every log behind us.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut ids = headers.get_all(&REQUEST_ID).iter();
    let (Some(id), None) = (ids.next(), ids.next()) else {
        return None;
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let bytes = id.as_bytes();
    let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len());
    (fits && bytes.iter().all(plain)).then(|| id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_request_ids_are_kept() {
        let longest = "a".repeat(REQUEST_ID_BYTES_MAX);
        let too_long = "a".repeat(REQUEST_ID_BYTES_MAX + 1);
        let table = [
            ("0193-ab.C_d", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
        ];
        for (id, kept) in table {
            let headers = HeaderMap::from_iter([(REQUEST_ID, id.parse().unwrap())]);
            assert_eq!(request_id(&headers).is_some(), kept, "{id:?}");
        }
        let mut several = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("a"))]);
        several.append(REQUEST_ID, HeaderValue::from_static("b"));
        assert_eq!(request_id(&several), None, "which of them?");
    }
}

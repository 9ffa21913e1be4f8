//! One request and its response, from the head to the last byte: what is measured and logged.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};

use super::access_log::field::{Captured, Line};
use super::metrics::{Outcome, Shard};
use super::trace::Trace;
use crate::config::BodyRate;
use crate::filter::Identity;
use crate::filter::reject::Reject;
use crate::forward::body::Upload;
use crate::overload::Class;
use crate::overload::admission::Admission;
use crate::route::{Position, Route};
use crate::serve::Client;
use crate::server::plane::Plane;
use crate::upstream::budget::Exhausted;
use crate::upstream::endpoint::Endpoint;

/// The reason of a request whose client went away before the response was complete.
const CLIENT_CLOSED: &str = "client-closed";
/// The reason of a request whose client took the response more slowly than `body_rate_min`.
const CLIENT_TOO_SLOW: &str = "client-too-slow";
/// What the log and the metrics show as its status, after nginx: no response head was sent.
const CLIENT_CLOSED_STATUS: u16 = 499;

/// The record of one request. It is counted and logged when dropped, whatever ended it.
pub(crate) struct Exchange {
    client: Rc<Client>,
    plane: Rc<Plane>,
    record: Box<Record>,
}

/// What is known of a request so far.
pub(crate) struct Record {
    started: Instant,
    /// Of a trusted peer, or made here; sent to the instance and back to the client.
    pub(crate) request_id: HeaderValue,
    /// The gateway's part of the trace it belongs to, if it does.
    pub(crate) trace: Option<Trace>,
    pub(crate) client: IpAddr,
    pub(crate) method: Method,
    pub(crate) host: Option<Rc<str>>,
    /// As the client named it, normalised once the head was found good.
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) tls: Option<&'static str>,
    /// Who sent the request, once a filter has vouched for it.
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) route: Option<Position>,
    /// Which of the route's targets was chosen.
    pub(crate) target: Option<usize>,
    pub(crate) endpoint: Option<Rc<Endpoint>>,
    pub(crate) upload: Option<Rc<Upload>>,
    /// Until the instance's response head, attempts before it included.
    pub(crate) upstream: Option<Duration>,
    /// Whether the connection it was answered on had served others.
    pub(crate) connection_reused: Option<bool>,
    /// Attempts after the first.
    pub(crate) retries: u32,
    /// Why there was no further attempt, where only the budget stood against it.
    pub(crate) no_retry: Option<Exhausted>,
    /// Further instances asked because the first was slow.
    pub(crate) hedges: u32,
    /// Whether one of those was quicker.
    pub(crate) hedge_won: bool,
    /// How much the request matters.
    pub(crate) class: Class,
    /// The places it holds until the response was sent, where places are limited.
    pub(crate) admission: Option<Admission>,
    /// What the access logs want to know besides, if anything.
    pub(crate) captured: Option<Box<Captured>>,
    status: Option<StatusCode>,
    reason: Option<&'static str>,
    bytes_sent: u64,
    complete: bool,
}

impl Exchange {
    /// The exchange of a request that has just arrived.
    pub(crate) fn begin(client: Rc<Client>, request_id: HeaderValue) -> Self {
        let plane = client.worker.plane();
        client.worker.metrics.exchange_begins();
        client.exchange_begins();
        let record = Box::new(Record {
            started: Instant::now(),
            request_id,
            trace: None,
            client: client.transport.peer.ip(),
            method: Method::GET,
            host: None,
            uri: Uri::default(),
            version: Version::HTTP_11,
            tls: client.transport.tls,
            identity: None,
            route: None,
            target: None,
            endpoint: None,
            upload: None,
            upstream: None,
            connection_reused: None,
            retries: 0,
            no_retry: None,
            hedges: 0,
            hedge_won: false,
            class: Class::Default,
            admission: None,
            captured: None,
            status: None,
            reason: None,
            bytes_sent: 0,
            complete: false,
        });
        Self {
            client,
            plane,
            record,
        }
    }

    /// What is known of the request, to be added to.
    pub(crate) fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// The configuration the request is handled by, whatever comes into force meanwhile.
    pub(crate) fn plane(&self) -> Rc<Plane> {
        Rc::clone(&self.plane)
    }

    /// How fast its client must take the response.
    pub(crate) fn body_rate(&self) -> Option<BodyRate> {
        let route = self.record.route(&self.plane);
        route.map_or(self.plane.limits().body_rate, |route| route.body_rate)
    }

    /// When the request arrived.
    pub(crate) fn started(&self) -> Instant {
        self.record.started
    }

    /// The status of the response that is about to be sent.
    pub(crate) fn status(&mut self, status: StatusCode) {
        self.record.status = Some(status);
    }

    /// The headers of the response that is about to be sent, for logs that show some.
    pub(crate) fn response_headers(&mut self, headers: &HeaderMap) {
        if let Some(captured) = &mut self.record.captured
            && let Some(log) = self.client.worker.access_log()
        {
            log.capture_response(headers, captured);
        }
    }

    /// The gateway refuses the request.
    pub(crate) fn refused(&mut self, reject: &Reject) {
        self.record.status = Some(reject.status());
        self.record.reason = Some(reject.name());
    }

    /// The instance broke off its response.
    pub(crate) fn broke_off(&mut self, reason: &'static str) {
        let record = &mut *self.record;
        record.reason = Some(reason);
        let service = record.service(&self.plane);
        if let (Some(service), Some(endpoint)) = (service, &record.endpoint) {
            self.plane.clusters[service]
                .care
                .broke_off(&endpoint.instance);
        }
    }

    /// The client took the response too slowly.
    pub(crate) fn too_slow(&mut self) {
        self.record.reason = Some(CLIENT_TOO_SLOW);
    }

    /// Bytes of the response body were handed to the client's connection.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.record.bytes_sent += bytes;
    }

    /// The response body was sent to its end.
    pub(crate) fn body_complete(&mut self) {
        self.record.complete = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let record = &mut *self.record;
        if !record.complete && record.reason.is_none() {
            let slow = self.client.verdict.is_slow();
            record.reason = Some(if slow { CLIENT_TOO_SLOW } else { CLIENT_CLOSED });
        }
        let status = record
            .status
            .map_or(CLIENT_CLOSED_STATUS, |status| status.as_u16());
        let now = Instant::now();
        let duration = now - record.started;
        let worker = &self.client.worker;
        let metrics = &worker.metrics;
        metrics.exchange_ends();
        record.count(&record.outcome(status, duration), &self.plane, metrics);
        metrics.repeats.retried(record.retries, record.no_retry);
        metrics.repeats.hedged(record.hedges, record.hedge_won);
        if let Some(reason) = record.reason {
            metrics.reason(reason);
        }
        if let Some(log) = worker.access_log() {
            log.write(&record.line(status, duration, &self.plane, &self.client));
        }
        self.client.exchange_ends(now);
    }
}

impl Record {
    /// The route the request has taken.
    fn route<'p>(&self, plane: &'p Plane) -> Option<&'p Route> {
        let routes = &plane.config().routes;
        self.route.map(|position| routes.route(position))
    }

    /// The service it was given to, or meant for.
    fn service(&self, plane: &Plane) -> Option<usize> {
        self.route(plane)?.service(self.target)
    }

    fn outcome(&self, status: u16, duration: Duration) -> Outcome {
        Outcome {
            status,
            duration_us: duration.as_micros() as u64,
            upstream_us: self.upstream.map(|upstream| upstream.as_micros() as u64),
            connection_reused: self.connection_reused,
            bytes_in: self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: self.bytes_sent,
        }
    }

    fn count(&self, outcome: &Outcome, plane: &Plane, metrics: &Shard) {
        let Some(route) = self.route(plane) else {
            metrics.count_unrouted(outcome);
            return;
        };
        let service = self.service(plane);
        let service = service.map(|index| (index, &*plane.clusters[index].name));
        let target = self.target;
        let series = &plane.series;
        series.count(metrics, (route, target), service, outcome);
        if let (Some(endpoint), Some((_, service))) = (&self.endpoint, service) {
            endpoint.series(metrics, service).count(outcome);
        }
    }

    fn line<'a>(
        &'a self,
        status: u16,
        duration: Duration,
        plane: &'a Plane,
        client: &'a Client,
    ) -> Line<'a> {
        let service = self.service(plane);
        let service = service.map(|service| &*plane.clusters[service].name);
        // The time of day is asked for with the line, not with every request.
        let began = jiff::Timestamp::now().checked_sub(duration);
        Line {
            time: began.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            request_id: self.request_id.as_bytes(),
            trace: (self.trace.as_ref()).map(|trace| (trace.trace_id(), trace.span_id())),
            client: self.client,
            peer: client.transport.peer,
            listener: &client.listener.name,
            scheme: client.transport.scheme(),
            subject: self
                .identity
                .as_ref()
                .map(|identity| identity.subject.as_str()),
            method: self.method.as_str(),
            host: self.host.as_deref().unwrap_or_default(),
            // Without the query, which may hold what does not belong in a log.
            path: self.uri.path(),
            route: self.route(plane).map(|route| &*route.name),
            service,
            instance: self
                .endpoint
                .as_ref()
                .map(|endpoint| &*endpoint.instance.name),
            status,
            reason: self.reason,
            duration_us: duration.as_micros() as u64,
            upstream_us: self.upstream.map(|upstream| upstream.as_micros() as u64),
            retries: self.retries,
            hedges: self.hedges,
            bytes_in: self.upload.as_ref().map_or(0, |upload| upload.bytes()),
            bytes_out: self.bytes_sent,
            protocol: protocol(self.version),
            tls: self.tls,
            captured: self.captured.as_deref(),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

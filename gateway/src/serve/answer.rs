//! Answers the gateway gives itself, and what routes change in the header fields of all answers.
//!
//! A refusal carries what its route says of answers (`response_headers`, `cors`), so that a page in
//! a browser can read why. Some come before a route is known and carry nothing of the kind: those of
//! the head (400, 408, 414, 431, 501, 505), of a host the connection is not for (421), and those of
//! the look-up itself (404, 405).

use http::request::Parts;

use crate::filter::Context;
use crate::filter::reject::Reject;
use crate::forward::{Decision, Reply};
use crate::route::redirect::{From, Redirect};
use crate::route::{Position, Request, Table, cors};

/// The answer to a CORS preflight, if it is one for a route that decides on CORS. The route is
/// that of the request the preflight asks about; where that one says nothing of CORS, the
/// preflight is a request like any other, for the instance to answer.
pub(super) fn preflight(routes: &Table, request: &Request<'_>) -> Option<(Position, Reply)> {
    let method = cors::preflight(request.method, request.headers)?;
    let asked_about = Request {
        method: &method,
        ..*request
    };
    let found = routes.find(&asked_about).ok()?;
    let cors = found.route.cors.as_ref()?;
    let answer = cors.answer_preflight(request.headers);
    Some((found.position, Reply::Own(answer)))
}

/// Settles what the route changes in the answer, whoever gives it: the instance, the gateway in
/// its place, or a filter that refuses.
pub(super) fn settle_headers(decision: &Decision<'_>, context: &mut Context, head: &Parts) {
    let route = decision.found.route;
    let cors = route.cors.as_ref().map(|cors| cors.changes(&head.headers));
    let changes = route.response_headers.as_ref();
    let changes = changes.map(|changes| changes.settle(&decision.facts(head, context)));
    // The policy comes last: nothing may soften it by accident.
    context
        .response_changes
        .extend(changes.into_iter().chain(cors));
}

/// Sends the client elsewhere.
pub(super) fn redirect(
    decision: &Decision<'_>,
    redirect: &Redirect,
    head: &Parts,
) -> Result<Reply, Reject> {
    let from = From {
        request: decision.request(head),
        path: decision.found.path,
        scheme: decision.scheme(&head.headers),
        port: decision.host.port(),
    };
    let answer = redirect.answer(&from).map(Reply::Own);
    // Only a parameter can hold what no URI could.
    answer.ok_or(Reject::PathRewritten)
}

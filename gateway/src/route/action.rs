//! What becomes of a request that has passed the filters.

use super::changes::HeaderChanges;
use super::mirror::Mirror;
use super::redirect::Redirect;
use super::respond::Respond;
use super::rewrite::Rewrite;
use super::split::Split;

/// What a route does with the requests that take it.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends them to an instance of a service.
    Forward(Box<Forwarding>),
    /// Sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// Answers them.
    Respond(Box<Respond>),
}

/// How requests are sent to a service.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Which service.
    pub split: Split,
    /// What the instance sees in place of what the client sent.
    pub rewrite: Option<Rewrite>,
    /// Changes of the request's header fields.
    pub request_headers: Option<HeaderChanges>,
    /// Who gets copies.
    pub mirrors: Box<[Mirror]>,
}

impl Forwarding {
    /// All requests to one service, as they are.
    pub fn to(service: usize) -> Self {
        Self {
            split: Split::to(service),
            rewrite: None,
            request_headers: None,
            mirrors: Box::default(),
        }
    }
}

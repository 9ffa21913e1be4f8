//! The answer the gateway gives itself.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// One answer to every request.
#[derive(Clone, Debug)]
pub struct Respond {
    /// From 200 on.
    pub status: StatusCode,
    /// The body, shared by all answers.
    pub body: Bytes,
    /// What the body is; `None`: there is none.
    pub content_type: Option<HeaderValue>,
}

impl Respond {
    /// The answer.
    pub fn answer(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status;
        if let Some(content_type) = &self.content_type {
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        response
    }
}

//! Bodies on their way through: streamed piece by piece, counted, limited, and never collected.

mod kept;
mod request;
mod response;
mod stall;

pub(crate) use self::kept::KeptBody;
pub(crate) use self::request::{RequestBody, Upload, UploadFailure};
pub(crate) use self::response::ResponseBody;

/// What ends a body early, as hyper wants it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

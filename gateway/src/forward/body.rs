//! Bodies on their way through: streamed piece by piece, counted, limited, and never collected.

mod kept;
mod pace;
mod request;
mod response;
mod stall;
mod trailers;

pub(crate) use self::kept::KeptBody;
pub(crate) use self::pace::Pace;
pub(crate) use self::request::{BodyLimits, RequestBody, Upload, UploadFailure};
pub(crate) use self::response::ResponseBody;
pub(crate) use self::trailers::{TrailerFault, TrailerLimits};

/// What ends a body early, as hyper wants it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

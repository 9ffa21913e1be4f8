//! `weir-gateway schema`: the JSON Schema of the configuration as typed, for editors.

use super::{Failure, output};
use crate::config::File;

pub(super) fn run() -> Result<(), Failure> {
    output::json(&schemars::schema_for!(File))
}

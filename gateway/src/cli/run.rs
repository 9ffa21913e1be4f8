//! `weir-gateway run`: serves until SIGTERM, then drains.

use std::path::Path;

use super::Failure;
use crate::{config, server};

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    server::run(config::load(path)?, path)?;
    Ok(())
}

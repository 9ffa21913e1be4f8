//! Keeps idle CPUs from sleeping where latency is measured.
//!
//! What a virtual machine takes to wake a sleeping CPU is the host's, varies from minute to minute
//! and is more than a proxy's own time. While `/dev/cpu_dma_latency` holds a zero, idle CPUs wait in
//! a loop instead (Documentation/power/pm_qos_interface.rst of the kernel).

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::report::complain;

const DEVICE: &str = "/dev/cpu_dma_latency";

/// CPUs stay awake while this lives; without the right to it they sleep, which is said.
pub(super) fn keep() -> Option<File> {
    let held = OpenOptions::new()
        .write(true)
        .open(DEVICE)
        .and_then(|mut file| {
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok(file)
        });
    match held {
        Ok(file) => Some(file),
        Err(error) => {
            complain(&format!(
                "idle CPUs sleep, latencies include their waking: {DEVICE}: {error}"
            ));
            None
        }
    }
}

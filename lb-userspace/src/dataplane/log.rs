//! What the kernel program logs (`aya-log`), handed to `tracing` under the target `weir::kernel`.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How much the kernel program says; the verifier removes what is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelLog {
    /// Nothing: no cost.
    Off,
    /// A line for each dropped packet. For debugging on quiet hosts only.
    Debug,
}

/// Takes the program's log ring.
pub(super) fn open(ebpf: &mut Ebpf) -> io::Result<AsyncFd<EbpfLogger<ToTracing>>> {
    let logger = EbpfLogger::init_with_logger(ebpf, ToTracing).map_err(io::Error::other)?;
    // SAFETY: the logger owns its ring's descriptor, and never closes or replaces it.
    let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Reads for as long as somebody polls.
pub(super) async fn forward(mut logger: AsyncFd<EbpfLogger<ToTracing>>) {
    while let Ok(mut guard) = logger.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}

/// Takes `log` records, which aya-log writes, into `tracing`.
pub(super) struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let (message, level) = (record.args(), record.level());
        match level {
            log::Level::Error => tracing::error!(target: "weir::kernel", "{message}"),
            log::Level::Warn => tracing::warn!(target: "weir::kernel", "{message}"),
            log::Level::Info => tracing::info!(target: "weir::kernel", "{message}"),
            _ => tracing::debug!(target: "weir::kernel", "{message}"),
        }
    }

    fn flush(&self) {}
}

//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, and which process
//! of several is the service. Without a manager that asks for it, nothing happens.

use sd_notify::NotifyState;

/// The process serves.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A new configuration is being loaded; [`ready`] follows, whatever comes of it.
pub(crate) fn reloading() {
    // `Type=notify-reload` wants to know when: its clock is CLOCK_MONOTONIC.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The process is about to end.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another process is the service from now on, and ready.
pub(crate) fn handed_over(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

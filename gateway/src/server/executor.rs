//! Runs hyper's tasks on the thread they belong to.

/// Spawns onto the current [`tokio::runtime::LocalRuntime`]: nothing of a connection ever moves to another
/// thread, so nothing of it needs to be `Send`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

//! Running blocking work beside the async threads.

use std::panic::resume_unwind;

/// Runs `work` on tokio's blocking pool.
///
/// # Cancellation
///
/// Dropping the future does not stop the work: it runs to its end and its result is lost.
pub async fn blocking<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failure) if failure.is_panic() => resume_unwind(failure.into_panic()),
        // Blocking work cannot be cancelled once it runs; before that, only by the runtime's end.
        Err(_) => std::future::pending().await,
    }
}

//! The time, so that tests can choose it.

use std::sync::Arc;
use std::time::SystemTime;

use rorqual_core::Timestamp;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// Returns the host's clock.
    pub fn system() -> Self {
        Self(Arc::new(|| SystemTime::now().into()))
    }

    /// Returns a clock that moves by one nanosecond whenever it is read, for tests.
    pub fn stepping() -> Self {
        let next = std::sync::atomic::AtomicU64::new(1);
        Self(Arc::new(move || {
            Timestamp::from_nanos(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        }))
    }

    /// Returns the present.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

//! What the daemon does when nobody asks it for anything: it gives back memory that it does not need for waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rorqual_sys::{fork, process};
use tokio::time::{MissedTickBehavior, interval};

/// The daemon rests when no request came for one to two of these.
const PERIOD: Duration = Duration::from_secs(10);

/// Counts requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Arc<AtomicU64>);

impl Requests {
    /// Counts one.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gives memory back each time that requests have ceased.
pub(crate) async fn rest(requests: Requests) {
    let mut times = Times::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if times.is_one(requests.so_far()) {
            fork::trim_heap();
            process::release_code();
        }
    }
}

/// Decides when to rest.
#[derive(Debug, Default)]
struct Times {
    seen: u64,
    rested: bool,
}

impl Times {
    /// Tells whether nothing came since the last call, and the daemon has not rested since something came.
    fn is_one(&mut self, so_far: u64) -> bool {
        let quiet = so_far == self.seen;
        let now = quiet && !self.rested;
        self.seen = so_far;
        self.rested = quiet;
        now
    }
}

#[cfg(test)]
mod tests;

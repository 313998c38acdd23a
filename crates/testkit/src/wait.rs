//! Waiting on observable state. The only place that lets time pass.

use std::time::{Duration, Instant};

use crate::TestResult;

/// How long a scenario waits before it calls something hung; generous, because CI machines stall.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks `probe` until it answers, or fails naming `what` once [`DEADLINE`] has passed.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> TestResult<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return Ok(answer);
        }
        if begun.elapsed() > DEADLINE {
            return Err(format!("{what}: not within {DEADLINE:?}").into());
        }
        // LIMIT: short against everything that is waited for here, long against the cost of a probe.
        std::thread::sleep(Duration::from_millis(10));
    }
}

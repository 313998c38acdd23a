//! Whether and when a container is started again: a pure verdict by Docker's rules.

use std::time::Duration;

use rorqual_shim::Exit;

use crate::phase::Desired;
use crate::spec::RestartPolicy;

// LIMIT: Docker's back-off: doubled from 100 ms up to a minute, forgotten after a run of ten seconds.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
const LONG_RUN: Duration = Duration::from_secs(10);

/// How long to wait before the next restart; `None` before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff(Option<Duration>);

/// What follows an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays down.
    Stay,
    /// It is started again after a pause.
    Restart(Duration),
}

/// Judges an exit after a run of `ran`; `restarts` counts the restarts so far. Advances `backoff` when it restarts.
pub(crate) fn verdict(
    policy: RestartPolicy,
    desired: Desired,
    exit: &Exit,
    restarts: u32,
    ran: Duration,
    backoff: &mut Backoff,
) -> Verdict {
    let wanted = desired == Desired::Running
        && match policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure(most) => exit.code != 0 && (most == 0 || restarts < most),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        };
    if !wanted {
        *backoff = Backoff::default();
        return Verdict::Stay;
    }
    let pause = match backoff.0 {
        Some(last) if ran < LONG_RUN => (last * 2).min(LONGEST),
        _ => FIRST,
    };
    backoff.0 = Some(pause);
    Verdict::Restart(pause)
}

/// Tells whether a container that does not run is started when the daemon starts.
pub(crate) const fn at_boot(policy: RestartPolicy, desired: Desired, failed: bool) -> bool {
    match (policy, desired) {
        (_, Desired::Removed) | (RestartPolicy::No, _) => false,
        // COMPAT: `always` comes back even when it had been stopped by hand.
        (RestartPolicy::Always, _) => true,
        (RestartPolicy::UnlessStopped, desired) => matches!(desired, Desired::Running),
        (RestartPolicy::OnFailure(_), desired) => failed && matches!(desired, Desired::Running),
    }
}

#[cfg(test)]
mod tests;

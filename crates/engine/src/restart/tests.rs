//! The restart verdict as a table.

use std::time::Duration;

use rorqual_core::Timestamp;
use rorqual_shim::Exit;

use super::{Backoff, Verdict, at_boot, verdict};
use crate::phase::Desired;
use crate::spec::RestartPolicy as P;

const SHORT: Duration = Duration::from_secs(1);

fn exit(code: i32) -> Exit {
    Exit { code, oom_killed: false, at: Timestamp::default(), witnessed: true }
}

#[test]
fn who_is_started_again() {
    let cases = [
        (P::No, Desired::Running, 1, 0, false),
        (P::OnFailure(0), Desired::Running, 0, 0, false),
        (P::OnFailure(0), Desired::Running, 1, 99, true),
        (P::OnFailure(3), Desired::Running, 1, 2, true),
        (P::OnFailure(3), Desired::Running, 1, 3, false),
        (P::Always, Desired::Running, 0, 0, true),
        (P::Always, Desired::Stopped, 0, 0, false),
        (P::UnlessStopped, Desired::Running, 0, 0, true),
        (P::UnlessStopped, Desired::Stopped, 137, 0, false),
        (P::Always, Desired::Removed, 0, 0, false),
    ];
    for (policy, desired, code, restarts, expected) in cases {
        let result =
            verdict(policy, desired, &exit(code), restarts, SHORT, &mut Backoff::default());
        assert_eq!(result != Verdict::Stay, expected, "{policy:?} {desired:?} {code} {restarts}");
    }
}

#[test]
fn the_pause_doubles_up_to_a_minute_and_a_long_run_forgets_it() {
    let mut backoff = Backoff::default();
    let mut pause = |ran| match verdict(P::Always, Desired::Running, &exit(0), 0, ran, &mut backoff)
    {
        Verdict::Restart(pause) => pause.as_millis(),
        Verdict::Stay => 0,
    };
    let pauses: Vec<_> = (0..12).map(|_| pause(SHORT)).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
    assert_eq!(pause(Duration::from_secs(10)), 100);
}

#[test]
fn who_comes_back_with_the_daemon() {
    let cases = [
        (P::No, Desired::Running, true, false),
        (P::Always, Desired::Stopped, false, true),
        (P::UnlessStopped, Desired::Stopped, false, false),
        (P::UnlessStopped, Desired::Running, false, true),
        (P::OnFailure(0), Desired::Running, true, true),
        (P::OnFailure(0), Desired::Running, false, false),
        (P::OnFailure(0), Desired::Stopped, true, false),
        (P::Always, Desired::Removed, false, false),
    ];
    for (policy, desired, failed, expected) in cases {
        assert_eq!(at_boot(policy, desired, failed), expected, "{policy:?} {desired:?} {failed}");
    }
}

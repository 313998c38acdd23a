//! Phases as Docker shows them.

use rorqual_core::Timestamp;
use rorqual_engine::{Desired, HealthStatus, HealthView, Phase, StateView};
use rorqual_shim::{Exit, TaskId};

use super::{state_document, status_words};

fn state(phase: Phase, health: Option<HealthStatus>) -> StateView {
    StateView {
        phase,
        desired: Desired::Running,
        pid: 0,
        exit_code: 0,
        error: String::new(),
        oom_killed: false,
        started_at: Some(Timestamp::from_nanos(1_000_000_000)),
        finished_at: Some(Timestamp::from_nanos(3_000_000_000)),
        health: health.map(|status| HealthView { status, ..HealthView::default() }),
    }
}

#[test]
fn words_and_flags() {
    let exit = Exit { code: 7, oom_killed: false, at: Timestamp::default(), witnessed: true };
    let now = Timestamp::from_nanos(5_000_000_000);
    for (phase, health, words, flags) in [
        (Phase::Created, None, "Created", ""),
        (Phase::Running(TaskId(1)), None, "Up 4 seconds", "running"),
        (
            Phase::Running(TaskId(1)),
            Some(HealthStatus::Healthy),
            "Up 4 seconds (healthy)",
            "running",
        ),
        (
            Phase::Running(TaskId(1)),
            Some(HealthStatus::Starting),
            "Up 4 seconds (health: starting)",
            "running",
        ),
        (Phase::Paused(TaskId(1)), None, "Up 4 seconds (Paused)", "running paused"),
        (Phase::Restarting(exit), None, "Restarting (7) 2 seconds ago", "running restarting"),
        (Phase::Exited(exit), None, "Exited (7) 2 seconds ago", ""),
        (Phase::Removing, None, "Removal In Progress", ""),
        (Phase::Dead { reason: String::new() }, None, "Dead", "dead"),
    ] {
        let state = state(phase, health);
        assert_eq!(status_words(&state, now), words);
        let document = state_document(&state);
        let shown = [
            (document.running, "running"),
            (document.paused, "paused"),
            (document.restarting, "restarting"),
            (document.dead, "dead"),
        ];
        let shown: Vec<_> =
            shown.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| *word).collect();
        assert_eq!(shown.join(" "), flags, "{words}");
    }
}

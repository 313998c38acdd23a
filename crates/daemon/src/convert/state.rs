//! Docker's overlapping flags and words, computed from a container's phase.

use rorqual_api::container::{Health, HealthResult, State};
use rorqual_core::Timestamp;
use rorqual_core::units::human_duration;
use rorqual_engine::{HealthProbe, HealthView, Phase, StateView};

use crate::convert::time;

/// Writes `State`.
pub(crate) fn state_document(state: &StateView) -> State {
    let StateView {
        phase,
        desired: _, // What the user wants is not shown.
        pid,
        exit_code,
        error,
        oom_killed,
        started_at,
        finished_at,
        health,
    } = state;
    State {
        status: phase.word().to_owned(),
        // COMPAT: a paused or restarting container also "runs".
        running: matches!(phase, Phase::Running(_) | Phase::Paused(_) | Phase::Restarting(_)),
        paused: matches!(phase, Phase::Paused(_)),
        restarting: matches!(phase, Phase::Restarting(_)),
        oom_killed: *oom_killed,
        dead: matches!(phase, Phase::Dead { .. }),
        pid: i64::from(*pid),
        exit_code: i64::from(*exit_code),
        error: error.clone(),
        started_at: time(*started_at),
        finished_at: time(*finished_at),
        health: health.as_ref().map(health_document),
    }
}

fn health_document(health: &HealthView) -> Health {
    let HealthView { status, failing_streak, log } = health;
    let probe = |HealthProbe { start, end, exit_code, output }: &HealthProbe| HealthResult {
        start: start.to_string(),
        end: end.to_string(),
        exit_code: i64::from(*exit_code),
        output: output.clone(),
    };
    Health {
        status: status.word().to_owned(),
        failing_streak: i64::from(*failing_streak),
        log: Some(log.iter().map(probe).collect()),
    }
}

/// Writes the status words of `ps`: `Up 2 hours (healthy)`.
pub(crate) fn status_words(state: &StateView, now: Timestamp) -> String {
    let since = |at: Option<Timestamp>| human_duration(now.since(at.unwrap_or(now)));
    match &state.phase {
        Phase::Paused(_) => format!("Up {} (Paused)", since(state.started_at)),
        Phase::Running(_) => {
            let up = format!("Up {}", since(state.started_at));
            match state.health.as_ref().map(|health| health.status.word()) {
                None => up,
                Some("starting") => format!("{up} (health: starting)"),
                Some(word) => format!("{up} ({word})"),
            }
        }
        Phase::Restarting(exit) => {
            format!("Restarting ({}) {} ago", exit.code, since(state.finished_at))
        }
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead { .. } => "Dead".to_owned(),
        Phase::Created => "Created".to_owned(),
        Phase::Exited(exit) => format!("Exited ({}) {} ago", exit.code, since(state.finished_at)),
    }
}

#[cfg(test)]
mod tests;

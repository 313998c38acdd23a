//! `wait`: registered at once, answered when the condition holds. Level-triggered, so no wake-up is lost.

use std::sync::Arc;

use crate::container::Container;
use crate::phase::Phase;
use crate::records::State;
use crate::request::{WaitCondition, WaitOutcome};

/// A registered wait.
pub struct Waiting {
    container: Arc<Container>,
    condition: WaitCondition,
    exits: u64,
}

impl Waiting {
    pub(super) fn begin(container: Arc<Container>, condition: WaitCondition) -> Self {
        let exits = container.state().exits;
        Self { container, condition, exits }
    }

    fn holds(&self, state: &State) -> bool {
        let ended = matches!(state.phase, Phase::Dead { .. }) || state.gone;
        match self.condition {
            WaitCondition::NotRunning => {
                ended || matches!(state.phase, Phase::Created | Phase::Exited(_) | Phase::Removing)
            }
            WaitCondition::NextExit => ended || state.exits > self.exits,
            WaitCondition::Removed => ended,
        }
    }

    /// Waits for the condition.
    ///
    /// # Cancellation
    ///
    /// Dropping the future only ends the wait.
    pub async fn outcome(self) -> WaitOutcome {
        let mut states = self.container.subscribe();
        let state = match states.wait_for(|state| self.holds(state)).await {
            Ok(state) => state.clone(),
            // The sender is in the container that `self` keeps.
            Err(_) => self.container.state(),
        };
        let error = match &state.phase {
            Phase::Dead { reason } => Some(reason.clone()),
            // COMPAT: why a removed container never ran is told by its start alone.
            _ if self.condition == WaitCondition::Removed => None,
            _ if !state.error.is_empty() => Some(state.error.clone()),
            _ => None,
        };
        WaitOutcome { exit_code: state.exit_code, error }
    }
}

//! The life of a container: one enum with data, one total function.
//!
//! ```text
//! created    --started--> running             paused     --thawed--> running
//! created    --removal began--> removing      paused     --ended--> exited
//! running    --frozen--> paused               paused     --ended, restart--> restarting
//! running    --ended--> exited                restarting --started--> running
//! running    --ended, restart--> restarting   restarting --restart called off--> exited
//! exited     --started--> running             removing   --removal failed--> dead
//! exited     --removal began--> removing      dead       --removal began--> removing
//! ```
//!
//! Docker's overlapping flags are computed at the edge, never stored.

use rorqual_shim::{Exit, TaskId};
use serde::{Deserialize, Serialize};

/// Where a container stands. Each phase carries exactly the data that is true in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Made, never started.
    Created,
    /// Its task runs.
    Running(TaskId),
    /// Its task is frozen.
    Paused(TaskId),
    /// Its task ended and the restart policy will start it again.
    Restarting(Exit),
    /// Its task ended for good.
    Exited(Exit),
    /// It is being taken apart.
    Removing,
    /// Taking it apart failed; only another removal is allowed.
    Dead {
        /// Why the removal failed.
        reason: String,
    },
}

/// What the user asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It shall run.
    Running,
    /// It shall not run.
    Stopped,
    /// It shall be gone.
    Removed,
}

/// What can happen to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A task runs.
    Started(TaskId),
    /// Its task was frozen.
    Frozen,
    /// Its task was thawed.
    Thawed,
    /// A task ended.
    TaskEnded {
        /// Which.
        task: TaskId,
        /// How.
        exit: Exit,
        /// Whether the restart policy will start it again.
        restart: bool,
    },
    /// The pending restart was called off.
    RestartCalledOff,
    /// It is being taken apart.
    RemovalBegan,
    /// It could not be taken apart.
    RemovalFailed {
        /// Why.
        reason: String,
    },
}

/// A happening that cannot happen in this phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot apply {happening:?} to a container that is {}", phase.word())]
pub struct IllegalTransition {
    /// Where the container stands.
    pub phase: Phase,
    /// What should have happened.
    pub happening: Happening,
}

impl Phase {
    /// Returns the phase that follows once `happening` has happened.
    ///
    /// Pure: effects belong to the caller, before the call for causes and after it for consequences.
    pub fn after(self, happening: Happening) -> Result<Self, IllegalTransition> {
        use Happening as H;

        let next = match (self, happening) {
            (Self::Created | Self::Restarting(_) | Self::Exited(_), H::Started(task)) => {
                Self::Running(task)
            }
            (Self::Running(task), H::Frozen) => Self::Paused(task),
            (Self::Paused(task), H::Thawed) => Self::Running(task),
            // A late report about an earlier task must not end the present one.
            (Self::Running(now) | Self::Paused(now), H::TaskEnded { task, exit, restart })
                if task == now =>
            {
                if restart {
                    Self::Restarting(exit)
                } else {
                    Self::Exited(exit)
                }
            }
            (Self::Restarting(exit), H::RestartCalledOff) => Self::Exited(exit),
            (Self::Created | Self::Exited(_) | Self::Dead { .. }, H::RemovalBegan) => {
                Self::Removing
            }
            (Self::Removing, H::RemovalFailed { reason }) => Self::Dead { reason },
            (phase, happening) => return Err(IllegalTransition { phase, happening }),
        };
        Ok(next)
    }

    /// Returns Docker's one-word status.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing => "removing",
            Self::Dead { .. } => "dead",
        }
    }

    /// Returns the task that runs or is frozen.
    pub const fn task(&self) -> Option<TaskId> {
        match self {
            Self::Running(task) | Self::Paused(task) => Some(*task),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

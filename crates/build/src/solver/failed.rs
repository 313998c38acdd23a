//! A step whose program failed, kept as it was, so that somebody can look around in it. What it holds (its files, mounts,
//! secrets, locked caches) goes when it does; nothing of it reaches a cache or an image.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::contract::{Step, StepExit, StepRunner, Terminal};

/// Shells that are entered when the step's own program was run by one of them.
const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "zsh", "ksh"];

/// A step that failed.
pub struct FailedStep {
    runner: Arc<dyn StepRunner>,
    name: String,
    step: Step,
    /// Keeps the snapshots, layers and mounts that the step names.
    _kept: Box<dyn Any + Send + Sync>,
}

impl FailedStep {
    pub(crate) fn new(
        runner: Arc<dyn StepRunner>,
        name: String,
        step: Step,
        kept: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self { runner, name, step, _kept: kept }
    }

    /// Returns the label of the step.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a shell where the program ran, with its mounts, variables, directory and user, on what it left behind.
    ///
    /// # Cancellation
    ///
    /// As [`StepRunner::run`].
    pub async fn shell(
        &self,
        terminal: Terminal,
        cancel: CancellationToken,
    ) -> Result<StepExit, Error> {
        let args = vec![shell_of(&self.step.args).to_owned()];
        let mut env = self.step.env.clone();
        if !env.iter().any(|pair| pair.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        let step = Step { args, env, ..self.step.clone() };
        self.runner.run_on_terminal(step, terminal, cancel).await
    }
}

/// Returns the shell that a step's command was given to, or the usual one.
fn shell_of(args: &[String]) -> &str {
    let own = args.first().filter(|program| {
        let name = program.rsplit('/').next().unwrap_or_default();
        args.len() > 1 && SHELLS.contains(&name)
    });
    own.map_or("/bin/sh", String::as_str)
}

/// Where a build that wants it finds the first of its steps that failed.
#[derive(Default)]
pub struct FailedSlot(Mutex<Option<FailedStep>>);

impl FailedSlot {
    /// Takes a step, unless there is one already; returns what was not taken.
    pub(crate) fn offer(&self, step: FailedStep) -> Option<FailedStep> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Some(step);
        }
        *slot = Some(step);
        None
    }

    /// Takes the step out.
    pub fn take(&self) -> Option<FailedStep> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests;

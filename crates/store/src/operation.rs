//! Operations over several resources: each step notes its undo before it acts; success forgets them, failure,
//! cancellation and a restart of the daemon take them back.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::journal::{Journal, OperationId, Unfinished};

/// Takes steps back.
#[async_trait]
pub trait Undoer: Send + Sync + 'static {
    /// A step to take back, as data. It names its owner, so that the loser of a conflict cannot free what the winner has.
    type Undo: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static;

    /// Takes a step back; doing so twice, or for a step that never happened, is fine. Handles its own failures.
    async fn undo(&self, undo: Self::Undo);
}

/// Begins operations and waits for their ends.
pub struct Operations<U: Undoer> {
    undoer: Arc<U>,
    journal: Arc<Journal>,
    tasks: TaskTracker,
}

impl<U: Undoer> Clone for Operations<U> {
    fn clone(&self) -> Self {
        Self {
            undoer: Arc::clone(&self.undoer),
            journal: Arc::clone(&self.journal),
            tasks: self.tasks.clone(),
        }
    }
}

impl<U: Undoer> fmt::Debug for Operations<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl<U: Undoer> Operations<U> {
    /// Makes operations whose undos are noted in `journal` and taken back by `undoer`.
    pub fn new(undoer: Arc<U>, journal: Arc<Journal>) -> Self {
        Self { undoer, journal, tasks: TaskTracker::new() }
    }

    /// Begins an operation.
    pub fn begin(&self, name: &'static str) -> Operation<U> {
        let id = self.journal.begin();
        Operation { name, id, pending: Vec::new(), context: self.clone() }
    }

    /// Takes back what an earlier life of the daemon left unfinished, the youngest step first.
    pub async fn replay(&self, unfinished: Vec<Unfinished>) -> Result<(), Error> {
        for Unfinished { id, undos } in unfinished.into_iter().rev() {
            for undo in undos.into_iter().rev() {
                match serde_json::from_value(undo) {
                    Ok(undo) => self.undoer.undo(undo).await,
                    Err(error) => tracing::warn!(%error, "unreadable undo in the journal, skipped"),
                }
                self.journal.undone(id)?;
            }
            self.journal.end(id)?;
        }
        Ok(())
    }

    /// Waits until every abandoned operation has been taken back.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

/// An operation under way. End it with [`Operation::settle`]; dropping it takes it back in the background.
pub struct Operation<U: Undoer> {
    name: &'static str,
    id: OperationId,
    pending: Vec<U::Undo>,
    context: Operations<U>,
}

impl<U: Undoer> fmt::Debug for Operation<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("name", &self.name)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl<U: Undoer> Operation<U> {
    /// Notes `undo` before the step that makes it necessary is tried.
    pub fn will_need(&mut self, undo: U::Undo) -> Result<(), Error> {
        self.context.journal.note(self.id, &undo)?;
        self.pending.push(undo);
        Ok(())
    }

    /// Ends the operation: keeps its effects on success, takes them back on failure.
    ///
    /// The way back is finished when this returns, so a caller that retries meets a clean host.
    pub async fn settle<T, E>(mut self, result: Result<T, E>) -> Result<T, E> {
        if result.is_ok() {
            self.keep();
            return result;
        }
        // An entry leaves the list only once it is taken back: if this future is dropped half-way, `Drop` goes on.
        while let Some(undo) = self.pending.last() {
            self.context.undoer.undo(undo.clone()).await;
            self.pending.pop();
            report(self.context.journal.undone(self.id));
        }
        report(self.context.journal.end(self.id));
        result
    }

    /// Ends the operation with its effects kept; for use at the commit point.
    pub fn keep(&mut self) {
        self.pending.clear();
        report(self.context.journal.end(self.id));
    }
}

/// A journal that cannot be written is no reason to fail what has been done: the undos are harmless when they come again.
fn report(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(error = rorqual_core::full_message(&error), "cannot write the journal");
    }
}

impl<U: Undoer> Drop for Operation<U> {
    fn drop(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        tracing::warn!(operation = self.name, "abandoned, rolling back");
        let (context, id) = (self.context.clone(), self.id);
        let tasks = context.tasks.clone();
        let back = async move {
            for undo in pending.into_iter().rev() {
                context.undoer.undo(undo).await;
                report(context.journal.undone(id));
            }
            report(context.journal.end(id));
        };
        // Without a runtime the process is about to end: the journal has the undos.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            tasks.spawn_on(back, &runtime);
        }
    }
}

#[cfg(test)]
mod tests;

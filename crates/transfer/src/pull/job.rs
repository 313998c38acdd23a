//! Layers under way, shared by all pulls that want them. The work ends with the last who does.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rorqual_core::{Classify, DiffId, Digest, ErrorKind, full_message};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use crate::Error;

/// What is being fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) blob: Digest,
    pub(super) diff: DiffId,
}

/// How far a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Begun,
    /// Others come first.
    Waiting,
    /// Bytes that arrived; they are unpacked as they come.
    Downloading(u64),
    /// All bytes are here and verified; the rest of them is being unpacked.
    Downloaded,
    Complete,
    Failed(Shared),
}

/// A failure that several pulls are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    kind: ErrorKind,
    message: String,
}

impl Shared {
    pub(super) fn to_error(&self) -> Error {
        Error::Registry { kind: self.kind, message: self.message.clone() }
    }
}

/// A layer under way; dropping the last handle ends it.
pub(super) struct Job {
    stage: watch::Receiver<Stage>,
    task: AbortHandle,
}

impl Job {
    pub(super) fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.clone()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All layers under way; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Jobs {
    table: Arc<Mutex<HashMap<Key, Weak<Job>>>>,
    slots: Arc<Mutex<Slots>>,
}

/// Turns, and how many there are.
#[derive(Default)]
struct Slots {
    count: usize,
    turns: Option<Arc<Semaphore>>,
}

impl Jobs {
    /// Returns the turns that layers of all pulls wait for.
    pub(super) fn slots(&self, count: usize) -> Arc<Semaphore> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.count != count {
            *slots = Slots { count, turns: None };
        }
        Arc::clone(slots.turns.get_or_insert_with(|| Arc::new(Semaphore::new(count.max(1)))))
    }

    /// Joins the work on a layer, or begins it.
    pub(super) fn join<F>(
        &self,
        key: Key,
        work: impl FnOnce(Arc<watch::Sender<Stage>>) -> F,
    ) -> Arc<Job>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, job| job.strong_count() > 0);
        if let Some(job) = table.get(&key).and_then(Weak::upgrade)
            && !matches!(*job.stage.borrow(), Stage::Failed(_))
        {
            return job;
        }
        let (sender, stage) = watch::channel(Stage::Begun);
        let sender = Arc::new(sender);
        let work = work(Arc::clone(&sender));
        let task = tokio::spawn(async move {
            let last = match work.await {
                Ok(()) => Stage::Complete,
                Err(error) => {
                    Stage::Failed(Shared { kind: error.kind(), message: full_message(&error) })
                }
            };
            sender.send_replace(last);
        });
        let job = Arc::new(Job { stage, task: task.abort_handle() });
        table.insert(key, Arc::downgrade(&job));
        job
    }
}

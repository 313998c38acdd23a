//! Records of builds that are over or going on, for clients that list them. They live as long as the daemon does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::progress::ProgressLog;
use crate::wire::control::{BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord};

/// LIMIT: records that are kept; pinned ones are the last to go. BuildKit keeps fifty.
const MOST_RECORDS: usize = 50;
/// LIMIT: events that a slow listener may lag behind.
const LAG: usize = 256;

/// LIMIT: builds whose output is kept, of at most some mebibytes each.
const MOST_LOGS: usize = 10;

struct Kept {
    record: BuildHistoryRecord,
    log: Option<Arc<ProgressLog>>,
}

/// All records.
pub(crate) struct History {
    kept: Mutex<VecDeque<Kept>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), events: broadcast::channel(LAG).0 }
    }

    /// Notes that a build begins.
    pub(crate) fn begin(&self, record: BuildHistoryRecord, log: Arc<ProgressLog>) {
        let event = event(BuildHistoryEventType::Started, record.clone());
        let mut kept = self.lock();
        kept.retain(|kept| kept.record.r#ref != record.r#ref);
        kept.push_back(Kept { record, log: Some(log) });
        for old in kept.iter_mut().rev().skip(MOST_LOGS) {
            if old.record.completed_at.is_some() {
                old.log = None;
            }
        }
        while kept.len() > MOST_RECORDS {
            let over = |kept: &Kept| !kept.record.pinned && kept.record.completed_at.is_some();
            let position = kept.iter().position(over).unwrap_or(0);
            kept.remove(position);
        }
        drop(kept);
        self.events.send(event).ok();
    }

    /// Changes a record and tells about it; false when there is none.
    pub(crate) fn update(
        &self,
        id: &str,
        kind: BuildHistoryEventType,
        change: impl FnOnce(&mut BuildHistoryRecord),
    ) -> bool {
        let record = {
            let mut kept = self.lock();
            let Some(found) = kept.iter_mut().find(|kept| kept.record.r#ref == id) else {
                return false;
            };
            change(&mut found.record);
            found.record.generation += 1;
            found.record.clone()
        };
        self.events.send(event(kind, record)).ok();
        true
    }

    /// Removes a record; false when there is none.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let removed = {
            let mut kept = self.lock();
            let position = kept.iter().position(|kept| kept.record.r#ref == id);
            position.and_then(|position| kept.remove(position))
        };
        let Some(removed) = removed else { return false };
        self.events.send(event(BuildHistoryEventType::Deleted, removed.record)).ok();
        true
    }

    /// The log of a build that may be over.
    pub(crate) fn log(&self, id: &str) -> Option<Arc<ProgressLog>> {
        let kept = self.lock();
        kept.iter().find(|kept| kept.record.r#ref == id)?.log.clone()
    }

    /// What is there now, as events, and those that will come.
    pub(crate) fn listen(
        &self,
        id: &str,
        active_only: bool,
    ) -> (Vec<BuildHistoryEvent>, broadcast::Receiver<BuildHistoryEvent>) {
        let kept = self.lock();
        let receiver = self.events.subscribe();
        let wanted = kept.iter().map(|kept| &kept.record).filter(|record| {
            (id.is_empty() || record.r#ref == id) && (!active_only || record.completed_at.is_none())
        });
        let events = wanted.map(|record| {
            let kind = match record.completed_at {
                Some(_) => BuildHistoryEventType::Complete,
                None => BuildHistoryEventType::Started,
            };
            event(kind, record.clone())
        });
        (events.collect(), receiver)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind as i32, record: Some(record) }
}

#[cfg(test)]
mod tests;

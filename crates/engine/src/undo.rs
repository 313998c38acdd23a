//! The steps that the engine's operations may have to take back.

use std::sync::Arc;

use async_trait::async_trait;
use rorqual_core::{ContainerId, ContainerName, VolumeName, full_message};
use rorqual_shim::{Adoption, KillReach, TaskId};
use rorqual_store::{Durability, Undoer};
use serde::{Deserialize, Serialize};

use crate::index::Index;
use crate::options::Parts;
use crate::phase::{Happening, Phase};
use crate::records::{ContainerRecord, StateRecord};
use crate::volumes::VolumeTable;

/// A step to take back. Each names its owner, so that nothing of somebody else's is touched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Undo {
    /// Free a name, if `owner` has it.
    ReleaseName { name: ContainerName, owner: ContainerId },
    /// Give a volume up, and remove it when it was made for `owner`.
    ReleaseVolume { name: VolumeName, owner: ContainerId, made: bool },
    /// Remove an anonymous volume if its `owner` is gone: the rest of a removal, not its reverse.
    DropVolume { name: VolumeName, owner: ContainerId },
    /// Unmount a volume for a container.
    UnmountVolume { name: VolumeName, user: ContainerId },
    /// Remove a volume in the making.
    Unstage(String),
    /// Let a container go on that was frozen for a while.
    Thaw(ContainerId),
    /// Remove a container's directory.
    RemoveSnapshot(ContainerId),
    /// Remove a container's records.
    RemoveRecords(ContainerId),
    /// Take a container's network back.
    Detach(ContainerId),
    /// End a container's run.
    EndTask(ContainerId, TaskId),
}

/// Takes steps back.
pub(crate) struct Undoing {
    pub(crate) parts: Parts,
    pub(crate) index: Arc<Index>,
    pub(crate) volumes: Arc<VolumeTable>,
}

#[async_trait]
impl Undoer for Undoing {
    type Undo = Undo;

    async fn undo(&self, undo: Undo) {
        let words = format!("{undo:?}");
        let failure = match undo {
            Undo::ReleaseName { name, owner } => {
                self.index.release_name(&name, owner);
                None
            }
            Undo::ReleaseVolume { name, owner, made } => {
                self.index.release_volume(owner, &name);
                if made && self.index.users_of_volume(&name).is_empty() {
                    self.volumes.discard_known(&name).await.err().map(|error| full_message(&error))
                } else {
                    None
                }
            }
            Undo::DropVolume { name, owner } => {
                let gone = self.index.find(&owner.to_string()).is_err();
                if gone && self.index.users_of_volume(&name).is_empty() {
                    self.volumes.discard_known(&name).await.err().map(|error| full_message(&error))
                } else {
                    None
                }
            }
            Undo::UnmountVolume { name, user } => {
                self.volumes.unmount(&name, user).await.err().map(|error| full_message(&error))
            }
            Undo::Unstage(token) => {
                self.volumes.drivers.local().unstage(&token).await;
                None
            }
            Undo::Thaw(id) => self.thaw(id).await,
            Undo::RemoveSnapshot(id) => {
                self.parts.snapshots.remove(&id).await.err().map(|error| full_message(&error))
            }
            Undo::RemoveRecords(id) => self.remove_records(id).await,
            Undo::Detach(id) => {
                self.parts.networks.detach(&id).await.err().map(|error| full_message(&error))
            }
            Undo::EndTask(id, task) => self.end_task(id, task).await,
        };
        if let Some(failure) = failure {
            tracing::warn!(undo = words, error = failure, "cannot take a step back");
        }
    }
}

impl Undoing {
    /// Lets a container go on, with its task of this life or that which an earlier daemon left.
    async fn thaw(&self, id: ContainerId) -> Option<String> {
        let container = self.index.find(&id.to_string()).ok()?;
        if !matches!(container.phase(), Phase::Paused(_)) {
            return None;
        }
        let task = match container.task() {
            Some(task) => task,
            None => match self.parts.tasks.adopt(id).await {
                Ok(Adoption::Running(task)) => task,
                Ok(_) => return None,
                Err(error) => return Some(full_message(&error)),
            },
        };
        if let Err(error) = task.unpause().await {
            return Some(full_message(&error));
        }
        container.apply(Happening::Thawed, |_| {}).ok();
        container.persist(&self.parts.database).await.err().map(|error| full_message(&error))
    }

    async fn remove_records(&self, id: ContainerId) -> Option<String> {
        self.index.remove(&id);
        let result = self.parts.database.write(Durability::Normal, move |records| {
            records.remove::<ContainerRecord>(&id.to_string())?;
            records.remove::<StateRecord>(&id.to_string())
        });
        result.await.err().map(|error| full_message(&error))
    }

    async fn end_task(&self, id: ContainerId, task: TaskId) -> Option<String> {
        match self.parts.tasks.adopt(id).await {
            Ok(Adoption::Running(running)) if running.id() == task => {
                running.signal(rorqual_core::Signal::KILL, KillReach::All).await.ok();
                running.exit().await;
                running.release().await.err().map(|error| full_message(&error))
            }
            Ok(Adoption::Ended(ended, _)) if ended == task => {
                self.parts.tasks.forget(id).await.err().map(|error| full_message(&error))
            }
            Ok(_) => None,
            Err(error) => Some(full_message(&error)),
        }
    }
}

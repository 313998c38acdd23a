//! What all services of the engine share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rorqual_core::capability::Capabilities;
use rorqual_core::{ContainerId, ExecId};
use rorqual_store::{KeyedLocks, Operations};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::{EventKind, Events};
use crate::execs::ExecCell;
use crate::index::Index;
use crate::labels::Levels;
use crate::ocispec::HostFacts;
use crate::options::{Options, Parts};
use crate::seccomp::Profiles;
use crate::undo::Undoing;
use crate::volumes::VolumeTable;

/// Shared state.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) parts: Parts,
    pub(crate) facts: HostFacts,
    pub(crate) capabilities: Capabilities,
    pub(crate) profiles: Profiles,
    pub(crate) events: Events,
    pub(crate) index: Arc<Index>,
    pub(crate) volumes: Arc<VolumeTable>,
    pub(crate) levels: Levels,
    /// The operation lock of each container.
    pub(crate) locks: KeyedLocks<ContainerId>,
    pub(crate) operations: Operations<Undoing>,
    pub(crate) execs: Mutex<HashMap<ExecId, Arc<ExecCell>>>,
    /// Everything that runs in the background.
    pub(crate) tracker: TaskTracker,
    pub(crate) closing: CancellationToken,
    pub(crate) pruning: tokio::sync::Mutex<()>,
    /// Read while content is brought that no record refers to yet; written while content is collected.
    pub(crate) content: tokio::sync::RwLock<()>,
}

// LIMIT: what takes longer hangs; starting and attaching take milliseconds, and under the heaviest load seconds.
const HANGS: Duration = Duration::from_secs(60);

/// Waits for a part of ours, but not for ever. What it was doing is cancelled when the time is over.
pub(crate) async fn in_time<T, E>(
    action: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T>
where
    Error: From<E>,
{
    match tokio::time::timeout(HANGS, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Unavailable(format!(
            "cannot {action}: not done within {} seconds; try again, and look at the load of this machine",
            HANGS.as_secs()
        ))),
    }
}

impl World {
    /// Runs an operation to its end, also when the caller goes away; a panic fails it, not the daemon.
    pub(crate) async fn to_its_end<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        if self.closing.is_cancelled() {
            return Err(Error::Unavailable("the daemon is shutting down".to_owned()));
        }
        self.tracker.spawn(work).await.unwrap_or_else(|failure| {
            tracing::error!(error = %failure, "an operation panicked");
            Err(Error::Internal("internal error: the operation panicked".to_owned()))
        })
    }

    /// Draws 256 random bits.
    pub(crate) fn random_bits() -> Result<[u8; 32]> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(bits)
    }

    /// Tells everybody about a container: Docker's common attributes and `more`.
    pub(crate) fn container_event<const N: usize>(
        &self,
        container: &Container,
        action: impl Into<String>,
        more: [(&str, String); N],
    ) {
        let definition = container.definition();
        let mut attributes: BTreeMap<String, String> = definition.spec.labels.clone();
        attributes.insert("name".to_owned(), definition.name.to_string());
        attributes.insert("image".to_owned(), definition.spec.image.clone());
        attributes.extend(more.map(|(key, value)| (key.to_owned(), value)));
        self.events.emit(EventKind::Container, action, container.id.to_string(), attributes);
    }

    /// Tells everybody about something else.
    pub(crate) fn event<const N: usize>(
        &self,
        kind: EventKind,
        action: &str,
        actor: &str,
        attributes: [(&str, String); N],
    ) {
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
        self.events.emit(kind, action, actor, BTreeMap::from(attributes));
    }
}

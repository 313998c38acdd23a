//! Containers: what users ask of them.

use std::sync::Arc;

use rorqual_core::{ContainerName, ImageId};
use rorqual_shim::{ProcessTable, WindowSize};
use rorqual_snapshot::{Archive, ArchiveStat, Change, Extract, LayerBlob};

use crate::error::{Error, Result};
use crate::logs::{LogRequest, LogView};
use crate::request::*;
use crate::spec::ContainerSpec;
use crate::view::ContainerView;
use crate::world::World;
use rorqual_core::{Filters, Signal};

/// The containers of one daemon. Containers are named by name, id or unambiguous id prefix.
#[derive(Clone)]
pub struct Containers {
    pub(crate) world: Arc<World>,
}

impl Containers {
    /// Creates a container; all of it exists afterwards or none of it.
    pub async fn create(&self, spec: ContainerSpec) -> Result<Created> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Starts a container; its program runs when this returns.
    pub async fn start(&self, container: &str) -> Result<Changed> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Stops a container: signal, patience, kill.
    pub async fn stop(&self, container: &str, request: StopRequest) -> Result<Changed> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Stops and starts a container, or starts a stopped one.
    pub async fn restart(&self, container: &str, request: StopRequest) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Sends a signal; `None` kills.
    pub async fn kill(&self, container: &str, signal: Option<Signal>) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Freezes a container.
    pub async fn pause(&self, container: &str) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Thaws a container.
    pub async fn unpause(&self, container: &str) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Begins to wait; the container is known and the wait registered when this returns.
    pub async fn wait(&self, container: &str, condition: WaitCondition) -> Result<Waiting> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Gives a container another name.
    pub async fn rename(&self, container: &str, name: ContainerName) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Changes limits and restart policy; returns warnings.
    pub async fn update(&self, container: &str, request: UpdateRequest) -> Result<Vec<String>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Removes a container.
    pub async fn remove(&self, container: &str, request: RemoveRequest) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Removes all stopped containers that pass the filters (`until`, `label`, `label!`).
    pub async fn prune(&self, filters: Filters) -> Result<Pruned> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Shows a container.
    pub async fn inspect(&self, container: &str, with_size: bool) -> Result<ContainerView> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Lists containers, newest first.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<ContainerView>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Lists a container's processes.
    pub async fn top(&self, container: &str, ps_args: &str) -> Result<ProcessTable> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Reads usage counters; call it once per second for a stream.
    pub async fn stats(&self, container: &str) -> Result<StatsSample> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Opens a container's log.
    pub async fn logs(&self, container: &str, request: LogRequest) -> Result<LogView> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Attaches a client; before the start it is connected when the container starts.
    pub async fn attach(&self, container: &str, request: AttachRequest) -> Result<Attached> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Notes that a client left with the detach keys.
    pub async fn note_detach(&self, container: &str) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Tells the terminal its size.
    pub async fn resize(&self, container: &str, window: WindowSize) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Describes a path inside.
    pub async fn stat_path(&self, container: &str, path: &str) -> Result<ArchiveStat> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Opens a tar of a path inside.
    pub async fn archive(&self, container: &str, path: &str) -> Result<(ArchiveStat, Archive)> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Extracts a tar into a directory inside; `how.read_only` is decided here.
    pub async fn extract(
        &self,
        container: &str,
        path: &str,
        archive: LayerBlob,
        how: Extract,
    ) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Opens a tar of the whole file system.
    pub async fn export(&self, container: &str) -> Result<Archive> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Lists what the container changed.
    pub async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Makes an image of a container.
    pub async fn commit(&self, container: &str, request: CommitRequest) -> Result<ImageId> {
        Err(Error::Unavailable("to be written".to_owned()))
    }
}

/// A registered wait.
#[derive(Debug)]
pub struct Waiting {}

impl Waiting {
    /// Waits for the condition.
    pub async fn outcome(self) -> WaitOutcome {
        std::future::pending().await
    }
}

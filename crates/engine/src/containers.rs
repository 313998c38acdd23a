//! Containers: what users ask of them.
//!
//! Each method finds the container, takes its operation lock where it changes something, and hands over to the module of
//! its verb. Changes run to their end even when the caller goes away.

mod attach;
mod create;
mod files;
mod links;
mod list;
mod mounts;
mod remove;
pub(crate) mod run;
mod start;
mod stats;
mod stop;
mod update;
mod wait;

use std::sync::Arc;

use rorqual_core::{ContainerId, ContainerName, Filters, ImageId, Signal};
use rorqual_shim::{ProcessTable, WindowSize};
use rorqual_snapshot::{Archive, ArchiveStat, Change, Extract, LayerBlob};
use rorqual_store::KeyGuard;

use crate::container::Container;
use crate::error::{Error, Result};
use crate::logs::{LogRequest, LogView};
use crate::request::{
    AttachRequest, Attached, Changed, CommitRequest, Created, ListRequest, Pruned, RemoveRequest,
    StatsSample, StopRequest, UpdateRequest, WaitCondition,
};
use crate::spec::ContainerSpec;
use crate::view::ContainerView;
use crate::world::World;

pub(crate) use attach::connection;
pub(crate) use create::platform;
pub(crate) use list::name_matches;
pub(crate) use remove::{finish_removal, until};
pub(crate) use start::{ensure_profile, given, launch_again};
pub use wait::Waiting;

/// The containers of one daemon. Containers are named by name, id or unambiguous id prefix.
#[derive(Clone)]
pub struct Containers {
    pub(crate) world: Arc<World>,
}

#[expect(
    clippy::unused_async,
    reason = "callers await every method alike, whether it waits today or not"
)]
impl Containers {
    fn find(&self, text: &str) -> Result<Arc<Container>> {
        self.world.index.find(text)
    }

    fn owned(&self, text: &str) -> Result<(Arc<Container>, Arc<World>, String)> {
        Ok((self.find(text)?, Arc::clone(&self.world), text.to_owned()))
    }

    /// Runs `work` with the container's operation lock held, to its end.
    pub(crate) async fn locked<T, W, F>(&self, text: &str, work: W) -> Result<T>
    where
        W: FnOnce(Arc<World>, Arc<Container>) -> F + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let container = self.find(text)?;
        let (world, text) = (Arc::clone(&self.world), text.to_owned());
        let operation = async move {
            let _turn = turn(&world, &container, &text).await?;
            work(Arc::clone(&world), container).await
        };
        self.world.to_its_end(operation).await
    }

    /// Creates a container; all of it exists afterwards or none of it.
    pub async fn create(&self, spec: ContainerSpec) -> Result<Created> {
        self.world.to_its_end(create::create(Arc::clone(&self.world), spec)).await
    }

    /// Starts a container; its program runs when this returns.
    pub async fn start(&self, container: &str) -> Result<Changed> {
        let work = async move |world, container| start::start(&world, &container).await;
        self.locked(container, work).await
    }

    /// Stops a container: signal, patience, kill.
    pub async fn stop(&self, container: &str, request: StopRequest) -> Result<Changed> {
        let (found, world, text) = self.owned(container)?;
        let operation = async move {
            let asked = {
                let _turn = turn(&world, &found, &text).await?;
                stop::ask_to_stop(&world, &found, request).await?
            };
            match asked {
                Ok(asked) => stop::see_it_end(&world, &found, asked).await.map(|()| Changed::Yes),
                Err(changed) => Ok(changed),
            }
        };
        self.world.to_its_end(operation).await
    }

    /// Stops and starts a container, or starts a stopped one.
    pub async fn restart(&self, container: &str, request: StopRequest) -> Result<()> {
        let (found, world, text) = self.owned(container)?;
        let operation = async move {
            let asked = {
                let _turn = turn(&world, &found, &text).await?;
                stop::ask_to_turn(&world, &found, request).await
            };
            let ended = match asked {
                Ok(Some(asked)) => stop::see_it_end(&world, &found, asked).await,
                asked => asked.map(drop),
            };
            found.live().turning = false;
            ended?;
            let _turn = turn(&world, &found, &text).await?;
            stop::restart(&world, &found).await
        };
        self.world.to_its_end(operation).await
    }

    /// Sends a signal; `None` kills.
    pub async fn kill(&self, container: &str, signal: Option<Signal>) -> Result<()> {
        let container = self.find(container)?;
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { stop::kill(&world, &container, signal).await }).await
    }

    /// Freezes a container.
    pub async fn pause(&self, container: &str) -> Result<()> {
        let work = async move |world: Arc<World>, container: Arc<Container>| {
            stop::pause(&world, &container).await
        };
        self.locked(container, work).await
    }

    /// Thaws a container.
    pub async fn unpause(&self, container: &str) -> Result<()> {
        let work = async move |world: Arc<World>, container: Arc<Container>| {
            stop::unpause(&world, &container).await
        };
        self.locked(container, work).await
    }

    /// Begins to wait; the container is known and the wait registered when this returns.
    pub async fn wait(&self, container: &str, condition: WaitCondition) -> Result<Waiting> {
        Ok(Waiting::begin(self.find(container)?, condition))
    }

    /// Gives a container another name.
    pub async fn rename(&self, container: &str, name: ContainerName) -> Result<()> {
        let work = async move |world, container| update::rename(&world, &container, name).await;
        self.locked(container, work).await
    }

    /// Changes limits and restart policy; returns warnings.
    pub async fn update(&self, container: &str, request: UpdateRequest) -> Result<Vec<String>> {
        let work = async move |world, container| update::update(&world, &container, request).await;
        Box::pin(self.locked(container, work)).await
    }

    /// Removes a container.
    pub async fn remove(&self, container: &str, request: RemoveRequest) -> Result<()> {
        let found = self.find(container)?;
        if matches!(found.phase(), crate::phase::Phase::Removing) {
            // Not worth waiting for: who removes it has the lock.
            return Err(Error::Conflict(format!(
                "removal of container {container} is already in progress"
            )));
        }
        let work = async move |world, container| remove::remove(&world, &container, request).await;
        self.locked(container, work).await
    }

    /// Removes all stopped containers that pass the filters (`until`, `label`, `label!`).
    pub async fn prune(&self, filters: Filters) -> Result<Pruned> {
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { remove::prune(&world, filters).await }).await
    }

    /// Shows a container.
    pub async fn inspect(&self, container: &str, with_size: bool) -> Result<ContainerView> {
        let container = self.find(container)?;
        let mut view = container.view();
        if with_size {
            view.size = Some(self.world.parts.snapshots.usage(&container.id).await?);
        }
        // A container that is just being removed has none; the rest can be shown all the same.
        view.rootfs = self.world.parts.snapshots.rootfs(&container.id).await.ok();
        Ok(view)
    }

    /// Lists containers, newest first.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<ContainerView>> {
        list::list(&self.world, request).await
    }

    /// Lists a container's processes.
    pub async fn top(&self, container: &str, ps_args: &str) -> Result<ProcessTable> {
        let container = self.find(container)?;
        stats::top(&self.world, &container, ps_args).await
    }

    /// Reads usage counters; call it once per second for a stream.
    pub async fn stats(&self, container: &str) -> Result<StatsSample> {
        let container = self.find(container)?;
        stats::sample(&self.world, &container).await
    }

    /// Opens a container's log.
    pub async fn logs(&self, container: &str, request: LogRequest) -> Result<LogView> {
        let container = self.find(container)?;
        attach::logs(&self.world, &container, &request)
    }

    /// Attaches a client; before the start it is connected when the container starts.
    pub async fn attach(&self, container: &str, request: AttachRequest) -> Result<Attached> {
        let container = self.find(container)?;
        attach::attach(&self.world, &container, request).await
    }

    /// Notes that a client left with the detach keys.
    pub async fn note_detach(&self, container: &str) -> Result<()> {
        let container = self.find(container)?;
        self.world.container_event(&container, "detach", []);
        Ok(())
    }

    /// Tells the terminal its size.
    pub async fn resize(&self, container: &str, window: WindowSize) -> Result<()> {
        let container = self.find(container)?;
        let task = container.running_task()?;
        let message = format!("cannot resize the terminal of container {}", container.id);
        task.resize(window).await.map_err(|source| Error::Task { message, source })?;
        let size = [("height", window.height.to_string()), ("width", window.width.to_string())];
        self.world.container_event(&container, "resize", size);
        Ok(())
    }

    /// Describes a path inside.
    pub async fn stat_path(&self, container: &str, path: &str) -> Result<ArchiveStat> {
        let found = self.find(container)?;
        files::stat(&self.world, &found, path).await.map_err(|error| files::named(error, container))
    }

    /// Opens a tar of a path inside.
    pub async fn archive(&self, container: &str, path: &str) -> Result<(ArchiveStat, Archive)> {
        let found = self.find(container)?;
        let archive = files::archive(&self.world, &found, path).await;
        archive.map_err(|error| files::named(error, container))
    }

    /// Extracts a tar into a directory inside; `how.read_only` is decided here.
    pub async fn extract(
        &self,
        container: &str,
        path: &str,
        archive: LayerBlob,
        how: Extract,
    ) -> Result<()> {
        let found = self.find(container)?;
        let extracted = files::extract(&self.world, &found, path, (archive, how)).await;
        extracted.map_err(|error| files::named(error, container))
    }

    /// Opens a tar of the whole file system.
    pub async fn export(&self, container: &str) -> Result<Archive> {
        let container = self.find(container)?;
        files::export(&self.world, &container).await
    }

    /// Lists what the container changed.
    pub async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let container = self.find(container)?;
        Ok(self.world.parts.snapshots.changes(&container.id).await?)
    }

    /// Makes an image of a container.
    pub async fn commit(&self, container: &str, request: CommitRequest) -> Result<ImageId> {
        let work = async move |world, container| files::commit(&world, &container, request).await;
        self.locked(container, work).await
    }
}

/// Takes a container's operation lock; fails when it was removed before that.
async fn turn(world: &World, container: &Container, text: &str) -> Result<KeyGuard<ContainerId>> {
    let turn = world.locks.lock(container.id).await;
    if container.state().gone { Err(Error::NoSuchContainer(text.to_owned())) } else { Ok(turn) }
}

#[cfg(test)]
mod tests;

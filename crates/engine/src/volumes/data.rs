//! Whole volumes on the move: snapshot, clone, export, import. Each makes a new volume or none; nothing of it is seen
//! before it is whole.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use rorqual_core::{ContainerId, VolumeName, full_message};
use rorqual_store::{Durability, Operation};
use rorqual_volume::{ChunkSet, Feed, Header, LOCAL, Progress, Staged};

use super::{ANONYMOUS, Volumes, announce, shown, table, view};
use crate::containers::Containers;
use crate::error::{Error, Result};
use crate::phase::Phase;
use crate::records::VolumeRecord;
use crate::undo::{Undo, Undoing};
use crate::view::VolumeView;
use crate::world::World;

/// What becomes of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// A volume of its own.
    Clone,
    /// A volume that shows the other one as it was; containers can only read it.
    Snapshot,
}

/// A volume to copy.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// The volume.
    pub source: String,
    /// What becomes of it.
    pub kind: Copied,
    /// Name of the copy; a snapshot's is made of the volume's and the time when `None`.
    pub name: Option<VolumeName>,
    /// Labels of the copy; `None` takes the volume's.
    pub labels: Option<BTreeMap<String, String>>,
    /// Pause the containers that use it meanwhile.
    pub freeze: bool,
}

/// A volume to export.
#[derive(Clone, Debug, Default)]
pub struct ExportRequest {
    /// The volume.
    pub volume: String,
    /// Volumes whose chunks the receiver has.
    pub since: Vec<String>,
    /// Further chunks that the receiver has.
    pub have: ChunkSet,
}

/// A volume to make of an archive.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// Name of the new volume.
    pub name: VolumeName,
    /// The volume that an incremental archive builds on.
    pub base: Option<String>,
    /// Labels; `None` takes those in the archive.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Volumes {
    /// Copies a volume.
    ///
    /// # Cancellation
    /// The copy is given up and what there was of it removed.
    pub async fn copy(&self, request: CopyRequest, progress: Progress) -> Result<VolumeView> {
        let source = self.find(&request.source).await?;
        let world = Arc::clone(&self.world);
        let _guard = progress.guard();
        let copying = async move {
            let mut operation = world.operations.begin("volume.copy");
            let result = copy(&world, &mut operation, (&source, &request), progress).await;
            let record = operation.settle(result).await?;
            announce(&world, "create", &record);
            view(&world, &record).await
        };
        self.world.to_its_end(copying).await
    }

    /// Refuses what [`Self::copy`] would refuse for its names.
    pub async fn check_copy(&self, request: &CopyRequest) -> Result<()> {
        self.find(&request.source).await?;
        match &request.name {
            Some(name) => check_free(&self.world, name).await,
            None => Ok(()),
        }
    }

    /// Makes a volume of an archive.
    ///
    /// # Cancellation
    /// The import is given up and what there was of it removed.
    pub async fn import(
        &self,
        request: ImportRequest,
        archive: Box<dyn Read + Send>,
        progress: Progress,
    ) -> Result<VolumeView> {
        let base = match &request.base {
            Some(base) => Some(self.find(base).await?),
            None => None,
        };
        let world = Arc::clone(&self.world);
        let _guard = progress.guard();
        let importing = async move {
            let mut operation = world.operations.begin("volume.import");
            let asked = (&request, base.as_ref());
            let result = import(&world, &mut operation, asked, archive, progress).await;
            let record = operation.settle(result).await?;
            announce(&world, "create", &record);
            view(&world, &record).await
        };
        self.world.to_its_end(importing).await
    }

    /// Opens the archive of a volume, produced while it is read; dropping it ends that.
    pub async fn export(
        &self,
        request: ExportRequest,
        progress: Progress,
    ) -> Result<Box<dyn Read + Send>> {
        let record = self.find(&request.volume).await?;
        let mut have = request.have;
        for since in &request.since {
            have.extend(self.chunk_set(since).await?);
        }
        let header = Header {
            volume: record.name.to_string(),
            created: shown(self.world.options.clock.now()),
            labels: own_labels(&record),
            incremental: false,
        };
        let mut operation = self.world.operations.begin("volume.export");
        let held = hold(&self.world, &mut operation, &record).await;
        let feed = held.and_then(|held| {
            Ok(self.world.volumes.drivers.local().export(held.path, header, have, progress)?)
        });
        match feed {
            Ok(feed) => {
                let runtime = tokio::runtime::Handle::current();
                Ok(Box::new(Export { feed, operation: Some(operation), runtime }))
            }
            Err(error) => operation.settle(Err(error)).await,
        }
    }

    /// Returns the digests of all chunks of a volume, for who exports to us.
    pub async fn chunks(&self, name: &str) -> Result<String> {
        Ok(self.chunk_set(name).await?.text())
    }

    async fn chunk_set(&self, name: &str) -> Result<ChunkSet> {
        let record = self.find(name).await?;
        let progress = Progress::default();
        let _guard = progress.guard();
        let mut operation = self.world.operations.begin("volume.chunks");
        let result = match hold(&self.world, &mut operation, &record).await {
            Ok(held) => {
                let digests =
                    self.world.volumes.drivers.local().digests(held.path, progress.clone());
                digests.await.map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        let_go(operation).await;
        result
    }
}

/// An archive that is read, with the volume it is made of.
struct Export {
    feed: Feed,
    operation: Option<Operation<Undoing>>,
    runtime: tokio::runtime::Handle,
}

impl Read for Export {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        // What the client sees of a failure is only that the archive ends too early.
        self.feed.read(into).inspect_err(|error| tracing::warn!(%error, "cannot export a volume"))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            self.runtime.spawn(let_go(operation));
        }
    }
}

/// Gives up what an operation held; that was all it did.
async fn let_go(operation: Operation<Undoing>) {
    let _: std::result::Result<(), ()> = operation.settle(Err(())).await;
}

/// A volume that nobody removes meanwhile, and where its data are.
struct Held {
    user: ContainerId,
    path: std::path::PathBuf,
}

async fn hold(
    world: &World,
    operation: &mut Operation<Undoing>,
    record: &VolumeRecord,
) -> Result<Held> {
    let user = ContainerId::from_random(World::random_bits()?);
    let name = record.name.clone();
    operation.will_need(Undo::ReleaseVolume { name: name.clone(), owner: user, made: false })?;
    world.index.claim_volumes(user, std::iter::once(&name));
    if world.volumes.find(&name).is_none() {
        // A plugin's, seen for the first time; or removed before our claim.
        match record.driver.as_str() {
            LOCAL => return Err(Error::NoSuchVolume(name.to_string())),
            _ => drop(world.volumes.ensure(record.clone()).await?),
        }
    }
    operation.will_need(Undo::UnmountVolume { name: name.clone(), user })?;
    let path = world.volumes.mount(&name, user).await?;
    Ok(Held { user, path })
}

async fn release(world: &World, name: &VolumeName, held: &Held) {
    if let Err(error) = world.volumes.unmount(name, held.user).await {
        tracing::warn!(volume = %name, error = full_message(&error), "cannot unmount");
    }
    world.index.release_volume(held.user, name);
}

async fn copy(
    world: &Arc<World>,
    operation: &mut Operation<Undoing>,
    (source, request): (&VolumeRecord, &CopyRequest),
    progress: Progress,
) -> Result<VolumeRecord> {
    let now = world.options.clock.now();
    let name = match &request.name {
        Some(name) => name.clone(),
        // `2026-11-27T21:30:05Z` without what a name must not have.
        None => format!("{}-{}", source.name, shown(now).replace([':', '-'], "")).parse()?,
    };
    check_free(world, &name).await?;
    let held = hold(world, operation, source).await?;
    let staged = stage(world, operation).await?;
    let frozen =
        if request.freeze { freeze(world, operation, &source.name).await? } else { Vec::new() };
    let local = world.volumes.drivers.local();
    let copied = local.copy_into(&staged, held.path.clone(), progress).await;
    thaw(world, frozen).await;
    copied?;
    release(world, &source.name, &held).await;
    let snapshot = request.kind == Copied::Snapshot;
    let record = VolumeRecord {
        name,
        created: now,
        labels: request.labels.clone().unwrap_or_else(|| own_labels(source)),
        options: BTreeMap::new(),
        anonymous: false,
        driver: LOCAL.to_owned(),
        staged: Some(staged.token().to_owned()),
        snapshot_of: snapshot.then(|| source.name.clone()),
    };
    commit(world, operation, record).await
}

async fn import(
    world: &Arc<World>,
    operation: &mut Operation<Undoing>,
    (request, base): (&ImportRequest, Option<&VolumeRecord>),
    archive: Box<dyn Read + Send>,
    progress: Progress,
) -> Result<VolumeRecord> {
    check_free(world, &request.name).await?;
    let held = match base {
        Some(base) => Some((base, hold(world, operation, base).await?)),
        None => None,
    };
    let staged = stage(world, operation).await?;
    let path = held.as_ref().map(|(_, held)| held.path.clone());
    let local = world.volumes.drivers.local();
    let header = local.import_into(&staged, archive, path, progress).await?;
    if let Some((base, held)) = &held {
        release(world, &base.name, held).await;
    }
    let record = VolumeRecord {
        name: request.name.clone(),
        created: world.options.clock.now(),
        labels: request.labels.clone().unwrap_or(header.labels),
        options: BTreeMap::new(),
        anonymous: false,
        driver: LOCAL.to_owned(),
        staged: Some(staged.token().to_owned()),
        snapshot_of: None,
    };
    commit(world, operation, record).await
}

async fn stage(world: &World, operation: &mut Operation<Undoing>) -> Result<Staged> {
    let token = ContainerId::from_random(World::random_bits()?).to_string();
    operation.will_need(Undo::Unstage(token.clone()))?;
    Ok(world.volumes.drivers.local().stage(token).await?)
}

/// Makes a volume of what was gathered. The record is the commit point: whoever finds it puts the data in their place.
async fn commit(
    world: &World,
    operation: &mut Operation<Undoing>,
    record: VolumeRecord,
) -> Result<VolumeRecord> {
    let table = &world.volumes;
    let _turn = table.changing.lock().await;
    check_free(world, &record.name).await?;
    table.database.put(Durability::Full, record.clone()).await?;
    operation.keep();
    match table.publish(record.clone()).await {
        Ok(record) => Ok(record),
        Err(error) => {
            table.database.remove::<VolumeRecord>(Durability::Full, record.name.as_str()).await?;
            let token = record.staged.unwrap_or_default();
            table.drivers.local().unstage(&token).await;
            Err(error)
        }
    }
}

async fn check_free(world: &World, name: &VolumeName) -> Result<()> {
    if world.volumes.find(name).is_some() {
        return Err(Error::Conflict(format!(
            "create {name}: there is a volume of this name; remove it first or take another name"
        )));
    }
    let free = world.volumes.drivers.local().check_free(name).await;
    free.map_err(table::creating(name))
}

/// Labels that a copy takes over.
fn own_labels(record: &VolumeRecord) -> BTreeMap<String, String> {
    let mut labels = record.labels.clone();
    labels.remove(ANONYMOUS);
    labels
}

/// Pauses all running containers that use a volume.
async fn freeze(
    world: &Arc<World>,
    operation: &mut Operation<Undoing>,
    volume: &VolumeName,
) -> Result<Vec<ContainerId>> {
    let containers = Containers { world: Arc::clone(world) };
    let mut frozen = Vec::new();
    for id in world.index.users_of_volume(volume) {
        let Ok(container) = world.index.find(&id.to_string()) else { continue };
        if !matches!(container.phase(), Phase::Running(_)) {
            continue;
        }
        operation.will_need(Undo::Thaw(id))?;
        match containers.pause(&id.to_string()).await {
            Ok(()) => frozen.push(id),
            // It ended, or somebody else paused it: it does not write either.
            Err(Error::Conflict(_)) => {}
            Err(error) => {
                thaw(world, frozen).await;
                return Err(error);
            }
        }
    }
    Ok(frozen)
}

async fn thaw(world: &Arc<World>, frozen: Vec<ContainerId>) {
    let containers = Containers { world: Arc::clone(world) };
    for id in frozen {
        match containers.unpause(&id.to_string()).await {
            // It ended meanwhile, or was let go by somebody else.
            Ok(()) | Err(Error::Conflict(_) | Error::NoSuchContainer(_) | Error::Internal(_)) => {}
            Err(error) => {
                tracing::error!(container = %id.short(), error = full_message(&error), "cannot unpause");
            }
        }
    }
}

//! The snapshotter on overlayfs: layers beside each other, one writable directory per container.
//!
//! ```text
//! layers/<hex>/{fs,skeleton.zst,layer.json}   containers/<id>/{upper,work,snapshot.json}   trash/
//! ```
//!
//! Removal is a rename into `trash/`, emptied in the background and at the next start. Mounts nothing for containers.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use rorqual_core::mount::{OverlayPlan, RootfsPlan, UpperPlan};
use rorqual_core::{ContainerId, DiffId};
use rorqual_store::{KeyedLocks, blocking};
use rorqual_sys::path::{Dir, Root};
use rorqual_sys::quota::{ProjectQuotas, join_project, project_of};
use serde::{Deserialize, Serialize};

use crate::layer::{self, Options, io_failed};
use crate::sync::Syncer;
use crate::tree::{OpenTree, Writes};
use crate::{
    Change, Error, LayerInfo, LayerSource, SnapshotRequest, Snapshotter, Tree, Usage, base, commit,
    compare, mount, remapped, skeleton,
};

/// LIMIT: layers of one snapshot; the kernel's overlay takes 500.
const MAX_LAYERS: usize = 480;

/// Layers and snapshots below one data root.
#[derive(Clone)]
pub struct Overlay(Arc<Inner>);

struct Inner {
    layers: PathBuf,
    containers: PathBuf,
    trash: PathBuf,
    /// See [`base`].
    base: PathBuf,
    options: Options,
    known: Mutex<HashMap<DiffId, LayerInfo>>,
    locks: KeyedLocks<DiffId>,
    syncer: Syncer,
    /// Bounds on containers' writable parts, where the file system keeps any; looked for once.
    quotas: OnceLock<Option<ProjectQuotas>>,
    sweeper: Mutex<SyncSender<()>>,
}

/// What is kept of a snapshot.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    layers: Vec<DiffId>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Overlay {
    /// Opens the layers and snapshots of a data root, and sweeps what a crash left behind. Blocking.
    pub fn open(data_root: &Path, options: Options) -> Result<Self, Error> {
        let [layers, containers, trash] =
            ["layers", "containers", "trash"].map(|name| data_root.join(name));
        for (dir, mode) in [(&layers, 0o700), (&containers, 0o710), (&trash, 0o700)] {
            make_dir(dir, mode).map_err(io_failed(format!("make {}", dir.display())))?;
        }
        spread(&containers);
        sweep(&layers, &trash).map_err(io_failed("sweep unfinished layers"))?;
        let base = base::ensure(&layers).map_err(io_failed("make the base layer"))?;
        mount::check_writable(&base, &trash)?;
        let sweeper = sweeper(trash.clone()).map_err(io_failed("start a thread"))?;
        let syncer = Dir::open(&layers).map_err(io_failed("open the layers"))?;
        let inner = Inner {
            layers,
            containers,
            trash,
            base,
            options,
            known: Mutex::default(),
            locks: KeyedLocks::default(),
            syncer: Syncer::new(syncer),
            quotas: OnceLock::new(),
            sweeper: Mutex::new(sweeper),
        };
        let overlay = Self(Arc::new(inner));
        overlay.empty_trash();
        Ok(overlay)
    }

    fn find(&self, id: &DiffId) -> Result<Option<LayerInfo>, Error> {
        if let Some(info) = lock(&self.0.known).get(id) {
            return Ok(Some(info.clone()));
        }
        let found = layer::find(&self.0.layers, id)?;
        if let Some(info) = &found {
            lock(&self.0.known).insert(id.clone(), info.clone());
        }
        Ok(found)
    }

    pub(crate) fn need(&self, id: &DiffId) -> Result<LayerInfo, Error> {
        self.find(id)?.ok_or_else(|| Error::NoSuchLayer(id.clone()))
    }

    fn record(&self, container: &ContainerId) -> Result<Record, Error> {
        let path = self.container_dir(container).join("snapshot.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchSnapshot(container.to_string()));
            }
            Err(error) => return Err(io_failed(format!("read {}", path.display()))(error)),
        };
        serde_json::from_slice(&text)
            .map_err(|error| io_failed(format!("read {}", path.display()))(error.into()))
    }

    fn plan(&self, container: &ContainerId) -> Result<OverlayPlan, Error> {
        let record = self.record(container)?;
        let dir = self.container_dir(container);
        Ok(OverlayPlan {
            lower: self.lower(&record.layers, true),
            upper: Some(UpperPlan { upper: dir.join("upper"), work: dir.join("work") }),
            options: mount::OPTIONS.map(str::to_owned).to_vec(),
        })
    }

    /// Lists the trees of layers, top first. One that is there twice counts where it is highest: whatever it made or hid
    /// further below it does again. The kernel takes no directory twice.
    pub(crate) fn lower(&self, layers: &[DiffId], base: bool) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let once = layers.iter().rev().filter(|id| seen.insert(*id));
        let trees = once.map(|id| layer::tree(&self.0.layers, id));
        trees.chain(base.then(|| self.0.base.clone())).collect()
    }

    pub(crate) fn plan_of(&self, snapshot: &ContainerId) -> Result<OverlayPlan, Error> {
        self.plan(snapshot)
    }

    pub(crate) fn layer_home(&self, layer: &DiffId) -> PathBuf {
        self.0.layers.join(layer.0.hex())
    }

    pub(crate) fn layers_of(&self, snapshot: &ContainerId) -> Result<Vec<DiffId>, Error> {
        Ok(self.record(snapshot)?.layers)
    }

    /// Makes a layer of a directory that holds exactly what `tar` says; the directory moves. Blocking.
    pub(crate) fn adopt(&self, tree: &Path, tar: crate::feed::Feed) -> Result<LayerInfo, Error> {
        let inner = &self.0;
        let info = layer::adopt(&inner.layers, tree, tar, inner.options, &inner.syncer)?;
        lock(&inner.known).insert(info.diff_id.clone(), info.clone());
        Ok(info)
    }

    pub(crate) fn discard_snapshot(&self, snapshot: &ContainerId) -> io::Result<()> {
        if self.discard(&self.container_dir(snapshot))? {
            self.empty_trash();
        }
        Ok(())
    }

    fn discard(&self, path: &Path) -> io::Result<bool> {
        let target = self.0.trash.join(layer::unique(""));
        match std::fs::rename(path, &target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has what was discarded removed in the background.
    fn empty_trash(&self) {
        // A full queue means that somebody is about to look anyway.
        lock(&self.0.sweeper).try_send(()).ok();
    }
}

/// Starts the thread that empties the trash whenever it is told to; it ends with its sender.
fn sweeper(trash: PathBuf) -> io::Result<SyncSender<()>> {
    let (sender, wishes) = sync_channel(1);
    std::thread::Builder::new().name("trash".to_owned()).spawn(move || {
        while wishes.recv().is_ok() {
            if let Err(error) = empty(&trash) {
                tracing::warn!(error = %error, "cannot empty the trash of layers and snapshots");
            }
        }
    })?;
    Ok(sender)
}

/// A number out of an id, to begin the search for a free project at.
fn draw(container: &ContainerId) -> u32 {
    let hex = container.to_string();
    u32::from_str_radix(hex.get(..8).unwrap_or_default(), 16).unwrap_or_default()
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Asks ext4 to put each container's directory into another group of inodes.
///
/// For some minutes ext4 does not give out an inode again that was deleted, and looks at all of those of a group whenever
/// it makes a file there: where many containers come and go in one group, that soon takes longer than starting them.
fn spread(containers: &Path) {
    let flag = || -> io::Result<()> {
        let directory = std::fs::File::open(containers)?;
        let flags = rustix::fs::ioctl_getflags(&directory)?;
        Ok(rustix::fs::ioctl_setflags(&directory, flags | rustix::fs::IFlags::TOPDIR)?)
    };
    // Only a matter of speed; other file systems have no such flag.
    if let Err(error) = flag() {
        tracing::debug!(%error, "containers share a group of inodes");
    }
}

fn sweep(layers: &Path, trash: &Path) -> io::Result<()> {
    for entry in Dir::open(layers)?.entries()? {
        if entry.name.to_string_lossy().starts_with(".ingest-") {
            std::fs::rename(layers.join(&entry.name), trash.join(layer::unique("")))?;
        }
    }
    Ok(())
}

fn empty(trash: &Path) -> io::Result<()> {
    let dir = Dir::open(trash)?;
    for entry in dir.entries()? {
        dir.remove_tree(&entry.name)?;
    }
    Ok(())
}

fn roots(paths: &[PathBuf]) -> io::Result<Vec<Root>> {
    paths.iter().map(|path| Root::open(path)).collect()
}

/// Shares what passes with a second reader of the same bytes.
struct Tee {
    source: Box<dyn Read + Send>,
    sink: Box<dyn Write + Send>,
}

impl Read for Tee {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(into)?;
        self.sink.write_all(&into[..len])?;
        if len == 0 {
            self.sink.flush()?;
        }
        Ok(len)
    }
}

impl Overlay {
    async fn unpack(&self, source: LayerSource) -> Result<LayerInfo, Error> {
        let (layers, options) = (self.0.layers.clone(), self.0.options);
        let inner = Arc::clone(&self.0);
        let apply = move || layer::apply(&layers, source, options, &inner.syncer);
        let info = blocking(apply).await?;
        lock(&self.0.known).insert(info.diff_id.clone(), info.clone());
        Ok(info)
    }

    fn quotas(&self) -> Option<&ProjectQuotas> {
        let look = || {
            ProjectQuotas::of(&self.0.containers).unwrap_or_else(|error| {
                tracing::debug!(%error, "no project quotas for containers");
                None
            })
        };
        self.0.quotas.get_or_init(look).as_ref()
    }

    /// Bounds what a container's directory may hold. ORDER: before anything is made in it.
    fn bound(&self, dir: &Path, container: &ContainerId, size: u64) -> io::Result<()> {
        let Some(quotas) = self.quotas() else { return Ok(()) };
        let directory = Dir::open(dir)?;
        let project = match project_of(&directory)? {
            0 => quotas.unused_project(draw(container))?,
            known => known,
        };
        quotas.limit(project, size)?;
        join_project(&directory, project)
    }

    /// Gives the project of a container's directory back.
    fn unbound(&self, dir: &Path) {
        let free = || -> io::Result<()> {
            let project = project_of(Dir::open(dir)?)?;
            match self.quotas().filter(|_| project != 0) {
                Some(quotas) => quotas.limit(project, 0),
                None => Ok(()),
            }
        };
        // A bound on files that are gone does no harm.
        if let Err(error) = free() {
            tracing::debug!(%error, "cannot take a bound away");
        }
    }

    fn make_snapshot(&self, request: &SnapshotRequest) -> io::Result<()> {
        let dir = self.container_dir(&request.container);
        make_dir(&dir, 0o710)?;
        if let Some(size) = request.size {
            self.bound(&dir, &request.container, size)?;
        }
        for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
            match std::fs::create_dir(dir.join(name)) {
                Ok(()) => {}
                // Preparing again keeps what the container wrote.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.join(name), mode)?;
        }
        let record = Record { version: 1, layers: request.layers.clone() };
        std::fs::write(dir.join("snapshot.json"), serde_json::to_vec(&record)?)
    }
}

#[async_trait]
impl Snapshotter for Overlay {
    async fn find_layer(&self, layer: &DiffId) -> Result<Option<LayerInfo>, Error> {
        self.find(layer)
    }

    async fn apply(&self, source: LayerSource) -> Result<LayerInfo, Error> {
        let Some(expected) = source.expected.clone() else { return self.unpack(source).await };
        let _guard = self.0.locks.lock(expected.clone()).await;
        match self.find(&expected)? {
            Some(info) => Ok(info),
            None => self.unpack(source).await,
        }
    }

    /// A few system calls, none of which waits for the disk: not worth a hop to another thread.
    async fn prepare(&self, request: SnapshotRequest) -> Result<(), Error> {
        if request.layers.len() > MAX_LAYERS {
            return Err(Error::InvalidArgument("max depth exceeded".to_owned()));
        }
        if request.size.is_some() && self.quotas().is_none() {
            // COMPAT: dockerd's text; ext4 will do here, too.
            let text = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option (or ext4 with 'prjquota')";
            return Err(Error::InvalidArgument(text.to_owned()));
        }
        for id in &request.layers {
            self.need(id)?;
        }
        self.make_snapshot(&request).map_err(io_failed("make a snapshot"))
    }

    async fn rootfs(&self, container: &ContainerId) -> Result<RootfsPlan, Error> {
        self.plan(container).map(RootfsPlan::Overlay)
    }

    async fn remove(&self, container: &ContainerId) -> Result<(), Error> {
        let dir = self.container_dir(container);
        self.unbound(&dir);
        if self.discard(&dir).map_err(io_failed(format!("remove {}", dir.display())))? {
            self.empty_trash();
        }
        Ok(())
    }

    async fn usage(&self, container: &ContainerId) -> Result<Usage, Error> {
        let record = self.record(container)?;
        let layers = record.layers.iter().map(|id| self.need(id).map(|info| info.size));
        let layers = layers.sum::<Result<u64, Error>>()?;
        let upper = self.container_dir(container).join("upper");
        let measured = blocking(move || layer::measure(&Dir::open(&upper)?)).await;
        let writable = measured.map_err(io_failed("measure a snapshot"))?.size;
        Ok(Usage { writable, layers })
    }

    async fn changes(&self, container: &ContainerId) -> Result<Vec<Change>, Error> {
        let plan = self.plan(container)?;
        let upper = self.container_dir(container).join("upper");
        let work = move || compare::changes(&Root::open(&upper)?, &roots(&plan.lower)?);
        blocking(work).await.map_err(io_failed("compare a container with its image"))
    }

    async fn diff(
        &self,
        container: &ContainerId,
        sink: Box<dyn Write + Send>,
    ) -> Result<LayerInfo, Error> {
        let plan = self.plan(container)?;
        let upper = self.container_dir(container).join("upper");
        let comparing = || io_failed("compare a container with its image");
        let tar = blocking(move || commit::tar(&upper, &roots(&plan.lower)?)).await;
        let source: Box<dyn Read + Send> = Box::new(tar.map_err(comparing())?);
        self.unpack(LayerSource { blob: Box::new(Tee { source, sink }), expected: None }).await
    }

    async fn layer_tar(
        &self,
        layer: &DiffId,
        mut sink: Box<dyn Write + Send>,
    ) -> Result<(), Error> {
        self.need(layer)?;
        let (home, id) = (self.0.layers.join(layer.0.hex()), layer.clone());
        blocking(move || {
            let dir = Dir::open(&home).map_err(io_failed(format!("open layer {id}")))?;
            skeleton::write_tar(&dir, &id, &mut sink)
        })
        .await
    }

    async fn open(
        &self,
        container: &ContainerId,
        pid: Option<i32>,
    ) -> Result<Arc<dyn Tree>, Error> {
        let plan = self.plan(container)?;
        let name = container.to_string();
        if let Some(pid) = pid {
            let root = mount::process_root(pid).map_err(io_failed("open a container's root"))?;
            let root = Arc::new(Root::from_fd(root));
            let users = remapped::users_of(pid).map_err(io_failed("read a container's id maps"))?;
            let (writes, process) = (Writes::Here, Some(pid));
            return Ok(Arc::new(OpenTree { root, writes, process, users, name }));
        }
        // For reading, the writable directory is just one more layer on top: no two mounts share it for writing.
        let upper = self.container_dir(container).join("upper");
        let lower = std::iter::once(upper).chain(plan.lower.clone()).collect::<Vec<_>>();
        let view = blocking(move || mount::view(&lower, None)).await;
        let root = view.map_err(io_failed("mount a container's files"))?;
        let root = Arc::new(Root::from_fd(root));
        Ok(Arc::new(OpenTree {
            root,
            writes: Writes::Overlay(Box::new(plan)),
            process: None,
            users: None,
            name,
        }))
    }

    async fn view(&self, layers: &[DiffId]) -> Result<Arc<dyn Tree>, Error> {
        for id in layers {
            self.need(id)?;
        }
        let name = layers.last().map(ToString::to_string).unwrap_or_default();
        let mut lower = self.lower(layers, false);
        let failed = || io_failed("mount an image's files");
        let root = match lower.len() {
            0 => {
                return Err(Error::InvalidArgument(
                    "an image without layers has no files".to_owned(),
                ));
            }
            // The kernel's overlay needs two layers; one is its own view.
            1 => Root::open(&lower.remove(0)).map_err(failed())?,
            _ => {
                Root::from_fd(blocking(move || mount::view(&lower, None)).await.map_err(failed())?)
            }
        };
        Ok(Arc::new(OpenTree {
            root: Arc::new(root),
            writes: Writes::Refused,
            process: None,
            users: None,
            name,
        }))
    }

    fn layer_trees(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        self.lower(layers, false)
    }

    async fn retain(&self, layers: &[DiffId], containers: &[ContainerId]) -> Result<u64, Error> {
        let failed = || io_failed("collect layers");
        let mut keep = layers.iter().map(|id| id.0.hex().to_owned()).collect::<HashSet<_>>();
        for container in containers {
            // What a container stands on stays, also when its image was removed by force.
            match self.record(container) {
                Ok(record) => keep.extend(record.layers.iter().map(|id| id.0.hex().to_owned())),
                Err(Error::NoSuchSnapshot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut freed = 0;
        for entry in Dir::open(&self.0.layers).and_then(|dir| dir.entries()).map_err(failed())? {
            let name = entry.name.to_string_lossy().into_owned();
            let Ok(id) = format!("sha256:{name}").parse::<DiffId>() else { continue };
            if keep.contains(&name) {
                continue;
            }
            freed += self.find(&id)?.map_or(0, |info| info.disk);
            lock(&self.0.known).remove(&id);
            self.discard(&self.0.layers.join(&name)).map_err(failed())?;
        }
        let keep = containers.iter().map(ToString::to_string).collect::<HashSet<_>>();
        for entry in Dir::open(&self.0.containers).and_then(|dir| dir.entries()).map_err(failed())?
        {
            let name = entry.name.to_string_lossy().into_owned();
            if !keep.contains(&name) && name.parse::<ContainerId>().is_ok() {
                self.discard(&self.0.containers.join(&name)).map_err(failed())?;
            }
        }
        self.empty_trash();
        Ok(freed)
    }

    fn container_dir(&self, container: &ContainerId) -> PathBuf {
        self.0.containers.join(container.to_string())
    }
}

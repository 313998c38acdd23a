//! A snapshotter in memory, for tests of this crate's users: layers are bytes, file systems are maps.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rorqual_core::mount::{OverlayPlan, RootfsPlan, UpperPlan};
use rorqual_core::{ContainerId, DiffId, Digest, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::decompress::decompress;
use crate::{
    Archive, ArchiveStat, Change, Error, Extract, LayerBlob, LayerInfo, LayerSource,
    SnapshotRequest, Snapshotter, Tree, Usage,
};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

#[derive(Default)]
struct Container {
    request: Option<SnapshotRequest>,
    files: Files,
    changes: Vec<Change>,
}

#[derive(Default)]
struct State {
    layers: BTreeMap<DiffId, Arc<[u8]>>,
    containers: BTreeMap<ContainerId, Container>,
    image_files: Files,
}

/// Layers and snapshots in memory.
#[derive(Clone, Default)]
pub struct FakeSnapshotter {
    state: Arc<Mutex<State>>,
    home: PathBuf,
}

impl FakeSnapshotter {
    /// Makes an empty one whose container directories are said to be below `home`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into(), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a file where every image and every container made later sees it.
    pub fn put_image_file(&self, path: &str, bytes: &[u8]) {
        put(&self.state().image_files, path, bytes);
    }

    /// Puts a file into a container.
    pub fn put_file(&self, container: &ContainerId, path: &str, bytes: &[u8]) {
        let files = self.state().containers.entry(*container).or_default().files.clone();
        put(&files, path, bytes);
    }

    /// Says what a container changed.
    pub fn set_changes(&self, container: &ContainerId, changes: Vec<Change>) {
        self.state().containers.entry(*container).or_default().changes = changes;
    }

    /// Lists the containers that have a snapshot.
    pub fn containers(&self) -> Vec<ContainerId> {
        self.state().containers.keys().copied().collect()
    }
}

fn put(files: &Files, path: &str, bytes: &[u8]) {
    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
    files.insert(path.to_owned(), bytes.to_vec());
}

fn info(diff_id: &DiffId, bytes: &[u8]) -> LayerInfo {
    let size = bytes.len() as u64;
    LayerInfo { diff_id: diff_id.clone(), size, disk: size, tar: size }
}

fn missing(container: &ContainerId) -> Error {
    Error::NoSuchSnapshot(container.to_string())
}

fn io_error(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { action: action.to_owned(), source }
}

#[async_trait]
impl Snapshotter for FakeSnapshotter {
    async fn find_layer(&self, layer: &DiffId) -> Result<Option<LayerInfo>, Error> {
        Ok(self.state().layers.get(layer).map(|bytes| info(layer, bytes)))
    }

    async fn apply(&self, source: LayerSource) -> Result<LayerInfo, Error> {
        let mut bytes = Vec::new();
        let mut plain = decompress(source.blob).map_err(io_error("read the layer"))?;
        plain.read_to_end(&mut bytes).map_err(io_error("read the layer"))?;
        let found = DiffId(Digest::sha256(Sha256::digest(&bytes).into()));
        match source.expected {
            Some(expected) if expected != found => Err(Error::WrongDigest { expected, found }),
            _ => {
                let info = info(&found, &bytes);
                self.state().layers.insert(found, bytes.into());
                Ok(info)
            }
        }
    }

    async fn prepare(&self, request: SnapshotRequest) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(layer) = request.layers.iter().find(|layer| !state.layers.contains_key(layer)) {
            return Err(Error::NoSuchLayer(layer.clone()));
        }
        let from = state.image_files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let files = Arc::new(Mutex::new(from));
        let id = request.container;
        let container = Container { request: Some(request), files, changes: Vec::new() };
        state.containers.insert(id, container);
        Ok(())
    }

    async fn rootfs(&self, container: &ContainerId) -> Result<RootfsPlan, Error> {
        let state = self.state();
        let request = state.containers.get(container).and_then(|found| found.request.as_ref());
        let request = request.ok_or_else(|| missing(container))?;
        let dir = self.container_dir(container);
        let layers = self.home.join("layers");
        Ok(RootfsPlan::Overlay(OverlayPlan {
            lower: request.layers.iter().rev().map(|layer| layers.join(layer.0.hex())).collect(),
            upper: Some(UpperPlan { upper: dir.join("upper"), work: dir.join("work") }),
            options: Vec::new(),
        }))
    }

    async fn remove(&self, container: &ContainerId) -> Result<(), Error> {
        self.state().containers.remove(container);
        Ok(())
    }

    async fn usage(&self, container: &ContainerId) -> Result<Usage, Error> {
        let state = self.state();
        let found = state.containers.get(container).ok_or_else(|| missing(container))?;
        let layers = found.request.iter().flat_map(|request| &request.layers);
        let sizes = layers.filter_map(|layer| state.layers.get(layer)).map(|b| b.len() as u64);
        Ok(Usage { writable: 0, layers: sizes.sum() })
    }

    async fn changes(&self, container: &ContainerId) -> Result<Vec<Change>, Error> {
        let state = self.state();
        let found = state.containers.get(container).ok_or_else(|| missing(container))?;
        Ok(found.changes.clone())
    }

    async fn diff(
        &self,
        container: &ContainerId,
        mut sink: Box<dyn Write + Send>,
    ) -> Result<LayerInfo, Error> {
        let changes = self.changes(container).await?;
        // Two empty blocks end a tar; the text behind them makes different changes different layers.
        let mut tar = vec![0; 1024];
        tar.extend(changes.iter().flat_map(|change| change.path.bytes()));
        sink.write_all(&tar).map_err(io_error("write the layer"))?;
        self.apply(LayerSource { blob: Box::new(Cursor::new(tar)), expected: None }).await
    }

    async fn layer_tar(
        &self,
        layer: &DiffId,
        mut sink: Box<dyn Write + Send>,
    ) -> Result<(), Error> {
        let bytes = self.state().layers.get(layer).cloned();
        let bytes = bytes.ok_or_else(|| Error::NoSuchLayer(layer.clone()))?;
        sink.write_all(&bytes).map_err(io_error("write the layer"))
    }

    async fn open(
        &self,
        container: &ContainerId,
        _pid: Option<i32>,
    ) -> Result<Arc<dyn Tree>, Error> {
        let state = self.state();
        let found = state.containers.get(container).ok_or_else(|| missing(container))?;
        Ok(Arc::new(FakeTree { files: found.files.clone(), name: container.to_string() }))
    }

    async fn view(&self, layers: &[DiffId]) -> Result<Arc<dyn Tree>, Error> {
        let state = self.state();
        if let Some(layer) = layers.iter().find(|layer| !state.layers.contains_key(layer)) {
            return Err(Error::NoSuchLayer(layer.clone()));
        }
        Ok(Arc::new(FakeTree { files: state.image_files.clone(), name: String::new() }))
    }

    fn layer_trees(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        layers.iter().rev().map(|id| PathBuf::from(format!("/layers/{id}"))).collect()
    }

    async fn retain(&self, layers: &[DiffId], containers: &[ContainerId]) -> Result<u64, Error> {
        let layers = layers.iter().collect::<BTreeSet<_>>();
        let mut freed = 0;
        let mut state = self.state();
        state.containers.retain(|container, _| containers.contains(container));
        let requests = state.containers.values().filter_map(|container| container.request.as_ref());
        let below = requests.flat_map(|request| request.layers.clone()).collect::<BTreeSet<_>>();
        state.layers.retain(|layer, bytes| {
            let keep = layers.contains(layer) || below.contains(layer);
            freed += if keep { 0 } else { bytes.len() as u64 };
            keep
        });
        Ok(freed)
    }

    fn container_dir(&self, container: &ContainerId) -> PathBuf {
        self.home.join("containers").join(container.to_string())
    }
}

struct FakeTree {
    files: Files,
    name: String,
}

impl FakeTree {
    fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn find(&self, path: &str) -> Result<Vec<u8>, Error> {
        let missing = || Error::NoSuchPath { path: path.to_owned(), container: self.name.clone() };
        self.get(path).ok_or_else(missing)
    }
}

#[async_trait]
impl Tree for FakeTree {
    async fn stat(&self, path: &str) -> Result<ArchiveStat, Error> {
        let bytes = self.find(path)?;
        Ok(ArchiveStat {
            name: path.rsplit('/').next().unwrap_or_default().to_owned(),
            size: bytes.len() as u64,
            mode: 0o100_644,
            mtime: Timestamp::from_nanos(0),
            link_target: String::new(),
        })
    }

    async fn archive(&self, path: &str) -> Result<Archive, Error> {
        Ok(Box::new(Cursor::new(self.find(path)?)))
    }

    async fn export(&self) -> Result<Archive, Error> {
        Ok(Box::new(Cursor::new(vec![0; 1024])))
    }

    async fn extract(&self, path: &str, mut archive: LayerBlob, how: Extract) -> Result<(), Error> {
        if how.read_only {
            let text = "container rootfs is marked read-only";
            return Err(Error::InvalidArgument(text.to_owned()));
        }
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).map_err(io_error("read the archive"))?;
        put(&self.files, path, &bytes);
        Ok(())
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.get(path) {
            Some(bytes) if bytes.len() as u64 > limit => {
                Err(Error::InvalidArgument(format!("{path} has more than {limit} bytes")))
            }
            found => Ok(found),
        }
    }

    async fn copy_out(&self, path: &str, host_dir: PathBuf) -> Result<(), Error> {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, bytes) in files.iter().filter_map(|(p, b)| Some((p.strip_prefix(&prefix)?, b))) {
            if !name.contains('/') {
                std::fs::write(host_dir.join(name), bytes).map_err(io_error("copy a file"))?;
            }
        }
        Ok(())
    }
}

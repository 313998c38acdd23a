//! The real transfer: between archives and the stores of one data root.

use std::collections::HashMap;
use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_content::{Blobs, History, ImageConfig, ImageDocument, ImageRecord, Images};
use rorqual_core::{ContainerId, DiffId, ImageId, Platform, Reference, Repository, Timestamp};
use rorqual_snapshot::tar::{Entry, Kind, Writer};
use rorqual_snapshot::{LayerSource, Snapshotter};
use tokio::runtime::Handle;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::archive::{Contents, Loader, Unpacked};
use crate::load::Found;
use crate::pins::Pins;
use crate::pull::{Jobs, Puller};
use crate::push::{Packed, Pusher};
use crate::record::{self, Stores, other};
use crate::registry::Registries;
use crate::{
    CommitRequest, Distribution, Error, Hold, ImportRequest, Keeper, Kept, Loaded, ManifestSummary,
    ProgressSink, PullRequest, Pulled, PushRequest, Pushed, RegistryAuth, RegistryOptions,
    SearchRequest, SearchResult, Transfer, distribution, load, platforms, save,
};

/// LIMIT: layers of one load at work at a time; each keeps about two cores busy and some MiB of memory.
const UNPACKING: usize = 4;

/// Moves images between archives and one data root.
#[derive(Clone)]
pub struct LocalTransfer {
    pub(crate) stores: Stores,
    /// Transfers share it, collection has it alone.
    pub(crate) gate: Arc<RwLock<()>>,
    pub(crate) registries: Registries,
    pub(crate) jobs: Jobs,
    pub(crate) pins: Pins,
    pub(crate) packed: Packed,
    keepers: Arc<Mutex<Vec<Arc<dyn Keeper>>>>,
}

/// A file of an image made from memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Path in the image.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

impl LocalTransfer {
    /// Returns what fetches from registries.
    pub(crate) fn puller(&self, progress: ProgressSink) -> Puller<'_> {
        Puller {
            stores: &self.stores,
            registries: &self.registries,
            jobs: &self.jobs,
            pins: &self.pins,
            gate: &self.gate,
            progress,
        }
    }

    /// Works on these stores, which must belong to one data root.
    pub fn new(
        blobs: Arc<dyn Blobs>,
        images: Arc<dyn Images>,
        snapshots: Arc<dyn Snapshotter>,
    ) -> Self {
        Self {
            stores: Stores { blobs, images, snapshots },
            gate: Arc::default(),
            keepers: Arc::default(),
            registries: Registries::new(RegistryOptions::default()),
            jobs: Jobs::default(),
            pins: Pins::default(),
            packed: Packed::default(),
        }
    }

    /// Speaks to registries by these settings from the next operation on.
    pub fn configure(&self, options: RegistryOptions) {
        self.registries.configure(options);
    }

    /// Opens the file at an address, by the same settings. The reader blocks, and is for blocking threads only.
    pub async fn open_address(&self, url: &str) -> Result<Box<dyn Read + Send>, Error> {
        Ok(self.registries.open(url).await?)
    }

    /// Makes an image of files in memory. The same files make the same image, wherever and whenever.
    pub async fn install(
        &self,
        name: Reference,
        files: Vec<ImageFile>,
        config: ImageConfig,
    ) -> Result<ImageId, Error> {
        let _shared = self.gate.read().await;
        let _lease = self.stores.blobs.lease();
        let tar = pack(files).map_err(other("pack the files of an image"))?;
        let source = LayerSource { blob: Box::new(Cursor::new(tar)), expected: None };
        let layer = self.stores.snapshots.apply(source).await?;
        let mut document = record::document(Platform::host(), config);
        document.created = Timestamp::from_nanos(0).to_string();
        let step = History { created: document.created.clone(), ..History::default() };
        record::append(&mut document, step, &layer.diff_id);
        self.stores.make(document, vec![name]).await
    }

    /// Unpacks the layers whose blobs are stored, several at a time. Waits for all, also when one fails.
    async fn unpack(&self, found: &[Found]) -> Result<(), Error> {
        let mut left: Vec<_> =
            found.iter().flat_map(|image| image.packed.iter().cloned()).collect();
        left.sort();
        left.dedup();
        let mut working = JoinSet::new();
        let mut failure = None;
        loop {
            while working.len() < UNPACKING && failure.is_none() {
                let Some((blob, diff_id)) = left.pop() else { break };
                let Stores { blobs, snapshots, .. } = self.stores.clone();
                working.spawn(async move {
                    let blob = blobs.open(&blob)?;
                    let source = LayerSource { blob, expected: Some(diff_id) };
                    snapshots.apply(source).await.map_err(Error::from)
                });
            }
            match working.join_next().await {
                None => break,
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err(error))) => failure = Some(error),
                Some(Err(error)) => failure = Some(other("unpack a layer")(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Waits for all layers of an archive, also when one fails: nothing goes on behind the caller's back.
    async fn unpacked(contents: &mut Contents) -> Result<HashMap<String, Unpacked>, Error> {
        let mut unpacked = HashMap::new();
        let mut failure = None;
        for (path, unpacking) in contents.layers.drain() {
            match unpacking.layer.await.map_err(other("unpack a layer")) {
                Ok(Ok(info)) => {
                    let done = Unpacked { blob: unpacking.blob, diff_id: info.diff_id };
                    unpacked.insert(path, done);
                }
                Ok(Err(error)) => failure = Some(error.into()),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(unpacked),
        }
    }
}

fn pack(mut files: Vec<ImageFile>) -> std::io::Result<Vec<u8>> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut writer = Writer::new(Vec::new());
    for file in files {
        let path = file.path.trim_start_matches('/').as_bytes();
        writer.file(Entry::new(path, Kind::File, file.mode), &file.bytes)?;
    }
    writer.finish()
}

#[async_trait]
impl Transfer for LocalTransfer {
    async fn load(
        &self,
        archive: Box<dyn Read + Send>,
        platform: Option<Platform>,
        progress: ProgressSink,
    ) -> Result<Vec<Loaded>, Error> {
        let _shared = self.gate.read().await;
        let _lease = self.stores.blobs.lease();
        let Stores { blobs, snapshots, .. } = self.stores.clone();
        let reader = Loader { blobs, snapshots, progress, runtime: Handle::current() };
        let read = tokio::task::spawn_blocking(move || reader.read(archive));
        let mut contents = read.await.map_err(other("read the archive"))??;
        let layers = Self::unpacked(&mut contents).await?;
        let found = load::images(&contents, &layers, platform.as_ref())?;
        self.unpack(&found).await?;
        let mut loaded = Vec::new();
        for image in found {
            let names = image.names.clone();
            let id = self.stores.record(image).await?;
            loaded.push(Loaded { id, names });
        }
        Ok(loaded)
    }

    async fn save(
        &self,
        images: Vec<(ImageId, Vec<Reference>)>,
        platform: Option<Platform>,
        sink: Box<dyn Write + Send>,
    ) -> Result<(), Error> {
        save::save(&self.stores, images, platform.as_ref(), sink).await
    }

    async fn manifests(&self, image: &ImageRecord) -> Result<Vec<ManifestSummary>, Error> {
        platforms::manifests(&self.stores, image).await
    }

    async fn variant(
        &self,
        image: &ImageRecord,
        platform: &Platform,
    ) -> Result<ImageRecord, Error> {
        platforms::variant(&self.stores, image, platform).await
    }

    async fn import(&self, request: ImportRequest) -> Result<ImageId, Error> {
        let _shared = self.gate.read().await;
        let _lease = self.stores.blobs.lease();
        let source = LayerSource { blob: request.archive, expected: None };
        let layer = self.stores.snapshots.apply(source).await?;
        let mut document = record::document(request.platform, request.config);
        document.created = Timestamp::from(SystemTime::now()).to_string();
        document.comment.clone_from(&request.message);
        let step = History {
            created: document.created.clone(),
            comment: request.message,
            ..History::default()
        };
        record::append(&mut document, step, &layer.diff_id);
        self.stores.make(document, request.name.into_iter().collect()).await
    }

    async fn commit(&self, request: CommitRequest) -> Result<ImageId, Error> {
        let _shared = self.gate.read().await;
        let _lease = self.stores.blobs.lease();
        let sink = Box::new(std::io::sink());
        let layer = self.stores.snapshots.diff(&request.container, sink).await?;
        let mut document = match &request.parent {
            Some(parent) => self.stores.images.image(parent).await?.document,
            None => record::document(request.platform, ImageConfig::default()),
        };
        document.config = request.config;
        document.created = request.created.to_string();
        document.author.clone_from(&request.author);
        document.comment.clone_from(&request.comment);
        let step = History {
            created: document.created.clone(),
            created_by: request.created_by,
            author: request.author,
            comment: request.comment,
            empty_layer: false,
        };
        record::append(&mut document, step, &layer.diff_id);
        self.stores.make(document, request.name.into_iter().collect()).await
    }

    async fn make(&self, document: ImageDocument, names: Vec<Reference>) -> Result<ImageId, Error> {
        let _shared = self.gate.read().await;
        let _lease = self.stores.blobs.lease();
        self.stores.make(document, names).await
    }

    async fn pull(&self, request: PullRequest, progress: ProgressSink) -> Result<Pulled, Error> {
        Box::pin(self.puller(progress).pull(request)).await
    }

    async fn push(&self, request: PushRequest, progress: ProgressSink) -> Result<Pushed, Error> {
        let pusher = Pusher {
            stores: &self.stores,
            registries: &self.registries,
            packed: &self.packed,
            pins: &self.pins,
            gate: &self.gate,
            progress,
        };
        Box::pin(pusher.push(request)).await
    }

    async fn resolve(&self, name: &Reference, auth: &RegistryAuth) -> Result<Distribution, Error> {
        Box::pin(distribution::resolve(&self.registries, name, auth)).await
    }

    async fn tags(
        &self,
        repository: &Repository,
        auth: &RegistryAuth,
    ) -> Result<Vec<String>, Error> {
        Box::pin(distribution::tags(&self.registries, repository, auth)).await
    }

    async fn login(&self, server: &str, auth: &RegistryAuth) -> Result<Option<String>, Error> {
        Box::pin(self.registries.login(server, auth)).await
    }

    async fn fetch_file(
        &self,
        url: &str,
        etag: Option<&str>,
    ) -> Result<crate::RemoteAnswer, crate::RemoteError> {
        self.registries.fetch(url, etag).await
    }

    async fn search(&self, request: SearchRequest) -> Result<Vec<SearchResult>, Error> {
        Box::pin(self.registries.search(request)).await
    }

    fn add_keeper(&self, keeper: Arc<dyn Keeper>) {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).push(keeper);
    }

    async fn hold(&self) -> Hold {
        Box::new(Arc::clone(&self.gate).read_owned().await)
    }

    async fn alone(&self) -> Hold {
        Box::new(Arc::clone(&self.gate).write_owned().await)
    }

    fn kept(&self) -> Kept {
        // Pulls and pushes take too long to be waited for: they say what they need.
        let pinned = self.pins.all();
        let layers = pinned.iter().cloned().map(DiffId).collect();
        let mut all = Kept { layers, blobs: pinned, ..Kept::default() };
        for keeper in self.keepers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let kept = keeper.kept();
            all.layers.extend(kept.layers);
            all.snapshots.extend(kept.snapshots);
            all.blobs.extend(kept.blobs);
        }
        all
    }

    async fn collect(&self, containers: &[ContainerId]) -> Result<u64, Error> {
        let _alone = self.gate.write().await;
        let kept = self.kept();
        let images = self.stores.images.list().await?;
        let roots = images.iter().flat_map(ImageRecord::roots).chain(kept.blobs);
        let roots = roots.collect::<Vec<_>>();
        // A plain blob of another platform is kept as a layer.
        let reached = self.stores.blobs.reach(roots.clone()).await?.into_iter().map(DiffId);
        let blobs = self.stores.blobs.collect(roots).await?;
        let layers = images.into_iter().flat_map(|image| image.document.rootfs.diff_ids);
        let layers = layers.chain(reached).chain(kept.layers).collect::<Vec<_>>();
        let snapshots = [containers, &kept.snapshots].concat();
        Ok(blobs + self.stores.snapshots.retain(&layers, &snapshots).await?)
    }
}

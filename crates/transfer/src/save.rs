//! Writing images as one archive: an OCI layout with Docker's `manifest.json` and `repositories` beside it.
//!
//! The same images make the same bytes: nothing of the time or the host goes in, and layers come out as they came.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_content::{Descriptor, Index, Manifest, media_type};
use rorqual_core::{DiffId, ImageId, Platform, Reference};
use rorqual_snapshot::tar::{Entry, Kind, Writer};
use serde::Serialize;

use crate::Error;
use crate::archive::blob_path;
use crate::graph::Graph;
use crate::platforms;
use crate::record::{self, Stores, other};

type Sink = Box<dyn Write + Send>;

/// An image with all that is written of it.
struct Image {
    /// What the archive's index leads to.
    target: Descriptor,
    graph: Graph,
    /// The manifest for programs that know one platform only.
    manifest: Manifest,
    names: Vec<Reference>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Collects an image's documents.
async fn image(
    stores: &Stores,
    id: &ImageId,
    names: Vec<Reference>,
    platform: Option<&Platform>,
) -> Result<Image, Error> {
    let found = stores.images.image(id).await?;
    let chosen = match platform {
        Some(platform) => platforms::variant(stores, &found, platform).await?,
        None => found.clone(),
    };
    let (mut target, graph) = platforms::graph(stores, &found, platform)?;
    let own = graph.leaves.iter().find(|leaf| leaf.descriptor.digest == chosen.manifest.digest);
    let manifest = own.and_then(|leaf| leaf.manifest.clone());
    let missing = || rorqual_content::Error::NoSuchBlob(chosen.manifest.digest.clone());
    let manifest = manifest.ok_or_else(missing)?;
    for blob in platforms::blobs(&chosen.manifest, &manifest) {
        if !stores.holds(blob).await? {
            return Err(rorqual_content::Error::NoSuchBlob(blob.digest.clone()).into());
        }
    }
    let is = record::platform(&chosen.document);
    if target.digest == chosen.manifest.digest && record::is_known(&is) {
        target.platform.get_or_insert(is);
    }
    Ok(Image { target, graph, manifest, names })
}

/// Writes the archive.
pub(crate) async fn save(
    stores: &Stores,
    images: Vec<(ImageId, Vec<Reference>)>,
    platform: Option<&Platform>,
    sink: Sink,
) -> Result<(), Error> {
    let mut collected = Vec::new();
    for (id, names) in images {
        collected.push(image(stores, &id, names, platform).await?);
    }
    let archive = Archive::new(sink);
    archive.blobs(stores, &collected).await?;
    archive.file("index.json", index(&collected)?).await?;
    archive.file("manifest.json", docker_list(&collected)?).await?;
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()).await?;
    if let Some(text) = repositories(&collected)? {
        archive.file("repositories", text).await?;
    }
    tokio::task::spawn_blocking(move || archive.finish()).await.map_err(other("end the archive"))?
}

fn index(images: &[Image]) -> Result<Vec<u8>, Error> {
    let mut manifests = Vec::new();
    for image in images {
        if image.names.is_empty() {
            manifests.push(image.target.clone());
        }
        for name in &image.names {
            let mut descriptor = image.target.clone();
            let annotations = &mut descriptor.annotations;
            annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
            if let Some(tag) = name.tag() {
                let key = "org.opencontainers.image.ref.name".to_owned();
                annotations.insert(key, tag.to_owned());
            }
            manifests.push(descriptor);
        }
    }
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests,
        annotations: BTreeMap::new(),
    };
    serde_json::to_vec(&index).map_err(other("encode an index"))
}

fn docker_list(images: &[Image]) -> Result<Vec<u8>, Error> {
    let image = |image: &Image| {
        let names = image.names.iter().filter(|name| name.tag().is_some());
        let names = names.map(Reference::familiar).collect::<Vec<_>>();
        let layers = image.manifest.layers.iter().map(|layer| blob_path(&layer.digest));
        DockerImage {
            config: blob_path(&image.manifest.config.digest),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: layers.collect(),
        }
    };
    let list = images.iter().map(image).collect::<Vec<_>>();
    serde_json::to_vec(&list).map_err(other("encode manifest.json"))
}

/// Writes the names for programs that know only Docker's first format: repository, tag, topmost layer.
fn repositories(images: &[Image]) -> Result<Option<Vec<u8>>, Error> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let top = image.manifest.layers.last().map(|layer| layer.digest.hex().to_owned());
        for name in &image.names {
            if let (Some(tag), Some(top)) = (name.tag(), &top) {
                let tags = all.entry(name.repository().familiar()).or_default();
                tags.insert(tag.to_owned(), top.clone());
            }
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    serde_json::to_vec(&all).map(Some).map_err(other("encode repositories"))
}

/// The archive, shared with whoever writes a layer into it.
#[derive(Clone)]
struct Archive(Arc<Mutex<Writer<Sink>>>);

fn writing(error: io::Error) -> Error {
    other("write the archive")(error)
}

impl Archive {
    fn new(sink: Sink) -> Self {
        Self(Arc::new(Mutex::new(Writer::new(sink))))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Writer<Sink>) -> io::Result<T>) -> io::Result<T> {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Like [`Archive::with`], on a thread that may wait for the sink.
    async fn write(
        &self,
        work: impl FnOnce(&mut Writer<Sink>) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let archive = self.clone();
        let written = tokio::task::spawn_blocking(move || archive.with(work)).await;
        written.map_err(other("write the archive"))?.map_err(writing)
    }

    async fn file(&self, path: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let entry = Entry::new(path, Kind::File, 0o644);
        self.write(move |writer| writer.file(entry, &bytes).map(drop)).await
    }

    async fn blobs(&self, stores: &Stores, images: &[Image]) -> Result<(), Error> {
        let mut directories = BTreeSet::new();
        let mut written = BTreeSet::new();
        for path in ["blobs/", "blobs/sha256/"] {
            self.directory(path, &mut directories).await?;
        }
        for image in images {
            let manifests = image.graph.leaves.iter().filter_map(|leaf| leaf.manifest.as_ref());
            let blobs = manifests
                .flat_map(|manifest| manifest.layers.iter().chain([&manifest.config]))
                .collect::<Vec<_>>();
            for blob in blobs {
                if written.insert(blob.digest.clone()) {
                    let folder = format!("blobs/{}/", blob.digest.algorithm().name());
                    self.directory(&folder, &mut directories).await?;
                    self.blob(stores, blob).await?;
                }
            }
            for (digest, bytes) in &image.graph.documents {
                if written.insert(digest.clone()) {
                    self.file(&blob_path(digest), bytes.clone()).await?;
                }
            }
        }
        Ok(())
    }

    async fn directory(&self, path: &str, known: &mut BTreeSet<String>) -> Result<(), Error> {
        if !known.insert(path.to_owned()) {
            return Ok(());
        }
        let entry = Entry::new(path, Kind::Directory, 0o755);
        self.write(move |writer| writer.header(&entry).map(drop)).await
    }

    /// Writes a blob as it is kept, or again from its layer. What is not here belongs to a platform that was not loaded.
    async fn blob(&self, stores: &Stores, blob: &Descriptor) -> Result<(), Error> {
        let mut entry = Entry::new(blob_path(&blob.digest), Kind::File, 0o644);
        if let Some(size) = stores.blobs.size(&blob.digest)? {
            entry.size = size;
            let mut bytes = stores.blobs.open(&blob.digest)?;
            return self
                .write(move |writer| {
                    writer.header(&entry)?;
                    copy(&mut bytes, writer.sink(), size)?;
                    writer.pad(size)
                })
                .await;
        }
        let layer = DiffId(blob.digest.clone());
        let Some(info) = stores.snapshots.find_layer(&layer).await? else { return Ok(()) };
        entry.size = info.tar;
        self.write(move |writer| writer.header(&entry).map(drop)).await?;
        let sink = Data { archive: self.clone(), left: info.tar };
        stores.snapshots.layer_tar(&layer, Box::new(sink)).await?;
        self.write(move |writer| writer.pad(info.tar).map(drop)).await
    }

    fn finish(self) -> Result<(), Error> {
        let writer = Arc::into_inner(self.0).ok_or("a layer is still being written");
        let writer = writer.map_err(other("end the archive"))?;
        let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        writer.finish().map(drop).map_err(writing)
    }
}

/// Copies a blob, which must have the size that was announced; reading it to its end verifies it.
fn copy(from: &mut dyn Read, to: &mut dyn Write, size: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(size), to)?;
    let more = from.read(&mut [0])?;
    if copied == size && more == 0 {
        return Ok(());
    }
    Err(io::Error::other("a blob changed its size while it was read"))
}

/// The data of one entry.
struct Data {
    archive: Archive,
    left: u64,
}

impl Write for Data {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("a layer is longer than its record says"));
        }
        let len = self.archive.with(|writer| writer.sink().write(bytes))?;
        self.left -= len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

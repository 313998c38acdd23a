//! Writing images as one archive: an OCI layout with Docker's `manifest.json` and `repositories` beside it.
//!
//! The same images make the same bytes: nothing of the time or the host goes in, and layers come out as they came.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_content::{Descriptor, Index, Manifest, media_type};
use rorqual_core::{DiffId, Digest, Platform, Reference};
use rorqual_snapshot::tar::{Entry, Kind, Writer};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::archive::blob_path;
use crate::record::{self, MAX_CONFIG, Stores, other};

type Sink = Box<dyn Write + Send>;

/// An image with all that is written of it.
struct Image {
    config: Vec<u8>,
    manifest: Manifest,
    descriptor: Descriptor,
    text: Vec<u8>,
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
    id: &rorqual_core::ImageId,
    names: Vec<Reference>,
    platform: Option<&Platform>,
) -> Result<Image, Error> {
    let found = stores.images.image(id).await?;
    let own = record::platform(&found.document);
    if let Some(wanted) = platform
        && !wanted.runs(&own)
    {
        return Err(Error::NoPlatform(wanted.clone()));
    }
    let mut layers = Vec::new();
    for layer in &found.document.rootfs.diff_ids {
        let info = stores.snapshots.find_layer(layer).await?;
        layers.push(info.ok_or_else(|| rorqual_snapshot::Error::NoSuchLayer(layer.clone()))?);
    }
    let config = stores.blobs.read(&id.0, MAX_CONFIG)?;
    let manifest = record::manifest(id, config.len() as u64, &layers);
    let text = serde_json::to_vec(&manifest).map_err(other("encode a manifest"))?;
    let descriptor = Descriptor {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        digest: Digest::sha256(Sha256::digest(&text).into()),
        size: text.len() as u64,
        platform: (!own.os.is_empty() && !own.architecture.is_empty()).then_some(own),
        annotations: BTreeMap::new(),
    };
    Ok(Image { config, manifest, descriptor, text, names })
}

/// Writes the archive.
pub(crate) async fn save(
    stores: &Stores,
    images: Vec<(rorqual_core::ImageId, Vec<Reference>)>,
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
            manifests.push(image.descriptor.clone());
        }
        for name in &image.names {
            let mut descriptor = image.descriptor.clone();
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
        for path in ["blobs/", "blobs/sha256/"] {
            let entry = Entry::new(path, Kind::Directory, 0o755);
            self.write(move |writer| writer.header(&entry).map(drop)).await?;
        }
        let mut written = BTreeSet::new();
        for image in images {
            for layer in &image.manifest.layers {
                if written.insert(layer.digest.clone()) {
                    self.layer(stores, layer).await?;
                }
            }
            let documents = [
                (&image.manifest.config.digest, &image.config),
                (&image.descriptor.digest, &image.text),
            ];
            for (digest, bytes) in documents {
                if written.insert(digest.clone()) {
                    self.file(&blob_path(digest), bytes.clone()).await?;
                }
            }
        }
        Ok(())
    }

    async fn layer(&self, stores: &Stores, layer: &Descriptor) -> Result<(), Error> {
        let mut entry = Entry::new(blob_path(&layer.digest), Kind::File, 0o644);
        entry.size = layer.size;
        self.write(move |writer| writer.header(&entry).map(drop)).await?;
        let sink = Data { archive: self.clone(), left: layer.size };
        stores.snapshots.layer_tar(&DiffId(layer.digest.clone()), Box::new(sink)).await?;
        let size = layer.size;
        self.write(move |writer| writer.pad(size).map(drop)).await
    }

    fn finish(self) -> Result<(), Error> {
        let writer = Arc::into_inner(self.0).ok_or("a layer is still being written");
        let writer = writer.map_err(other("end the archive"))?;
        let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        writer.finish().map(drop).map_err(writing)
    }
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

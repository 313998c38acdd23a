//! Making image records: config, our own manifest over plain layers, names.
//!
//! The manifest of every image here is one that we write ourselves, over the layers' plain tars: those can be written again
//! byte for byte at any time, so nothing compressed is kept beside the unpacked layers. What an image is known by, the
//! digest of its config, is that of the original.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use rorqual_content::{
    Blobs, Descriptor, History, ImageConfig, ImageDocument, ImageRecord, Images, Manifest, RootFs,
    media_type,
};
use rorqual_core::{BoxError, DiffId, Digest, ImageId, Platform, Reference, Timestamp};
use rorqual_snapshot::{LayerInfo, Snapshotter};

use crate::Error;

/// LIMIT: an image config; real ones have some ten KiB.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;

/// The stores that images live in.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
}

pub(crate) fn other<E: Into<BoxError>>(action: &str) -> impl FnOnce(E) -> Error {
    let action = action.to_owned();
    move |source| Error::Other { action, source: source.into() }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

/// Makes the manifest over plain layers.
pub(crate) fn manifest(config: &ImageId, config_size: u64, layers: &[LayerInfo]) -> Manifest {
    let layer =
        |info: &LayerInfo| descriptor(media_type::OCI_LAYER, info.diff_id.0.clone(), info.tar);
    Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: descriptor(media_type::OCI_CONFIG, config.0.clone(), config_size),
        layers: layers.iter().map(layer).collect(),
        annotations: std::collections::BTreeMap::new(),
    }
}

/// Tells the platform of a config.
pub(crate) fn platform(document: &ImageDocument) -> Platform {
    Platform {
        os: document.os.clone(),
        architecture: document.architecture.clone(),
        variant: document.variant.clone(),
    }
}

/// Starts a config for a platform.
pub(crate) fn document(platform: Platform, config: ImageConfig) -> ImageDocument {
    ImageDocument {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        ..ImageDocument::default()
    }
}

/// Appends a step with its layer.
pub(crate) fn append(document: &mut ImageDocument, mut step: History, layer: &DiffId) {
    // COMPAT: a step that changed nothing has no layer; its tar is two empty blocks.
    step.empty_layer = layer.0.hex() == EMPTY_TAR;
    if !step.empty_layer {
        document.rootfs.diff_ids.push(layer.clone());
    }
    document.history.push(step);
}

/// Digest of the tar that holds nothing.
const EMPTY_TAR: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

impl Stores {
    fn put(&self, bytes: &[u8]) -> Result<(Digest, u64), Error> {
        let mut ingest = self.blobs.ingest(bytes.len() as u64)?;
        ingest.write_all(bytes).map_err(other("write a document"))?;
        Ok(ingest.commit(None)?)
    }

    /// Records an image that we make ourselves. The caller holds a lease.
    pub(crate) async fn make(
        &self,
        document: ImageDocument,
        names: Vec<Reference>,
    ) -> Result<ImageId, Error> {
        let bytes = serde_json::to_vec(&document).map_err(other("encode an image config"))?;
        self.record(&bytes, document, names).await
    }

    /// Records an image with the config `bytes`, once all of its layers are there. The caller holds a lease.
    pub(crate) async fn record(
        &self,
        bytes: &[u8],
        document: ImageDocument,
        names: Vec<Reference>,
    ) -> Result<ImageId, Error> {
        let mut layers = Vec::new();
        for id in &document.rootfs.diff_ids {
            let found = self.snapshots.find_layer(id).await?;
            layers.push(found.ok_or_else(|| rorqual_snapshot::Error::NoSuchLayer(id.clone()))?);
        }
        let (config, config_size) = self.put(bytes)?;
        let id = ImageId(config);
        let manifest = manifest(&id, config_size, &layers);
        let text = serde_json::to_vec(&manifest).map_err(other("encode a manifest"))?;
        let (digest, size) = self.put(&text)?;
        let manifest = descriptor(media_type::OCI_MANIFEST, digest, size);
        let tagged_at = (!names.is_empty()).then(|| Timestamp::from(SystemTime::now()));
        let record = ImageRecord {
            id: id.clone(),
            target: manifest.clone(),
            manifest,
            document,
            tags: names,
            digests: Vec::new(),
            size: layers.iter().map(|layer| layer.size).sum(),
            tagged_at,
        };
        self.images.put(record).await?;
        Ok(id)
    }
}

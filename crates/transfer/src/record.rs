//! Making image records: config, manifest, names.
//!
//! An image that came with a manifest keeps it, and the blobs it names: it can be handed on as it came. An image that came
//! without, or was made here, gets a manifest over the layers' plain tars: those can be written again byte for byte at any
//! time, so nothing is kept beside the unpacked layers. What an image is known by is the digest of its config.

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
use crate::graph::Documents;
use crate::load::{Found, Origin};

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

/// Makes the manifest over plain layers.
pub(crate) fn manifest(config: &ImageId, config_size: u64, layers: &[LayerInfo]) -> Manifest {
    let layer =
        |info: &LayerInfo| Descriptor::new(media_type::OCI_LAYER, info.diff_id.0.clone(), info.tar);
    Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(media_type::OCI_CONFIG, config.0.clone(), config_size),
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

/// Tells whether a config says what machine it is for.
pub(crate) fn is_known(platform: &Platform) -> bool {
    !platform.os.is_empty() && !platform.architecture.is_empty()
}

/// Starts a config for a platform.
pub(crate) fn document(mut platform: Platform, config: ImageConfig) -> ImageDocument {
    // COMPAT: the eighth version of arm64 goes without saying.
    if platform.architecture == "arm64" && platform.variant == "v8" {
        platform.variant.clear();
    }
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
    /// Stores a document; `expected` where its digest is known.
    pub(crate) fn put(
        &self,
        bytes: &[u8],
        expected: Option<&Digest>,
    ) -> Result<(Digest, u64), Error> {
        if let Some(expected) = expected
            && self.blobs.size(expected)? == Some(bytes.len() as u64)
        {
            return Ok((expected.clone(), bytes.len() as u64));
        }
        let mut ingest = self.blobs.ingest(bytes.len() as u64)?;
        ingest.write_all(bytes).map_err(other("write a document"))?;
        Ok(ingest.commit(expected)?)
    }

    /// Records an image that we make ourselves. The caller holds a lease.
    pub(crate) async fn make(
        &self,
        document: ImageDocument,
        names: Vec<Reference>,
    ) -> Result<ImageId, Error> {
        let config = serde_json::to_vec(&document).map_err(other("encode an image config"))?;
        self.record(Found { config, document, names, packed: Vec::new(), origin: None }).await
    }

    /// Records an image, once all of its layers are there. The caller holds a lease.
    pub(crate) async fn record(&self, image: Found) -> Result<ImageId, Error> {
        self.record_with(image, Vec::new()).await
    }

    /// Like [`Stores::record`], with names by digest.
    pub(crate) async fn record_with(
        &self,
        image: Found,
        digests: Vec<Reference>,
    ) -> Result<ImageId, Error> {
        let Found { config, document, names, origin, .. } = image;
        let layers = self.layers(&document).await?;
        let (digest, config_size) = self.put(&config, None)?;
        let id = ImageId(digest);
        let (target, manifest) = match (origin, self.images.image(&id).await) {
            (Some(origin), _) => self.keep(origin)?,
            // It came with more before, and is the same image.
            (None, Ok(known)) => (known.target, known.manifest),
            (None, Err(_)) => self.describe(&id, config_size, &document, &layers)?,
        };
        let tagged_at = (!names.is_empty()).then(|| Timestamp::from(SystemTime::now()));
        let record = ImageRecord {
            id: id.clone(),
            target,
            manifest,
            document,
            tags: names,
            digests,
            size: layers.iter().map(|layer| layer.size).sum(),
            tagged_at,
        };
        self.images.put(record).await?;
        Ok(id)
    }

    /// Finds the layers of an image, all of which must be here.
    pub(crate) async fn layers(&self, document: &ImageDocument) -> Result<Vec<LayerInfo>, Error> {
        let mut layers = Vec::new();
        for id in &document.rootfs.diff_ids {
            let found = self.snapshots.find_layer(id).await?;
            layers.push(found.ok_or_else(|| rorqual_snapshot::Error::NoSuchLayer(id.clone()))?);
        }
        Ok(layers)
    }

    /// Stores the documents that an image came with.
    fn keep(&self, origin: Origin) -> Result<(Descriptor, Descriptor), Error> {
        for (digest, bytes) in &origin.documents {
            self.put(bytes, Some(digest))?;
        }
        Ok((origin.target, origin.manifest))
    }

    /// Stores a manifest of our own.
    fn describe(
        &self,
        id: &ImageId,
        config_size: u64,
        document: &ImageDocument,
        layers: &[LayerInfo],
    ) -> Result<(Descriptor, Descriptor), Error> {
        let text = serde_json::to_vec(&manifest(id, config_size, layers));
        let (digest, size) = self.put(&text.map_err(other("encode a manifest"))?, None)?;
        let mut manifest = Descriptor::new(media_type::OCI_MANIFEST, digest, size);
        manifest.platform = Some(platform(document)).filter(is_known);
        Ok((manifest.clone(), manifest))
    }
}

impl Documents for Stores {
    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        match self.blobs.size(digest)? {
            Some(size) if size <= MAX_CONFIG => Ok(Some(self.blobs.read(digest, MAX_CONFIG)?)),
            _ => Ok(None),
        }
    }
}

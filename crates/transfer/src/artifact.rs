//! What is no image of the engine: documents and single layers at registries, and images that are recorded with documents
//! of their own beside them (annotations, statements, several platforms).

mod compose;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_content::{Descriptor, ImageDocument, Manifest};
use rorqual_core::{DiffId, Digest, ImageId, Platform, Reference};
use serde_json::Value;

use crate::local::LocalTransfer;
use crate::pull::explained;
use crate::push::source;
use crate::record::{MAX_CONFIG, other};
use crate::registry::{Content, Failure, Reason};
use crate::{Error, RegistryAuth};

/// LIMIT: a document of a build cache; a large build's has some MiB.
const MAX_BLOB: u64 = 32 << 20;

/// Documents and blobs to send under a name.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where to; has a tag.
    pub name: Reference,
    /// Who asks.
    pub auth: RegistryAuth,
    /// Blobs that are stored here.
    pub blobs: Vec<Descriptor>,
    /// What the name will lead to.
    pub manifest: (Descriptor, Vec<u8>),
}

/// A statement about an image: an in-toto predicate.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    /// `https://slsa.dev/provenance/v0.2`, `https://spdx.dev/Document`, ….
    pub kind: String,
    /// What is said.
    pub body: Value,
}

/// One platform of a [`Composition`].
#[derive(Clone, Debug)]
pub struct Component {
    /// Its config; the layers are all here.
    pub document: ImageDocument,
    /// For which machine.
    pub platform: Platform,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the manifest's descriptor.
    pub descriptor_annotations: BTreeMap<String, String>,
    /// What is said of it.
    pub predicates: Vec<Predicate>,
}

/// An image to record, with its manifests as they are handed on: layers packed, documents final.
#[derive(Clone, Debug)]
pub struct Composition {
    /// At least one; each platform once.
    pub components: Vec<Component>,
    /// Names to give.
    pub names: Vec<Reference>,
    /// Names that statements are about.
    pub subjects: Vec<Reference>,
    /// There is an index, also above a single manifest without statements.
    pub index: bool,
    /// Annotations of the index.
    pub index_annotations: BTreeMap<String, String>,
    /// Annotations of the index's descriptor.
    pub index_descriptor_annotations: BTreeMap<String, String>,
}

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// The image, by the config for this machine, or the first.
    pub id: ImageId,
    /// What its names lead to.
    pub target: Descriptor,
}

/// Exchanges artifacts with registries, and makes images of several documents.
#[async_trait]
pub trait Artifacts: Send + Sync + 'static {
    /// Fetches the manifest or index that a name (tag or digest) leads to, verified where the name has a digest.
    async fn document(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
    ) -> Result<(Descriptor, Vec<u8>), Error>;
    /// Fetches a small blob of a repository, verified.
    async fn small_blob(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
        blob: &Descriptor,
    ) -> Result<Vec<u8>, Error>;
    /// Fetches and unpacks one layer of a repository, verified by both digests.
    async fn layer(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
        blob: &Descriptor,
        layer: &DiffId,
    ) -> Result<(), Error>;
    /// Packs a layer into a blob, or finds it packed. The caller holds a lease of the blobs until it has used it.
    async fn pack(&self, layer: &DiffId) -> Result<Descriptor, Error>;
    /// Sends blobs that a registry lacks, and then the manifest.
    ///
    /// # Cancellation
    /// Dropping the future ends it; the name at the registry is as it was.
    async fn publish(&self, publication: Publication) -> Result<(), Error>;
    /// Records an image with all its documents, packed.
    async fn compose(&self, composition: Composition) -> Result<Composed, Error>;
}

/// What a registry is asked for.
#[derive(Clone, Copy)]
enum Question<'q> {
    /// A manifest or index, by tag or digest.
    Document(&'q str),
    Blob(&'q Descriptor),
}

impl LocalTransfer {
    /// Asks the servers of a name, one after the other.
    async fn ask(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
        question: Question<'_>,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        let mut last = Failure::new(Reason::Unreachable, "no server to ask");
        for session in self.registries.readers(name.repository(), auth).await? {
            let answer = match question {
                Question::Document(tag) => {
                    let document = session.manifest(tag).await;
                    document.map(|document| (document.descriptor, document.bytes))
                }
                Question::Blob(blob) => {
                    let bytes = session.small_blob(blob, MAX_BLOB).await;
                    bytes.map(|bytes| (blob.clone(), bytes))
                }
            };
            match answer {
                Ok(answer) => {
                    session.note_reached();
                    return Ok(answer);
                }
                Err(failure) if session.is_open(&failure) => last = failure,
                Err(failure) => return Err(explained(failure, name)),
            }
        }
        Err(explained(last, name))
    }

    /// Finds a layer as it came, packed, with an image that is here.
    async fn packed_before(&self, layer: &DiffId) -> Result<Option<Descriptor>, Error> {
        for image in self.stores.images.list().await? {
            let diffs = &image.document.rootfs.diff_ids;
            let Some(at) = diffs.iter().position(|diff| diff == layer) else { continue };
            let Ok(bytes) = self.stores.blobs.read(&image.manifest.digest, MAX_CONFIG) else {
                continue;
            };
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
            let Some(blob) =
                manifest.layers.get(at).filter(|_| manifest.layers.len() == diffs.len())
            else {
                continue;
            };
            let is_gzip = blob.media_type.ends_with("gzip");
            if is_gzip && self.stores.blobs.size(&blob.digest)? == Some(blob.size) {
                let kind = rorqual_content::media_type::OCI_LAYER_GZIP;
                return Ok(Some(Descriptor::new(kind, blob.digest.clone(), blob.size)));
            }
        }
        Ok(None)
    }

    pub(crate) async fn pack_layer(&self, layer: &DiffId) -> Result<Descriptor, Error> {
        let before = match self.packed.find(layer) {
            Some(_) => None,
            None => self.packed_before(layer).await?,
        };
        self.packed.pack(&self.stores, layer, before.as_ref()).await
    }
}

#[async_trait]
impl Artifacts for LocalTransfer {
    async fn document(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        let name = name.clone().or_latest();
        let tag = name
            .digest()
            .map_or_else(|| name.tag().unwrap_or_default().to_owned(), Digest::to_string);
        Box::pin(self.ask(&name, auth, Question::Document(&tag))).await
    }

    async fn small_blob(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
        blob: &Descriptor,
    ) -> Result<Vec<u8>, Error> {
        let asked = Box::pin(self.ask(name, auth, Question::Blob(blob))).await;
        asked.map(|(_, bytes)| bytes)
    }

    async fn layer(
        &self,
        name: &Reference,
        auth: &RegistryAuth,
        blob: &Descriptor,
        layer: &DiffId,
    ) -> Result<(), Error> {
        let sessions = self.registries.readers(name.repository(), auth).await?;
        let puller = self.puller(Arc::new(|_| {}));
        let pinned = {
            // ORDER: held before anybody looks what is here, and not in the middle of a collection.
            let _shared = self.gate.read().await;
            self.pins.hold(vec![blob.digest.clone(), layer.0.clone()])
        };
        let fetched = Box::pin(puller.fetch(&sessions, vec![(blob.clone(), layer.clone())])).await;
        drop(pinned);
        if fetched.is_ok() && blob.media_type.ends_with("gzip") {
            self.packed.put(&*self.stores.images, layer, blob).await;
        }
        fetched
    }

    async fn pack(&self, layer: &DiffId) -> Result<Descriptor, Error> {
        self.pack_layer(layer).await
    }

    async fn publish(&self, publication: Publication) -> Result<(), Error> {
        let Publication { name, auth, blobs, manifest: (manifest, bytes) } = publication;
        let name = name.or_latest();
        let tag = name.tag().unwrap_or_default().to_owned();
        let mut last = Failure::new(Reason::Unreachable, "no server to send to");
        for session in self.registries.writers(name.repository(), &[], &auth).await? {
            match session.has_blob(&manifest.digest).await {
                Err(failure) if session.is_open(&failure) => {
                    last = failure;
                    continue;
                }
                Err(failure) => return Err(failure.into()),
                Ok(_) => session.note_reached(),
            }
            for blob in &blobs {
                let content = Content {
                    blob,
                    source: source::open(&self.stores, blob),
                    mounts: &[],
                    progress: Arc::new(|_| {}),
                };
                Box::pin(session.upload(&content)).await?;
            }
            session.put_manifest(&tag, &manifest.media_type, &bytes).await?;
            return Ok(());
        }
        Err(last.into())
    }

    async fn compose(&self, composition: Composition) -> Result<Composed, Error> {
        if composition.components.is_empty() {
            return Err(other("record an image")("it has no platform"));
        }
        let _shared = self.gate.read().await;
        let _lease = self.stores.blobs.lease();
        compose::compose(self, composition).await
    }
}

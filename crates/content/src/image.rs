//! Images: documents of the OCI image specification (with Docker's additions) and the records that name them.
//!
//! Maps are ordered, so that what we write has a reproducible digest; what came from elsewhere is kept byte for byte.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rorqual_core::{DiffId, Digest, ImageId, Platform, Reference, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Media types that occur in images.
pub mod media_type {
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI plain layer.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI gzip layer.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI zstd layer.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker gzip layer.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// Names a blob: what it is, its digest and its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// See [`media_type`].
    pub media_type: String,
    /// Identity.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Which machine it is for (in an index).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// All else that is said of it (`urls`, `artifactType`, …).
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    /// Names a blob, with nothing more said of it.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
            more: BTreeMap::new(),
        }
    }
}

/// OCI image index or Docker manifest list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2
    pub schema_version: u32,
    /// See [`media_type`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// OCI image manifest or Docker schema 2 manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2
    pub schema_version: u32,
    /// See [`media_type`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image config.
    pub config: Descriptor,
    /// Layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The image config: what to run and which layers it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDocument {
    /// RFC 3339; empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Go's name.
    #[serde(default)]
    pub architecture: String,
    /// Go's name.
    #[serde(default)]
    pub os: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Docker: comment of a commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Defaults for containers.
    #[serde(default)]
    pub config: ImageConfig,
    /// Layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// BuildKit: records of a build cache, in base64; of this image alone, never of those made from it.
    #[serde(default, rename = "moby.buildkit.cache.v0", skip_serializing_if = "String::is_empty")]
    pub build_cache: String,
}

/// Layers of an image, bottom first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`
    #[serde(rename = "type", default)]
    pub kind: String,
    /// DiffIDs.
    #[serde(default)]
    pub diff_ids: Vec<DiffId>,
}

/// Defaults that an image gives to its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user[:group]`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, serde_json::Map<String, serde_json::Value>>>,
    /// `NAME=value`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Arguments, or the whole command without an entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Docker: health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Docker: command is already escaped (Windows).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Paths that get anonymous volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, serde_json::Map<String, serde_json::Value>>>,
    /// First directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Docker: triggers for builds on top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Signal that stops it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker: seconds to wait after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Docker: shell of `CMD-SHELL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// Docker's health check; durations in nanoseconds, zero inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `[]`, `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", "…"]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time a check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Grace after the start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks within the grace.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Remark.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// An image as we know it: one config, and the names that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of its config.
    pub id: ImageId,
    /// What a name leads to: a manifest, or the index it was chosen from.
    pub target: Descriptor,
    /// The manifest of this image.
    pub manifest: Descriptor,
    /// The parsed config.
    pub document: ImageDocument,
    /// Names with tags, sorted.
    pub tags: Vec<Reference>,
    /// Names with digests (where it was pulled from or pushed to), sorted.
    pub digests: Vec<Reference>,
    /// Sum of the layers' unpacked file sizes, bytes.
    pub size: u64,
    /// When a tag was last given.
    pub tagged_at: Option<Timestamp>,
}

impl ImageRecord {
    /// Lists the blobs that this image needs, with all that they lead to.
    pub fn roots(&self) -> [Digest; 3] {
        [self.id.0.clone(), self.target.digest.clone(), self.manifest.digest.clone()]
    }
}

/// The images of one data root. Changes are on disk before a call returns.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Records an image whose blobs are all there; tags that named another image move.
    async fn put(&self, image: ImageRecord) -> Result<(), Error>;
    /// Finds an image by reference, id, id prefix, or `sha256:` id.
    async fn resolve(&self, text: &str) -> Result<ImageRecord, Error>;
    /// Returns an image by its id.
    async fn image(&self, id: &ImageId) -> Result<ImageRecord, Error>;
    /// Lists all images.
    async fn list(&self) -> Result<Vec<ImageRecord>, Error>;
    /// Gives an image a name; returns the image that had it before.
    async fn tag(
        &self,
        id: &ImageId,
        name: &Reference,
        at: Timestamp,
    ) -> Result<Option<ImageId>, Error>;
    /// Takes a name away; returns whether it was there.
    async fn untag(&self, id: &ImageId, name: &Reference) -> Result<bool, Error>;
    /// Removes an image with its names; its blobs go with the next collection.
    async fn remove(&self, id: &ImageId) -> Result<(), Error>;
    /// Lists what layers were packed to, as far as it was noted.
    async fn packed_forms(&self) -> Result<Vec<(DiffId, Descriptor)>, Error>;
    /// Notes what a layer was packed to, instead of what was noted before. A hint only: no blob stays because of it.
    async fn note_packed(&self, layer: &DiffId, packed: &Descriptor) -> Result<(), Error>;
    /// Forgets what layers were packed to.
    async fn forget_packed(&self, layers: Vec<DiffId>) -> Result<(), Error>;
}

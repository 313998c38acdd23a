//! The contract of moving images.

use std::io::{Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_content::{Descriptor, ImageConfig, ImageRecord};
use rorqual_core::{
    BoxError, Classify, ContainerId, Digest, ErrorKind, ImageId, Platform, Reference, Timestamp,
};

/// A failure of moving an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive or one of its documents is broken, hostile or beyond a bound.
    #[error("invalid image archive: {0}")]
    InvalidArchive(String),
    /// Nothing in the archive fits the platform.
    #[error("no image for platform {0} in the archive")]
    NoPlatform(Platform),
    /// An image is not here for the platform.
    #[error("the image is not here for platform {0}")]
    NoVariant(Platform),
    /// A file cannot be read from an address.
    #[error(transparent)]
    Remote(#[from] crate::RemoteError),
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] rorqual_content::Error),
    /// The snapshotter failed.
    #[error(transparent)]
    Snapshot(#[from] rorqual_snapshot::Error),
    /// Anything else.
    #[error("cannot {action}")]
    Other {
        /// What was tried.
        action: String,
        /// Why.
        source: BoxError,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArchive(_) | Self::Remote(crate::RemoteError::Address(_)) => {
                ErrorKind::InvalidArgument
            }
            Self::NoPlatform(_) | Self::NoVariant(_) => ErrorKind::NotFound,
            Self::Content(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::Remote(_) | Self::Other { .. } => ErrorKind::Internal,
        }
    }
}

/// A step of a transfer, as clients draw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Layer it is about (short hex); empty for the whole.
    pub id: String,
    /// `Loading layer`, …
    pub status: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all; zero when unknown.
    pub total: u64,
}

/// Takes progress; must not block.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a load brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// Its new names; empty for an image without.
    pub names: Vec<Reference>,
}

/// What a manifest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// An image for a platform.
    Image(Platform),
    /// Statements about the manifest with this digest.
    Attestation(Digest),
    /// Something else, kept as it is.
    Unknown,
}

/// A manifest that an image's target leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestSummary {
    /// As the index says it.
    pub descriptor: Descriptor,
    /// What it is.
    pub kind: ManifestKind,
    /// All that it needs is here.
    pub available: bool,
    /// Its image, when its config is here.
    pub image: Option<ImageId>,
    /// Bytes of its blobs that are here.
    pub content: u64,
    /// Bytes of its layers' files, where they are unpacked.
    pub unpacked: u64,
}

/// A root file system that becomes an image of one layer.
pub struct ImportRequest {
    /// The tar, plain or compressed.
    pub archive: Box<dyn Read + Send>,
    /// Name to give.
    pub name: Option<Reference>,
    /// Comment in its history.
    pub message: String,
    /// For which machine.
    pub platform: Platform,
    /// Defaults for containers (from `--change`).
    pub config: ImageConfig,
}

/// A container's changes that become an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// Whose changes.
    pub container: ContainerId,
    /// The image it was made from; `None` without one.
    pub parent: Option<ImageId>,
    /// Defaults for containers of the new image, complete.
    pub config: ImageConfig,
    /// Author, may be empty.
    pub author: String,
    /// Comment, may be empty.
    pub comment: String,
    /// What the container ran, for the history.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
    /// For which machine, when there is no parent that says it.
    pub platform: Platform,
    /// Name to give.
    pub name: Option<Reference>,
}

/// Moves images.
#[async_trait]
pub trait Transfer: Send + Sync + 'static {
    /// Loads all images of a `docker save` or OCI layout archive (plain or compressed), unpacking layers in parallel.
    /// Either an image is there whole afterwards or not at all.
    async fn load(
        &self,
        archive: Box<dyn Read + Send>,
        platform: Option<Platform>,
        progress: ProgressSink,
    ) -> Result<Vec<Loaded>, Error>;
    /// Writes images (with the names asked for) as one archive that both Docker and OCI tools read.
    async fn save(
        &self,
        images: Vec<(ImageId, Vec<Reference>)>,
        platform: Option<Platform>,
        sink: Box<dyn Write + Send>,
    ) -> Result<(), Error>;
    /// Lists the manifests that an image's target leads to.
    async fn manifests(&self, image: &ImageRecord) -> Result<Vec<ManifestSummary>, Error>;
    /// Returns the image that the same target has for a platform.
    async fn variant(&self, image: &ImageRecord, platform: &Platform)
    -> Result<ImageRecord, Error>;
    /// Makes an image of a root file system.
    async fn import(&self, request: ImportRequest) -> Result<ImageId, Error>;
    /// Makes an image of what a container changed, on top of the image it was made from.
    async fn commit(&self, request: CommitRequest) -> Result<ImageId, Error>;
    /// Removes the blobs and layers that neither an image nor one of `containers` needs, and the directories of all other
    /// containers. Waits until no other transfer is under way, so that nothing half recorded is taken for garbage.
    /// Returns the bytes freed.
    async fn collect(&self, containers: &[ContainerId]) -> Result<u64, Error>;
}

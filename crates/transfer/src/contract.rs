//! The contract of moving images.

use std::io::{Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_content::{Descriptor, ImageConfig, ImageDocument, ImageRecord};
use rorqual_core::{
    BoxError, Classify, ContainerId, DiffId, Digest, ErrorKind, ImageId, Platform, Reference,
    Repository, Timestamp,
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
    /// A registry said no, or cannot be reached; words for the user.
    #[error("{message}")]
    Registry {
        /// What the caller can do about it.
        kind: ErrorKind,
        /// What happened, with whom.
        message: String,
    },
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
            Self::Registry { kind, .. } => *kind,
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

/// Who asks a registry; empty for anybody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// Name of the user.
    pub username: String,
    /// Password, or an access token in its place.
    pub password: String,
    /// Refresh token of the registry's token service, used instead of a password.
    pub identity_token: String,
    /// Bearer token that is sent as it is.
    pub registry_token: String,
}

impl RegistryAuth {
    /// Tells whether nothing is known of who asks.
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }
}

impl std::fmt::Debug for RegistryAuth {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// An image to fetch from its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Which; with a digest, the tag beside it is not looked at.
    pub name: Reference,
    /// For which machine; `None` for this one.
    pub platform: Option<Platform>,
    /// Who asks.
    pub auth: RegistryAuth,
}

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// What the name leads to at the registry.
    pub digest: Digest,
    /// The name led to something else here before, or to nothing.
    pub new: bool,
}

/// An image to send to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRequest {
    /// Which.
    pub image: ImageId,
    /// Where to; has a tag.
    pub name: Reference,
    /// Only this one of several; `None` for all that is here.
    pub platform: Option<Platform>,
    /// Who asks.
    pub auth: RegistryAuth,
}

/// What a push left at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What the name leads to there.
    pub target: Descriptor,
}

/// What a name leads to at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Manifest or index.
    pub descriptor: Descriptor,
    /// Machines it has images for.
    pub platforms: Vec<Platform>,
}

/// Repositories to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// Words, perhaps with a registry in front.
    pub term: String,
    /// At most so many.
    pub limit: u32,
    /// Who asks.
    pub auth: RegistryAuth,
}

/// A repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// Name as it is pulled.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Curated by the registry.
    pub official: bool,
}

/// What somebody needs besides images and containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Layers.
    pub layers: Vec<DiffId>,
    /// Snapshots and their directories.
    pub snapshots: Vec<ContainerId>,
    /// Blobs.
    pub blobs: Vec<Digest>,
}

/// Somebody who needs content that no image or container refers to: a build cache.
pub trait Keeper: Send + Sync + 'static {
    /// Lists what must stay. Called while no transfer is under way; must not block.
    fn kept(&self) -> Kept;
}

/// Keeps collection away while it lives.
pub type Hold = Box<dyn Send + Sync>;

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
    /// Records an image whose layers are all in the snapshotter, and names it. The same document makes the same image.
    async fn make(&self, document: ImageDocument, names: Vec<Reference>) -> Result<ImageId, Error>;
    /// Fetches an image and unpacks it. Layers that are here are not fetched; two pulls of the same layer share the work.
    ///
    /// # Cancellation
    /// Dropping the future ends the pull; layers that are whole by then stay until the next collection.
    async fn pull(&self, request: PullRequest, progress: ProgressSink) -> Result<Pulled, Error>;
    /// Sends what the registry lacks of an image, its manifest last.
    ///
    /// # Cancellation
    /// Dropping the future ends the push; the name at the registry is as it was.
    async fn push(&self, request: PushRequest, progress: ProgressSink) -> Result<Pushed, Error>;
    /// Asks the registry what a name leads to; fetches no image.
    async fn resolve(&self, name: &Reference, auth: &RegistryAuth) -> Result<Distribution, Error>;
    /// Lists the tags that a repository has at its registry.
    async fn tags(
        &self,
        repository: &Repository,
        auth: &RegistryAuth,
    ) -> Result<Vec<String>, Error>;
    /// Checks credentials with a registry (`host[:port]`, a URL, or empty for the default one). Returns the token to keep
    /// instead of the password, where the registry hands one out.
    async fn login(&self, server: &str, auth: &RegistryAuth) -> Result<Option<String>, Error>;
    /// Asks for the file at an address, by the settings for registries and without credentials, unless it is still what
    /// had this tag.
    async fn fetch_file(
        &self,
        url: &str,
        etag: Option<&str>,
    ) -> Result<crate::RemoteAnswer, crate::RemoteError>;
    /// Looks for repositories.
    async fn search(&self, request: SearchRequest) -> Result<Vec<SearchResult>, Error>;
    /// Lets `keeper` be asked at every collection from now on.
    fn add_keeper(&self, keeper: Arc<dyn Keeper>);
    /// Keeps collection away until the hold is dropped: for the time between a layer's making and the note that it is
    /// needed. Short, and never together with another call that moves something.
    async fn hold(&self) -> Hold;
    /// Waits until no transfer is under way, and keeps all away until it is dropped.
    async fn alone(&self) -> Hold;
    /// Lists what the keepers need.
    fn kept(&self) -> Kept;
    /// Removes the blobs and layers that neither an image nor one of `containers` needs, and the directories of all other
    /// containers. Waits until no other transfer is under way, so that nothing half recorded is taken for garbage.
    /// Returns the bytes freed.
    async fn collect(&self, containers: &[ContainerId]) -> Result<u64, Error>;
}

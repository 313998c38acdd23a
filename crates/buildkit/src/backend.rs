//! What stands behind the protocol: front end, solver, exporters. The daemon implements it; tests have a fake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_build::solver::{FailedSlot, ImportedCache, Recorder};
use rorqual_build::{
    Error, Graph, Input, ProgressSink, ResolveMode, ResolvedImage, Session, TreeEntry,
};
use rorqual_core::Platform;
use tokio_util::sync::CancellationToken;

use crate::session::RemoteSession;
use crate::status::Sources;

/// A state of a file system, not necessarily made yet.
#[derive(Clone, Debug)]
pub struct State {
    /// The graph that makes it.
    pub graph: Arc<Graph>,
    /// Which of its outputs.
    pub output: Input,
}

/// The surroundings of one build.
#[derive(Clone)]
pub struct Scope {
    /// Name of the build, as its client chose it.
    pub id: String,
    /// What the client lends; `None` for builds without files of their own.
    pub session: Option<Arc<RemoteSession>>,
    /// Hears what happens.
    pub progress: Arc<dyn ProgressSink>,
    /// Fires when the client goes away.
    pub cancel: CancellationToken,
    /// What the build may ask for beyond the usual: `network.host`, `security.insecure`.
    pub entitlements: BTreeSet<String>,
    /// Say for every step that runs why it was not cached.
    pub explain: bool,
    /// Notes what the build needs.
    pub recorder: Option<Arc<Recorder>>,
    /// Takes the first step whose program fails, as it was.
    pub failed: Option<Arc<FailedSlot>>,
    /// When the build began.
    pub started: SystemTime,
    sources: Arc<Mutex<Sources>>,
    imports: Arc<Mutex<Imports>>,
}

/// Caches that were asked for, and what came of it.
type Imports = Vec<(CacheEntry, Option<Arc<ImportedCache>>)>;

impl Scope {
    /// Makes the surroundings of a build.
    pub fn new(
        id: String,
        session: Option<Arc<RemoteSession>>,
        progress: Arc<dyn ProgressSink>,
        cancel: CancellationToken,
        entitlements: BTreeSet<String>,
    ) -> Self {
        Self {
            id,
            session,
            progress,
            cancel,
            entitlements,
            explain: false,
            recorder: None,
            failed: None,
            started: SystemTime::now(),
            sources: Arc::default(),
            imports: Arc::default(),
        }
    }

    /// Tells whether a cache was asked for already.
    pub fn knows_import(&self, entry: &CacheEntry) -> bool {
        let imports = self.imports.lock().unwrap_or_else(PoisonError::into_inner);
        imports.iter().any(|(known, _)| known == entry)
    }

    /// Remembers what came of a cache that was asked for.
    pub fn add_import(&self, entry: CacheEntry, cache: Option<Arc<ImportedCache>>) {
        // LIMIT: a client may ask for different ones with each of its questions.
        const MOST: usize = 64;
        let mut imports = self.imports.lock().unwrap_or_else(PoisonError::into_inner);
        if imports.len() < MOST {
            imports.push((entry, cache));
        }
    }

    /// Returns the caches from elsewhere.
    pub fn imports(&self) -> Vec<Arc<ImportedCache>> {
        let imports = self.imports.lock().unwrap_or_else(PoisonError::into_inner);
        imports.iter().filter_map(|(_, cache)| cache.clone()).collect()
    }

    /// The session as the parts below know it.
    pub fn lender(&self) -> Option<Arc<dyn Session>> {
        self.session.clone().map(|session| session as Arc<dyn Session>)
    }

    /// Remembers the text of a file that messages may show pieces of.
    pub fn add_source(&self, file: String, text: Vec<u8>) {
        // LIMIT: some files of the size that front ends read.
        const MOST: usize = 64;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() < MOST {
            sources.insert(file, text);
        }
    }

    /// Returns what was remembered.
    pub fn sources(&self) -> Sources {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is asked of a front end.
#[derive(Clone, Debug, Default)]
pub struct FrontendRequest {
    /// Options, by BuildKit's names: `filename`, `target`, `build-arg:NAME`, ….
    pub options: BTreeMap<String, String>,
    /// States that stand for named contexts.
    pub inputs: BTreeMap<String, State>,
    /// Where results may be taken from.
    pub cache_imports: Vec<CacheEntry>,
}

/// What a front end makes, or a client hands in.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The states.
    pub refs: Refs,
    /// Facts about them, by BuildKit's names: `containerimage.config`, `refs.platforms`, ….
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// The states of an outcome; `None` is the empty file system.
#[derive(Clone, Debug)]
pub enum Refs {
    /// One.
    One(Option<State>),
    /// One for each platform, by its name.
    Many(BTreeMap<String, Option<State>>),
}

impl Default for Refs {
    fn default() -> Self {
        Self::One(None)
    }
}

/// A cache that is not the daemon's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`, ….
    pub kind: String,
    /// Options.
    pub attrs: BTreeMap<String, String>,
}

/// An output that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Its number, by which the client knows the receiver.
    pub id: usize,
    /// `moby`, `image`, `docker`, `oci`, `tar`, `local`.
    pub kind: String,
    /// Options.
    pub attrs: BTreeMap<String, String>,
}

/// What remains to be done with an outcome.
#[derive(Clone, Debug, Default)]
pub struct ExportRequest {
    /// In the order of the client.
    pub exports: Vec<Export>,
    /// Where the cache goes.
    pub cache_exports: Vec<CacheEntry>,
    /// Options of the build: attestations, build arguments.
    pub options: BTreeMap<String, String>,
}

/// Something that is kept for later builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// Identity.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// What it is built on.
    pub parents: Vec<String>,
    /// `regular`, `exec.cachemount`, `source.local`, `frontend`, `internal`, ….
    pub kind: String,
    /// For people.
    pub description: String,
    /// Changes, as cache mounts do.
    pub is_mutable: bool,
    /// Cannot be removed now.
    pub is_in_use: bool,
    /// Images have it, too.
    pub is_shared: bool,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// When it was last of use.
    pub used: Option<SystemTime>,
    /// How often.
    pub uses: u64,
}

/// What of the cache may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// `name==value`, `name~=pattern`, `until=…`: each is a list of alternatives, as containerd writes filters.
    pub filters: Vec<String>,
    /// Also what images share.
    pub all: bool,
    /// Not what was used within these seconds.
    pub keep_seconds: u64,
    /// Keep this many bytes.
    pub reserved: u64,
    /// Go down to this many bytes.
    pub max_used: u64,
    /// Until this many bytes of the disk are free.
    pub min_free: u64,
}

/// What a builder says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Identity, stable.
    pub id: String,
    /// Facts.
    pub labels: BTreeMap<String, String>,
    /// What it can build for, its own first.
    pub platforms: Vec<Platform>,
    /// Version of the daemon.
    pub version: String,
    /// Capabilities of the exporters beyond those of the protocol: `exporter.image.attestations`.
    pub caps: Vec<&'static str>,
}

/// Front end, solver and exporters.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Describes the builder.
    fn worker(&self) -> Worker;
    /// Runs the Dockerfile front end.
    async fn dockerfile(&self, request: FrontendRequest, scope: &Scope) -> Result<Outcome, Error>;
    /// Makes a state.
    async fn evaluate(&self, state: &State, scope: &Scope) -> Result<(), Error>;
    /// Reads a file of a state, or `length` bytes of it from `offset`.
    async fn read_file(
        &self,
        state: &State,
        path: &str,
        range: Option<(u64, u64)>,
        scope: &Scope,
    ) -> Result<Vec<u8>, Error>;
    /// Lists a directory of a state; `pattern` is one of names, empty for all.
    async fn read_dir(
        &self,
        state: &State,
        path: &str,
        pattern: &str,
        scope: &Scope,
    ) -> Result<Vec<TreeEntry>, Error>;
    /// Looks at an entry of a state, not following a link.
    async fn stat(&self, state: &State, path: &str, scope: &Scope) -> Result<TreeEntry, Error>;
    /// Finds an image and reads its config.
    async fn resolve_image(
        &self,
        reference: &str,
        platform: &Platform,
        mode: ResolveMode,
        scope: &Scope,
    ) -> Result<ResolvedImage, Error>;
    /// Makes what is left to make and hands it out; returns what clients are told about it.
    async fn export(
        &self,
        outcome: &Outcome,
        request: ExportRequest,
        scope: &Scope,
    ) -> Result<BTreeMap<String, String>, Error>;
    /// Lists the cache.
    async fn usage(&self) -> Result<Vec<CacheRecord>, Error>;
    /// Removes from the cache; returns what went.
    async fn prune(&self, request: PruneRequest) -> Result<Vec<CacheRecord>, Error>;
}

//! What the solver needs from outside: a client's session, a runner of steps, a resolver of images, a listener.
//!
//! The life of a build: a front end asks the [`Session`] for the Dockerfile and the [`ImageResolver`] for the configs of
//! base images, and makes a graph. The solver walks it from what is wanted: local directories come through
//! [`Session::sync`], programs run through [`StepRunner::run`], and every change of a vertex is told to the
//! [`ProgressSink`]. When the client goes away its session fails, the build is cancelled, and dropped futures leave nothing
//! running.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_content::ImageDocument;
use rorqual_core::mount::{RootfsPlan, StepMount};
use rorqual_core::{ContainerId, Digest, Platform};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Error, ExecNetwork, ExecSecurity, LocalSource};

/// What a client lends to its build. Every call fails once the client is gone.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// Identity, as the client drew it.
    fn id(&self) -> &str;
    /// Names what the client's directories of one name are the same by, from build to build; empty when nothing does.
    fn shared_key(&self) -> String {
        String::new()
    }
    /// Returns the directory of that name where it lies on the host already, as ours to read and nobody's to change while
    /// the session lives; the path is trusted.
    fn local_directory(&self, name: &str) -> Option<PathBuf> {
        let _ = name;
        None
    }
    /// Brings a directory of the client to `sink`: entries that `sink` knows already and that did not change do not travel.
    async fn sync(&self, request: SyncRequest, sink: Box<dyn TreeSink>) -> Result<(), Error>;
    /// Returns a secret; `None` when the client has none of that name.
    async fn secret(&self, id: &str) -> Result<Option<SecretValue>, Error>;
    /// Returns the client's login for a registry, by its host; `None` when it has none.
    async fn login(&self, host: &str) -> Result<Option<Login>, Error> {
        let _ = host;
        Ok(None)
    }
    /// Connects to an ssh agent of the client; `None` when it offers none of that name.
    async fn agent(&self, id: &str) -> Result<Option<Box<dyn AgentStream>>, Error>;
    /// Opens a store of blobs of the client (an OCI layout), by the name under which it is lent; `None` when there is none.
    fn blobs(self: Arc<Self>, store: &str) -> Option<Box<dyn BlobSource>> {
        let _ = store;
        None
    }
    /// Receives what the client uploads under a path, once.
    async fn upload(&self, path: &str) -> Result<Upload, Error> {
        Err(Error::Unsupported(format!("the client uploads nothing, {path:?} is not there")))
    }
    /// Opens the client's receiver of an output: a tar or archive stream (`type=tar|oci|docker`).
    async fn output(&self, id: &str) -> Result<Box<dyn OutputSink>, Error>;
    /// Sends a directory to the client as files (`type=local`); `tree` is a tar stream of it.
    async fn send_tree(&self, id: &str, tree: Box<dyn Read + Send>) -> Result<(), Error>;
}

/// Pieces of what a client uploads.
pub type Upload = futures_util::stream::BoxStream<'static, Result<Vec<u8>, Error>>;

/// Blobs that a client lends.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// Reads a small blob whole, verified; fails beyond `limit` bytes.
    async fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error>;
    /// Opens a blob of at most so many bytes; its reader verifies it.
    async fn open(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send>, Error>;
}

/// A connection to an ssh agent.
pub trait AgentStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentStream for T {}

/// Where bytes of an output go. Dropping it without [`OutputSink::finish`] tells the receiver to discard them.
#[async_trait]
pub trait OutputSink: Send {
    /// Sends bytes, waiting for the receiver.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// Ends it well; returns once the receiver has all.
    async fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// Name and secret for a registry; the secret is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User, empty for an identity token.
    pub username: String,
    /// Password or token.
    pub secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A secret's bytes; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(pub Vec<u8>);

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretValue({} bytes)", self.0.len())
    }
}

/// Which part of which directory is needed.
pub type SyncRequest = LocalSource;

/// The daemon's copy of a client's directory, while it is brought up to date. Blocking; used on a blocking thread.
///
/// Paths are relative, cleaned, and in the order of a depth-first walk sorted by name; a sink refuses all else.
pub trait TreeSink: Send {
    /// Announces an entry as the client has it (`uid` and `gid` are part of it, its times are not); returns whether its
    /// content is needed.
    fn entry(&mut self, entry: TreeEntry) -> Result<bool, Error>;
    /// Appends to the content of a file that was announced and is needed.
    fn data(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error>;
    /// Ends the content of a file.
    fn end(&mut self, path: &str) -> Result<(), Error>;
    /// All entries have been announced and all content has come: what was not announced is gone.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// An entry of a client's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// Relative path.
    pub path: String,
    /// `st_mode`, with the type of the file.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes, for files.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// Target of a symbolic link, or the path of the entry that a hard link repeats.
    pub link: String,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Runs programs for the solver, in containers that no list shows.
#[async_trait]
pub trait StepRunner: Send + Sync + 'static {
    /// Runs a step to its end and returns its exit. Its output goes to `log` as it comes.
    ///
    /// # Cancellation
    ///
    /// When `cancel` fires or the future is dropped the program is killed; nothing of it is left.
    async fn run(&self, step: Step, log: Log, cancel: CancellationToken)
    -> Result<StepExit, Error>;
    /// Runs a step on a client's terminal; otherwise as [`StepRunner::run`].
    async fn run_on_terminal(
        &self,
        step: Step,
        terminal: Terminal,
        cancel: CancellationToken,
    ) -> Result<StepExit, Error> {
        let (_, _) = (terminal, cancel);
        let command = step.args.join(" ");
        Err(Error::Unsupported(format!("{command:?}: programs have no terminal here")))
    }
}

/// A client's terminal, as a program gets it.
#[derive(Debug)]
pub struct Terminal {
    /// What is typed and what is shown.
    pub stream: DuplexStream,
    /// Rows and columns: the latest are what counts.
    pub size: watch::Receiver<(u16, u16)>,
}

/// A program to run, with its file systems prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Identity; also names the snapshot that takes what the program writes to its root.
    pub id: ContainerId,
    /// The root file system.
    pub rootfs: RootfsPlan,
    /// The program cannot write to its root.
    pub readonly_root: bool,
    /// Further mounts, in the order they are made.
    pub mounts: Vec<StepMount>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, complete.
    pub env: Vec<String>,
    /// First directory; made when it is missing.
    pub cwd: String,
    /// `user[:group]`, resolved inside the root.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// What it reaches.
    pub network: ExecNetwork,
    /// How it is confined.
    pub security: ExecSecurity,
    /// Names for its hosts file.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// `name=soft:hard`
    pub ulimits: Vec<String>,
    /// Parent cgroup, empty for the daemon's.
    pub cgroup_parent: String,
    /// For which machine.
    pub platform: Platform,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepExit {
    /// Exit code, 128 + n for a signal.
    pub code: i32,
    /// The kernel killed it for lack of memory.
    pub oom_killed: bool,
}

/// Takes a step's output.
pub type Log = Arc<dyn Fn(LogStream, &[u8]) + Send + Sync>;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// 1
    Stdout,
    /// 2
    Stderr,
}

/// How to look for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// Local first, then a registry.
    #[default]
    Default,
    /// Always ask the registry.
    Pull,
    /// What is here, also when it is old; a registry is asked for what is not.
    Local,
}

/// An image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Its reference with the digest it leads to, where it has one.
    pub reference: String,
    /// Digest of the manifest or index.
    pub digest: Option<Digest>,
    /// Its config.
    pub document: ImageDocument,
    /// The config, byte for byte.
    pub config: Vec<u8>,
}

/// Hears how much of an image has come: name of the part, bytes done, bytes in all (zero when unknown).
pub type Fetching = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// Finds images and brings their layers.
#[async_trait]
pub trait ImageResolver: Send + Sync + 'static {
    /// Finds an image and reads its config; its layers may be elsewhere still.
    async fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
        mode: ResolveMode,
        session: Option<Arc<dyn Session>>,
    ) -> Result<ResolvedImage, Error>;
    /// Makes sure that the layers of an image are unpacked here; returns its config.
    async fn fetch(
        &self,
        reference: &str,
        platform: &Platform,
        session: Option<Arc<dyn Session>>,
        progress: Fetching,
    ) -> Result<ImageDocument, Error>;
    /// Reads the config of an image in a client's OCI layout; `reference` has the digest.
    async fn resolve_layout(
        &self,
        store: &str,
        reference: &str,
        platform: &Platform,
        session: Option<Arc<dyn Session>>,
    ) -> Result<ResolvedImage, Error> {
        let (_, _, _) = (store, platform, session);
        Err(Error::Unsupported(format!("{reference}: images of clients are not read here")))
    }
    /// Brings the layers of an image in a client's OCI layout, of which `keep` is told before; returns its config.
    async fn fetch_layout(
        &self,
        store: &str,
        reference: &str,
        platform: &Platform,
        (session, keep): (Option<Arc<dyn Session>>, KeepLayers<'_>),
    ) -> Result<ImageDocument, Error> {
        let (_, _, _, _) = (store, platform, session, keep);
        Err(Error::Unsupported(format!("{reference}: images of clients are not read here")))
    }
}

/// Is told of layers before they come.
pub type KeepLayers<'k> = &'k (dyn Fn(&[rorqual_core::DiffId]) + Send + Sync);

/// Hears what happens in a build; must not block.
pub trait ProgressSink: Send + Sync + 'static {
    /// Takes one piece of news.
    fn tell(&self, progress: Progress);
}

/// A piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A vertex began, ended, or was found in the cache.
    Vertex(VertexUpdate),
    /// Work inside a vertex went on.
    Status(StatusUpdate),
    /// A step wrote something.
    Log {
        /// Which.
        vertex: Digest,
        /// Where it wrote.
        stream: LogStream,
        /// What.
        data: Vec<u8>,
        /// When.
        at: SystemTime,
    },
    /// A remark about the Dockerfile.
    Warning {
        /// The vertex it is about, when there is one.
        vertex: Option<Digest>,
        /// `Rule: text (line N)`
        short: String,
        /// More about it.
        detail: Vec<String>,
        /// Where to read on.
        url: String,
        /// Where.
        location: Option<crate::Location>,
    },
}

/// How a vertex stands. Its digest names it to clients: of the operation and its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexUpdate {
    /// Identity.
    pub digest: Digest,
    /// Identities of its inputs.
    pub inputs: Vec<Digest>,
    /// Label.
    pub name: String,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// Nothing had to be done.
    pub cached: bool,
    /// Why it failed; empty otherwise.
    pub error: String,
}

/// How a piece of work inside a vertex stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusUpdate {
    /// Which vertex.
    pub vertex: Digest,
    /// What, for instance a digest or `transferring context:`.
    pub id: String,
    /// Label, may be empty.
    pub name: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all, zero when unknown.
    pub total: u64,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// Draws the identity of a snapshot.
pub(crate) fn new_snapshot_id() -> Result<ContainerId, Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(crate::error::other("draw a random number"))?;
    Ok(ContainerId::from_random(bits))
}

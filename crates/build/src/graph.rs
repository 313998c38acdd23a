//! The build graph: what has to be done, as data. Front ends make it, the solver executes it.
//!
//! A vertex is one operation; its outputs are file-system states. Inputs of a vertex always have a lower number than the
//! vertex itself, so a graph has no cycles by construction. The operations are those of BuildKit's low-level build
//! definition, so that definitions of its clients can be translated one to one. Nothing here performs I/O.

mod file;

use rorqual_core::{Digest, Platform};

use crate::{Error, Location};

pub use file::{CopyAction, FileAction, FileOp, FileOwner};

/// Number of a vertex in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub u32);

/// One of the states that a vertex makes. Most make one; an exec makes its root and each of its writable bind mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputRef {
    /// Which vertex.
    pub vertex: VertexId,
    /// Which of its outputs, from 0.
    pub index: u32,
}

/// Where a state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The empty file system.
    Scratch,
    /// An output of an earlier vertex.
    Output(OutputRef),
}

impl Input {
    /// The only output of a vertex that makes one.
    pub const fn of(vertex: VertexId) -> Self {
        Self::Output(OutputRef { vertex, index: 0 })
    }

    /// Number of the vertex that makes the state.
    fn vertex(&self) -> Option<usize> {
        match self {
            Self::Scratch => None,
            Self::Output(output) => Some(output.vertex.0 as usize),
        }
    }
}

/// What a build consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    vertices: Vec<Vertex>,
}

impl Graph {
    /// Appends a vertex.
    ///
    /// # Errors
    ///
    /// `Invalid` when an input is not an earlier vertex.
    pub fn add(&mut self, vertex: Vertex) -> Result<VertexId, Error> {
        let id = self.vertices.len();
        let known = |input: &Input| match input {
            Input::Scratch => true,
            Input::Output(output) => (output.vertex.0 as usize) < id,
        };
        if !vertex.op.inputs().iter().all(known) {
            let message =
                format!("vertex {:?} needs one that does not exist before it", vertex.name);
            return Err(Error::Invalid { message, location: vertex.location });
        }
        self.vertices.push(vertex);
        Ok(VertexId(id as u32))
    }

    /// Appends what states of another graph need, and returns the states in this one.
    ///
    /// # Errors
    ///
    /// `Invalid` when a state is not of that graph.
    pub fn import(&mut self, other: &Self, states: &[Input]) -> Result<Vec<Input>, Error> {
        let mut needed = vec![false; other.vertices.len()];
        let mut open: Vec<usize> = states.iter().filter_map(Input::vertex).collect();
        while let Some(number) = open.pop() {
            let Some(mark) = needed.get_mut(number) else {
                let message = "a state is not of the graph that it is taken from".to_owned();
                return Err(Error::Invalid { message, location: None });
            };
            if !std::mem::replace(mark, true) {
                open.extend(other.vertices[number].op.inputs().iter().filter_map(Input::vertex));
            }
        }
        let mut renamed = vec![VertexId(0); other.vertices.len()];
        let rename = |input: Input, renamed: &[VertexId]| match input {
            Input::Scratch => Input::Scratch,
            Input::Output(output) => {
                let vertex = renamed[output.vertex.0 as usize];
                Input::Output(OutputRef { vertex, ..output })
            }
        };
        for number in (0..needed.len()).filter(|number| needed[*number]) {
            let mut vertex = other.vertices[number].clone();
            vertex.op.for_each_input(|input| *input = rename(*input, &renamed));
            renamed[number] = self.add(vertex)?;
        }
        Ok(states.iter().map(|state| rename(*state, &renamed)).collect())
    }

    /// What a front end still learns about a source after it took it: which paths are used.
    pub(crate) fn source_mut(&mut self, id: VertexId) -> Option<&mut LocalSource> {
        match &mut self.vertices.get_mut(id.0 as usize)?.op {
            Op::Local(local) => Some(local),
            _ => None,
        }
    }

    /// Returns a vertex.
    pub fn vertex(&self, id: VertexId) -> Option<&Vertex> {
        self.vertices.get(id.0 as usize)
    }

    /// All vertices, inputs first.
    pub fn vertices(&self) -> impl ExactSizeIterator<Item = (VertexId, &Vertex)> {
        self.vertices.iter().enumerate().map(|(number, vertex)| (VertexId(number as u32), vertex))
    }
}

/// One operation, with what people see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// Label in the progress: `[builder 2/5] RUN make`.
    pub name: String,
    /// For which machine.
    pub platform: Platform,
    /// Execute even when a result is cached.
    pub ignore_cache: bool,
    /// Where it stands in the Dockerfile.
    pub location: Option<Location>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The root file system of an image.
    Image(ImageSource),
    /// A directory of the client.
    Local(LocalSource),
    /// A commit of a git repository.
    Git(GitSource),
    /// A file from a URL.
    Http(HttpSource),
    /// A program that runs in a state.
    Exec(Box<ExecOp>),
    /// Files that are copied, made or removed.
    File(FileOp),
    /// States laid over each other, first lowest.
    Merge(Vec<Input>),
    /// What `upper` has more than `lower`.
    Diff {
        /// The state below.
        lower: Input,
        /// The state above.
        upper: Input,
    },
}

impl Op {
    /// Lists the states that the operation needs, in order, each as often as it is named.
    pub fn inputs(&self) -> Vec<Input> {
        match self {
            Self::Image(_) | Self::Local(_) | Self::Git(_) | Self::Http(_) => Vec::new(),
            Self::Exec(exec) => exec.mounts.iter().filter_map(|mount| mount.input).collect(),
            Self::File(file) => file.inputs(),
            Self::Merge(inputs) => inputs.clone(),
            Self::Diff { lower, upper } => vec![*lower, *upper],
        }
    }
}

impl Op {
    fn for_each_input(&mut self, mut change: impl FnMut(&mut Input)) {
        match self {
            Self::Image(_) | Self::Local(_) | Self::Git(_) | Self::Http(_) => {}
            Self::Exec(exec) => {
                exec.mounts.iter_mut().filter_map(|mount| mount.input.as_mut()).for_each(change);
            }
            Self::File(file) => {
                change(&mut file.base);
                for action in &mut file.actions {
                    if let FileAction::Copy(copy) = action {
                        change(&mut copy.from);
                    }
                }
            }
            Self::Merge(inputs) => inputs.iter_mut().for_each(change),
            Self::Diff { lower, upper } => {
                change(lower);
                change(upper);
            }
        }
    }
}

/// An image as a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// Reference, with the digest once it was resolved; `oci-layout://` contexts carry their store's name in `layout`.
    pub reference: String,
    /// Name of a client's OCI layout that holds the image, instead of a registry.
    pub layout: Option<String>,
}

/// A directory of the client as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSource {
    /// Name under which the client offers it: `context`, `dockerfile`, …
    pub name: String,
    /// Session that offers it, when it is another than the build's own.
    pub session: Option<String>,
    /// Patterns of what is needed, from the root; empty for all. As in `.dockerignore`.
    pub include: Vec<String>,
    /// Patterns of what is left out, in their order, `!` brings back. As in `.dockerignore`.
    pub exclude: Vec<String>,
    /// Paths whose symbolic links are followed when deciding what is needed.
    pub follow: Vec<String>,
    /// Directories of clients with the same hint are one and are updated instead of sent anew.
    pub shared_key: String,
}

/// A git commit as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSource {
    /// Where to fetch from.
    pub remote: String,
    /// Branch, tag or commit; empty for the remote's default branch.
    pub reference: String,
    /// Directory inside the repository that becomes the root.
    pub subdir: String,
    /// The commit that it must be, whole or abbreviated.
    pub checksum: Option<String>,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Leave submodules out.
    pub skip_submodules: bool,
    /// Files get the time of the commit instead of that of the checkout.
    pub commit_times: bool,
    /// Ids of secrets: an authorization header, a token.
    pub auth_header_secret: Option<String>,
    /// See `auth_header_secret`.
    pub auth_token_secret: Option<String>,
    /// Id of the forwarded agent for ssh remotes.
    pub ssh: Option<String>,
}

/// A file from a URL as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpSource {
    /// `http://` or `https://`.
    pub url: String,
    /// The digest that it must have.
    pub checksum: Option<Digest>,
    /// Name of the file in the state; from the URL when `None`.
    pub filename: Option<String>,
    /// Permission bits; 0600 when `None`.
    pub mode: Option<u32>,
    /// Owner, 0 when `None`.
    pub owner: Option<(u32, u32)>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOp {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// First directory, absolute.
    pub cwd: String,
    /// `user[:group]`, resolved inside the root.
    pub user: String,
    /// Host name, empty for the builder's default.
    pub hostname: String,
    /// Mounts; exactly one has the target `/`.
    pub mounts: Vec<ExecMount>,
    /// What it reaches.
    pub network: ExecNetwork,
    /// How it is confined.
    pub security: ExecSecurity,
    /// `host:address` for its hosts file.
    pub extra_hosts: Vec<(String, String)>,
    /// Proxy variables: given to the program, no part of the cache key.
    pub proxy_env: Vec<String>,
    /// Secrets given as variables.
    pub secret_env: Vec<(String, SecretSpec)>,
    /// Size of `/dev/shm` in bytes; `None` for the default.
    pub shm_size: Option<u64>,
    /// `name=soft:hard`, as `--ulimit` takes it.
    pub ulimits: Vec<String>,
    /// Parent cgroup, empty for the daemon's.
    pub cgroup_parent: String,
    /// CDI device names, with whether each must exist.
    pub devices: Vec<(String, bool)>,
    /// Exit codes that are no failure; 0 when empty.
    pub valid_exit_codes: Vec<i32>,
}

/// A mount of a program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecMount {
    /// Where, absolute.
    pub target: String,
    /// The state that is mounted; `None` for kinds that have none (tmpfs, secret, ssh) and for an empty cache.
    pub input: Option<Input>,
    /// Path inside the input that is mounted, `/` for the whole.
    pub selector: String,
    /// Which output of the vertex this mount's final state is; `None` when it is thrown away.
    pub output: Option<u32>,
    /// The program cannot write to it.
    pub readonly: bool,
    /// What it is.
    pub kind: MountKind,
}

/// What a mount is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// The state itself.
    Bind,
    /// A directory that outlives builds.
    Cache {
        /// Identity, with its name space.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
    },
    /// Memory, with a bound in bytes.
    Tmpfs(Option<u64>),
    /// A file with a secret.
    Secret(SecretSpec),
    /// A socket of the client's ssh agent.
    Ssh(SecretSpec),
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSharing {
    /// Everybody.
    #[default]
    Shared,
    /// Each its own; a new one is made when it is in use.
    Private,
    /// One after the other.
    Locked,
}

/// Which secret or agent, and how it appears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSpec {
    /// Name that the client knows.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Go on without it when the client has none.
    pub optional: bool,
}

/// What a program reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecNetwork {
    /// The default bridge.
    #[default]
    Sandbox,
    /// The host's network.
    Host,
    /// Nothing.
    None,
}

/// How a program is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecSecurity {
    /// As any container.
    #[default]
    Sandbox,
    /// With all privileges.
    Insecure,
}

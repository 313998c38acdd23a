//! Programs that run for a builder: in containers that no list shows and no record keeps.
//!
//! A step's root file system is a snapshot that its caller made and removes. What runs without a record is ended by the
//! sweep of the next daemon, so a crash leaves nothing of it.

use std::sync::Arc;

use oci_spec::runtime::{Mount, Spec};
use rorqual_core::mount::{RootfsPlan, StepMount, StepMountSource};
use rorqual_core::{ContainerId, ErrorKind, Signal, Ulimit, full_message};
use rorqual_network::{Attach, EndpointRequest, NamespaceOwner, Sandbox, SandboxKind};
use rorqual_shim::log::LogTarget;
use rorqual_shim::{Attachment, Error as TaskError, KillReach, Launch, Task, TaskId, WindowSize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::containers::{connection, ensure_profile, given};
use crate::error::{Error, Result};
use crate::ocispec::{self, Input, Net, OWN_IDS};
use crate::spec::{ContainerSpec, IpcMode, NetworkMode};
use crate::validate;
use crate::view::Effective;
use crate::world::{World, in_time};

/// LIMIT: bytes of output handed on at a time.
const PIECE: usize = 64 * 1024;

/// Runs the programs of builds.
#[derive(Clone)]
pub struct Steps {
    pub(crate) world: Arc<World>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRequest {
    /// Identity; its snapshot is there.
    pub id: ContainerId,
    /// Root file system.
    pub rootfs: RootfsPlan,
    /// It cannot be written to.
    pub readonly_root: bool,
    /// Further mounts, in order.
    pub mounts: Vec<StepMount>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, complete.
    pub env: Vec<String>,
    /// First directory.
    pub cwd: String,
    /// `user[:group]`
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// Default, none or host.
    pub network: NetworkMode,
    /// All capabilities and devices.
    pub privileged: bool,
    /// `name:address`
    pub extra_hosts: Vec<String>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Parent of its cgroup; `None`: the daemon's.
    pub cgroup_parent: Option<String>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepExit {
    /// Exit code, 128 + n for a signal.
    pub code: i32,
    /// The kernel killed it for lack of memory.
    pub oom_killed: bool,
}

/// Takes what a step writes: whether it is standard error, and the bytes. Must not block.
pub type StepOutput = Arc<dyn Fn(bool, &[u8]) + Send + Sync>;

/// A terminal that a step gets.
#[derive(Debug)]
pub struct StepTerminal {
    /// What is typed and what is shown.
    pub stream: DuplexStream,
    /// Rows and columns; the latest are what counts.
    pub size: watch::Receiver<(u16, u16)>,
}

/// What a step's standard streams are.
enum Streams {
    Pipes(StepOutput),
    Terminal(StepTerminal),
}

impl Steps {
    /// Runs a step to its end.
    ///
    /// # Cancellation
    ///
    /// When `cancel` fires or the future is dropped all of its processes are killed; nothing of it is left.
    pub async fn run(
        &self,
        request: StepRequest,
        output: StepOutput,
        cancel: CancellationToken,
    ) -> Result<StepExit> {
        self.run_with(request, Streams::Pipes(output), cancel).await
    }

    /// Runs a step on a terminal; otherwise as [`Steps::run`].
    pub async fn run_on_terminal(
        &self,
        request: StepRequest,
        terminal: StepTerminal,
        cancel: CancellationToken,
    ) -> Result<StepExit> {
        self.run_with(request, Streams::Terminal(terminal), cancel).await
    }

    async fn run_with(
        &self,
        request: StepRequest,
        streams: Streams,
        cancel: CancellationToken,
    ) -> Result<StepExit> {
        let world = Arc::clone(&self.world);
        let stop = cancel.child_token();
        let guard = stop.clone().drop_guard();
        let end = self.world.to_its_end(async move {
            let id = request.id;
            let result = run(&world, request, streams, &stop).await;
            if let Err(error) = world.parts.networks.detach(&id).await {
                tracing::warn!(step = %id.short(), error = full_message(&error), "cannot detach");
            }
            result
        });
        let result = end.await;
        drop(guard.disarm());
        result
    }
}

async fn run(
    world: &Arc<World>,
    request: StepRequest,
    streams: Streams,
    stop: &CancellationToken,
) -> Result<StepExit> {
    if stop.is_cancelled() {
        return Err(stopped());
    }
    let attach = attach_of(world, &request);
    let attached = async { world.parts.networks.attach(attach).await.map_err(Error::Attach) };
    let sandbox = in_time("attach the network", attached).await?;
    let (near, far) = connection()?;
    let window = match &streams {
        Streams::Pipes(_) => None,
        Streams::Terminal(terminal) => Some(window(*terminal.size.borrow())),
    };
    let launch = launch_of(world, request, sandbox, (far, window)).await?;
    let launched = async { world.parts.tasks.launch(launch).await.map_err(failed) };
    let task = in_time("start a build step", launched).await?;
    let exit = accompany(&task, near, streams, stop).await;
    if let Err(error) = task.release().await {
        tracing::warn!(error = full_message(&error), "cannot let the shim of a build step go");
    }
    exit
}

fn stopped() -> Error {
    Error::Unavailable("the build step was stopped".to_owned())
}

fn failed(error: TaskError) -> Error {
    match error {
        TaskError::Start { message, kind: ErrorKind::NotFound, .. } => Error::NoSuchUser(message),
        error => Error::Start(error),
    }
}

/// Waits for the end of a step and hands its output on; kills it when it is to stop.
async fn accompany(
    task: &Arc<dyn Task>,
    near: UnixStream,
    streams: Streams,
    stop: &CancellationToken,
) -> Result<StepExit> {
    // What is typed has nobody to read it once the step has ended.
    let mut typing = JoinSet::new();
    let reading = match streams {
        Streams::Pipes(output) => tokio::spawn(read(near, output)),
        Streams::Terminal(StepTerminal { stream, size }) => {
            let (mut screen, mut keys) = near.into_split();
            let (mut typed, mut shown) = tokio::io::split(stream);
            typing.spawn(async move {
                tokio::io::copy(&mut typed, &mut keys).await.ok();
                keys.shutdown().await.ok();
            });
            typing.spawn(keep_size(Arc::clone(task), size));
            tokio::spawn(async move {
                tokio::io::copy(&mut screen, &mut shown).await.ok();
                shown.shutdown().await.ok();
            })
        }
    };
    let killed = tokio::select! {
        biased;
        () = stop.cancelled() => true,
        _ = task.exit() => false,
    };
    if killed && let Err(error) = task.signal(Signal::KILL, KillReach::All).await {
        // It may have ended just now.
        tracing::debug!(error = full_message(&error), "cannot kill a build step");
    }
    let exit = task.exit().await;
    if killed {
        reading.abort();
        return Err(stopped());
    }
    // All that it wrote is on its way; the shim closes the connection behind it.
    reading.await.ok();
    Ok(StepExit { code: exit.code, oom_killed: exit.oom_killed })
}

const fn window((height, width): (u16, u16)) -> WindowSize {
    WindowSize { width, height }
}

/// Keeps a step's terminal as large as the client's.
async fn keep_size(task: Arc<dyn Task>, mut size: watch::Receiver<(u16, u16)>) {
    while size.changed().await.is_ok() {
        let window = window(*size.borrow_and_update());
        if let Err(error) = task.resize(window).await {
            // It may have ended just now.
            tracing::debug!(error = full_message(&error), "cannot resize a step's terminal");
        }
    }
}

/// Takes Docker's framed stream apart.
async fn read(mut near: UnixStream, output: StepOutput) {
    let mut piece = vec![0; PIECE];
    loop {
        let mut head = [0; 8];
        if near.read_exact(&mut head).await.is_err() {
            return;
        }
        let mut left = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        while left > 0 {
            let want = left.min(piece.len());
            match near.read(&mut piece[..want]).await {
                Ok(len) if len > 0 => {
                    output(head[0] == 2, &piece[..len]);
                    left -= len;
                }
                _ => return,
            }
        }
    }
}

fn attach_of(world: &World, request: &StepRequest) -> Attach {
    let options = &world.options;
    let kind = match request.network {
        NetworkMode::Host => SandboxKind::Host,
        NetworkMode::None => SandboxKind::Own(Vec::new()),
        _ => {
            let network = "bridge".to_owned();
            SandboxKind::Own(vec![EndpointRequest { network, ..EndpointRequest::default() }])
        }
    };
    Attach {
        container: request.id,
        kind,
        owner: options.remap.clone().map_or(NamespaceOwner::Host, NamespaceOwner::New),
        // Steps have no names that others could look up.
        name: request.id.short(),
        hostname: request.hostname.clone(),
        domainname: String::new(),
        extra_hosts: request.extra_hosts.clone(),
        dns: options.dns.clone(),
        dns_search: options.dns_search.clone(),
        dns_options: options.dns_options.clone(),
        ports: Vec::new(),
        directory: world.parts.snapshots.container_dir(&request.id),
    }
}

fn definition(request: &StepRequest) -> (ContainerSpec, Effective) {
    let mut spec = ContainerSpec::default();
    spec.network.mode = request.network.clone();
    spec.network.hostname = Some(request.hostname.clone());
    spec.security.privileged = request.privileged;
    spec.storage.read_only = request.readonly_root;
    spec.storage.shm_size = request.shm_size;
    spec.resources.ulimits.clone_from(&request.ulimits);
    spec.resources.cgroup_parent.clone_from(&request.cgroup_parent);
    spec.process.init = Some(false);
    let effective = Effective {
        command: request.args.clone(),
        env: request.env.clone(),
        user: request.user.clone(),
        working_dir: request.cwd.clone(),
        hostname: request.hostname.clone(),
        ..Effective::default()
    };
    (spec, effective)
}

async fn launch_of(
    world: &Arc<World>,
    request: StepRequest,
    sandbox: Sandbox,
    (far, window): (std::os::unix::net::UnixStream, Option<WindowSize>),
) -> Result<Launch> {
    let (mut definition, effective) = definition(&request);
    let is_terminal = window.is_some();
    definition.process.tty = is_terminal;
    ensure_profile(world, &definition).await?;
    let capabilities = validate::capabilities(&definition, world.capabilities)?;
    let seccomp = world.profiles.of(&definition, capabilities)?;
    let Sandbox { namespace, user, files, .. } = sandbox;
    let mut spec = ocispec::build(&Input {
        id: &request.id,
        spec: &definition,
        effective: &effective,
        mounts: &[],
        layers: &|_| Vec::new(),
        files: &files,
        net: if namespace.is_some() { Net::Joined } else { Net::Host },
        host: &world.facts,
        pid_of: None,
        ipc_of: None,
        ipc: &IpcMode::Private,
        capabilities,
        users: user.as_ref().map(|user| &user.maps),
        is_directory: &|_| false,
    })?;
    add_mounts(&mut spec, &request.mounts, user.is_some())?;
    let attachment = Attachment { socket: far, stdin: is_terminal, stdout: true, stderr: true };
    Ok(Launch {
        container: request.id,
        task: TaskId(1),
        spec,
        seccomp,
        rootfs: request.rootfs,
        user: request.user,
        groups: Vec::new(),
        namespaces: given(namespace, user),
        open_stdin: is_terminal,
        stdin_once: is_terminal,
        window: window.unwrap_or_default(),
        log: LogTarget::None,
        attachments: vec![attachment],
    })
}

/// Appends a step's own mounts behind those that every container has; what has the same place takes it over.
fn add_mounts(spec: &mut Spec, mounts: &[StepMount], remapped: bool) -> Result<()> {
    let mut all = spec.mounts().clone().unwrap_or_default();
    all.retain(|known| {
        !mounts.iter().any(|own| known.destination().as_os_str() == own.target.as_str())
    });
    for mount in mounts {
        let access = if mount.readonly { "ro" } else { "rw" };
        let document = match &mount.source {
            StepMountSource::Rootfs(plan) => {
                let plan = serde_json::to_string(plan).map_err(broken)?;
                json!({ "destination": mount.target, "type": "bind", "source": "layers",
                    "options": [format!("x-rorqual.layers={plan}")] })
            }
            StepMountSource::Path(path) => {
                let mut options = vec!["bind", "rprivate", access];
                if remapped {
                    options.push(OWN_IDS);
                }
                json!({ "destination": mount.target, "type": "bind", "source": path,
                    "options": options })
            }
            StepMountSource::Tmpfs(size) => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), access.to_owned()];
                options.extend(size.map(|size| format!("size={size}")));
                json!({ "destination": mount.target, "type": "tmpfs", "source": "tmpfs",
                    "options": options })
            }
        };
        all.push(serde_json::from_value::<Mount>(document).map_err(broken)?);
    }
    spec.set_mounts(Some(all));
    Ok(())
}

fn broken(error: serde_json::Error) -> Error {
    Error::Internal(format!("cannot build the runtime specification: {error}"))
}

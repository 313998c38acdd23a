//! `start`: network, specification, launch. On failure everything is as before, and the container remembers why.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rorqual_core::capability::Capabilities;
use rorqual_core::{Classify, ErrorKind, full_message};
use rorqual_network::{
    Attach, EndpointRequest, HostFiles, NamespaceOwner, Sandbox, SandboxKind, UserNamespace,
};
use rorqual_shim::{Error as TaskError, Launch, NamespaceFd, TaskId};
use rorqual_store::Operation;

use super::links::{self, Linked};
use super::run;
use crate::container::Container;
use crate::effective::overlay_env;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::labels;
use crate::ocispec::{self, Input, Net};
use crate::phase::{Desired, Happening, Phase};
use crate::records::ContainerRecord;
use crate::request::Changed;
use crate::spec::{ContainerSpec, IpcMode, NetworkMode, PidMode};
use crate::undo::{Undo, Undoing};
use crate::validate;
use crate::view::MountPointKind;
use crate::world::{World, in_time};

// LIMIT: the release of a run takes milliseconds; it takes longer only while its end cannot be written down.
const SETTLING: Duration = Duration::from_secs(10);

/// Starts a container for a user. The caller holds its operation lock.
pub(super) async fn start(world: &Arc<World>, container: &Arc<Container>) -> Result<Changed> {
    match container.phase() {
        Phase::Created | Phase::Exited(_) => {}
        // COMPAT: a container that is about to restart counts as running.
        Phase::Running(_) | Phase::Restarting(_) => return Ok(Changed::Already),
        // COMPAT: dockerd's texts.
        Phase::Paused(_) => {
            return Err(Error::Conflict(
                "cannot start a paused container, try unpause instead".to_owned(),
            ));
        }
        Phase::Removing | Phase::Dead { .. } => {
            return Err(Error::Conflict(
                "container is marked for removal and cannot be started".to_owned(),
            ));
        }
    }
    container.change(|state| {
        state.desired = Desired::Running;
        state.restart_count = 0;
    });
    container.live().backoff = crate::restart::Backoff::default();
    launch(world, container).await?;
    Ok(Changed::Yes)
}

/// Brings a task up. The caller holds the operation lock and has checked the phase.
pub(super) async fn launch(world: &Arc<World>, container: &Arc<Container>) -> Result<()> {
    let task = container.state().next_task;
    container.change(|state| state.next_task = TaskId(task.0 + 1));
    // ORDER: the shim and the record of the last run must be gone before there can be new ones.
    let settled = tokio::time::timeout(SETTLING, container.aftermath.lock()).await.map(drop);
    if settled.is_err() {
        return Err(Error::Unavailable(format!(
            "cannot start container {}: the end of its last run is not written down yet, see the daemon's log",
            container.id.short()
        )));
    }
    let mut operation = world.operations.begin("container.start");
    let result = steps(world, container, &mut operation, task).await;
    let result = operation.settle(result).await;
    if let Err(error) = &result {
        fail(world, container, error).await;
    }
    result
}

/// Remembers a failed start; that is no transition.
async fn fail(world: &Arc<World>, container: &Arc<Container>, error: &Error) {
    let code = match error {
        Error::Start(TaskError::Start { exit_code, .. }) => *exit_code,
        Error::Start(_) => 128,
        // COMPAT: when the network fails, the container stays as it was, with the code of a failed start.
        _ => 128,
    };
    let text = full_message(error);
    container.change(|state| {
        state.error = text;
        state.exit_code = code;
        state.pid = 0;
    });
    container.live().waiting.clear();
    if let Err(error) = container.persist(&world.parts.database).await {
        tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot write the state");
    }
    let definition = container.definition();
    // COMPAT: dockerd tells of the end of a container that never ran.
    if matches!(error, Error::Start(_)) {
        let labels = [("exitCode", code.to_string()), ("execDuration", "0".to_owned())];
        world.container_event(container, "die", labels);
    }
    if definition.spec.auto_remove {
        let (world, container) = (Arc::clone(world), Arc::clone(container));
        let tracker = world.tracker.clone();
        tracker.spawn(async move { super::remove::auto(&world, &container).await });
    }
}

async fn steps(
    world: &Arc<World>,
    container: &Arc<Container>,
    operation: &mut Operation<Undoing>,
    id: TaskId,
) -> Result<()> {
    let definition = container.definition();
    let joined = Joined::find(world, &definition)?;
    let linked = links::find(world, &definition)?;

    operation.will_need(Undo::Detach(container.id))?;
    let wanted = attach(world, &definition, &joined, &linked)?;
    let attached = async { world.parts.networks.attach(wanted).await.map_err(Error::Attach) };
    let sandbox = in_time("attach the network", attached).await?;
    let definition = mounted(world, operation, definition).await?;
    labels::relabel(world, &definition, &sandbox.files).await?;
    let rootfs =
        in_time("find the root file system", world.parts.snapshots.rootfs(&container.id)).await?;
    let rootfs = labels::label_root(rootfs, &definition.effective.labels);
    ensure_profile(world, &definition.spec).await?;
    let capabilities = validate::capabilities(&definition.spec, world.capabilities)?;
    let seccomp = world.profiles.of(&definition.spec, capabilities)?;
    let spec = specification(world, &definition, (&joined, &linked), (&sandbox, capabilities))?;

    let Sandbox { namespace, user, endpoints, ports, files, warnings } = sandbox;
    log_warnings(container, &warnings);
    let namespaces = given(namespace, user);
    let attachments = std::mem::take(&mut container.live().waiting);
    let process = &definition.spec.process;
    let launch = Launch {
        container: container.id,
        task: id,
        spec,
        seccomp,
        rootfs,
        user: definition.effective.user.clone(),
        groups: process.groups.clone(),
        namespaces,
        open_stdin: process.open_stdin,
        stdin_once: process.stdin_once,
        window: process.window,
        log: definition.log.clone(),
        attachments,
    };
    operation.will_need(Undo::EndTask(container.id, id))?;
    let launched = async { world.parts.tasks.launch(launch).await.map_err(start_failed) };
    let task = in_time("start the container", launched).await?;
    log_warnings(container, &task.warnings());

    let late = {
        let mut live = container.live();
        live.task = Some(Arc::clone(&task));
        live.stopping = false;
        std::mem::take(&mut live.waiting)
    };
    let applied = container.apply(Happening::Started(id), |state| {
        state.pid = task.pid();
        state.started_at = Some(task.started_at());
        state.error = String::new();
        state.exit_code = 0;
        state.oom_killed = false;
        state.files = files;
        state.endpoints = endpoints;
        state.ports = ports;
    });
    if let Err(illegal) = applied {
        container.live().task = None;
        return Err(Error::Internal(illegal.to_string()));
    }
    // The commit point. ORDER: watched before anything else can be waited for, or a future dropped there would leave a
    // run whose end nobody hears; should we die before the record is written, the next daemon's sweep ends the run.
    operation.keep();
    announce(world, container);
    run::accompany(world, container, &task);
    // Clients that came while the launch was under way.
    for attachment in late {
        if let Err(error) = task.attach(attachment).await {
            tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot attach a client");
        }
    }
    if let Err(error) = container.persist(&world.parts.database).await {
        tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot write the state");
    }
    Ok(())
}

/// The namespaces that the shim gets by descriptor.
pub(crate) fn given(network: Option<OwnedFd>, user: Option<UserNamespace>) -> Vec<NamespaceFd> {
    let network = network.map(|fd| NamespaceFd { kind: "network", fd });
    let user = user.map(|user| NamespaceFd { kind: "user", fd: user.fd });
    network.into_iter().chain(user).collect()
}

/// Has the container's volumes mounted, and returns its definition with the paths where they are now.
async fn mounted(
    world: &World,
    operation: &mut Operation<Undoing>,
    mut definition: Arc<ContainerRecord>,
) -> Result<Arc<ContainerRecord>> {
    for at in 0..definition.mounts.len() {
        let Some(name) = definition.mounts[at].name.clone() else { continue };
        let user = definition.id;
        operation.will_need(Undo::UnmountVolume { name: name.clone(), user })?;
        // LIMIT: a plugin has two minutes of its own, and the wait for its socket.
        let path = world.volumes.mount(&name, user).await?;
        if let (data, Some(part)) = (path.clone(), definition.mounts[at].subpath.clone()) {
            rorqual_store::blocking(move || rorqual_volume::check_part(&data, &part)).await?;
        }
        if path != definition.mounts[at].source {
            Arc::make_mut(&mut definition).mounts[at].source = path;
        }
    }
    Ok(definition)
}

/// COMPAT: an unknown user is told without the runtime's words in front.
fn start_failed(error: TaskError) -> Error {
    match error {
        TaskError::Start { message, kind: ErrorKind::NotFound, .. } => Error::NoSuchUser(message),
        error => Error::Start(error),
    }
}

fn log_warnings(container: &Container, warnings: &[String]) {
    for warning in warnings {
        tracing::info!(container = %container.id.short(), warning);
    }
}

/// Tells everybody, in Docker's order.
fn announce(world: &World, container: &Container) {
    let definition = container.definition();
    for mount in definition.mounts.iter().filter(|mount| mount.kind == MountPointKind::Volume) {
        let name = mount.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let attributes = [
            ("container", container.id.to_string()),
            ("destination", mount.target.clone()),
            ("driver", mount.driver.clone()),
            ("propagation", String::new()),
            ("read/write", mount.writable.to_string()),
        ];
        world.event(EventKind::Volume, "mount", &name, attributes);
    }
    for endpoint in container.state().endpoints {
        let attributes = [
            ("container", container.id.to_string()),
            ("name", endpoint.network_name.clone()),
            ("type", network_type(&endpoint.network_name)),
        ];
        world.event(EventKind::Network, "connect", &endpoint.network.to_string(), attributes);
    }
    world.container_event(container, "start", []);
}

/// Predefined networks are of the type of their name; all others are bridges.
pub(super) fn network_type(name: &str) -> String {
    match name {
        "host" => "host",
        "none" => "null",
        _ => "bridge",
    }
    .to_owned()
}

/// Containers whose namespaces are shared: their ids and init's process ids.
struct Joined {
    net: Option<(rorqual_core::ContainerId, i32)>,
    pid: Option<i32>,
    ipc: Option<i32>,
    ipc_mode: IpcMode,
}

impl Joined {
    fn find(world: &World, definition: &ContainerRecord) -> Result<Self> {
        // COMPAT: dockerd's texts.
        let running = |text: &str, kind: &str| {
            let other = world.index.find(text).map_err(|error| {
                Error::Invalid(format!("joining {kind} namespace of container: {error}"))
            })?;
            let stopped = || match kind {
                "network" => format!(
                    "cannot join network namespace of a non running container: container {} is {}",
                    other.definition().name,
                    other.phase().word()
                ),
                kind => {
                    format!(
                        "failed to join {kind} namespace: container {} is not running",
                        other.id
                    )
                }
            };
            match other.state().pid {
                0 => Err(Error::Conflict(stopped())),
                pid => Ok((other, pid)),
            }
        };
        let spec = &definition.spec;
        let net = match &spec.network.mode {
            NetworkMode::Container(text) => Some(running(text, "network")?),
            _ => None,
        };
        let pid = match &spec.namespaces.pid {
            PidMode::Container(text) => Some(running(text, "PID")?.1),
            PidMode::Private | PidMode::Host => None,
        };
        let ipc_mode = match &spec.namespaces.ipc {
            IpcMode::Default => world.options.ipc_mode.clone(),
            mode => mode.clone(),
        };
        let ipc = match &ipc_mode {
            IpcMode::Container(text) => {
                let (other, pid) = running(text, "IPC")?;
                if !shareable(world, &other.definition()) {
                    // COMPAT: dockerd's text.
                    return Err(Error::Invalid(format!(
                        "cannot join IPC of a container {text}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                    )));
                }
                Some(pid)
            }
            _ => None,
        };
        Ok(Self { net: net.map(|(other, pid)| (other.id, pid)), pid, ipc, ipc_mode })
    }
}

fn shareable(world: &World, definition: &ContainerRecord) -> bool {
    match &definition.spec.namespaces.ipc {
        IpcMode::Shareable => true,
        IpcMode::Default => world.options.ipc_mode == IpcMode::Shareable,
        _ => false,
    }
}

fn attach(
    world: &World,
    definition: &ContainerRecord,
    joined: &Joined,
    linked: &Linked,
) -> Result<Attach> {
    let network = &definition.spec.network;
    let kind = match (&network.mode, joined.net) {
        (_, Some((other, pid))) => SandboxKind::Container(other, pid),
        (NetworkMode::Host, None) => SandboxKind::Host,
        (NetworkMode::None | NetworkMode::Container(_), None) => SandboxKind::Own(Vec::new()),
        (NetworkMode::Default, None) => SandboxKind::Own(endpoints(definition, "bridge")),
        (NetworkMode::Network(name), None) => SandboxKind::Own(linked_endpoints(definition, name)),
    };
    let or = |own: &[String], default: &[String]| {
        if own.is_empty() { default.to_vec() } else { own.to_vec() }
    };
    let options = &world.options;
    let mut ports = network.published.clone();
    if network.publish_all {
        let known: std::collections::HashSet<_> =
            ports.iter().map(|port| (port.container, port.protocol)).collect();
        let missing = network.exposed.iter().filter(|port| !known.contains(port));
        ports.extend(missing.map(|(container, protocol)| rorqual_network::PublishedPort {
            container: *container,
            protocol: *protocol,
            host_ip: None,
            host: (0, 0),
        }));
    }
    Ok(Attach {
        container: definition.id,
        kind,
        owner: owner(world, definition, joined),
        name: definition.name.to_string(),
        hostname: definition.effective.hostname.clone(),
        domainname: network.domainname.clone(),
        extra_hosts: network.extra_hosts.iter().chain(&linked.hosts).cloned().collect(),
        dns: if network.dns.is_empty() { options.dns.clone() } else { network.dns.clone() },
        dns_search: or(&network.dns_search, &options.dns_search),
        dns_options: or(&network.dns_options, &options.dns_options),
        ports,
        directory: world.parts.snapshots.container_dir(&definition.id),
    })
}

/// Whose the container's namespaces are. Who shares one with another container shares its users, too.
fn owner(world: &World, definition: &ContainerRecord, joined: &Joined) -> NamespaceOwner {
    let Some(maps) = world.options.remap_of(&definition.spec) else { return NamespaceOwner::Host };
    match joined.net.map(|(_, pid)| pid).or(joined.ipc).or(joined.pid) {
        Some(pid) => NamespaceOwner::Of(pid),
        None => NamespaceOwner::New(maps.clone()),
    }
}

/// The endpoints of a container on a user's network, where its links are names for it alone.
fn linked_endpoints(definition: &ContainerRecord, mode: &str) -> Vec<EndpointRequest> {
    let mut all = endpoints(definition, mode);
    if let Some(first) = all.first_mut() {
        for link in &definition.spec.network.links {
            // Clients say the same of the container and of the endpoint.
            if !first.links.contains(link) {
                first.links.push(link.clone());
            }
        }
    }
    all
}

/// The endpoints asked for, that of the mode first.
fn endpoints(definition: &ContainerRecord, mode: &str) -> Vec<EndpointRequest> {
    let mut all = definition.spec.network.endpoints.clone();
    let is_mode = |name: &str| name == mode || (mode == "bridge" && name == "default");
    match all.iter().position(|endpoint| is_mode(&endpoint.network)) {
        Some(at) => {
            let mut first = all.remove(at);
            mode.clone_into(&mut first.network);
            all.insert(0, first);
        }
        None if definition.spec.network.left_mode => {}
        None => {
            all.insert(
                0,
                EndpointRequest { network: mode.to_owned(), ..EndpointRequest::default() },
            );
        }
    }
    all
}

/// Loads the default AppArmor profile where something has unloaded it since the daemon started, as an upgrade of
/// packages may.
pub(crate) async fn ensure_profile(world: &World, spec: &ContainerSpec) -> Result<()> {
    let Some(apparmor) = world.options.apparmor else { return Ok(()) };
    let default = apparmor.default_profile;
    if spec.security.apparmor(default) != default {
        return Ok(());
    }
    rorqual_store::blocking(apparmor.ensure_default).await.map_err(|error| {
        // COMPAT: dockerd's words.
        Error::Internal(format!(
            "AppArmor enabled on system but the {default} profile could not be loaded: {}",
            full_message(&*error)
        ))
    })
}

fn specification(
    world: &World,
    definition: &ContainerRecord,
    (joined, linked): (&Joined, &Linked),
    (sandbox, capabilities): (&Sandbox, Capabilities),
) -> Result<oci_spec::runtime::Spec> {
    let spec = &definition.spec;
    let files: &HostFiles = &sandbox.files;
    // The container's own variables come after those of its links, and count.
    let mut effective = Cow::Borrowed(&definition.effective);
    if !linked.env.is_empty() {
        let mut env = linked.env.clone();
        overlay_env(&mut env, &effective.env);
        effective.to_mut().env = env;
    }
    ocispec::build(&Input {
        id: &definition.id,
        spec,
        effective: &effective,
        mounts: &definition.mounts,
        files,
        net: if sandbox.namespace.is_some() { Net::Joined } else { Net::Host },
        host: &world.facts,
        pid_of: joined.pid,
        ipc_of: joined.ipc,
        ipc: &joined.ipc_mode,
        capabilities,
        users: sandbox.user.as_ref().map(|user| &user.maps),
        is_directory: &|name| world.volumes.find(name).is_some_and(|volume| volume.is_directory()),
        layers: &|layers| world.parts.snapshots.layer_trees(layers),
    })
}

/// Starts a container again by its policy; the pending restart was not called off.
pub(crate) async fn launch_again(world: &Arc<World>, container: &Arc<Container>) {
    container.change(|state| state.restart_count += 1);
    if let Err(error) = launch(world, container).await {
        let unlikely = error.kind() == ErrorKind::Internal;
        tracing::warn!(container = %container.id.short(), unlikely, error = full_message(&error), "cannot restart");
        if container.apply(Happening::RestartCalledOff, |_| {}).is_ok() {
            container.persist(&world.parts.database).await.ok();
        }
    }
}

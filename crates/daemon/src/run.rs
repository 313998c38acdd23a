//! The life of the daemon: places, engine, listeners, signals, shutdown.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rorqual_core::{BoxError, full_message};
use rorqual_engine::spec::{IpcMode, Ownership};
use rorqual_engine::{CgroupDriver, Ending, EventKind};
use rorqual_http::{Address, Bound, Limits, Server, UnixAccess, bind, inherited, server_config};
use rorqual_plugin::{Places, Plugins};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::{self, CommandLine, Config, RUNTIMES};
use crate::context::{Context, Settings};
use crate::convert::view::Shown;
use crate::facts::Facts;
use crate::host::{self, PidFile};
use crate::logging::Verbosity;
use crate::rest::{Requests, rest};
use crate::service::Api;
use crate::wiring;

/// Runs the daemon.
pub(crate) async fn run(
    line: CommandLine,
    mut config: Config,
    verbosity: Verbosity,
) -> Result<(), BoxError> {
    // ORDER: signals are caught before there is anything to clean up.
    let mut signals = Signals::new()?;
    let _pid = PidFile::write(&config.pidfile)?;
    // Docker's modes: others may pass through the data root to volumes, not list it.
    host::make_root(&config.data_root, 0o710)?;
    host::make_root(&config.exec_root, 0o711)?;
    let _locks = [host::lock(&config.data_root)?, host::lock(&config.exec_root)?];
    for (key, reason) in &config.idle {
        tracing::warn!(key, reason, "a setting has no effect yet");
    }
    let facts = Facts::read(host::daemon_id(&config.data_root)?);
    // Listeners come first: a mistake in an address must not cost an adoption of containers, and clients that come
    // early wait in the queue instead of being refused.
    let listeners = listen(&config).await?;
    let remap = wiring::remap(&config)?;
    // Root mapped to itself is as good as no map.
    config.defaults.userns_remap = config.defaults.userns_remap.filter(|_| remap.is_some());
    let plugins = Arc::new(Plugins::new(Places::docker()));
    let (engine, transfer, builder) = wiring::engine(&config, &facts, &plugins, remap).await?;
    let insecure = listeners.iter().any(|bound| bound.is_tcp() && config.tls.is_none());
    let settings = Arc::new(settings(&config, &facts, insecure));
    let context = Arc::new(Context::new(engine, (transfer, builder), facts, settings, plugins));

    let limits = Limits::default().for_descriptors(descriptor_limit(), listeners.len());
    let requests = Requests::default();
    let api = Api::new(Arc::clone(&context), requests.clone());
    let server = Server::new(Arc::new(api), limits);
    let tls = config.tls.as_ref().map(server_config).transpose()?;
    let mut serving = JoinSet::new();
    for bound in listeners {
        tracing::info!(address = %bound.address, "API listens");
        let (server, tls) = (server.clone(), tls.clone().filter(|_| bound.is_tcp()));
        serving.spawn(async move { server.serve(bound, tls).await });
    }
    // Ends with the daemon.
    let _resting = tokio::spawn(rest(requests));
    notify(b"READY=1\n");
    tracing::info!("daemon is ready");

    while signals.wait().await == Caught::Hangup {
        reload(&line, &mut config, &context, &verbosity, insecure);
    }
    notify(b"STOPPING=1\n");
    shut_down(&server, serving, &context, &config, &mut signals).await;
    Ok(())
}

/// How many descriptors this process may have.
fn descriptor_limit() -> u64 {
    let number = rorqual_sys::rlimit::number("NOFILE");
    let limit = number.and_then(|number| rorqual_sys::rlimit::get(number).ok());
    limit.map_or(u64::MAX, |limit| limit.soft)
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caught {
    Hangup,
    End,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn wait(&mut self) -> Caught {
        tokio::select! {
            _ = self.hangup.recv() => Caught::Hangup,
            _ = self.terminate.recv() => Caught::End,
            _ = self.interrupt.recv() => Caught::End,
            _ = self.quit.recv() => Caught::End,
        }
    }
}

/// Opens all listeners, or none.
async fn listen(config: &Config) -> Result<Vec<Bound>, BoxError> {
    let access = UnixAccess { group: socket_group(config)?, ..UnixAccess::default() };
    let default_port = if config.tls.is_some() { 2376 } else { 2375 };
    let mut listeners = Vec::new();
    for address in &config.hosts {
        match address {
            Address::Fd(which) => {
                listeners.extend(inherited(which, |name| std::env::var(name).ok(), take)?);
            }
            address => {
                if let Address::Unix(path) = address
                    && let Some(folder) = path.parent()
                {
                    std::fs::create_dir_all(folder)?;
                }
                listeners.push(bind(address, access, default_port).await?);
            }
        }
    }
    for bound in listeners.iter().filter(|bound| bound.is_tcp()) {
        guard_tcp(bound, config)?;
    }
    Ok(listeners)
}

/// Whoever reaches the API is root on this host, so plain TCP stays on it unless somebody insists.
fn guard_tcp(bound: &Bound, config: &Config) -> Result<(), BoxError> {
    match &config.tls {
        Some(tls) if tls.client_ca.is_some() => {}
        Some(_) if !bound.is_local() && !config.allow_insecure_tcp => {
            return Err(format!(
                "cannot listen at {}: without --tlsverify anybody who reaches it is root on this host \
                 (--allow-insecure-tcp insists)",
                bound.address
            )
            .into());
        }
        None if !bound.is_local() && !config.allow_insecure_tcp => {
            return Err(format!(
                "cannot listen at {}: without TLS anybody who reaches it is root on this host; use --tlsverify, a Unix \
                 socket or ssh (--allow-insecure-tcp insists)",
                bound.address
            )
            .into());
        }
        _ => tracing::warn!(
            address = %bound.address,
            "the API is reachable over TCP without authentication: anybody who reaches it is root on this host"
        ),
    }
    Ok(())
}

fn socket_group(config: &Config) -> Result<Option<u32>, BoxError> {
    match &config.group {
        // COMPAT: the group is `docker` where there is one.
        None => Ok(host::group("docker")),
        Some(name) => match host::group(name) {
            Some(group) => Ok(Some(group)),
            None => Err(format!("group {name} not found").into()),
        },
    }
}

/// Makes a descriptor that systemd handed over ours, by duplicating it.
fn take(fd: i32) -> std::io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, fd, PidfdGetfdFlags::empty())?)
}

/// Tells systemd how the daemon is.
fn notify(state: &[u8]) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let name = path.to_string_lossy();
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&*name)),
    };
    let sent = address
        .and_then(|address| Ok((UnixDatagram::unbound()?, address)))
        .and_then(|(socket, address)| socket.send_to_addr(state, &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// The settings that clients see.
fn settings(config: &Config, facts: &Facts, insecure: bool) -> Settings {
    let private = if facts.cgroup_unified { "private" } else { "host" };
    let [http_proxy, https_proxy, no_proxy] = config.proxies.clone();
    let mut warnings = Vec::new();
    if insecure {
        warnings.push(
            "WARNING: API is accessible over TCP without encryption: access to it is root access to the host".to_owned(),
        );
    }
    Settings {
        debug: config.debug,
        experimental: config.experimental,
        live_restore: config.live_restore,
        labels: config.labels.clone(),
        data_root: config.data_root.to_string_lossy().into_owned(),
        http_proxy,
        https_proxy,
        no_proxy,
        authorization: config.authorization.clone(),
        insecure_registries: config.insecure_registries.clone(),
        registry_mirrors: config.registry_mirrors.clone(),
        runtimes: RUNTIMES.iter().map(|name| (*name).to_owned()).collect(),
        seccomp_profile: config.defaults.seccomp_profile.clone(),
        no_new_privileges: config.defaults.no_new_privileges,
        selinux: wiring::selinux(config).is_some(),
        remapped: config.defaults.userns_remap.is_some(),
        idmap_binds: config.defaults.idmap_binds,
        warnings,
        cgroup_driver: wiring::cgroup_driver(config, facts).name(),
        shown: Shown {
            apparmor: facts.has_apparmor,
            cgroup_namespace: match config.defaults.cgroup_namespace {
                Some(Ownership::Private) => "private",
                Some(Ownership::Host) => "host",
                None => private,
            },
            shm_size: config.defaults.shm_size,
            ipc_mode: match config.defaults.ipc {
                IpcMode::Shareable => "shareable".to_owned(),
                _ => "private".to_owned(),
            },
            runtime: config.defaults.runtime.clone(),
            log_driver: config.defaults.log_driver.clone(),
        },
    }
}

/// Reads the file again; a mistake in it changes nothing.
fn reload(
    line: &CommandLine,
    config: &mut Config,
    context: &Context,
    verbosity: &Verbosity,
    insecure: bool,
) {
    match config::load(line) {
        Ok(newer) => config.reload(newer),
        Err(error) => {
            tracing::error!(error = full_message(&error), "cannot reload the configuration");
            return;
        }
    }
    verbosity.set(config.logging.level);
    let settings = Arc::new(settings(config, &context.facts, insecure));
    context.set_settings(settings);
    context.transfer.configure(config.registries.clone());
    let id = context.facts.id.clone();
    context.engine.events.emit(EventKind::Daemon, "reload", id, reloaded(config));
    tracing::info!("configuration reloaded");
}

/// The attributes of the event `reload`: the settings that are read again, as they are now.
fn reloaded(config: &Config) -> BTreeMap<String, String> {
    let list = |list: &[String]| serde_json::Value::from(list.to_vec()).to_string();
    [
        ("name", crate::facts::host_name()),
        ("authorization-plugins", list(&config.authorization)),
        ("debug", config.debug.to_string()),
        ("insecure-registries", list(&config.insecure_registries)),
        ("labels", list(&config.labels)),
        ("live-restore", config.live_restore.to_string()),
        ("registry-mirrors", list(&config.registry_mirrors)),
        ("shutdown-timeout", config.shutdown_timeout.as_secs().to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Stops accepting, ends streams, waits for operations, stops containers (unless they live on).
async fn shut_down(
    server: &Server<Api>,
    mut serving: JoinSet<()>,
    context: &Context,
    config: &Config,
    signals: &mut Signals,
) {
    tracing::info!(live_restore = config.live_restore, "daemon ends");
    server.stop();
    while serving.join_next().await.is_some() {}
    // Short requests get a moment; streams never end by themselves.
    tokio::time::timeout(Duration::from_millis(500), server.drained()).await.ok();
    let ending = async {
        let Config { live_restore, shutdown_timeout: patience, .. } = *config;
        context.engine.shutdown(Ending { live_restore, patience }).await;
    };
    // COMPAT: whoever asks three times is obeyed at once; the containers go on then, and are adopted later.
    let impatience = async {
        for _ in 0..2 {
            while signals.wait().await == Caught::Hangup {}
        }
    };
    tokio::select! {
        () = ending => {}
        () = impatience => tracing::warn!("forced to end before everything was in order"),
    }
    server.cut();
    tokio::time::timeout(Duration::from_secs(1), server.drained()).await.ok();
    remove_cgroup_parent(config, &context.facts);
    tracing::info!("daemon has ended");
}

/// Leaves no empty group behind; while containers live on, theirs keep it.
fn remove_cgroup_parent(config: &Config, facts: &Facts) {
    let driver = wiring::cgroup_driver(config, facts);
    if driver == CgroupDriver::Systemd {
        // Slices are systemd's, and it removes them by itself.
        return;
    }
    let parent = config.defaults.cgroup_parent.as_deref().unwrap_or(driver.default_parent());
    if let Ok(layout) = rorqual_sys::cgroup::Layout::current() {
        layout.remove_empty(parent);
    }
}

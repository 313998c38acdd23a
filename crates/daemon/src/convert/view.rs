//! [`ContainerView`] to what `inspect` and lists answer.

use std::collections::BTreeMap;
use std::time::Duration;

use rorqual_api::container::{
    Config, CreateRequest, GraphDriver, HealthConfig, Inspect, MountPoint as MountDocument,
    NetworkSettings, PortSummary, Summary, SummaryHostConfig, SummaryNetworkSettings,
};
use rorqual_api::host_config::{HostConfig, LogConfig};
use rorqual_api::network::{EndpointIpamConfig, EndpointSettings};
use rorqual_api::{Empty, StrSlice};
use rorqual_core::Timestamp;
use rorqual_core::mount::RootfsPlan;
use rorqual_engine::spec::{HealthSpec, HealthTest, IpcMode, NetworkMode, PidMode, StopTimeout};
use rorqual_engine::{ContainerView, Effective, HealthPlan, MountPoint, MountPointKind};
use rorqual_network::{EndpointRequest, PortProtocol};
use rorqual_shim::log::LogTarget;
use rorqual_sys::lsm::DEFAULT_PROFILE;

use crate::convert::network::{
    bindings as network_bindings, endpoint_document, host_addresses, port_map, protocol_word,
};
use crate::convert::resources::{restart_document, show};
use crate::convert::state::{state_document, status_words};

/// Name of the storage driver on the wire.
// COMPAT: image ids are digests of configurations, as with dockerd's graph driver of this name, not as with a snapshotter.
pub(crate) const STORAGE_DRIVER: &str = "overlay2";

/// Defaults that `inspect` shows where the request said nothing.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// Whether AppArmor profiles have an effect.
    pub(crate) apparmor: bool,
    /// `private` or `host`.
    pub(crate) cgroup_namespace: &'static str,
    /// Bytes of `/dev/shm`.
    pub(crate) shm_size: u64,
    /// `private` or `shareable`.
    pub(crate) ipc_mode: String,
    /// `runc` or another name of ours.
    pub(crate) runtime: String,
    /// Default log driver.
    pub(crate) log_driver: String,
}

/// Writes what `inspect` answers.
pub(crate) fn inspect_document(view: &ContainerView, shown: &Shown) -> Inspect {
    let request: CreateRequest =
        rorqual_api::from_value(view.spec.echo.0.clone()).unwrap_or_default();
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (program, args) = view.effective.command.split_first().map_or_else(
        || (String::new(), Vec::new()),
        |(program, args)| (program.clone(), args.to_vec()),
    );
    Inspect {
        id: view.id.to_string(),
        created: view.created.to_string(),
        path: program,
        args,
        state: state_document(&view.state),
        image: view.image.to_string(),
        resolv_conf_path: path(&view.files.resolv_conf),
        hostname_path: path(&view.files.hostname),
        hosts_path: path(&view.files.hosts),
        log_path: match &view.log {
            // COMPAT: there is none before the first start.
            LogTarget::JsonFile(log) if view.state.started_at.is_some() => path(&log.path),
            _ => String::new(),
        },
        name: format!("/{}", view.name),
        restart_count: i64::from(view.restart_count),
        driver: STORAGE_DRIVER.to_owned(),
        platform: view.platform.os.clone(),
        image_manifest_descriptor: None,
        mount_label: view.effective.labels.mount.clone(),
        process_label: view.effective.labels.process.clone(),
        app_armor_profile: if shown.apparmor {
            view.spec.security.apparmor(DEFAULT_PROFILE).to_owned()
        } else {
            String::new()
        },
        exec_ids: (!view.execs.is_empty())
            .then(|| view.execs.iter().map(ToString::to_string).collect()),
        graph_driver: GraphDriver { data: graph_data(view), name: STORAGE_DRIVER.to_owned() },
        size_rw: view.size.map(|size| size.writable as i64),
        size_root_fs: view.size.map(|size| (size.writable + size.layers) as i64),
        mounts: listed_mounts(view, request.host_config.as_ref()).map(mount_document).collect(),
        network_settings: network_settings(view),
        host_config: host_config(view, request.host_config.unwrap_or_default(), shown),
        config: config(view, request.config),
    }
}

/// Where the layers are. The merged view exists in the container's mount namespace only, so its path leads through that.
fn graph_data(view: &ContainerView) -> Option<BTreeMap<String, String>> {
    let Some(RootfsPlan::Overlay(plan)) = &view.rootfs else { return None };
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let lower = plan.lower.iter().map(|lower| path(lower)).collect::<Vec<_>>().join(":");
    let mut data =
        BTreeMap::from([("ID".to_owned(), view.id.to_string()), ("LowerDir".to_owned(), lower)]);
    if let Some(upper) = &plan.upper {
        data.insert("UpperDir".to_owned(), path(&upper.upper));
        data.insert("WorkDir".to_owned(), path(&upper.work));
    }
    if view.state.pid != 0 {
        data.insert("MergedDir".to_owned(), format!("/proc/{}/root", view.state.pid));
    }
    Some(data)
}

fn config(view: &ContainerView, asked: Config) -> Config {
    let Effective {
        command: _,
        env,
        user,
        working_dir,
        entrypoint,
        cmd,
        stop_signal,
        stop_timeout,
        health,
        hostname,
        volumes,
        shell: _,    // Shown as it was asked for: the image's is used, but not written here.
        on_build: _, // An image's; a container has none.
        health_asked,
        labels: _,
    } = &*view.effective;
    let set = |paths: &[String]| -> Option<BTreeMap<String, Empty>> {
        (!paths.is_empty()).then(|| paths.iter().map(|path| (path.clone(), Empty {})).collect())
    };
    let exposed = view.spec.network.exposed.iter();
    Config {
        hostname: hostname.clone(),
        user: user.clone(),
        exposed_ports: exposed
            .map(|(port, protocol)| (format!("{port}/{}", protocol_word(*protocol)), Empty {}))
            .collect(),
        env: (!env.is_empty()).then(|| env.clone()),
        cmd: cmd.clone().map(StrSlice),
        healthcheck: match health {
            Some(plan) => Some(health_config(plan, health_asked.as_ref(), asked.healthcheck)),
            None => asked.healthcheck,
        },
        volumes: set(volumes),
        working_dir: working_dir.clone(),
        entrypoint: entrypoint.clone().map(StrSlice),
        on_build: asked.on_build,
        labels: Some(view.spec.labels.clone()),
        stop_timeout: stop_timeout.map(|timeout| match timeout {
            StopTimeout::After(time) => time.as_secs() as i64,
            StopTimeout::Never => -1,
        }),
        shell: asked.shell,
        // Shown as they were asked for.
        domainname: asked.domainname,
        attach_stdin: asked.attach_stdin,
        attach_stdout: asked.attach_stdout,
        attach_stderr: asked.attach_stderr,
        tty: asked.tty,
        open_stdin: asked.open_stdin,
        stdin_once: asked.stdin_once,
        args_escaped: asked.args_escaped,
        image: asked.image,
        network_disabled: asked.network_disabled,
        mac_address: asked.mac_address,
        // As it was asked for, else the image's.
        stop_signal: match stop_signal {
            Some(signal) if asked.stop_signal.is_empty() => signal.to_string(),
            _ => asked.stop_signal,
        },
    }
}

/// Shows a plan; what nobody set (neither the request nor the image) stays out.
fn health_config(
    plan: &HealthPlan,
    asked: Option<&HealthSpec>,
    request: Option<HealthConfig>,
) -> HealthConfig {
    if let Some(HealthSpec::Check {
        test: _,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    }) = asked
    {
        let nanos = |time: &Option<Duration>| time.map_or(0, |time| time.as_nanos() as i64);
        return HealthConfig {
            test: health_words(&plan.test),
            interval: nanos(interval),
            timeout: nanos(timeout),
            start_period: nanos(start_period),
            start_interval: nanos(start_interval),
            retries: retries.map_or(0, i64::from),
        };
    }
    // Records of earlier versions do not tell what was asked for.
    let asked = request.unwrap_or_default();
    let HealthPlan { test, interval, timeout, start_period, start_interval, retries } = plan;
    let set = |value: &Duration, default: u64, asked: i64| {
        if *value == Duration::from_secs(default) { asked } else { value.as_nanos() as i64 }
    };
    HealthConfig {
        test: health_words(test),
        interval: set(interval, 30, asked.interval),
        timeout: set(timeout, 30, asked.timeout),
        start_period: set(start_period, 0, asked.start_period),
        start_interval: set(start_interval, 5, asked.start_interval),
        retries: if *retries == 3 { asked.retries } else { i64::from(*retries) },
    }
}

fn health_words(test: &HealthTest) -> Vec<String> {
    match test {
        HealthTest::Command(words) => {
            std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
        }
        HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    }
}

/// The request's `HostConfig` with what is true now and what the daemon made of missing values.
fn host_config(view: &ContainerView, mut host: HostConfig, shown: &Shown) -> HostConfig {
    let fill = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    show(&view.spec.resources, &mut host);
    if host.port_bindings.is_none() && !view.spec.network.published.is_empty() {
        host.port_bindings = Some(network_bindings(&view.spec.network.published));
    }
    host.restart_policy = restart_document(view.spec.restart);
    host.log_config = log_config(view, shown);
    // COMPAT: dockerd writes the default network's name since 28.
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    // COMPAT: links are shown as paths: of the container that is linked to, and below the one that has the link.
    for link in host.links.iter_mut().flatten() {
        let (target, alias) = link.split_once(':').unwrap_or((link, link));
        let alias = alias.rsplit('/').next().unwrap_or(alias);
        *link = format!("/{}:/{}/{alias}", target.trim_start_matches('/'), view.name);
    }
    // Names have become ids.
    if let NetworkMode::Container(other) = &view.spec.network.mode {
        host.network_mode = format!("container:{other}");
    }
    if let PidMode::Container(other) = &view.spec.namespaces.pid {
        host.pid_mode = format!("container:{other}");
    }
    if let IpcMode::Container(other) = &view.spec.namespaces.ipc {
        host.ipc_mode = format!("container:{other}");
    }
    // COMPAT: no bound is null.
    let is_bounded = view.spec.resources.pids.is_some();
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0 || is_bounded);
    if host.privileged || host.pid_mode == "host" || host.ipc_mode == "host" {
        // COMPAT: labels would keep such a container from what it shares; dockerd says so even without SELinux.
        let options = host.security_opt.get_or_insert_default();
        if !options.iter().any(|option| option == "label=disable") {
            options.push("label=disable".to_owned());
        }
    }
    fill(&mut host.cgroupns_mode, shown.cgroup_namespace);
    fill(&mut host.runtime, &shown.runtime);
    if view.spec.namespaces.ipc == IpcMode::Default {
        host.ipc_mode.clone_from(&shown.ipc_mode);
    }
    if host.shm_size == 0 {
        host.shm_size = shown.shm_size as i64;
    }
    if !host.privileged {
        host.masked_paths.get_or_insert_with(|| MASKED.map(str::to_owned).to_vec());
        host.readonly_paths.get_or_insert_with(|| READONLY.map(str::to_owned).to_vec());
    }
    host
}

/// Paths hidden from containers, as `inspect` of dockerd shows them.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that containers cannot write.
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn log_config(view: &ContainerView, shown: &Shown) -> LogConfig {
    match &view.spec.log {
        Some(log) => LogConfig {
            driver: if log.driver.is_empty() {
                shown.log_driver.clone()
            } else {
                log.driver.clone()
            },
            config: Some(log.options.clone()),
        },
        None => LogConfig { driver: shown.log_driver.clone(), config: Some(BTreeMap::new()) },
    }
}

/// COMPAT: what `--tmpfs` asked for is shown in `HostConfig` alone, what `--mount` asked for here too.
fn listed_mounts<'a>(
    view: &'a ContainerView,
    host: Option<&'a HostConfig>,
) -> impl Iterator<Item = &'a MountPoint> {
    view.mounts.iter().filter(move |mount| {
        mount.kind != MountPointKind::Tmpfs
            || host.is_none_or(|host| !host.tmpfs.contains_key(&mount.target))
    })
}

fn mount_document(mount: &MountPoint) -> MountDocument {
    let MountPoint {
        kind,
        name,
        source,
        target,
        driver,
        mode,
        writable,
        propagation,
        anonymous: _, // Told by the volume's label.
        subpath: _,   // COMPAT: dockerd shows the volume's root.
        layers: _,
        image,
        idmap: _, // Told by the mode.
    } = mount;
    let kind = match kind {
        MountPointKind::Bind => "bind",
        MountPointKind::Volume => "volume",
        MountPointKind::Tmpfs => "tmpfs",
        MountPointKind::Image => "image",
    };
    MountDocument {
        kind: kind.to_owned(),
        // COMPAT: the image that was asked for.
        name: name.as_ref().map_or_else(|| image.clone(), ToString::to_string),
        source: source.to_string_lossy().into_owned(),
        destination: target.clone(),
        driver: driver.clone(),
        mode: mode.clone(),
        rw: *writable,
        propagation: propagation.map(|how| how.word().to_owned()).unwrap_or_default(),
    }
}

/// Networks by name: connected ones, else those that the container will join.
fn networks(view: &ContainerView) -> BTreeMap<String, EndpointSettings> {
    let spec = &view.spec.network;
    let asked = spec.endpoints.iter();
    let mut networks: BTreeMap<String, EndpointSettings> =
        asked.map(|asked| (asked.network.clone(), asked_document(asked))).collect();
    let main = match &spec.mode {
        NetworkMode::Default => Some("bridge"),
        NetworkMode::None => Some("none"),
        NetworkMode::Host => Some("host"),
        NetworkMode::Network(name) => Some(name.as_str()),
        NetworkMode::Container(_) => None,
    };
    if let Some(main) = main.filter(|_| !spec.left_mode)
        && !view.endpoints.iter().any(|endpoint| endpoint.network.to_string().starts_with(main))
    {
        networks.entry(main.to_owned()).or_default();
    }
    for endpoint in &view.endpoints {
        let present = endpoint_document(endpoint);
        let settings = networks.entry(endpoint.network_name.clone()).or_default();
        *settings = EndpointSettings {
            ipam_config: settings.ipam_config.take(),
            links: settings.links.take(),
            aliases: settings.aliases.take(),
            driver_opts: settings.driver_opts.take(),
            gw_priority: settings.gw_priority,
            dns_names: dns_names(view, &endpoint.network_name),
            ..present
        };
    }
    networks
}

/// Writes what was asked of a network.
fn asked_document(asked: &EndpointRequest) -> EndpointSettings {
    let EndpointRequest {
        network: _,
        ipv4,
        ipv6,
        mac: _,
        aliases,
        gateway_priority,
        options,
        link_local,
        links,
    } = asked;
    let text = |address: Option<std::net::IpAddr>| {
        address.map(|address| address.to_string()).unwrap_or_default()
    };
    let addresses = EndpointIpamConfig {
        ipv4_address: text(ipv4.map(Into::into)),
        ipv6_address: text(ipv6.map(Into::into)),
        link_local_ips: link_local.iter().map(ToString::to_string).collect(),
    };
    EndpointSettings {
        ipam_config: (addresses != EndpointIpamConfig::default()).then_some(addresses),
        aliases: (!aliases.is_empty()).then(|| aliases.clone()),
        links: (!links.is_empty())
            .then(|| links.iter().map(|(name, alias)| format!("{name}:{alias}")).collect()),
        driver_opts: (!options.is_empty()).then(|| options.clone()),
        gw_priority: *gateway_priority,
        ..EndpointSettings::default()
    }
}

/// Names that the embedded DNS answers to; the default network has none.
fn dns_names(view: &ContainerView, network: &str) -> Option<Vec<String>> {
    if network == "bridge" {
        return None;
    }
    let aliases = view.spec.network.endpoints.iter().find(|endpoint| endpoint.network == network);
    let mut names = vec![view.name.to_string()];
    names.extend(aliases.into_iter().flat_map(|endpoint| endpoint.aliases.iter().cloned()));
    names.push(view.id.short());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Some(names)
}

fn network_settings(view: &ContainerView) -> NetworkSettings {
    let is_up = view.state.pid != 0;
    let networks = networks(view);
    let mut settings = NetworkSettings {
        ports: if is_up { port_map(&view.ports, exposed(view)) } else { BTreeMap::new() },
        ..NetworkSettings::default()
    };
    if is_up && !view.endpoints.is_empty() {
        settings.sandbox_id = view.id.to_string();
        // The namespace as a path that tools can open.
        settings.sandbox_key = format!("/proc/{}/ns/net", view.state.pid);
    }
    // COMPAT: the flat fields are those of the default network.
    if let Some(bridge) = networks.get("bridge") {
        settings.endpoint_id.clone_from(&bridge.endpoint_id);
        settings.gateway.clone_from(&bridge.gateway);
        settings.ip_address.clone_from(&bridge.ip_address);
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.ipv6_gateway.clone_from(&bridge.ipv6_gateway);
        settings.global_ipv6_address.clone_from(&bridge.global_ipv6_address);
        settings.global_ipv6_prefix_len = bridge.global_ipv6_prefix_len;
        settings.mac_address.clone_from(&bridge.mac_address);
    }
    settings.networks = networks;
    settings
}

fn exposed(view: &ContainerView) -> &[(u16, PortProtocol)] {
    &view.spec.network.exposed
}

/// Writes a line of a list.
pub(crate) fn summary_document(view: &ContainerView, now: Timestamp) -> Summary {
    let request: CreateRequest =
        rorqual_api::from_value(view.spec.echo.0.clone()).unwrap_or_default();
    let network_mode = match request.host_config.as_ref().map(|host| host.network_mode.as_str()) {
        None | Some("" | "default") => "bridge".to_owned(),
        Some(mode) => mode.to_owned(),
    };
    Summary {
        id: view.id.to_string(),
        names: vec![format!("/{}", view.name)],
        image: view.spec.image.clone(),
        image_id: view.image.to_string(),
        image_manifest_descriptor: None,
        command: command_words(&view.effective.command),
        created: view.created.secs() as i64,
        ports: ports(view),
        size_rw: view.size.map_or(0, |size| size.writable as i64),
        size_root_fs: view.size.map_or(0, |size| (size.writable + size.layers) as i64),
        labels: view.spec.labels.clone(),
        state: view.state.phase.word().to_owned(),
        status: status_words(&view.state, now),
        host_config: SummaryHostConfig { network_mode, annotations: view.spec.annotations.clone() },
        network_settings: SummaryNetworkSettings { networks: networks(view) },
        mounts: listed_mounts(view, request.host_config.as_ref()).map(summary_mount).collect(),
    }
}

/// Lists do not tell where a volume is on the host.
fn summary_mount(mount: &MountPoint) -> MountDocument {
    let mut document = mount_document(mount);
    if mount.kind == MountPointKind::Volume {
        document.source.clear();
    }
    document
}

/// Joins a command as `ps` shows it: words with blanks are quoted.
fn command_words(command: &[String]) -> String {
    let word = |word: &String| {
        let is_plain = !word.is_empty() && !word.contains([' ', '\t', '\n', '\'']);
        if is_plain { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    match command {
        // COMPAT: a program alone is shown as it is.
        [program] => program.clone(),
        words => words.iter().map(word).collect::<Vec<_>>().join(" "),
    }
}

fn ports(view: &ContainerView) -> Vec<PortSummary> {
    if view.state.pid == 0 {
        return Vec::new();
    }
    let published = view.ports.iter().flat_map(|port| {
        host_addresses(port).into_iter().map(move |ip| PortSummary {
            ip,
            private_port: port.container,
            public_port: port.host.0,
            protocol: protocol_word(port.protocol).to_owned(),
        })
    });
    let known = view.ports.iter().map(|port| (port.container, port.protocol));
    let known = known.collect::<std::collections::HashSet<_>>();
    let only_exposed = exposed(view).iter().filter(|port| !known.contains(port));
    let only_exposed = only_exposed.map(|(port, protocol)| PortSummary {
        ip: String::new(),
        private_port: *port,
        public_port: 0,
        protocol: protocol_word(*protocol).to_owned(),
    });
    published.chain(only_exposed).collect()
}

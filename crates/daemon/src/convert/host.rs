//! `HostConfig` taken apart into the engine's specifications.

use std::collections::BTreeMap;

use rorqual_api::host_config::{HostConfig, LogConfig};
use rorqual_core::units::parse_size;
use rorqual_engine::spec::{
    IpcMode, LogSpec, NamespaceSpec, NetworkMode, NetworkSpec, Ownership, PidMode, Resources,
    RestartPolicy, SecuritySpec, StorageSpec,
};
use rorqual_shim::WindowSize;

use crate::convert::create::window;
use crate::convert::{mounts, network, non_empty, resources};
use crate::error::{BadRequest, invalid, unsupported};

/// What a `HostConfig` says.
pub(crate) struct HostParts {
    pub(crate) storage: StorageSpec,
    pub(crate) network: NetworkSpec,
    pub(crate) resources: Resources,
    pub(crate) security: SecuritySpec,
    pub(crate) namespaces: NamespaceSpec,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) restart: RestartPolicy,
    pub(crate) auto_remove: bool,
    pub(crate) log: Option<LogSpec>,
    pub(crate) runtime: Option<String>,
    pub(crate) window: WindowSize,
    pub(crate) init: Option<bool>,
    pub(crate) groups: Vec<String>,
    pub(crate) oom_score_adj: Option<i32>,
}

/// Takes a `HostConfig` apart.
#[expect(clippy::too_many_lines, reason = "one line per field, so that none is forgotten")]
pub(crate) fn parts(mut host: HostConfig) -> Result<HostParts, BadRequest> {
    let resources = resources::resources(&mut host)?;
    let HostConfig {
        binds,
        container_id_file: _, // Written by the client; only shown again.
        log_config,
        network_mode,
        port_bindings: _, // Read with the exposed ones, by whoever has the whole request.
        restart_policy,
        auto_remove,
        volume_driver,
        volumes_from,
        console_size,
        annotations,
        cap_add,
        cap_drop,
        cgroupns_mode,
        dns,
        dns_options,
        dns_search,
        extra_hosts,
        group_add,
        ipc_mode,
        cgroup,
        links,
        oom_score_adj,
        pid_mode,
        privileged,
        publish_all_ports,
        readonly_rootfs,
        security_opt,
        storage_opt,
        tmpfs,
        uts_mode,
        userns_mode,
        shm_size,
        sysctls,
        runtime,
        isolation,
        // These became `resources` above.
        cpu_shares: _,
        memory: _,
        nano_cpus: _,
        cgroup_parent: _,
        blkio_weight: _,
        blkio_weight_device: _,
        blkio_device_read_bps: _,
        blkio_device_write_bps: _,
        blkio_device_read_iops: _,
        blkio_device_write_iops: _,
        cpu_period: _,
        cpu_quota: _,
        cpu_realtime_period: _,
        cpu_realtime_runtime: _,
        cpuset_cpus: _,
        cpuset_mems: _,
        devices: _,
        device_cgroup_rules: _,
        memory_reservation: _,
        memory_swap: _,
        memory_swappiness: _,
        oom_kill_disable: _,
        pids_limit: _,
        ulimits: _,
        device_requests,
        kernel_memory: _, // COMPAT: without effect since 1.42, dockerd drops it too.
        kernel_memory_tcp,
        cpu_count,
        cpu_percent,
        io_maximum_iops,
        io_maximum_bandwidth,
        mounts: mount_list,
        masked_paths,
        readonly_paths,
        init,
    } = host;
    refuse_foreign(
        &isolation,
        &cgroup,
        [cpu_count != 0, cpu_percent != 0, io_maximum_iops != 0, io_maximum_bandwidth != 0],
    )?;
    if kernel_memory_tcp != 0 {
        return Err(unsupported("kernel TCP memory limits are not supported"));
    }
    if let Some(request) = device_requests.iter().flatten().next() {
        let (driver, wanted) =
            (&request.driver, request.capabilities.as_deref().unwrap_or_default());
        // COMPAT: dockerd's text.
        return Err(unsupported(format!(
            "could not select device driver {driver:?} with capabilities: [{}]",
            wanted.iter().map(|all| format!("[{}]", all.join(" "))).collect::<Vec<_>>().join(" ")
        )));
    }
    let storage = StorageSpec {
        mounts: mounts::mounts(binds.unwrap_or_default(), mount_list, tmpfs)?,
        anonymous: Vec::new(),
        volumes_from: volumes_from
            .unwrap_or_default()
            .iter()
            .map(|text| mounts::volumes_from(text))
            .collect::<Result<_, _>>()?,
        volume_driver: non_empty(volume_driver),
        read_only: readonly_rootfs,
        size: storage_size(storage_opt)?,
        shm_size: match u64::try_from(shm_size) {
            Ok(0) => None,
            Ok(size) => Some(size),
            Err(_) => return Err(invalid("SHM size can not be less than 0")),
        },
    };
    let network = NetworkSpec {
        left_mode: false,
        mode: network_mode_of(&network_mode)?,
        endpoints: Vec::new(),
        published: Vec::new(),
        publish_all: publish_all_ports,
        exposed: Vec::new(),
        hostname: None,
        domainname: String::new(),
        dns: network::addresses(dns.unwrap_or_default())?,
        dns_search: dns_search.unwrap_or_default(),
        dns_options: dns_options.unwrap_or_default(),
        extra_hosts: network::extra_hosts(extra_hosts.unwrap_or_default())?,
        links: links.unwrap_or_default().iter().map(|text| network::link(text)).collect(),
    };
    let security = SecuritySpec {
        privileged,
        cap_add: cap_add.unwrap_or_default().0,
        cap_drop: cap_drop.unwrap_or_default().0,
        options: security_opt.unwrap_or_default(),
        masked_paths,
        readonly_paths,
        sysctls,
    };
    let namespaces = NamespaceSpec {
        pid: pid_mode_of(&pid_mode)?,
        ipc: ipc_mode_of(&ipc_mode)?,
        uts: ownership("UTS", &uts_mode)?.unwrap_or_default(),
        cgroup: ownership("cgroup namespace", &cgroupns_mode)?,
        user: ownership("user namespace", &userns_mode)?,
    };
    Ok(HostParts {
        storage,
        network,
        resources,
        security,
        namespaces,
        annotations,
        restart: resources::restart(&restart_policy)?,
        auto_remove,
        log: log(log_config),
        runtime: non_empty(runtime),
        window: window(console_size),
        init,
        groups: group_add.unwrap_or_default(),
        oom_score_adj: oom_score(oom_score_adj)?,
    })
}

/// Refuses what only other systems have.
fn refuse_foreign(isolation: &str, cgroup: &str, windows: [bool; 4]) -> Result<(), BadRequest> {
    if !matches!(isolation, "" | "default") {
        return Err(invalid(format!(
            "invalid isolation ({isolation}): linux only supports 'default'"
        )));
    }
    if !cgroup.is_empty() {
        return Err(unsupported("joining another container's cgroup is not supported"));
    }
    if windows.contains(&true) {
        return Err(invalid(
            "CpuCount, CpuPercent, IOMaximumIOps and IOMaximumBandwidth exist on Windows only",
        ));
    }
    Ok(())
}

fn storage_size(options: BTreeMap<String, String>) -> Result<Option<u64>, BadRequest> {
    let mut size = None;
    for (key, value) in options {
        if !key.eq_ignore_ascii_case("size") {
            // COMPAT: dockerd's text.
            return Err(invalid(format!("Unknown option {key}")));
        }
        size = Some(parse_size(&value).map_err(|error| invalid(error.to_string()))?);
    }
    Ok(size)
}

fn network_mode_of(text: &str) -> Result<NetworkMode, BadRequest> {
    Ok(match text {
        "" | "default" | "bridge" => NetworkMode::Default,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        text => match text.strip_prefix("container:") {
            // COMPAT: dockerd's text.
            Some("") => {
                return Err(invalid(
                    "invalid network mode: invalid container format container:<name|id>",
                ));
            }
            Some(container) => NetworkMode::Container(container.to_owned()),
            None => NetworkMode::Network(text.to_owned()),
        },
    })
}

fn pid_mode_of(text: &str) -> Result<PidMode, BadRequest> {
    match text {
        "" | "private" => Ok(PidMode::Private),
        "host" => Ok(PidMode::Host),
        text => match text.strip_prefix("container:") {
            Some(container) if !container.is_empty() => {
                Ok(PidMode::Container(container.to_owned()))
            }
            _ => Err(invalid(format!("invalid PID mode: {text}"))),
        },
    }
}

/// Reads an IPC mode.
pub(crate) fn ipc_mode_of(text: &str) -> Result<IpcMode, BadRequest> {
    match text {
        "" => Ok(IpcMode::Default),
        "none" => Ok(IpcMode::None),
        "private" => Ok(IpcMode::Private),
        "shareable" => Ok(IpcMode::Shareable),
        "host" => Ok(IpcMode::Host),
        text => match text.strip_prefix("container:") {
            Some(container) if !container.is_empty() => {
                Ok(IpcMode::Container(container.to_owned()))
            }
            _ => Err(invalid(format!("invalid IPC mode: {text}"))),
        },
    }
}

/// Reads the mode of a namespace that is a container's own or the host's.
pub(crate) fn ownership(what: &str, text: &str) -> Result<Option<Ownership>, BadRequest> {
    match text {
        "" => Ok(None),
        "private" => Ok(Some(Ownership::Private)),
        "host" => Ok(Some(Ownership::Host)),
        text => Err(invalid(format!("invalid {what} mode: {text}"))),
    }
}

fn log(document: LogConfig) -> Option<LogSpec> {
    let LogConfig { driver, config } = document;
    let options = config.unwrap_or_default();
    (!driver.is_empty() || !options.is_empty()).then_some(LogSpec { driver, options })
}

fn oom_score(score: i64) -> Result<Option<i32>, BadRequest> {
    let in_range = i32::try_from(score).ok().filter(|score| (-1000..=1000).contains(score));
    let bad =
        || invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"));
    Ok(Some(in_range.ok_or_else(bad)?).filter(|score| *score != 0))
}

//! The daemon itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderValue, PRAGMA};
use http::{Method, StatusCode};
use rorqual_api::compat::Document;
use rorqual_api::system::{
    Commit, Component, DiskUsage, IndexInfo, Info, PlatformName, Plugins, RegistryConfig, Runtime,
    Swarm, Version,
};
use rorqual_build::solver::CacheEntry;
use rorqual_http::{Answer, body};
use serde_json::{Value, json};

use crate::context::{Context, Settings};
use crate::convert;
use crate::convert::view::STORAGE_DRIVER;
use crate::error::invalid;
use crate::facts::{Controllers, Facts, descriptors, host_name, is_on};
use crate::request::{ApiRequest, Result, json as document, refuse, typed};
use crate::routes::containers::now;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /_ping` and `HEAD /_ping`
pub(super) async fn ping(_: Arc<Context>, request: ApiRequest) -> Result {
    let text = if request.parts.method == Method::HEAD { "" } else { "OK" };
    let answer = typed(StatusCode::OK, "text/plain; charset=utf-8", body::full(text))?;
    let Answer::Response(mut response) = answer else { return Ok(answer) };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // 2 is BuildKit: clients ask for it unless they are told otherwise.
    headers.insert("builder-version", HeaderValue::from_static("2"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    Ok(Answer::Response(response))
}

/// `GET /version`
pub(super) async fn version(context: Arc<Context>, _: ApiRequest) -> Result {
    let facts = &context.facts;
    let experimental = context.settings().experimental;
    let (max, min) = (rorqual_api::MAX.to_string(), rorqual_api::MIN.to_string());
    let details: BTreeMap<String, String> = [
        ("ApiVersion", max.clone()),
        ("Arch", facts.architecture.clone()),
        ("Experimental", experimental.to_string()),
        ("KernelVersion", facts.kernel.clone()),
        ("MinAPIVersion", min.clone()),
        ("Os", "linux".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let component = Component { name: "Engine".to_owned(), version: VERSION.to_owned(), details };
    document(
        StatusCode::OK,
        &Version {
            platform: PlatformName { name: "Rorqual".to_owned() },
            components: vec![component],
            version: VERSION.to_owned(),
            api_version: max,
            min_api_version: min,
            git_commit: String::new(),
            go_version: String::new(),
            os: "linux".to_owned(),
            arch: facts.architecture.clone(),
            kernel_version: facts.kernel.clone(),
            experimental,
            build_time: String::new(),
        },
    )
}

/// `GET /info`
pub(super) async fn info(context: Arc<Context>, request: ApiRequest) -> Result {
    let census = context.engine.usage.census().await?;
    let settings = context.settings();
    let mut info = about_host(&context.facts, &settings);
    info.plugins.volume = Some(context.engine.volumes.drivers());
    info.containers = census.containers as i64;
    info.containers_running = census.running as i64;
    info.containers_paused = census.paused as i64;
    info.containers_stopped = census.stopped as i64;
    info.images = census.images as i64;
    info.n_events_listener = context.engine.events.listeners() as i64;
    request.answer(Document::Info, &info)
}

fn about_host(facts: &Facts, settings: &Settings) -> Info {
    let Controllers {
        memory,
        swap,
        kernel_memory_tcp,
        oom_control,
        cpu_period,
        cpu_quota,
        cpu_shares,
        cpuset,
        pids,
        disk_weight: _,
        disk_weight_device: _,
    } = facts.controllers;
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Info {
        id: facts.id.clone(),
        driver: STORAGE_DRIVER.to_owned(),
        driver_status: driver_status(&settings.data_root),
        plugins: Plugins {
            volume: None,
            network: Some(words(&["bridge", "host", "ipvlan", "macvlan", "null"])),
            authorization: (!settings.authorization.is_empty())
                .then(|| settings.authorization.clone()),
            log: Some(words(&["journald", "json-file", "local", "none", "syslog"])),
        },
        memory_limit: memory,
        swap_limit: swap,
        kernel_memory_tcp,
        cpu_cfs_period: cpu_period,
        cpu_cfs_quota: cpu_quota,
        cpu_shares,
        cpu_set: cpuset,
        pids_limit: pids,
        oom_kill_disable: oom_control,
        ipv4_forwarding: is_on("/proc/sys/net/ipv4/ip_forward"),
        debug: settings.debug,
        n_fd: descriptors(),
        n_goroutines: tokio::runtime::Handle::current().metrics().num_alive_tasks() as i64,
        system_time: now().to_string(),
        logging_driver: settings.shown.log_driver.clone(),
        cgroup_driver: settings.cgroup_driver.to_owned(),
        cgroup_version: if facts.cgroup_unified { "2" } else { "1" }.to_owned(),
        kernel_version: facts.kernel.clone(),
        operating_system: facts.system.clone(),
        os_version: facts.system_version.clone(),
        os_type: "linux".to_owned(),
        architecture: facts.machine.clone(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(registry_config(settings)),
        ncpu: std::thread::available_parallelism().map_or(1, |count| count.get() as i64),
        mem_total: facts.memory as i64,
        docker_root_dir: settings.data_root.clone(),
        http_proxy: hide_password(&settings.http_proxy),
        https_proxy: hide_password(&settings.https_proxy),
        no_proxy: settings.no_proxy.clone(),
        name: host_name(),
        labels: settings.labels.clone(),
        experimental_build: settings.experimental,
        server_version: VERSION.to_owned(),
        runtimes: runtimes(settings),
        default_runtime: settings.shown.runtime.clone(),
        swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
        live_restore_enabled: settings.live_restore,
        init_binary: facts.init_binary.clone(),
        containerd_commit: Commit::default(),
        runc_commit: Commit { id: VERSION.to_owned(), expected: String::new() },
        init_commit: Commit { id: VERSION.to_owned(), expected: String::new() },
        security_options: security(facts, settings),
        firewall_backend: Some(rorqual_api::system::FirewallBackend {
            driver: "nftables".to_owned(),
            info: Vec::new(),
        }),
        warnings: warnings(facts, settings),
        ..Info::default()
    }
}

/// Proxies may carry a password that `info` must not tell.
fn hide_password(proxy: &str) -> String {
    let hidden = proxy.split_once("://").and_then(|(scheme, rest)| {
        let (_, host) = rest.rsplit_once('@')?;
        Some(format!("{scheme}://xxxxx:xxxxx@{host}"))
    });
    hidden.unwrap_or_else(|| proxy.to_owned())
}

fn registry_config(settings: &Settings) -> RegistryConfig {
    let index = IndexInfo {
        mirrors: Some(settings.registry_mirrors.clone()),
        name: "docker.io".to_owned(),
        official: true,
        secure: true,
    };
    let mut indexes: BTreeMap<_, _> = [("docker.io".to_owned(), index)].into();
    let mut ranges = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    for registry in &settings.insecure_registries {
        if registry.contains('/') {
            ranges.push(registry.clone());
        } else {
            let name = registry.clone();
            let info =
                IndexInfo { mirrors: Some(Vec::new()), name, official: false, secure: false };
            indexes.insert(registry.clone(), info);
        }
    }
    RegistryConfig {
        index_configs: indexes,
        insecure_registry_cidrs: Some(ranges),
        mirrors: (!settings.registry_mirrors.is_empty()).then(|| settings.registry_mirrors.clone()),
    }
}

fn runtimes(settings: &Settings) -> BTreeMap<String, Runtime> {
    let ours = |name: &String| {
        (name.clone(), Runtime { path: "rorqual".to_owned(), ..Runtime::default() })
    };
    settings.runtimes.iter().map(ours).collect()
}

/// How layers are kept, in dockerd's words: copies are whole, and renames refer to nothing below.
fn driver_status(data_root: &str) -> Vec<[String; 2]> {
    const NAMES: [(i64, &str); 7] = [
        (0xef53, "extfs"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0xf2f5_2010, "f2fs"),
        (0x2fc1_2fc1, "zfs"),
        (0x794c_7630, "overlayfs"),
    ];
    let magic = rustix::fs::statfs(data_root).map_or(0, |found| found.f_type);
    let found = NAMES.iter().find(|(number, _)| *number == magic);
    [
        ("Backing Filesystem", found.map_or("<unknown>", |(_, name)| name)),
        ("Supports d_type", "true"),
        ("Using metacopy", "false"),
        ("Native Overlay Diff", "true"),
        ("userxattr", "false"),
    ]
    .map(|(key, value)| [key.to_owned(), value.to_owned()])
    .to_vec()
}

fn security(facts: &Facts, settings: &Settings) -> Vec<String> {
    let mut options = Vec::new();
    if facts.has_apparmor {
        options.push("name=apparmor".to_owned());
    }
    if facts.has_seccomp {
        options.push(format!("name=seccomp,profile={}", settings.seccomp_profile));
    }
    if settings.selinux {
        options.push("name=selinux".to_owned());
    }
    if settings.remapped {
        options.push("name=userns".to_owned());
    }
    if facts.cgroup_unified {
        options.push("name=cgroupns".to_owned());
    }
    if settings.no_new_privileges {
        options.push("name=no-new-privileges".to_owned());
    }
    options
}

fn warnings(facts: &Facts, settings: &Settings) -> Option<Vec<String>> {
    let limits = facts.controllers;
    // COMPAT: dockerd's texts, which clients print.
    let missing = [
        (!limits.memory, "No memory limit support"),
        (limits.memory && !limits.swap, "No swap limit support"),
        (!limits.cpu_quota, "No cpu cfs quota support"),
        (!limits.cpu_shares, "No cpu shares support"),
        (!limits.cpuset, "No cpuset support"),
        (!limits.pids, "No pids limit support"),
        (!is_on("/proc/sys/net/ipv4/ip_forward"), "IPv4 forwarding is disabled"),
    ];
    let missing = missing.iter().filter(|(is_missing, _)| *is_missing);
    let mut warnings: Vec<_> = missing.map(|(_, words)| format!("WARNING: {words}")).collect();
    warnings.extend(settings.warnings.iter().cloned());
    (!warnings.is_empty()).then_some(warnings)
}

/// `GET /system/df`
pub(super) async fn disk_usage(context: Arc<Context>, request: ApiRequest) -> Result {
    let kinds: Vec<&str> = request.query.all("type").filter(|kind| !kind.is_empty()).collect();
    if let Some(kind) =
        kinds.iter().find(|kind| !["container", "image", "volume", "build-cache"].contains(kind))
    {
        // COMPAT: dockerd's text.
        return refuse(invalid(format!("unknown object type: {kind}")));
    }
    let wants = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let usage = context.engine.usage.disk().await?;
    let now = now();
    let images = usage.images.iter().map(convert::image::summary_document).collect();
    let containers =
        usage.containers.iter().map(|view| convert::view::summary_document(view, now)).collect();
    let volumes = usage.volumes.iter().map(convert::volume::volume_document).collect();
    let build_cache = match wants("build-cache") {
        true => Some(build_cache(&context).await?),
        false => None,
    };
    let answer = DiskUsage {
        layers_size: if wants("image") { usage.layers as i64 } else { 0 },
        images: wants("image").then_some(images),
        containers: wants("container").then_some(containers),
        volumes: wants("volume").then_some(volumes),
        build_cache,
    };
    request.answer(Document::DiskUsage, &answer)
}

/// Lists the records of the build cache.
async fn build_cache(context: &Context) -> Result<Vec<Value>> {
    let all = context.builder.solver.usage().await?;
    let record = |entry: CacheEntry| {
        json!({
            "ID": entry.id,
            "Type": entry.kind.name(),
            "Description": entry.description,
            "InUse": entry.in_use,
            "Shared": false,
            "Size": entry.size,
            "CreatedAt": entry.created.to_string(),
            "LastUsedAt": entry.used.to_string(),
            "UsageCount": entry.uses,
        })
    };
    Ok(all.into_iter().map(record).collect())
}

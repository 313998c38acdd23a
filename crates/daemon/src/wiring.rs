//! Assembles the engine out of its parts: which implementation stands behind each contract is decided here only.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rorqual_build::solver::{Cache, Options as BuildOptions};
use rorqual_content::{ImageStore, LocalBlobs};
use rorqual_core::idmap::IdMaps;
use rorqual_core::{BoxError, full_message};
use rorqual_engine::spec::LogSpec;
use rorqual_engine::{
    AppArmor, CgroupDriver, DiskWeights, Engine, JournalState, Options, Parts, SeLinux, ShimLogs,
};
use rorqual_network::{
    BridgeOptions, Bridges, Cidr4, DefaultBridge, NamespaceOwner, NetworkPlugins, Traffic,
};
use rorqual_plugin::Plugins;
use rorqual_shim::{Shims, ShimsOptions};
use rorqual_snapshot::{Options as SnapshotOptions, Overlay};
use rorqual_store::{Database, Journal};
use rorqual_sys::{lsm, mount, userns};
use rorqual_transfer::{LocalTransfer, Transfer};
use rorqual_volume::{Drivers, Local as LocalVolumes};

use crate::builder::{Builder, Stores};
use crate::builtin::Builtin;
use crate::config::{BridgeConfig, BuilderConfig, CacheBound, Config, RUNTIMES};
use crate::facts::Facts;
use crate::remap::{self, Accounts};

/// Opens everything below the daemon's roots and recovers what an earlier life left.
pub(crate) async fn engine(
    config: &Config,
    facts: &Facts,
    plugins: &Arc<Plugins>,
    remap: Option<IdMaps>,
) -> Result<(Engine, LocalTransfer, Builder), BoxError> {
    let (data, run) = (config.data_root.clone(), config.exec_root.clone());
    // ORDER: the launcher seals the binary before anything of a container exists.
    let tasks = Shims::start(ShimsOptions { run_dir: run.clone(), binary: None }).await?;
    let roots = (data.clone(), run.clone());
    let mut bridge = bridge_options(&config.bridge, data.clone(), run.clone())?;
    let runtime = tokio::runtime::Handle::current();
    bridge.plugins = Some(NetworkPlugins::new(Arc::clone(plugins), runtime));
    bridge.owner = remap.clone().map_or(NamespaceOwner::Host, NamespaceOwner::New);
    let (database, journal, unfinished, snapshots, blobs, networks) = {
        let (data, run) = (data.clone(), run.clone());
        rorqual_store::blocking(move || -> Result<_, BoxError> {
            let database = Database::open(&data.join("state.db"))?;
            let (journal, unfinished) = Journal::open(&run.join("journal"))?;
            let snapshots = Overlay::open(&data, SnapshotOptions::default())?;
            let blobs = LocalBlobs::open(&data)?;
            let networks = Bridges::open(bridge)?;
            Ok((database, journal, unfinished, snapshots, blobs, networks))
        })
        .await?
    };
    let images = Arc::new(ImageStore::open(database.clone()).await?);
    let (snapshots, blobs) = (Arc::new(snapshots), Arc::new(blobs));
    let transfer = LocalTransfer::new(
        Arc::clone(&blobs) as _,
        Arc::clone(&images) as _,
        Arc::clone(&snapshots) as _,
    );
    transfer.configure(config.registries.clone());
    // ORDER: the first collection must know what the build cache needs.
    let cache = Arc::new(Cache::open(database.clone()).await?);
    transfer.add_keeper(Arc::clone(&cache) as _);
    let stores = Stores {
        snapshots: Arc::clone(&snapshots) as _,
        workbench: Arc::clone(&snapshots) as _,
        blobs: Arc::clone(&blobs) as _,
        images: Arc::clone(&images) as _,
        transfer: Arc::new(transfer.clone()),
        artifacts: Arc::new(transfer.clone()),
        cache,
    };
    let parts = Parts {
        tasks,
        logs: Arc::new(ShimLogs),
        snapshots,
        blobs,
        images,
        transfer: Arc::new(transfer.clone()),
        networks: Arc::new(networks),
        volumes: Arc::new(Drivers::new(
            Arc::new(LocalVolumes::new(data.join("volumes"))),
            Some(Arc::clone(plugins)),
        )),
        database,
    };
    if facts.has_apparmor {
        // The start of a container tries again, and then it is an error.
        if let Err(error) = rorqual_store::blocking(ensure_default_profile).await {
            tracing::error!(error = full_message(&*error), "cannot load the AppArmor profile");
        }
    }
    let journal = JournalState { journal: Arc::new(journal), unfinished };
    let options = Options { remap, ..options(config, facts)? };
    let engine = Engine::open(options, parts, journal).await?;
    let builtin = Builtin::new(transfer.clone());
    let steps = engine.steps.clone();
    let options = build_options(&config.builder, &roots.0)?;
    let builder = Builder::open(stores, steps, builtin, roots, options).await?;
    Ok((engine, transfer, builder))
}

/// Finds out who containers' users are on the host, and that its kernel can show files so.
pub(crate) fn remap(config: &Config) -> Result<Option<IdMaps>, BoxError> {
    let Some(setting) = &config.defaults.userns_remap else { return Ok(None) };
    let accounts = Accounts { etc: Path::new("/etc"), run: &remap::run_on_host };
    let Some(maps) = accounts.maps(setting)? else { return Ok(None) };
    userns::make(&maps.users.to_string(), &maps.groups.to_string())
        .and_then(|user| {
            let tree = mount::clone_tree(&config.data_root, false)?;
            mount::set_idmap(tree.as_fd(), user.as_fd(), false)
        })
        .map_err(|error| {
            format!(
                "userns-remap: the file system of {} cannot map ids (it takes ext4, xfs, btrfs or another that can, and \
                 Linux 5.19): {error}",
                config.data_root.display()
            )
        })?;
    Ok(Some(maps))
}

fn build_options(config: &BuilderConfig, data: &Path) -> Result<BuildOptions, BoxError> {
    let keep = match config.bound {
        CacheBound::None => None,
        CacheBound::Bytes(bytes) => Some(bytes),
        CacheBound::Share => {
            let disk = rustix::fs::statvfs(data)?;
            // LIMIT: less would throw away what the same build needs next.
            Some((disk.f_blocks.saturating_mul(disk.f_frsize) / 10).max(2 << 30))
        }
    };
    Ok(BuildOptions {
        keep,
        allow_host_network: config.network_host,
        allow_insecure: config.security_insecure,
        ..BuildOptions::default()
    })
}

fn bridge_options(
    config: &BridgeConfig,
    data: PathBuf,
    run: PathBuf,
) -> Result<BridgeOptions, BoxError> {
    let cidr = |text: &Option<String>| text.as_ref().map(|text| text.parse::<Cidr4>()).transpose();
    let mut options = BridgeOptions::new(data.join("network"), run);
    match config.name.as_deref() {
        None => {}
        Some("none") => options.bridge = DefaultBridge::Off,
        Some(name) => options.bridge = DefaultBridge::Named(name.to_owned()),
    }
    options.bip = cidr(&config.bip)?;
    options.fixed_cidr = cidr(&config.fixed_cidr)?;
    options.mtu = config.mtu;
    options.traffic = Traffic {
        icc: config.icc,
        ip_masq: config.ip_masq,
        ip_forward: config.ip_forward,
        firewall: config.firewall,
        relay: config.relay,
    };
    options.publish_on = config.publish_on;
    if !config.pools.is_empty() {
        options.pools.clone_from(&config.pools);
    }
    Ok(options)
}

/// Returns who makes cgroups.
pub(crate) fn cgroup_driver(config: &Config, facts: &Facts) -> CgroupDriver {
    // COMPAT: with cgroup v2 alone systemd wants to be the only one who makes groups.
    let natural = if facts.cgroup_unified && facts.has_systemd {
        CgroupDriver::Systemd
    } else {
        CgroupDriver::Cgroupfs
    };
    config.defaults.cgroup_driver.unwrap_or(natural)
}

fn cgroup_parent(config: &Config, facts: &Facts) -> Result<String, BoxError> {
    let driver = cgroup_driver(config, facts);
    if driver == CgroupDriver::Systemd && !facts.has_systemd {
        return Err("native.cgroupdriver=systemd: systemd does not run on this host".into());
    }
    let parent = config.defaults.cgroup_parent.as_deref().filter(|parent| !parent.is_empty());
    let parent = parent.unwrap_or(driver.default_parent());
    if !driver.allows(parent) {
        return Err(format!(
            "cgroup-parent {parent}: with the cgroup driver systemd it must be a slice, named as \"xxx.slice\""
        )
        .into());
    }
    Ok(parent.to_owned())
}

fn ensure_default_profile() -> Result<(), BoxError> {
    if lsm::ensure_default_profile(&lsm::own_label())? {
        tracing::info!(profile = lsm::DEFAULT_PROFILE, "loaded the default AppArmor profile");
    }
    Ok(())
}

fn options(config: &Config, facts: &Facts) -> Result<Options, BoxError> {
    let defaults = &config.defaults;
    let mut options = Options::docker_defaults();
    // Our own binary is static and plays the init's role under that name.
    options.init_binary = std::env::current_exe().ok();
    options.data_root.clone_from(&config.data_root);
    options.default_init = defaults.init;
    options.cgroup_driver = cgroup_driver(config, facts);
    options.cgroup_parent = cgroup_parent(config, facts)?;
    options.cpus.clone_from(&facts.cpus);
    options.memory_nodes.clone_from(&facts.memory_nodes);
    options.disk_weights = DiskWeights {
        all: facts.controllers.disk_weight,
        each: facts.controllers.disk_weight_device,
    };
    options.cgroup_unified = facts.cgroup_unified;
    options.apparmor = facts.has_apparmor.then_some(AppArmor {
        default_profile: lsm::DEFAULT_PROFILE,
        ensure_default: ensure_default_profile,
    });
    options.selinux = selinux(config);
    if config.defaults.selinux && options.selinux.is_none() {
        // COMPAT: dockerd's words, and the reason.
        let reason = if lsm::selinux::is_enabled() {
            "its policy has no contexts for containers: install container-selinux"
        } else {
            "its kernel does not run SELinux"
        };
        tracing::warn!(reason, "could not enable SELinux on the host system");
    }
    options.log =
        LogSpec { driver: defaults.log_driver.clone(), options: defaults.log_options.clone() };
    options.dns.clone_from(&defaults.dns);
    options.dns_search.clone_from(&defaults.dns_search);
    options.dns_options.clone_from(&defaults.dns_options);
    options.ulimits.clone_from(&defaults.ulimits);
    options.shm_size = defaults.shm_size;
    options.ipc_mode = defaults.ipc.clone();
    options.cgroup_namespace = defaults.cgroup_namespace;
    options.stop_timeout = defaults.stop_timeout;
    options.no_new_privileges = defaults.no_new_privileges;
    options.seccomp_profile = match defaults.seccomp_profile.as_str() {
        "builtin" => None,
        "unconfined" => Some("unconfined".to_owned()),
        path => Some(
            std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read the seccomp profile {path}: {error}"))?,
        ),
    };
    options.runtimes = RUNTIMES.iter().map(|name| (*name).to_owned()).collect();
    Ok(options)
}

/// Returns how containers are labelled; `None` where they are not.
pub(crate) fn selinux(config: &Config) -> Option<SeLinux> {
    let contexts = (config.defaults.selinux && lsm::selinux::is_enabled())
        .then(lsm::selinux::contexts)
        .flatten()?;
    Some(SeLinux {
        contexts,
        relabel: |path, label, unless_done| Ok(lsm::selinux::relabel(path, label, unless_done)?),
    })
}

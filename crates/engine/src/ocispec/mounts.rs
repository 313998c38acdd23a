//! The mounts of the specification: Docker's defaults, our files, then the user's, parents before children.

use rorqual_core::idmap::IdMaps;
use rorqual_core::mount::{OverlayPlan, RootfsPlan};
use serde_json::{Value, json};

use super::{INIT_PATH, Input};
use crate::error::{Error, Result};
use crate::spec::{
    BindOptions, IdMap, IpcMode, MountKind, MountSpec, Propagation, RecursiveReadOnly, TmpfsOptions,
};
use crate::view::{MountPoint, MountPointKind};

/// Our runtime's own option for binds: what is bound lies below the source, and nothing leads out of it.
const SUBPATH_OPTION: &str = "x-rorqual.subpath=";
/// What lies on the disk with the container's own ids is shown so, in a user namespace too.
pub(crate) const OWN_IDS: &str = "idmap";
/// Our runtime's own option for what is made of layers.
const LAYERS_OPTION: &str = "x-rorqual.layers=";

/// Returns all mounts.
pub(super) fn section(input: &Input<'_>) -> Result<Value> {
    let mut all = defaults(input);
    let covered = |target: &str| input.mounts.iter().any(|mount| mount.target == target);
    // COMPAT: who brings a `/dev` brings what belongs below it.
    let own_dev = covered("/dev");
    all.retain(|mount| {
        let target = mount["destination"].as_str().unwrap_or_default();
        let below = own_dev && target.starts_with("/dev/");
        !below && !covered(target)
    });
    let mut own = files(input);
    own.retain(|mount| mount["destination"].as_str().is_none_or(|target| !covered(target)));
    own.extend(init(input)?);
    for mount in input.mounts {
        own.push(user_mount(input, mount)?);
    }
    // ORDER: a parent must be mounted before what lies below it, also the user's `/etc` before our files in it.
    own.sort_by_key(|mount| mount["destination"].as_str().map_or(0, depth));
    all.append(&mut own);
    Ok(Value::Array(all))
}

/// The files that we write for the container.
fn files(input: &Input<'_>) -> Vec<Value> {
    let mut options = vec!["rbind", "rprivate"];
    if input.spec.storage.read_only {
        options.push("ro");
    }
    if input.users.is_some() {
        options.push(OWN_IDS);
    }
    let all = [
        ("/etc/resolv.conf", &input.files.resolv_conf),
        ("/etc/hostname", &input.files.hostname),
        ("/etc/hosts", &input.files.hosts),
    ];
    let given = all.into_iter().filter(|(_, source)| !source.as_os_str().is_empty());
    given
        .map(|(target, source)| {
            json!({ "destination": target, "type": "bind", "source": source, "options": options })
        })
        .collect()
}

fn init(input: &Input<'_>) -> Result<Option<Value>> {
    if !input.init() {
        return Ok(None);
    }
    let Some(binary) = &input.host.init_binary else {
        return Err(Error::Unsupported("this daemon has no init binary for --init".to_owned()));
    };
    Ok(Some(json!({
        "destination": INIT_PATH, "type": "bind", "source": binary,
        "options": ["bind", "ro", "rprivate"],
    })))
}

fn depth(target: &str) -> usize {
    target.trim_end_matches('/').matches('/').count()
}

fn defaults(input: &Input<'_>) -> Vec<Value> {
    // What a privileged container may write to, a read-only root takes away again.
    let writable = input.spec.security.privileged && !input.spec.storage.read_only;
    let writable_cgroups = crate::validate::writable_cgroups(&input.spec.security.options);
    let sys: &[&str] = if writable {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["nosuid", "noexec", "nodev", "ro"]
    };
    let cgroup: &[&str] = if writable || writable_cgroups {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["ro", "nosuid", "noexec", "nodev"]
    };
    let mut all = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": sys }),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": cgroup }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"] }),
    ];
    all.extend(shared_memory(input));
    all
}

/// `/dev/shm`: its own, the host's, or that of the container whose ipc namespace is shared.
fn shared_memory(input: &Input<'_>) -> Option<Value> {
    let bind = |source: String| {
        json!({ "destination": "/dev/shm", "type": "bind", "source": source,
            "options": ["rbind", "rprivate"] })
    };
    match (input.ipc, input.ipc_of) {
        (_, Some(pid)) => Some(bind(format!("/proc/{pid}/root/dev/shm"))),
        (IpcMode::Host, None) => Some(bind("/dev/shm".to_owned())),
        (IpcMode::None, None) => None,
        (_, None) => {
            let size = input.spec.storage.shm_size.unwrap_or(input.host.shm_size);
            Some(json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", format!("size={size}")] }))
        }
    }
}

fn user_mount(input: &Input<'_>, mount: &MountPoint) -> Result<Value> {
    let asked = input.spec.storage.mounts.iter().find(|asked| asked.target == mount.target);
    Ok(match mount.kind {
        MountPointKind::Tmpfs => {
            let options = match asked.map(|asked| &asked.kind) {
                Some(MountKind::Tmpfs(options)) => tmpfs_options(options, mount.writable),
                _ => tmpfs_options(&TmpfsOptions::default(), mount.writable),
            };
            json!({ "destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
        MountPointKind::Image => image_mount(input, mount),
        MountPointKind::Bind | MountPointKind::Volume => {
            let mut options: Vec<String> =
                bind_options(asked, mount).into_iter().map(str::to_owned).collect();
            options.extend(mount.subpath.iter().map(|path| format!("{SUBPATH_OPTION}{path}")));
            let mut document = json!({ "destination": mount.target, "type": "bind",
                "source": mount.source, "options": options });
            // COMPAT: a volume is the container's own, what is bound is the host's.
            if input.users.is_some() && mount.name.as_ref().is_some_and(input.is_directory) {
                push_option(&mut document, OWN_IDS);
            }
            if let Some(map) = &mount.idmap {
                idmap(&mut document, map, input.users)?;
            }
            document
        }
    })
}

/// The files of an image, put together by our runtime out of its layers.
fn image_mount(input: &Input<'_>, mount: &MountPoint) -> Value {
    let lower = (input.layers)(&mount.layers);
    let plan = RootfsPlan::Overlay(OverlayPlan { lower, upper: None, options: Vec::new() });
    // INVARIANT: paths of our own below the data root are texts.
    let plan = serde_json::to_string(&plan).unwrap_or_default();
    let mut options = vec!["ro".to_owned(), format!("{LAYERS_OPTION}{plan}")];
    options.extend(mount.subpath.iter().map(|path| format!("{SUBPATH_OPTION}{path}")));
    json!({ "destination": mount.target, "type": "bind", "source": mount.image,
        "options": options })
}

/// Adds the maps of an id-mapped bind, unless both sides are the same.
fn idmap(document: &mut Value, map: &IdMap, users: Option<&IdMaps>) -> Result<()> {
    let mut container = map.container.unwrap_or_default();
    if let Some(users) = users {
        // The kernel looks through both maps: that of the mount leads to who the container's ids are on the host.
        let (uid, gid) = container;
        let outside = users.users.outside(uid).zip(users.groups.outside(gid));
        container = outside.ok_or_else(|| {
            Error::Invalid(format!(
                "cannot map ids of a bind: {uid}:{gid} has no place in the container's user namespace"
            ))
        })?;
    }
    if container == map.host {
        return Ok(());
    }
    document["uidMappings"] = mappings(map.host.0, container.0);
    document["gidMappings"] = mappings(map.host.1, container.1);
    let options = document["options"].as_array();
    let recursive = options.is_some_and(|all| all.iter().any(|option| option == "rbind"));
    push_option(document, if recursive { "ridmap" } else { "idmap" });
    Ok(())
}

fn push_option(document: &mut Value, option: &str) {
    if let Some(options) = document["options"].as_array_mut() {
        options.push(option.into());
    }
}

/// Reads the ids a container runs as, where they are numbers; a lone user has the group of root.
pub(crate) fn numeric(user: &str) -> Option<(u32, u32)> {
    match user.split_once(':') {
        None if matches!(user, "" | "root") => Some((0, 0)),
        None => Some((user.parse().ok()?, 0)),
        Some(("root", "root")) => Some((0, 0)),
        Some((user, group)) => Some((user.parse().ok()?, group.parse().ok()?)),
    }
}

/// Maps one id to another, and all that are neither to themselves.
fn mappings(host: u32, container: u32) -> Value {
    // LIMIT: the last id means "none".
    const END: u64 = u32::MAX as u64;
    let line =
        |from: u64, to: u64, size: u64| json!({ "containerID": from, "hostID": to, "size": size });
    let (host, container) = (u64::from(host), u64::from(container));
    let mut lines = Vec::new();
    let mut next = 0;
    for taken in [host.min(container), host.max(container), END] {
        if next < taken {
            lines.push(line(next, next, taken - next));
        }
        next = taken + 1;
    }
    lines.push(line(host, container, 1));
    Value::Array(lines)
}

/// Docker's start set, over which the user's words win.
pub(super) fn tmpfs_options(options: &TmpfsOptions, writable: bool) -> Vec<String> {
    let mut all: Vec<String> =
        ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned).to_vec();
    let opposite = |word: &str| match word {
        "exec" => Some("noexec"),
        "suid" => Some("nosuid"),
        "dev" => Some("nodev"),
        _ => None,
    };
    for word in &options.options {
        all.retain(|known| Some(known.as_str()) != opposite(word) && known != word);
        all.push(word.clone());
    }
    if let Some(size) = options.size {
        all.push(format!("size={size}"));
    }
    if let Some(mode) = options.mode {
        all.push(format!("mode={mode:o}"));
    }
    if !writable && !all.iter().any(|word| word == "ro") {
        all.push("ro".to_owned());
    }
    all
}

fn bind_options(asked: Option<&MountSpec>, mount: &MountPoint) -> Vec<&'static str> {
    let default = BindOptions::default();
    let options = match asked.map(|asked| &asked.kind) {
        Some(MountKind::Bind { options, .. }) => options,
        _ => &default,
    };
    let mut all = vec![if options.non_recursive { "bind" } else { "rbind" }];
    if !mount.writable {
        all.push("ro");
        match options.recursive_read_only {
            RecursiveReadOnly::Never => {}
            RecursiveReadOnly::IfPossible if options.non_recursive => {}
            RecursiveReadOnly::IfPossible | RecursiveReadOnly::Force => all.push("rro"),
        }
    }
    all.push(mount.propagation.unwrap_or(Propagation::Rprivate).word());
    all
}

/// The root must let through what a shared or slave bind sends and receives.
pub(super) fn root_propagation(mounts: &[MountPoint]) -> &'static str {
    let has = |wanted: &[Propagation]| {
        mounts.iter().any(|mount| mount.propagation.is_some_and(|p| wanted.contains(&p)))
    };
    if has(&[Propagation::Shared, Propagation::Rshared]) {
        "shared"
    } else if has(&[Propagation::Slave, Propagation::Rslave]) {
        "rslave"
    } else {
        "rprivate"
    }
}

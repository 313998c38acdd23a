//! The part of a plan that furnishes the root file system.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, Mount};
use rorqual_sys::mount::{ATIME_MASK, MountAttributes, RDONLY};

use super::convert::id_map;
use super::options::MountOptions;
use super::{DevicePlan, Facts, FsPlan, IdmapPlan, InitPlan, SourceId, SourcePlan, Step};
use crate::Error;

/// Files of `/proc` over which a mount does no harm; everything else there could fool the runtime or the kernel.
const MOUNTABLE_IN_PROC: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
];

/// Context in which mounts are planned.
pub(super) struct MountContext<'a> {
    pub facts: &'a Facts,
    pub bundle: &'a Path,
    pub linux: &'a Linux,
    pub new_cgroup_namespace: bool,
}

/// Appends the steps of one `mounts` entry.
pub(super) fn push_mount(
    plan: &mut InitPlan,
    context: &MountContext<'_>,
    mount: &Mount,
) -> Result<(), Error> {
    let destination = Path::new("/").join(mount.destination());
    let no_options = Vec::new();
    let options = MountOptions::parse(mount.options().as_ref().unwrap_or(&no_options));
    let kind = mount.typ().as_deref().unwrap_or("");

    refuse_misplaced(mount, kind, &options)?;
    if options.remount {
        push_remount(plan, &destination, &options);
    } else if let Some(layers) = &options.layers {
        push_layers(plan, &destination, (layers, options.subpath.as_deref()))?;
    } else if options.bind.is_some() || kind == "bind" || kind == "rbind" {
        let recursive = options.bind.unwrap_or(kind == "rbind");
        push_bind(plan, context, mount, (destination, recursive), &options)?;
        return Ok(());
    } else if kind == "cgroup" && !context.facts.unified {
        warn_without_effect(plan, "cgroup", mount, &options);
        plan.steps.push(Step::CgroupHierarchies {
            destination: destination.clone(),
            attributes: options.attributes.set,
            private: context.new_cgroup_namespace,
            list: context.facts.hierarchies.clone(),
        });
    } else if kind.is_empty() || kind == "none" {
        return Err(Error::InvalidSpec(format!("mount on {destination:?} has no type")));
    } else {
        push_file_system(plan, context, mount, (destination.clone(), kind), &options);
    }
    if let Some((how, recursive)) = options.propagation {
        plan.steps.push(Step::Propagate { destination, how, recursive });
    }
    Ok(())
}

/// Refuses what would silently be missing.
fn refuse_misplaced(mount: &Mount, kind: &str, options: &MountOptions) -> Result<(), Error> {
    let bind = options.bind.is_some() || kind == "bind" || kind == "rbind";
    let destination = mount.destination();
    let mapped = options.idmap.is_some() || mount.uid_mappings().is_some();
    if mapped && (!bind || options.remount) {
        return Err(Error::InvalidSpec(format!(
            "mount on {destination:?}: ids can only be mapped for bind mounts"
        )));
    }
    if options.subpath.is_some() && !bind && options.layers.is_none() {
        return Err(Error::InvalidSpec(format!(
            "mount on {destination:?}: a subpath is only for bind mounts"
        )));
    }
    if options.copy_up && !bind && (kind != "tmpfs" || options.remount) {
        return Err(Error::InvalidSpec(format!(
            "mount on {destination:?}: tmpcopyup is only for tmpfs"
        )));
    }
    Ok(())
}

fn push_remount(plan: &mut InitPlan, destination: &Path, options: &MountOptions) {
    for (attributes, recursive) in [(options.attributes, false), (options.recursive, true)] {
        if attributes != MountAttributes::default() {
            let destination = destination.to_owned();
            plan.steps.push(Step::Remount { destination, attributes, recursive });
        }
    }
    let data = options.for_change();
    // Of a bind mount only the attributes can change: the file system is somebody else's, too.
    if options.bind.is_none() && !data.is_empty() {
        plan.steps.push(Step::Reconfigure { destination: destination.to_owned(), data });
    }
}

fn warn_without_effect(plan: &mut InitPlan, kind: &str, mount: &Mount, options: &MountOptions) {
    let names = options.without_effect_on_binds();
    if !names.is_empty() {
        let at = mount.destination();
        let text = format!("{kind} mount on {at:?}: no effect of options {}", names.join(", "));
        plan.warnings.push(text);
    }
}

fn push_bind(
    plan: &mut InitPlan,
    context: &MountContext<'_>,
    mount: &Mount,
    (destination, recursive): (PathBuf, bool),
    options: &MountOptions,
) -> Result<(), Error> {
    let Some(source) = mount.source().as_ref() else {
        return Err(Error::InvalidSpec(format!("bind mount on {destination:?} has no source")));
    };
    warn_without_effect(plan, "bind", mount, options);
    let mut attributes = options.attributes;
    let mut recursive_attributes = options.recursive;
    match options.propagation {
        Some((how, false)) => attributes.propagation = how.bits(),
        Some((how, true)) => recursive_attributes.propagation = how.bits(),
        None => {}
    }
    let proc_allowed = MOUNTABLE_IN_PROC.iter().any(|path| destination == Path::new(path))
        || destination == Path::new("/proc");
    let id = plan.add_source(SourcePlan::Bind {
        path: context.bundle.join(source),
        subpath: options.subpath.clone().map(PathBuf::from),
        recursive,
        attributes,
        recursive_attributes,
        idmap: idmap(context, mount, options)?,
    });
    plan.steps.push(Step::Bind { source: id, destination, proc_allowed });
    Ok(())
}

/// Mounts a file system made of layers, as the root is, or a part of it.
fn push_layers(
    plan: &mut InitPlan,
    destination: &Path,
    (layers, subpath): (&str, Option<&str>),
) -> Result<(), Error> {
    let layers = serde_json::from_str(layers).map_err(|error| {
        Error::InvalidSpec(format!("mount on {destination:?}: its layers cannot be read: {error}"))
    })?;
    let source = plan.add_source(match subpath {
        None => SourcePlan::Rootfs(layers),
        Some(subpath) => SourcePlan::Part { whole: layers, subpath: subpath.into() },
    });
    let destination = destination.to_owned();
    plan.steps.push(Step::Bind { source, destination, proc_allowed: false });
    Ok(())
}

fn idmap(
    context: &MountContext<'_>,
    mount: &Mount,
    options: &MountOptions,
) -> Result<Option<IdmapPlan>, Error> {
    let own = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
    let (uids, gids) = match (own, options.idmap) {
        ((Some(uids), Some(gids)), _) => (uids, gids),
        ((None, None), None) => return Ok(None),
        ((None, None), Some(_)) => {
            let linux = context.linux;
            match (linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref()) {
                (Some(uids), Some(gids)) => (uids, gids),
                _ => {
                    return Err(Error::InvalidSpec(format!(
                        "id-mapped mount on {:?} needs mappings",
                        mount.destination()
                    )));
                }
            }
        }
        _ => {
            return Err(Error::InvalidSpec(format!(
                "mount on {:?} must map both users and groups",
                mount.destination()
            )));
        }
    };
    Ok(Some(IdmapPlan {
        uids: id_map(uids),
        gids: id_map(gids),
        recursive: options.idmap == Some(true),
    }))
}

fn push_file_system(
    plan: &mut InitPlan,
    context: &MountContext<'_>,
    mount: &Mount,
    (destination, kind): (PathBuf, &str),
    options: &MountOptions,
) {
    // COMPAT: callers that know only cgroup v1 names ask for `cgroup` on hosts with v2, too.
    let kind = if kind == "cgroup" { "cgroup2" } else { kind };
    let mut attributes = options.attributes.set;
    // ORDER: nodes and copies must be made before their file system turns read-only.
    let late = attributes & RDONLY != 0 && (options.copy_up || destination == Path::new("/dev"));
    if late {
        attributes &= !RDONLY;
    }
    let (mut data, classic) = options.for_new();
    let label = context.linux.mount_label().as_deref().unwrap_or("");
    if context.facts.selinux && !label.is_empty() && !matches!(kind, "proc" | "sysfs" | "cgroup2") {
        data.push(("context".into(), Some(label.to_owned())));
    }
    plan.steps.push(Step::Mount(FsPlan {
        kind: kind.to_owned(),
        source: mount.source().as_ref().map_or(kind.into(), |s| s.to_string_lossy().into_owned()),
        destination: destination.clone(),
        attributes,
        data,
        classic,
        copy_up: options.copy_up,
    }));
    if options.recursive != MountAttributes::default() {
        plan.steps.push(Step::Remount {
            destination: destination.clone(),
            attributes: options.recursive,
            recursive: true,
        });
    }
    if late {
        plan.late.push(Step::Remount {
            destination,
            attributes: MountAttributes { set: RDONLY, ..MountAttributes::default() },
            recursive: false,
        });
    }
}

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const DEFAULT_LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Appends device nodes and the links that programs expect, unless `/dev` is the host's.
pub(super) fn push_devices(
    plan: &mut InitPlan,
    mounts: &[Mount],
    linux: &Linux,
    bind: bool,
) -> Result<(), Error> {
    let host_dev = mounts.iter().any(|mount| {
        mount.destination() == Path::new("/dev")
            && (mount.typ().as_deref() == Some("bind")
                || mount.options().iter().flatten().any(|o| o == "bind" || o == "rbind"))
    });
    if host_dev {
        return Ok(());
    }
    let no_devices = Vec::new();
    let wanted = linux.devices().as_ref().unwrap_or(&no_devices);
    for (path, major, minor) in DEFAULT_DEVICES {
        if !wanted.iter().any(|device| device.path() == Path::new(path)) {
            plan.steps.push(Step::Device(DevicePlan {
                path: path.into(),
                kind: S_IFCHR,
                number: (major, minor),
                mode: 0o666,
                owner: (0, 0),
                bind,
                replace: true,
            }));
        }
    }
    for device in wanted {
        // COMPAT: the link to the container's own `pts/ptmx` always wins over a node.
        if device.path() != Path::new("/dev/ptmx") {
            plan.steps.push(Step::Device(device_plan(device, bind)?));
        }
    }
    for (path, target) in DEFAULT_LINKS {
        plan.steps.push(Step::Link { path: path.into(), target });
    }
    Ok(())
}

fn device_plan(device: &LinuxDevice, bind: bool) -> Result<DevicePlan, Error> {
    let bad = |what: &str| Error::InvalidSpec(format!("device {:?} {what}", device.path()));
    let kind = match device.typ() {
        LinuxDeviceType::B => S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => S_IFCHR,
        LinuxDeviceType::P => S_IFIFO,
        LinuxDeviceType::A => return Err(bad("needs the type b, c, u or p")),
    };
    let number = |number: i64| u32::try_from(number).map_err(|_| bad("has an impossible number"));
    Ok(DevicePlan {
        path: Path::new("/").join(device.path()),
        kind,
        number: (number(device.major())?, number(device.minor())?),
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        bind: bind && kind != S_IFIFO,
        replace: false,
    })
}

/// Appends what is hidden or frozen once everything is in place.
pub(super) fn push_protection(plan: &mut InitPlan, linux: &Linux, readonly_root: bool) {
    let late = std::mem::take(&mut plan.late);
    plan.steps.extend(late);
    for path in linux.readonly_paths().iter().flatten() {
        plan.steps.push(Step::ReadOnly(path.into()));
    }
    for path in linux.masked_paths().iter().flatten() {
        plan.steps.push(Step::Mask(path.into()));
    }
    if readonly_root {
        plan.steps.push(Step::RootReadOnly);
    }
}

/// Leaves only the access time bits that `fsmount(2)` takes.
pub(crate) const fn mount_flags(attributes: u64) -> u64 {
    attributes & (0x8f | ATIME_MASK | rorqual_sys::mount::NOSYMFOLLOW)
}

impl InitPlan {
    /// Adds a source and returns where it is.
    pub(super) fn add_source(&mut self, source: SourcePlan) -> SourceId {
        self.sources.push(source);
        SourceId(self.sources.len() - 1)
    }
}

//! The container's control group: the specification's resources in the kernel's terms.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
    LinuxThrottleDevice, Spec,
};
use rorqual_core::full_message;
use rorqual_sys::cgroup::{
    Access, BlockIo, Cgroup, Cpu, DeviceKind, DeviceLimit, DeviceRule, DeviceWeight, Driver,
    Hugepages, Layout, Memory, NetworkPriority, Rdma, Resources, Version,
};

use crate::Error;
use crate::plan::Hierarchy;

/// A container's control group, shared with the child that will enter it; none where the caller may not make one and
/// the container does without.
#[derive(Clone, Debug)]
pub(crate) struct Group(Option<Rc<Cgroup>>);

/// How the group of a container is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Maker {
    /// By whom.
    pub driver: Driver,
    /// Whether a caller without the right to make one gets a container without limits.
    pub may_lack: bool,
}

impl Group {
    /// Tells whether the host runs cgroup v2.
    pub(crate) fn unified(&self) -> bool {
        match &self.0 {
            Some(group) => group.version() == Version::V2,
            None => Layout::current().is_ok_and(|layout| layout.version() == Version::V2),
        }
    }

    /// Returns what it takes to open the group again.
    pub(crate) fn description(&self) -> String {
        self.0.as_ref().map(|group| group.description()).unwrap_or_default()
    }

    /// Returns the directory to clone into, on v2.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref()?.directory()
    }

    /// Moves the calling, single-threaded process into the group.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |group| group.enter())
    }

    /// Tells whether its processes are frozen; no if that cannot be known.
    pub(crate) fn is_frozen(&self) -> bool {
        self.0.as_ref().is_some_and(|group| group.is_frozen().unwrap_or(false))
    }

    /// Ends all its processes and removes it; for a container that did not come to be.
    pub(crate) fn remove(&self) {
        let Some(group) = &self.0 else { return };
        // What cannot be removed now holds processes that are still dying; whoever uses the name next retries.
        let _ = group.kill_all();
        let _ = group.delete();
    }

    /// Returns the v1 hierarchies as a container shows them.
    pub(crate) fn hierarchies(&self) -> Vec<Hierarchy> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        hierarchies(&self.description(), &mounts)
    }
}

/// Pairs the lines of a description with the host's mounts.
fn hierarchies(description: &str, mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in description.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            continue;
        }
        let mount = mountinfo.lines().find_map(|mount| {
            let (before, after) = mount.split_once(" - cgroup ")?;
            let options = after.split(' ').nth(1)?;
            let has = |name: &str| options.split(',').any(|option| option == name);
            controllers.split(',').all(has).then(|| before.split(' ').nth(4)).flatten()
        });
        if let Some(mountpoint) = mount
            && !found.iter().any(|known| known.mountpoint.as_path() == Path::new(mountpoint))
        {
            found.push(Hierarchy {
                mountpoint: mountpoint.into(),
                controllers: controllers.to_owned(),
                path: path.into(),
            });
        }
    }
    found
}

fn failed(error: &rorqual_sys::cgroup::Error) -> Error {
    Error::InvalidSpec(format!("unable to apply cgroup configuration: {}", full_message(error)))
}

/// Makes the group of a container and sets its limits.
pub(crate) fn create(
    id: &str,
    spec: &Spec,
    maker: Maker,
    warnings: &mut Vec<String>,
) -> Result<Group, Error> {
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
    let path = path.map(|path| path.to_string_lossy().into_owned()).filter(|path| !path.is_empty());
    let path = match (path, maker.driver) {
        (Some(path), _) => path,
        (None, Driver::Systemd) => format!(":rorqual:{id}"),
        (None, Driver::Cgroupfs) => format!("/{id}"),
    };
    let mut resources = linux
        .and_then(|linux| linux.resources().as_ref())
        .map_or_else(|| Ok(Resources::default()), convert)?;
    let group = match Cgroup::create_for(&path, maker.driver, &resources) {
        Ok(group) => Rc::new(group),
        Err(error) if maker.may_lack && is_forbidden(&error) && !limits_anything(&resources) => {
            warnings.push(format!("the container has no control group: {}", full_message(&error)));
            return Ok(Group(None));
        }
        Err(error) => return Err(failed(&error)),
    };
    let mut devices = vec![rule(false, DeviceKind::All, None, None, Access::ALL)];
    devices.extend(resources.devices.take().unwrap_or_default());
    devices.extend(always_allowed());
    resources.devices = Some(devices);
    let applied = group.write(&resources);
    let group = Group(Some(group));
    match applied {
        Ok(list) => warnings.extend(list.into_iter().map(|warning| warning.0)),
        Err(error) => {
            group.remove();
            return Err(failed(&error));
        }
    }
    Ok(group)
}

fn is_forbidden(error: &rorqual_sys::cgroup::Error) -> bool {
    let rorqual_sys::cgroup::Error::File { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// Tells whether a container would get more than it may without these limits. Device rules do not count: who cannot
/// make groups cannot make device nodes either.
fn limits_anything(resources: &Resources) -> bool {
    let without_devices = Resources { devices: None, ..resources.clone() };
    without_devices != Resources::default()
}

/// Opens the group of a running container.
pub(crate) fn open(description: &str) -> Result<Group, Error> {
    if description.is_empty() {
        return Ok(Group(None));
    }
    let group = Cgroup::open(description).map_err(|error| failed(&error))?;
    Ok(Group(Some(Rc::new(group))))
}

/// What every container may use, whatever the specification says: making nodes, and the default devices.
fn always_allowed() -> Vec<DeviceRule> {
    let make = Access { read: false, write: false, mknod: true };
    let mut rules = vec![
        rule(true, DeviceKind::Char, None, None, make),
        rule(true, DeviceKind::Block, None, None, make),
    ];
    let devices = [
        (1, Some(3)),
        (1, Some(8)),
        (1, Some(7)),
        (5, Some(0)),
        (1, Some(5)),
        (1, Some(9)),
        (136, None),
        (5, Some(2)),
    ];
    rules.extend(
        devices.map(|(major, minor)| rule(true, DeviceKind::Char, Some(major), minor, Access::ALL)),
    );
    rules
}

fn rule(
    allow: bool,
    kind: DeviceKind,
    major: Option<u32>,
    minor: Option<u32>,
    access: Access,
) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, access }
}

/// Converts the resources of a specification or an update.
pub fn convert(spec: &LinuxResources) -> Result<Resources, Error> {
    let devices = spec.devices().as_ref();
    Ok(Resources {
        memory: spec.memory().as_ref().map(memory).unwrap_or_default(),
        cpu: spec.cpu().as_ref().map(cpu).unwrap_or_default(),
        pids: spec.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|n| *n != 0),
        block_io: spec.block_io().as_ref().map(block_io).unwrap_or_default(),
        hugepages: spec
            .hugepage_limits()
            .iter()
            .flatten()
            .map(|limit| Hugepages {
                page_size: limit.page_size().clone(),
                limit: u64::try_from(limit.limit()).unwrap_or(u64::MAX),
            })
            .collect(),
        rdma: spec
            .rdma()
            .iter()
            .flatten()
            .map(|(device, limit)| {
                let limits = Rdma { handles: limit.hca_handles(), objects: limit.hca_objects() };
                (device.clone(), limits)
            })
            .collect(),
        network_class: spec.network().as_ref().and_then(oci_spec::runtime::LinuxNetwork::class_id),
        network_priorities: spec
            .network()
            .iter()
            .flat_map(|network| network.priorities().iter().flatten())
            .map(|one| NetworkPriority { interface: one.name().clone(), priority: one.priority() })
            .collect(),
        devices: devices.map(|list| list.iter().map(device_rule).collect()).transpose()?,
        unified: spec
            .unified()
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<BTreeMap<_, _>>(),
    })
}

fn memory(spec: &LinuxMemory) -> Memory {
    // COMPAT: Docker writes zero for what nobody asked for.
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let kernel = set(spec.kernel());
    Memory {
        limit: set(spec.limit()),
        swap: set(spec.swap()),
        reservation: set(spec.reservation()),
        kernel,
        kernel_tcp: set(spec.kernel_tcp()),
        swappiness: spec.swappiness(),
        disable_oom_killer: spec.disable_oom_killer().filter(|disable| *disable),
        check_before_update: spec.check_before_update().unwrap_or(false),
    }
}

fn cpu(spec: &LinuxCpu) -> Cpu {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Cpu {
        shares: spec.shares().filter(|shares| *shares != 0),
        quota: spec.quota().filter(|quota| *quota != 0),
        period: spec.period().filter(|period| *period != 0),
        burst: spec.burst(),
        realtime_runtime: spec.realtime_runtime().filter(|runtime| *runtime != 0),
        realtime_period: spec.realtime_period().filter(|period| *period != 0),
        idle: spec.idle(),
        cpus: text(spec.cpus()),
        mems: text(spec.mems()),
    }
}

fn block_io(spec: &LinuxBlockIo) -> BlockIo {
    let limits = |list: &Option<Vec<LinuxThrottleDevice>>| {
        list.iter()
            .flatten()
            .map(|one| DeviceLimit {
                major: one.major() as u32,
                minor: one.minor() as u32,
                rate: one.rate(),
            })
            .collect()
    };
    BlockIo {
        weight: spec.weight().filter(|weight| *weight != 0),
        leaf_weight: spec.leaf_weight().filter(|weight| *weight != 0),
        device_weights: spec
            .weight_device()
            .iter()
            .flatten()
            .map(|one| DeviceWeight {
                major: one.major() as u32,
                minor: one.minor() as u32,
                weight: one.weight(),
                leaf_weight: one.leaf_weight(),
            })
            .collect(),
        read_bps: limits(spec.throttle_read_bps_device()),
        write_bps: limits(spec.throttle_write_bps_device()),
        read_iops: limits(spec.throttle_read_iops_device()),
        write_iops: limits(spec.throttle_write_iops_device()),
    }
}

fn device_rule(spec: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
    let kind = match spec.typ() {
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
        _ => DeviceKind::All,
    };
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let letters = spec.access().as_deref().unwrap_or("");
    let access = Access::parse(letters)
        .ok_or_else(|| Error::InvalidSpec(format!("invalid device access {letters:?}")))?;
    Ok(rule(spec.allow(), kind, number(spec.major()), number(spec.minor()), access))
}

#[cfg(test)]
mod tests;

//! Small conversions from the specification's types to the kernel's.

use oci_spec::runtime::{
    IOPriorityClass, LinuxCapabilities, LinuxIOPriority, LinuxIdMapping, LinuxMemoryPolicy,
    LinuxNamespaceType, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType, Scheduler,
};
use rorqual_sys::capability::{self, Capabilities};
use rorqual_sys::namespace::Namespaces;
use rorqual_sys::process::SchedulerAttributes;

use crate::Error;
use crate::request::Namespace;

pub(super) fn namespace_kind(kind: LinuxNamespaceType) -> Namespace {
    match kind {
        LinuxNamespaceType::Mount => Namespace::Mount,
        LinuxNamespaceType::Cgroup => Namespace::Cgroup,
        LinuxNamespaceType::Uts => Namespace::Uts,
        LinuxNamespaceType::Ipc => Namespace::Ipc,
        LinuxNamespaceType::User => Namespace::User,
        LinuxNamespaceType::Pid => Namespace::Pid,
        LinuxNamespaceType::Network => Namespace::Network,
        LinuxNamespaceType::Time => Namespace::Time,
    }
}

/// Returns the `CLONE_NEW*` bit of a kind.
pub(crate) const fn kernel_kind(kind: Namespace) -> Namespaces {
    match kind {
        Namespace::Cgroup => Namespaces::CGROUP,
        Namespace::Ipc => Namespaces::IPC,
        Namespace::Mount => Namespaces::MOUNT,
        Namespace::Network => Namespaces::NETWORK,
        Namespace::Pid => Namespaces::PID,
        Namespace::Time => Namespaces::TIME,
        Namespace::User => Namespaces::USER,
        Namespace::Uts => Namespaces::UTS,
    }
}

/// Writes mappings as `/proc/PID/uid_map` takes them.
pub(crate) fn id_map(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |text, map| {
        text + &format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())
    })
}

pub(super) fn rlimit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// Converts the capability sets; a missing section is no capability at all.
pub(super) fn capabilities(spec: Option<&LinuxCapabilities>) -> Capabilities {
    let Some(spec) = spec else { return Capabilities::default() };
    let bits = |set: &Option<oci_spec::runtime::Capabilities>| {
        set.iter()
            .flatten()
            .filter_map(|name| capability::number(&name.to_string()))
            .fold(0, |bits, number| bits | 1 << number)
    };
    Capabilities {
        bounding: bits(spec.bounding()),
        effective: bits(spec.effective()),
        inheritable: bits(spec.inheritable()),
        permitted: bits(spec.permitted()),
        ambient: bits(spec.ambient()),
    }
}

pub(super) fn scheduler(spec: &Scheduler) -> SchedulerAttributes {
    let policy = match spec.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    SchedulerAttributes {
        size: 0,
        policy,
        flags: spec.flags().iter().flatten().map(flag).fold(0, |all, one| all | one),
        nice: spec.nice().unwrap_or(0),
        priority: u32::try_from(spec.priority().unwrap_or(0)).unwrap_or(0),
        runtime: spec.runtime().unwrap_or(0),
        deadline: spec.deadline().unwrap_or(0),
        period: spec.period().unwrap_or(0),
    }
}

pub(super) fn io_priority(spec: &LinuxIOPriority) -> Result<i32, Error> {
    let class = match spec.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = spec.priority();
    if !(0..=7).contains(&level) {
        return Err(Error::InvalidSpec(format!("I/O priority {level} is not in 0..7")));
    }
    Ok(class << 13 | level as i32)
}

pub(super) fn personality(spec: &LinuxPersonality) -> Result<u64, Error> {
    if spec.flags().iter().flatten().next().is_some() {
        return Err(Error::InvalidSpec("personality flags are not defined yet".into()));
    }
    Ok(match spec.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

pub(super) fn memory_policy(spec: &LinuxMemoryPolicy) -> Result<(i32, Vec<usize>), Error> {
    let mode = match spec.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let flags = spec.flags().iter().flatten().map(flag).fold(0, |all, one| all | one);
    Ok((mode | flags, number_list(spec.nodes().as_deref().unwrap_or(""))?))
}

/// Reads lists like `0-3,7`.
pub(crate) fn number_list(text: &str) -> Result<Vec<usize>, Error> {
    let bad = || Error::InvalidSpec(format!("{text:?} is not a list of numbers and ranges"));
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| bad())?;
        let last: usize = last.trim().parse().map_err(|_| bad())?;
        if first > last || last >= 8192 {
            return Err(bad());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

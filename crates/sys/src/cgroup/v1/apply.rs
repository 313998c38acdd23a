//! Writing the limits of version 1.

use super::Group;
use crate::cgroup::file::Directory;
use crate::cgroup::resources::{
    Access, BlockIo, Cpu, DeviceKind, DeviceLimit, DeviceRule, Memory, Resources,
};
use crate::cgroup::{Error, Warning};

pub(super) fn apply(group: &Group, resources: &Resources) -> Result<Vec<Warning>, Error> {
    if !resources.unified.is_empty() {
        return Err(Error::Unsupported(
            "unified resources need control groups version 2, this host has version 1".to_owned(),
        ));
    }
    let mut warnings = Vec::new();
    // ORDER: devices first: a process that is in the group already should never see the others.
    if let Some(rules) = &resources.devices {
        devices(controller(group, "devices")?, rules)?;
    }
    if resources.memory != Memory::default() {
        memory(controller(group, "memory")?, &resources.memory, &mut warnings)?;
    }
    cpu(group, &resources.cpu, &mut warnings)?;
    cpuset(group, &resources.cpu)?;
    if let Some(limit) = resources.pids {
        let limit = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        controller(group, "pids")?.write("pids.max", &limit)?;
    }
    if resources.block_io != BlockIo::default() {
        block_io(controller(group, "blkio")?, &resources.block_io, &mut warnings)?;
    }
    for one in &resources.hugepages {
        let directory = controller(group, "hugetlb")?;
        let limit = one.limit.to_string();
        directory.write(&format!("hugetlb.{}.limit_in_bytes", one.page_size), &limit)?;
        // Kernels since 5.7 count reservations apart.
        directory
            .write_if_present(&format!("hugetlb.{}.rsvd.limit_in_bytes", one.page_size), &limit)?;
    }
    for (device, limits) in &resources.rdma {
        controller(group, "rdma")?.write("rdma.max", &limits.line(device))?;
    }
    network(group, resources)?;
    Ok(warnings)
}

fn controller<'a>(group: &'a Group, name: &str) -> Result<&'a Directory, Error> {
    group.part(name).ok_or_else(|| {
        Error::Unsupported(format!("the host has no {name} control group: cannot limit by it"))
    })
}

/// Writes an optional control; a kernel without it leaves a warning.
fn optional(
    directory: &Directory,
    file: &str,
    value: &str,
    warnings: &mut Vec<Warning>,
) -> Result<(), Error> {
    if !directory.write_if_present(file, value)? {
        warnings.push(Warning(format!("the kernel does not support {file}: setting discarded")));
    }
    Ok(())
}

fn memory(
    directory: &Directory,
    memory: &Memory,
    warnings: &mut Vec<Warning>,
) -> Result<(), Error> {
    limit_and_swap(directory, memory, warnings)?;
    if let Some(value) = memory.reservation {
        directory.write("memory.soft_limit_in_bytes", &value.to_string())?;
    }
    if let Some(value) = memory.kernel {
        optional(directory, "memory.kmem.limit_in_bytes", &value.to_string(), warnings)?;
    }
    if let Some(value) = memory.kernel_tcp {
        optional(directory, "memory.kmem.tcp.limit_in_bytes", &value.to_string(), warnings)?;
    }
    if let Some(value) = memory.swappiness {
        if value > 100 {
            return Err(Error::Unsupported(format!(
                "invalid memory swappiness {value}: the range is 0 to 100"
            )));
        }
        optional(directory, "memory.swappiness", &value.to_string(), warnings)?;
    }
    if let Some(disabled) = memory.disable_oom_killer {
        let value = if disabled { "1" } else { "0" };
        optional(directory, "memory.oom_control", value, warnings)?;
    }
    Ok(())
}

/// Reads a limit of the caller; everything below zero is unlimited.
fn amount(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn limit_and_swap(
    directory: &Directory,
    memory: &Memory,
    warnings: &mut Vec<Warning>,
) -> Result<(), Error> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    // No limit of memory with one of the sum would be refused.
    let swap = memory.swap.or(memory.limit.filter(|limit| *limit < 0)).filter(|swap| *swap != 0);
    let has_swap = directory.has(SWAP);
    if memory.swap.is_some_and(|swap| swap > 0) && !has_swap {
        // COMPAT: dockerd's words.
        warnings.push(Warning(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
                .to_owned(),
        ));
    }
    let swap = swap.filter(|_| has_swap);
    let set_limit = || match memory.limit.filter(|limit| *limit != 0) {
        Some(limit) => set_memory(directory, LIMIT, limit),
        None => Ok(()),
    };
    let set_swap = || match swap {
        Some(swap) => set_memory(directory, SWAP, swap),
        None => Ok(()),
    };
    let sum_now =
        if has_swap { directory.read_number(SWAP)?.unwrap_or(u64::MAX) } else { u64::MAX };
    // ORDER: the sum may never be below the memory limit, neither before nor between the writes.
    if memory.limit.is_some_and(|limit| amount(limit) > sum_now) {
        set_swap()?;
        set_limit()
    } else {
        set_limit()?;
        set_swap()
    }
}

fn set_memory(directory: &Directory, file: &str, limit: i64) -> Result<(), Error> {
    let result = directory.write(file, &limit.max(-1).to_string());
    match result {
        Err(Error::File { ref source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            let usage = directory.read_number("memory.usage_in_bytes")?.unwrap_or(0);
            let peak = directory.read_number("memory.max_usage_in_bytes")?.unwrap_or(0);
            Err(Error::Unsupported(format!(
                "cannot set the memory limit to {limit}: {usage} bytes are in use, at most {peak} were"
            )))
        }
        other => other,
    }
}

fn cpu(group: &Group, cpu: &Cpu, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    let wanted = Cpu { cpus: None, mems: None, ..cpu.clone() };
    if wanted == Cpu::default() {
        return Ok(());
    }
    let directory = controller(group, "cpu")?;
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        set_shares(directory, shares)?;
    }
    // ORDER: a real-time runtime longer than the present period is refused.
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        optional(directory, "cpu.rt_period_us", &period.to_string(), warnings)?;
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        optional(directory, "cpu.rt_runtime_us", &runtime.to_string(), warnings)?;
    }
    bandwidth(directory, cpu, warnings)?;
    if let Some(idle) = cpu.idle {
        optional(directory, "cpu.idle", &idle.to_string(), warnings)?;
    }
    Ok(())
}

/// Sets the shares and tells when the kernel silently took others.
fn set_shares(directory: &Directory, shares: u64) -> Result<(), Error> {
    directory.write("cpu.shares", &shares.to_string())?;
    // COMPAT: runc's words, which clients see.
    match directory.read_number("cpu.shares")? {
        Some(taken) if taken < shares => {
            Err(Error::Unsupported(format!("the maximum allowed cpu-shares is {taken}")))
        }
        Some(taken) if taken > shares => {
            Err(Error::Unsupported(format!("the minimum allowed cpu-shares is {taken}")))
        }
        _ => Ok(()),
    }
}

fn bandwidth(directory: &Directory, cpu: &Cpu, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    const PERIOD: &str = "cpu.cfs_period_us";
    let mut period = cpu.period.filter(|period| *period != 0).map(|period| period.to_string());
    // ORDER: a period that does not fit the old quota has to wait for the new one.
    if let Some(value) = &period
        && (cpu.quota.is_none() || directory.write_raw(PERIOD, value).is_ok())
    {
        if cpu.quota.is_none() {
            directory.write(PERIOD, value)?;
        }
        period = None;
    }
    // ORDER: a burst above the new quota would make the kernel refuse it.
    let early = cpu
        .burst
        .is_some_and(|burst| directory.write_raw("cpu.cfs_burst_us", &burst.to_string()).is_ok());
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        directory.write("cpu.cfs_quota_us", &quota.max(-1).to_string())?;
    }
    if let Some(value) = &period {
        directory.write(PERIOD, value)?;
    }
    match cpu.burst {
        Some(burst) if !early => {
            optional(directory, "cpu.cfs_burst_us", &burst.to_string(), warnings)
        }
        _ => Ok(()),
    }
}

fn cpuset(group: &Group, cpu: &Cpu) -> Result<(), Error> {
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            controller(group, "cpuset")?.write(file, value)?;
        }
    }
    Ok(())
}

fn block_io(directory: &Directory, io: &BlockIo, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        weighted(directory, "weight", &weight.to_string(), warnings)?;
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight != 0) {
        weighted(directory, "leaf_weight", &weight.to_string(), warnings)?;
    }
    for one in &io.device_weights {
        let line = |weight: u16| format!("{}:{} {weight}", one.major, one.minor);
        if let Some(weight) = one.weight {
            weighted(directory, "weight_device", &line(weight), warnings)?;
        }
        if let Some(weight) = one.leaf_weight {
            weighted(directory, "leaf_weight_device", &line(weight), warnings)?;
        }
    }
    let limits: [(&str, &[DeviceLimit]); 4] = [
        ("blkio.throttle.read_bps_device", &io.read_bps),
        ("blkio.throttle.write_bps_device", &io.write_bps),
        ("blkio.throttle.read_iops_device", &io.read_iops),
        ("blkio.throttle.write_iops_device", &io.write_iops),
    ];
    for (file, limits) in limits {
        for one in limits {
            directory.write(file, &format!("{}:{} {}", one.major, one.minor, one.rate))?;
        }
    }
    Ok(())
}

/// Writes a weight to whichever scheduler is there: CFQ in old kernels, BFQ in new ones.
fn weighted(
    directory: &Directory,
    name: &str,
    value: &str,
    warnings: &mut Vec<Warning>,
) -> Result<(), Error> {
    if !directory.write_if_present(&format!("blkio.{name}"), value)?
        && !directory.write_if_present(&format!("blkio.bfq.{name}"), value)?
    {
        // COMPAT: dockerd's words.
        warnings.push(Warning(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
                .to_owned(),
        ));
    }
    Ok(())
}

fn network(group: &Group, resources: &Resources) -> Result<(), Error> {
    if let Some(class) = resources.network_class.filter(|class| *class != 0) {
        controller(group, "net_cls")?.write("net_cls.classid", &class.to_string())?;
    }
    for one in &resources.network_priorities {
        let line = format!("{} {}", one.interface, one.priority);
        controller(group, "net_prio")?.write("net_prio.ifpriomap", &line)?;
    }
    Ok(())
}

fn devices(directory: &Directory, rules: &[DeviceRule]) -> Result<(), Error> {
    for run in rules.chunk_by(|one, next| one.allow == next.allow) {
        let file = if run[0].allow { "devices.allow" } else { "devices.deny" };
        directory.write_all(file, &run.iter().map(device_line).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Writes a rule as the kernel reads it.
pub(super) fn device_line(rule: &DeviceRule) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let kind = match rule.kind {
        // A bare `a` stands for everything and drops all exceptions.
        DeviceKind::All => return "a".to_owned(),
        DeviceKind::Block => 'b',
        DeviceKind::Char => 'c',
    };
    format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), letters(rule.access))
}

fn letters(access: Access) -> String {
    let all = [(access.read, 'r'), (access.write, 'w'), (access.mknod, 'm')];
    all.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter).collect()
}

//! Writing the limits of version 2. Callers speak the units of version 1, as Docker's interface does.

use crate::bpf;
use crate::cgroup::file::Directory;
use crate::cgroup::resources::{BlockIo, Cpu, DeviceLimit, Memory, Resources};
use crate::cgroup::{Error, Warning};

pub(super) fn apply(group: &Directory, resources: &Resources) -> Result<Vec<Warning>, Error> {
    let mut warnings = Vec::new();
    // ORDER: devices first: a process that is in the group already should never see the others.
    if let Some(rules) = &resources.devices {
        bpf::attach_device_rules(&group.fd, rules)
            .map_err(|source| group.fault("attach", "device program", source))?;
    }
    memory(group, &resources.memory, &mut warnings)?;
    cpu(group, &resources.cpu)?;
    if let Some(limit) = resources.pids {
        let limit = if limit > 0 { limit.to_string() } else { "max".to_owned() };
        required(group, "pids.max", &limit)?;
    }
    block_io(group, &resources.block_io, &mut warnings)?;
    for one in &resources.hugepages {
        let limit = one.limit.to_string();
        required(group, &format!("hugetlb.{}.max", one.page_size), &limit)?;
        group.write_if_present(&format!("hugetlb.{}.rsvd.max", one.page_size), &limit)?;
    }
    for (device, limits) in &resources.rdma {
        required(group, "rdma.max", &limits.line(device))?;
    }
    if resources.network_class.is_some_and(|class| class != 0)
        || !resources.network_priorities.is_empty()
    {
        return Err(Error::Unsupported(
            "network classes and priorities need control groups version 1".to_owned(),
        ));
    }
    for (file, value) in &resources.unified {
        // A name, not a path: nothing outside the group can be meant.
        if file.contains('/') || !file.contains('.') {
            return Err(Error::Unsupported(format!("invalid unified resource {file:?}")));
        }
        required(group, file, value)?;
    }
    Ok(warnings)
}

/// Writes a control; one that is not there is a fault that names the controller.
fn required(group: &Directory, file: &str, value: &str) -> Result<(), Error> {
    if group.write_if_present(file, value)? {
        return Ok(());
    }
    let controller = file.split('.').next().unwrap_or(file);
    Err(Error::Unsupported(format!(
        "cannot set {file}: the kernel does not have it or the {controller} controller is not available to this group"
    )))
}

fn discard(warnings: &mut Vec<Warning>, what: &str) {
    warnings.push(Warning(format!("control groups version 2 have no {what}: setting discarded")));
}

fn bytes(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

fn memory(group: &Directory, memory: &Memory, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    if memory.kernel.is_some_and(|limit| limit > 0)
        || memory.kernel_tcp.is_some_and(|limit| limit > 0)
    {
        return Err(Error::Unsupported(
            "a limit of kernel memory needs control groups version 1".to_owned(),
        ));
    }
    if memory.swappiness.is_some() {
        discard(warnings, "memory swappiness");
    }
    if memory.disable_oom_killer == Some(true) {
        discard(warnings, "switch for the out-of-memory killer");
    }
    let limit = memory.limit.filter(|limit| *limit != 0);
    if memory.check_before_update
        && let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok())
    {
        let usage = group.read_number("memory.current")?.unwrap_or(0);
        if limit < usage {
            return Err(Error::Unsupported(format!(
                "cannot set the memory limit to {limit}: {usage} bytes are in use"
            )));
        }
    }
    let now = || Ok(group.read_number("memory.max")?.map_or(-1, |limit| limit as i64));
    let effective = match limit {
        Some(limit) => limit,
        None if memory.swap.is_some() => now()?,
        None => -1,
    };
    if let Some(swap) = swap_alone(effective, limit.is_some(), memory.swap)?
        && !group.write_if_present("memory.swap.max", &bytes(swap))?
        && swap > 0
    {
        // COMPAT: dockerd's words.
        warnings.push(Warning(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
                .to_owned(),
        ));
    }
    if let Some(limit) = limit {
        required(group, "memory.max", &bytes(limit))?;
    }
    if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
        required(group, "memory.low", &bytes(reservation))?;
    }
    Ok(())
}

/// Returns the limit of swap alone, out of the limit of memory and that of the sum.
pub(in crate::cgroup) fn swap_alone(
    limit: i64,
    limit_is_new: bool,
    sum: Option<i64>,
) -> Result<Option<i64>, Error> {
    match sum {
        // A memory limit that is lifted lifts that of swap too.
        None | Some(0) if limit < 0 && limit_is_new => Ok(Some(-1)),
        None | Some(0) => Ok(None),
        Some(..0) => Ok(Some(-1)),
        Some(_) if limit < 0 => {
            Err(Error::Unsupported("a limit of memory and swap needs a limit of memory".to_owned()))
        }
        Some(sum) if sum < limit => Err(Error::Unsupported(format!(
            "the limit of memory and swap, {sum}, is below that of memory, {limit}"
        ))),
        Some(sum) => Ok(Some(sum - limit)),
    }
}

/// Converts shares (2 to 262144, 1024 normal) to a weight (1 to 10000, 100 normal).
///
/// The curve through those three points is a power of ten whose exponent is quadratic in the binary
/// logarithm of the shares. Older runtimes drew a straight line, by which 1024 shares became a weight
/// of 39 and a container got less than half of what a plain process gets.
pub(in crate::cgroup) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

fn cpu(group: &Directory, cpu: &Cpu) -> Result<(), Error> {
    if cpu.realtime_period.is_some_and(|period| period != 0)
        || cpu.realtime_runtime.is_some_and(|runtime| runtime != 0)
    {
        return Err(Error::Unsupported(
            "real-time processor limits need control groups version 1".to_owned(),
        ));
    }
    if let Some(idle) = cpu.idle {
        required(group, "cpu.idle", &idle.to_string())?;
    }
    // An idle group takes no weight.
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && cpu.idle != Some(1)) {
        required(group, "cpu.weight", &weight_of_shares(shares).to_string())?;
    }
    bandwidth(group, cpu)?;
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            required(group, file, value)?;
        }
    }
    Ok(())
}

fn bandwidth(group: &Directory, cpu: &Cpu) -> Result<(), Error> {
    const BURST: &str = "cpu.max.burst";
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    // ORDER: a burst above the new quota would make the kernel refuse it.
    let burst = cpu.burst.map(|burst| burst.to_string());
    let early = burst.as_ref().is_some_and(|burst| group.write_raw(BURST, burst).is_ok());
    if quota.is_some() || period.is_some() {
        let now = group.read_if_present("cpu.max")?.unwrap_or_default();
        let mut now = now.split_whitespace();
        let quota_now = now.next().unwrap_or("max").to_owned();
        let period_now = now.next().unwrap_or("100000").to_owned();
        let quota = quota.map_or(quota_now, bytes);
        let period = period.map_or(period_now, |period| period.to_string());
        required(group, "cpu.max", &format!("{quota} {period}"))?;
    }
    match burst {
        Some(burst) if !early => required(group, BURST, &burst),
        _ => Ok(()),
    }
}

/// Converts a weight from Docker's range (10 to 1000) to that of `io.weight` (1 to 10000).
pub(in crate::cgroup) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.max(10) - 10) * 9999 / 990
}

fn block_io(group: &Directory, io: &BlockIo, warnings: &mut Vec<Warning>) -> Result<(), Error> {
    if io.leaf_weight.is_some_and(|weight| weight != 0)
        || io.device_weights.iter().any(|one| one.leaf_weight.is_some())
    {
        discard(warnings, "block device leaf weight");
    }
    let general = io.weight.filter(|weight| *weight != 0).map(|weight| (String::new(), weight));
    let special = io.device_weights.iter().filter_map(|one| {
        one.weight.map(|weight| (format!("{}:{} ", one.major, one.minor), weight))
    });
    for (device, weight) in general.into_iter().chain(special) {
        let bfq = format!("{device}{weight}");
        let cost = format!("{device}{}", io_weight(weight));
        if !group.write_if_present("io.bfq.weight", &bfq)?
            && !group.write_if_present("io.weight", &cost)?
        {
            // COMPAT: dockerd's words.
            warnings.push(Warning(
                "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
                    .to_owned(),
            ));
        }
    }
    let limits: [(&str, &[DeviceLimit]); 4] = [
        ("rbps", &io.read_bps),
        ("wbps", &io.write_bps),
        ("riops", &io.read_iops),
        ("wiops", &io.write_iops),
    ];
    for (key, limits) in limits {
        for one in limits {
            let rate = if one.rate == 0 { "max".to_owned() } else { one.rate.to_string() };
            required(group, "io.max", &format!("{}:{} {key}={rate}", one.major, one.minor))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Groups made by systemd as scopes, so that it knows about them. The limits are written by us, and
//! systemd is told those it would otherwise reset when it reloads.

use std::path::Path;

use super::bus::{Bus, Fault, Target, Value, Writer};
use super::resources::Resources;
use super::tree::{self, Wait};
use super::{Error, Version};

/// A scope to be: its slice and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) slice: String,
    pub(super) unit: String,
}

impl Scope {
    /// Reads `slice:prefix:name`.
    pub(super) fn parse(path: &str) -> Result<Self, Error> {
        let wrong = || Error::Path(path.to_owned());
        let parts: Vec<_> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else { return Err(wrong()) };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let plain =
            |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:@\\".contains(c));
        if name.is_empty() || !plain(name) || !plain(prefix) || !plain(slice) {
            return Err(wrong());
        }
        slice.strip_suffix(".slice").ok_or_else(wrong)?;
        let unit = if prefix.is_empty() {
            format!("{name}.scope")
        } else {
            format!("{prefix}-{name}.scope")
        };
        Ok(Self { slice: slice.to_owned(), unit })
    }

    /// Returns where systemd puts it: the slice `a-b.slice` is inside `a.slice`.
    pub(super) fn path(&self) -> String {
        let name = self.slice.trim_end_matches(".slice");
        let mut path = String::new();
        if name != "-" {
            let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
            for end in ends.filter(|end| *end > 0) {
                path.push_str(&name[..end]);
                path.push_str(".slice/");
            }
        }
        path + &self.unit
    }
}

/// A process that keeps a scope alive until the real one has joined it.
#[derive(Debug)]
pub(super) struct Placeholder(i32);

impl Placeholder {
    fn new() -> std::io::Result<Self> {
        // SAFETY: the child makes only plain system calls, none of which allocates or takes a lock.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above; it ends with its parent or by its parent's signal.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
        }
        if pid < 0 { Err(std::io::Error::last_os_error()) } else { Ok(Self(pid)) }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        tree::kill(self.0);
        // SAFETY: reaps the child made by `new`, which nobody else waits for by its id.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// Tells whether systemd runs this host.
pub(super) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn fault(action: &str, fault: Fault) -> Error {
    let reason = match fault {
        Fault::Io(source) => format!("the system bus does not work: {source}"),
        Fault::Refused { name, text } => format!("{text} ({name})"),
    };
    Error::Systemd { action: action.to_owned(), reason }
}

fn connect(action: &str) -> Result<Bus, Error> {
    if !is_running() {
        return Err(Error::Systemd {
            action: action.to_owned(),
            reason: "systemd is not running on this host".to_owned(),
        });
    }
    Bus::system().map_err(|source| fault(action, source))
}

fn manager(member: &str) -> Target<'_> {
    Target {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
    }
}

/// Starts the scope with its limits; it lives as long as the placeholder or any other process in it.
pub(super) fn start(
    scope: &Scope,
    resources: &Resources,
    version: Version,
) -> Result<Placeholder, Error> {
    let action = format!("start {}", scope.unit);
    let mut bus = connect(&action)?;
    let placeholder = Placeholder::new()
        .map_err(|source| Error::Systemd { action: action.clone(), reason: source.to_string() })?;
    let body = transient_unit(scope, &placeholder, resources, version)?;
    let mut wait = Wait::new();
    loop {
        match bus.call(&manager("StartTransientUnit"), "ssa(sv)a(sa(sv))", &body) {
            Ok(()) => break,
            // An earlier scope of that name is still on its way out, as after a quick restart; one that failed
            // stays until somebody has taken note of it.
            Err(source) if source.is("UnitExists") && wait.again() => {
                forget(&mut bus, &scope.unit).map_err(|source| fault(&action, source))?;
            }
            Err(source) => return Err(fault(&action, source)),
        }
    }
    // The answer only means that the job is queued; it is done once the process has been moved.
    let mut wait = Wait::new();
    let file = format!("/proc/{}/cgroup", placeholder.0);
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.lines().any(|line| line.ends_with(&scope.unit)) {
            return Ok(placeholder);
        }
        if !wait.again() {
            return Err(Error::Stuck { path: scope.path(), state: "not started" });
        }
    }
}

fn transient_unit(
    scope: &Scope,
    placeholder: &Placeholder,
    resources: &Resources,
    version: Version,
) -> Result<Writer, Error> {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut all = vec![
        ("Description", Value::Text(format!("container {}", scope.unit))),
        ("Slice", text(&scope.slice)),
        ("Delegate", Value::Flag(true)),
        ("DefaultDependencies", Value::Flag(false)),
        ("CollectMode", text("inactive-or-failed")),
        ("CPUAccounting", Value::Flag(true)),
        ("MemoryAccounting", Value::Flag(true)),
        ("TasksAccounting", Value::Flag(true)),
        ("IOAccounting", Value::Flag(true)),
        ("PIDs", Value::Numbers(vec![placeholder.0.cast_unsigned()])),
    ];
    if resources.pids.is_none() {
        // systemd's own default is a share of what the host allows; without a limit a container has none.
        all.push(("TasksMax", Value::Number(u64::MAX)));
    }
    all.extend(properties(resources, version, None)?);
    let mut body = Writer::default();
    body.text(&scope.unit);
    body.text("replace");
    body.properties(&all);
    body.nothing();
    Ok(body)
}

/// Lets systemd forget a failed unit; one that is still active is left alone.
fn forget(bus: &mut Bus, unit: &str) -> Result<(), Fault> {
    let mut body = Writer::default();
    body.text(unit);
    match bus.call(&manager("ResetFailedUnit"), "s", &body) {
        Err(source) if !source.is("NoSuchUnit") => Err(source),
        _ => Ok(()),
    }
}

/// Returns the unit at the end of a group's path, if systemd may have made it.
pub(super) fn unit_of(description: &str) -> Option<&str> {
    let unit = description.lines().next()?.rsplit('/').next()?;
    unit.strip_suffix(".scope").filter(|_| is_running()).map(|_| unit)
}

/// Tells systemd the limits it knows itself, lest it takes them back when it reloads.
///
/// `memory` is the limit of memory in force, for when that of swap changes alone.
pub(super) fn tell(
    unit: &str,
    resources: &Resources,
    version: Version,
    memory: Option<i64>,
) -> Result<(), Error> {
    let properties = properties(resources, version, memory)?;
    if properties.is_empty() {
        return Ok(());
    }
    let action = format!("limit {unit}");
    let mut body = Writer::default();
    body.text(unit);
    body.flag(true);
    body.properties(&properties);
    match connect(&action)?.call(&manager("SetUnitProperties"), "sba(sv)", &body) {
        Ok(()) => Ok(()),
        Err(source) if source.is("NoSuchUnit") => Ok(()),
        Err(source) => Err(fault(&action, source)),
    }
}

type Properties = Vec<(&'static str, Value)>;

/// Translates limits to properties of a unit.
///
/// systemd writes all controls of a controller when one of them changes, so it must know each of them.
pub(super) fn properties(
    resources: &Resources,
    version: Version,
    memory: Option<i64>,
) -> Result<Properties, Error> {
    let mut all = Vec::new();
    push_memory(&mut all, resources, version, memory)?;
    if let Some(limit) = resources.pids {
        let limit = if limit > 0 { limit } else { -1 };
        all.push(("TasksMax", amount(limit)));
    }
    push_cpu(&mut all, resources, version)?;
    let weight = resources.block_io.weight.filter(|weight| *weight != 0 && version == Version::V2);
    if let Some(weight) = weight {
        all.push(("IOWeight", Value::Number(super::v2::io_weight(weight))));
    }
    Ok(all)
}

/// systemd's infinity is the largest number.
fn amount(limit: i64) -> Value {
    Value::Number(u64::try_from(limit).unwrap_or(u64::MAX))
}

fn push_memory(
    all: &mut Properties,
    resources: &Resources,
    version: Version,
    in_force: Option<i64>,
) -> Result<(), Error> {
    let v1 = version == Version::V1;
    let limit = resources.memory.limit.filter(|limit| *limit != 0);
    if let Some(limit) = limit {
        all.push((if v1 { "MemoryLimit" } else { "MemoryMax" }, amount(limit)));
    }
    if v1 {
        return Ok(());
    }
    if let Some(low) = resources.memory.reservation.filter(|low| *low != 0) {
        all.push(("MemoryLow", amount(low)));
    }
    let effective = limit.or(in_force).unwrap_or(-1);
    if let Some(swap) = super::v2::swap_alone(effective, limit.is_some(), resources.memory.swap)? {
        all.push(("MemorySwapMax", amount(swap)));
    }
    Ok(())
}

fn push_cpu(all: &mut Properties, resources: &Resources, version: Version) -> Result<(), Error> {
    let cpu = &resources.cpu;
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        let weight = super::v2::weight_of_shares(shares);
        all.push(match version {
            Version::V1 => ("CPUShares", Value::Number(shares)),
            Version::V2 => ("CPUWeight", Value::Number(weight)),
        });
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        let period = cpu.period.filter(|period| *period != 0).unwrap_or(100_000);
        let per_second = u64::try_from(quota).map_or(u64::MAX, |quota| {
            // systemd keeps hundredths of a processor and rounds down; a container never gets less
            // than it asked for.
            (quota.saturating_mul(1_000_000) / period).next_multiple_of(10_000)
        });
        all.push(("CPUQuotaPerSecUSec", Value::Number(per_second)));
        all.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    if version == Version::V2 {
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                all.push((name, Value::Bytes(mask(list)?)));
            }
        }
    }
    Ok(())
}

/// Turns a list like `0-3,8` into bits, the lowest first.
fn mask(list: &str) -> Result<Vec<u8>, Error> {
    // LIMIT: the kernel knows no more processors than this.
    const MOST: usize = 8192;
    let wrong =
        || Error::Unsupported(format!("invalid list of processors or memory nodes {list:?}"));
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < MOST);
        let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
        if first > last {
            return Err(wrong());
        }
        for bit in first..=last {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0_u8);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    Ok(bits)
}

/// Stops the scope; no fault if systemd does not know it.
pub(super) fn stop(unit: &str) -> Result<(), Error> {
    let action = format!("stop {unit}");
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    match connect(&action)?.call(&manager("StopUnit"), "ss", &body) {
        Ok(()) => Ok(()),
        Err(source) if source.is("NoSuchUnit") => Ok(()),
        Err(source) => Err(fault(&action, source)),
    }
}

#[cfg(test)]
mod tests;

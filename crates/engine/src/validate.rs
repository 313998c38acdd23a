//! What a request for a container must satisfy, with the texts of dockerd. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

use rorqual_core::capability::{self, Capabilities};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::spec::{
    ContainerSpec, HealthSpec, IpcMode, MountKind, NetworkMode, Ownership, PidMode, Resources,
    RestartPolicy,
};

// LIMIT: below 6 MiB a container cannot even start.
const LEAST_MEMORY: i64 = 6 << 20;
const LEAST_HEALTH_DURATION: Duration = Duration::from_millis(1);

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(text.into()))
}

/// Checks a request; returns words for the user.
pub(crate) fn container(spec: &mut ContainerSpec, options: &Options) -> Result<Vec<String>> {
    let mut warnings = unsupported_weights(&mut spec.resources, options);
    warnings.extend(resources(&spec.resources)?);
    cpusets(&spec.resources, options)?;
    if spec.network.mode == NetworkMode::Host && !spec.network.published.is_empty() {
        // COMPAT: dockerd's text.
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    cgroup_parent(spec, options)?;
    runtime(spec, options)?;
    remapping(spec, options)?;
    health(spec.healthcheck.as_ref())?;
    mounts(spec)?;
    network(spec)?;
    warnings.extend(security(spec, options)?);
    if spec.auto_remove && spec.restart != RestartPolicy::No {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    if spec.process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        let score = spec.process.oom_score_adj.unwrap_or_default();
        return invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"));
    }
    if !spec.process.working_dir.is_empty() && !spec.process.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            spec.process.working_dir
        ));
    }
    for variable in &spec.process.env {
        if variable.is_empty() || variable.starts_with('=') {
            return invalid(format!("invalid environment variable: {variable}"));
        }
    }
    if spec.network.hostname.as_ref().is_some_and(|name| name.len() > 63) {
        let name = spec.network.hostname.clone().unwrap_or_default();
        return invalid(format!("invalid hostname: {name}"));
    }
    if spec.namespaces.uts == Ownership::Host && spec.network.hostname.is_some() {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    Ok(warnings)
}

/// Takes shares of disks away that the kernel does not know; returns words for the user.
pub(crate) fn unsupported_weights(wanted: &mut Resources, options: &Options) -> Vec<String> {
    let mut warnings = Vec::new();
    // COMPAT: dockerd's texts.
    if wanted.blkio_weight.is_some_and(|weight| weight > 0) && !options.disk_weights.all {
        wanted.blkio_weight = None;
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
                .to_owned(),
        );
    }
    if !wanted.blkio_weight_devices.is_empty() && !options.disk_weights.each {
        wanted.blkio_weight_devices.clear();
        warnings.push(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
                .to_owned(),
        );
    }
    warnings
}

/// Checks limits, for `create` and `update`; returns words for the user.
pub(crate) fn resources(wanted: &Resources) -> Result<Vec<String>> {
    memory(wanted)?;
    cpu(wanted)?;
    if wanted.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    let parent = wanted.cgroup_parent.as_deref().unwrap_or_default();
    if parent.split('/').any(|part| part == "..") {
        return invalid(format!("cgroup-parent {parent:?} must not lead upwards"));
    }
    for rule in &wanted.device_rules {
        if crate::ocispec::is_device_rule(rule) {
            continue;
        }
        return invalid(format!("invalid device cgroup rule format: '{rule}'"));
    }
    for device in &wanted.devices {
        let ok = !device.permissions.is_empty()
            && device.permissions.chars().all(|letter| "rwm".contains(letter));
        if !ok {
            return invalid(format!("invalid device mode: {}", device.permissions));
        }
    }
    for limit in &wanted.ulimits {
        if limit.hard >= 0 && limit.soft > limit.hard {
            return invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            ));
        }
    }
    let mut warnings = Vec::new();
    if wanted.oom_kill_disable == Some(true) && wanted.memory.is_none() {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can \
             result in the system running out of resources."
                .to_owned(),
        );
    }
    Ok(warnings)
}

fn memory(wanted: &Resources) -> Result<()> {
    let limit = wanted.memory.unwrap_or(0);
    let swap = wanted.memory_swap.unwrap_or(0);
    if limit != 0 && limit < LEAST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if limit > 0 && swap > 0 && swap < limit {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if limit == 0 && swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if let Some(swappiness) = wanted.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        ));
    }
    let reservation = wanted.memory_reservation.unwrap_or(0);
    if reservation > 0 && reservation < LEAST_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if limit > 0 && reservation > limit {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    Ok(())
}

pub(crate) fn cpu(wanted: &Resources) -> Result<()> {
    if let Some(nanos) = wanted.nano_cpus {
        if wanted.cpu_period.is_some_and(|period| period > 0) {
            return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if wanted.cpu_quota.is_some_and(|quota| quota > 0) {
            return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as i64;
        if nanos < 0 || nanos > cpus.saturating_mul(1_000_000_000) {
            return invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            ));
        }
    }
    if let Some(shares @ ..0) = wanted.cpu_shares {
        // COMPAT: dockerd's text.
        return invalid(format!("invalid CPU shares ({shares}): value must be a positive integer"));
    }
    if wanted.cpu_period.is_some_and(|period| period != 0 && !(1000..=1_000_000).contains(&period))
    {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if wanted.cpu_quota.is_some_and(|quota| quota > 0 && quota < 1000) {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (what, list) in [("cpuset cpus", &wanted.cpuset_cpus), ("cpuset mems", &wanted.cpuset_mems)]
    {
        if let Some(list) = list
            && !is_cpu_list(list)
        {
            return invalid(format!("Invalid value {list} for {what}: invalid format: {list}"));
        }
    }
    Ok(())
}

/// Tells whether `list` reads as `0-3,5`.
fn is_cpu_list(list: &str) -> bool {
    cpu_list(list).is_some()
}

/// Reads `0-3,5`; nothing is an empty list.
fn cpu_list(list: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let number = |text: &str| text.parse::<u16>().ok();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    if list.is_empty() { Some(Vec::new()) } else { list.split(',').map(range).collect() }
}

/// Checks that the host has the processors and memory nodes that are asked for.
pub(crate) fn cpusets(wanted: &Resources, options: &Options) -> Result<()> {
    for (what, asked, there) in [
        ("CPUs", &wanted.cpuset_cpus, &options.cpus),
        ("memory nodes", &wanted.cpuset_mems, &options.memory_nodes),
    ] {
        let Some(asked) = asked else { continue };
        // A host that does not tell what it has is not second-guessed.
        let Some(present) = there.as_deref().and_then(cpu_list) else { continue };
        let has = |number: u16| present.iter().any(|range| range.contains(&number));
        let missing =
            cpu_list(asked).is_some_and(|list| list.into_iter().flatten().any(|n| !has(n)));
        if missing {
            // COMPAT: dockerd's text.
            return invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {}",
                there.as_deref().unwrap_or_default()
            ));
        }
    }
    Ok(())
}

/// Refuses what a root who is nobody on the host cannot have.
fn remapping(spec: &ContainerSpec, options: &Options) -> Result<()> {
    if options.remap_of(spec).is_none() {
        return Ok(());
    }
    // COMPAT: dockerd's texts.
    if spec.security.privileged {
        return invalid(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        );
    }
    if spec.network.mode == NetworkMode::Host {
        return invalid(
            "cannot share the host's network namespace when user namespaces are enabled",
        );
    }
    if spec.namespaces.pid == PidMode::Host {
        return invalid("cannot share the host PID namespace when user namespaces are enabled");
    }
    Ok(())
}

fn runtime(spec: &ContainerSpec, options: &Options) -> Result<()> {
    match spec.runtime.as_deref().filter(|name| !name.is_empty()) {
        Some(name) if !options.runtimes.iter().any(|known| known == name) => {
            invalid(format!("unknown or invalid runtime name: {name}"))
        }
        _ => Ok(()),
    }
}

fn health(check: Option<&HealthSpec>) -> Result<()> {
    let Some(HealthSpec::Check { interval, timeout, start_period, start_interval, .. }) = check
    else {
        return Ok(());
    };
    for (name, duration) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ] {
        if duration.is_some_and(|value| !value.is_zero() && value < LEAST_HEALTH_DURATION) {
            return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    Ok(())
}

fn mounts(spec: &ContainerSpec) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for mount in &spec.storage.mounts {
        let target = mount.target.as_str();
        let source = if let MountKind::Bind { source, .. } = &mount.kind { source } else { "" };
        if target.contains('\0') || source.contains('\0') {
            return invalid("invalid mount config: a path contains a null byte");
        }
        if !target.starts_with('/') {
            return invalid(format!(
                "invalid mount config: invalid mount path: '{target}' mount path must be absolute"
            ));
        }
        if normal(target) == "/" {
            return invalid("invalid specification: destination can't be '/'");
        }
        if !seen.insert(normal(target)) {
            return invalid(format!("Duplicate mount point: {target}"));
        }
        if let MountKind::Bind { source, options } = &mount.kind {
            if !source.starts_with('/') {
                return invalid(format!(
                    "invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
                ));
            }
            if options.non_recursive
                && options.recursive_read_only == crate::spec::RecursiveReadOnly::Force
            {
                return invalid("mount options conflict: NonRecursive and ReadOnlyForceRecursive");
            }
        }
    }
    for path in &spec.storage.anonymous {
        if !path.starts_with('/') || normal(path) == "/" {
            return invalid(format!("invalid volume specification: '{path}'"));
        }
    }
    Ok(())
}

/// Returns a path without doubled or trailing slashes and dots; `..` goes up.
pub(crate) fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn network(spec: &ContainerSpec) -> Result<()> {
    let network = &spec.network;
    let shares = match &network.mode {
        NetworkMode::Host => Some("host"),
        NetworkMode::Container(_) => Some("container"),
        _ => None,
    };
    if let Some(kind) = shares {
        let text = |what: &str| {
            // COMPAT: dockerd's texts.
            invalid(format!("conflicting options: {what} and the network mode"))
        };
        if kind == "container" {
            if network.hostname.is_some() {
                return text("hostname");
            }
            if !network.dns.is_empty() {
                return text("dns");
            }
            if !network.extra_hosts.is_empty() {
                return invalid(
                    "conflicting options: custom host-to-IP mapping and the network mode",
                );
            }
            if !network.published.is_empty() || network.publish_all {
                return invalid(
                    "conflicting options: port publishing and the container type network mode",
                );
            }
            if !network.exposed.is_empty() {
                return invalid(
                    "conflicting options: port exposing and the container type network mode",
                );
            }
        }
        if !network.links.is_empty() {
            let what =
                if kind == "host" { "host type networking" } else { "container type network" };
            return invalid(format!(
                "conflicting options: {what} can't be used with links. This would result in undefined behavior"
            ));
        }
        if spec.security.sysctls.keys().any(|key| key.starts_with("net.")) && kind == "host" {
            let key = spec.security.sysctls.keys().find(|key| key.starts_with("net.")).cloned();
            return invalid(format!(
                "sysctl {:?} not allowed in host network namespace",
                key.unwrap_or_default()
            ));
        }
    }
    let shared = matches!(network.mode, NetworkMode::Host | NetworkMode::Container(_));
    if !network.links.is_empty() && shared {
        // COMPAT: dockerd's words.
        return invalid(
            "conflicting options: container type network can't be used with links. This would result in undefined behavior"
                .to_owned(),
        );
    }
    for line in &network.extra_hosts {
        let (name, address) = line.split_once(':').unwrap_or((line, ""));
        let valid = !name.is_empty()
            && (address == "host-gateway"
                || address.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok());
        if !valid {
            return invalid(format!("bad format for add-host: {line:?}"));
        }
    }
    Ok(())
}

fn cgroup_parent(spec: &ContainerSpec, options: &Options) -> Result<()> {
    let parent = spec.resources.cgroup_parent.as_deref().unwrap_or_default();
    if parent.is_empty() || options.cgroup_driver.allows(parent) {
        return Ok(());
    }
    // COMPAT: dockerd's text.
    invalid("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
}

/// Checks what protects the host; returns words for the user about what has no effect here.
fn security(spec: &ContainerSpec, options: &Options) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for option in &spec.security.options {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges" | "writable-cgroups", _) => {
                if !matches!(value, "" | "true" | "false" | "1" | "0" | "t" | "f") {
                    return invalid(format!("invalid --security-opt 2: {option:?}"));
                }
            }
            ("seccomp", text) if !text.is_empty() => {}
            ("apparmor" | "systempaths", "unconfined") | ("label", "disable") => {}
            ("apparmor", name) if is_profile_name(name) => {
                // COMPAT: dockerd starts such a container too, without a word.
                if options.apparmor.is_none() {
                    warnings.push(format!(
                        "AppArmor is not enabled on this host: profile {name} has no effect"
                    ));
                }
            }
            ("label", label) if options.selinux.is_some() => {
                rorqual_core::selinux::check_option(label).map_err(Error::Invalid)?;
            }
            // COMPAT: dockerd, unless told to enable SELinux, lets labels pass without effect and without a word.
            ("label", label) if !label.is_empty() => {
                warnings.push(format!("SELinux is not enabled here: {option} has no effect"));
            }
            // COMPAT: dockerd's text.
            _ => return invalid(format!("invalid --security-opt 2: {option:?}")),
        }
    }
    for key in spec.security.sysctls.keys() {
        let namespaced = ["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.", "net."]
            .iter()
            .any(|prefix| key.starts_with(prefix))
            || matches!(key.as_str(), "kernel.domainname" | "kernel.hostname");
        if !namespaced {
            return invalid(format!("sysctl {key:?} is not in a separate kernel namespace"));
        }
    }
    if spec.namespaces.ipc == IpcMode::Host && spec.storage.shm_size.is_some() {
        // COMPAT: dockerd lets the size pass without effect.
        tracing::debug!("the size of /dev/shm has no effect with the host's ipc namespace");
    }
    Ok(warnings)
}

/// A name becomes part of a command to the kernel, which ends at a line feed or a zero byte.
fn is_profile_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 4096 && !name.contains(|letter: char| letter.is_control())
}

/// Returns what a container may do.
pub(crate) fn capabilities(spec: &ContainerSpec, available: Capabilities) -> Result<Capabilities> {
    if spec.security.privileged {
        return Ok(available);
    }
    let wrong =
        |list: &'static str| move |error| Error::Invalid(format!("invalid {list}: {error}"));
    capability::check(&spec.security.cap_add, available).map_err(wrong("CapAdd"))?;
    capability::check(&spec.security.cap_drop, available).map_err(wrong("CapDrop"))?;
    capability::container_set(&spec.security.cap_add, &spec.security.cap_drop, available)
        .map_err(wrong("CapAdd"))
}

/// Tells whether `--security-opt writable-cgroups` is on.
pub(crate) fn writable_cgroups(options: &[String]) -> bool {
    options.iter().any(|option| {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, "true"));
        key == "writable-cgroups" && matches!(value, "true" | "1" | "t")
    })
}

#[cfg(test)]
mod tests;

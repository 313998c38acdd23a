//! Device nodes and device rules.
//!
//! Asking what a node of the host is (its numbers) is the only look at the host that a specification needs.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::spec::ContainerSpec;

/// Returns major and minor number of a device node of the host.
pub(super) fn number_of(path: &str) -> Option<(i64, i64)> {
    let rdev = std::fs::metadata(path).ok()?.rdev();
    Some((i64::from(major(rdev)), i64::from(minor(rdev))))
}

/// Linux' encoding of device numbers in user space.
const fn major(rdev: u64) -> u32 {
    ((rdev >> 8) & 0xfff) as u32 | ((rdev >> 32) & 0xffff_f000) as u32
}

const fn minor(rdev: u64) -> u32 {
    (rdev & 0xff) as u32 | ((rdev >> 12) & 0xffff_ff00) as u32
}

/// Returns the cgroup's device rules: Docker's defaults, then the user's devices, then the user's rules.
pub(super) fn rules(spec: &ContainerSpec, privileged: bool) -> Value {
    if privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let mut all = vec![json!({ "allow": false, "access": "rwm" })];
    let allowed = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    all.extend(allowed.map(|(major, minor)| {
        json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" })
    }));
    all.push(json!({ "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" }));
    for device in &spec.resources.devices {
        for (path, _) in expand(&device.host, &device.container) {
            let Some((kind, major, minor)) = node(&path) else { continue };
            all.push(json!({ "allow": true, "type": kind, "major": major, "minor": minor,
                "access": device.permissions }));
        }
    }
    all.extend(spec.resources.device_rules.iter().filter_map(|rule| parse_rule(rule)));
    Value::Array(all)
}

/// Reads `c 1:3 rwm`; `None` when it is no such rule.
pub(crate) fn parse_rule(rule: &str) -> Option<Value> {
    let mut words = rule.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(Value::Null),
        text => text.parse::<u32>().ok().map(Value::from),
    };
    let letters =
        !access.is_empty() && access.len() <= 3 && access.chars().all(|c| "rwm".contains(c));
    if words.next().is_some() || !matches!(kind, "a" | "b" | "c") || !letters {
        return None;
    }
    let mut value = json!({ "allow": true, "type": kind, "access": access });
    for (key, number) in [("major", number(major)?), ("minor", number(minor)?)] {
        if !number.is_null() {
            value[key] = number;
        }
    }
    Some(value)
}

fn node(path: &Path) -> Option<(&'static str, u32, u32)> {
    let meta = std::fs::metadata(path).ok()?;
    let kind = if meta.file_type().is_char_device() {
        "c"
    } else if meta.file_type().is_block_device() {
        "b"
    } else {
        return None;
    };
    Some((kind, major(meta.rdev()), minor(meta.rdev())))
}

/// A directory stands for the device nodes in it, at any depth.
fn expand(host: &str, container: &str) -> Vec<(PathBuf, PathBuf)> {
    let host = std::fs::canonicalize(host).unwrap_or_else(|_| PathBuf::from(host));
    if !host.is_dir() {
        return vec![(host, PathBuf::from(container))];
    }
    let mut all = Vec::new();
    let mut open = vec![(host, PathBuf::from(container))];
    while let Some((host, container)) = open.pop() {
        for entry in std::fs::read_dir(&host).into_iter().flatten().flatten() {
            let pair = (entry.path(), container.join(entry.file_name()));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(pair),
                Ok(kind) if kind.is_symlink() => {}
                _ => all.push(pair),
            }
        }
    }
    all.sort();
    all
}

/// Returns the device nodes to make: the user's, or all of the host's when privileged.
pub(super) fn nodes(spec: &ContainerSpec) -> Result<Vec<LinuxDevice>> {
    let mut all = Vec::new();
    for device in &spec.resources.devices {
        let pairs = expand(&device.host, &device.container);
        let found: Vec<_> = pairs.iter().filter_map(|(host, inside)| built(host, inside)).collect();
        if found.is_empty() {
            // COMPAT: dockerd's text.
            let is_there = Path::new(&device.host).exists();
            let why = if is_there { "not a device node" } else { "no such file or directory" };
            return Err(Error::Invalid(format!(
                "error gathering device information while adding custom device {:?}: {why}",
                device.host
            )));
        }
        all.extend(found);
    }
    if spec.security.privileged {
        all.extend(host_devices(&all));
    }
    Ok(all)
}

/// All device nodes of the host but those that every container has of its own.
fn host_devices(known: &[LinuxDevice]) -> Vec<LinuxDevice> {
    const OWN: [&str; 12] = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/console",
        "/dev/ptmx",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/.udev",
    ];
    expand("/dev", "/dev")
        .into_iter()
        .filter(|(host, _)| !OWN.iter().any(|own| host.starts_with(own)))
        .filter(|(_, inside)| !known.iter().any(|device| device.path() == inside))
        .filter_map(|(host, inside)| built(&host, &inside))
        .collect()
}

fn built(host: &Path, inside: &Path) -> Option<LinuxDevice> {
    let meta = std::fs::metadata(host).ok()?;
    let (kind, major, minor) = node(host)?;
    let kind = if kind == "c" { LinuxDeviceType::C } else { LinuxDeviceType::B };
    LinuxDeviceBuilder::default()
        .path(inside)
        .typ(kind)
        .major(i64::from(major))
        .minor(i64::from(minor))
        .file_mode(meta.mode() & 0o7777)
        .uid(meta.uid())
        .gid(meta.gid())
        .build()
        .ok()
}

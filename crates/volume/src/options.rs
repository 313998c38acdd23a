//! Options of local volumes: `type`, `device` and `o`, as for mount(8).

use std::net::{IpAddr, ToSocketAddrs};

use crate::contract::{Error, VolumeOptions};

/// `MS_RDONLY`
pub(crate) const RDONLY: u64 = 1;
/// `MS_REMOUNT`
pub(crate) const REMOUNT: u64 = 1 << 5;
/// `MS_BIND`
pub(crate) const BIND: u64 = 1 << 12;
/// `MS_REC`
pub(crate) const REC: u64 = 1 << 14;
/// `MS_UNBINDABLE`, `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`
pub(crate) const PROPAGATION: u64 = 0xf << 17;

/// LIMIT: `mount(2)` takes a page of options, and a path a page.
const MAX_TEXT: usize = 4095;

/// A mount as `mount(2)` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPlan {
    pub(crate) kind: String,
    pub(crate) device: String,
    pub(crate) flags: u64,
    /// `key=value` pairs for the file system.
    pub(crate) data: Vec<String>,
}

impl MountPlan {
    /// Reads options; `None` when there are none, so that nothing is mounted.
    pub(crate) fn parse(options: &VolumeOptions) -> Result<Option<Self>, Error> {
        if options.is_empty() {
            return Ok(None);
        }
        // COMPAT: dockerd's texts.
        let refused = |text: String| Err(Error::InvalidArgument(text));
        if let Some(key) =
            options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o" | "size"))
        {
            return refused(format!("invalid option: {key:?}"));
        }
        if !["type", "device", "o"].iter().any(|key| options.contains_key(*key)) {
            return Ok(None);
        }
        let required = |key: &str| {
            let value = options.get(key).filter(|value| !value.is_empty());
            value
                .cloned()
                .ok_or_else(|| Error::InvalidArgument(format!("missing required option: {key:?}")))
        };
        let (device, kind) = (required("device")?, required("type")?);
        let words = options.get("o").map_or("", String::as_str);
        if [&device, &kind, words].iter().any(|text| text.len() > MAX_TEXT || text.contains('\0')) {
            return refused(
                "a volume's mount options must be shorter than 4096 bytes and free of null bytes"
                    .to_owned(),
            );
        }
        let mut plan = Self { kind, device, flags: 0, data: Vec::new() };
        for word in words.split(',').filter(|word| !word.is_empty()) {
            match flag(word) {
                Some((bits, false)) => plan.flags |= bits,
                Some((bits, true)) => plan.flags &= !bits,
                None => plan.data.push(word.to_owned()),
            }
        }
        if plan.flags & BIND != 0 && !plan.device.starts_with('/') {
            return refused(format!(
                "the device of a bind must be an absolute path, not {:?}",
                plan.device
            ));
        }
        Ok(Some(plan))
    }

    /// Says the mount in dockerd's words; passwords are left out.
    pub(crate) fn words(&self, target: &str) -> String {
        let mut words = format!("mount {}:{target}", self.device);
        if self.flags != 0 {
            words.push_str(&format!(", flags: {:#x}", self.flags));
        }
        let shown = self.data.iter().map(|pair| match pair.split_once('=') {
            Some((key @ ("password" | "pass" | "password2"), _)) => format!("{key}=********"),
            _ => pair.clone(),
        });
        let shown: Vec<String> = shown.collect();
        if !shown.is_empty() {
            words.push_str(&format!(", data: {}", shown.join(",")));
        }
        words
    }

    /// The kernel knows no names of hosts: replaces that of a server by its address. Blocking.
    pub(crate) fn resolve_server(&mut self) -> std::io::Result<()> {
        if !matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3") {
            return Ok(());
        }
        for pair in &mut self.data {
            let Some(host) = pair.strip_prefix("addr=") else { continue };
            if host.parse::<IpAddr>().is_ok() {
                continue;
            }
            let address = (host, 0).to_socket_addrs()?.next();
            let missing = || std::io::Error::other(format!("{host} has no address"));
            *pair = format!("addr={}", address.ok_or_else(missing)?.ip());
        }
        Ok(())
    }
}

/// Reads the bound on a volume's size; `None` without one.
pub(crate) fn quota_size(options: &VolumeOptions) -> Result<Option<u64>, Error> {
    let Some(text) = options.get("size") else { return Ok(None) };
    // COMPAT: dockerd's text.
    let invalid = |_| Error::InvalidArgument(format!("invalid size: '{text}'"));
    let size = rorqual_core::units::parse_size(text).map_err(invalid)?;
    Ok((size > 0).then_some(size))
}

/// Returns the `MS_*` bits of a word of mount(8), and whether it clears them.
fn flag(word: &str) -> Option<(u64, bool)> {
    let clears = |bits| Some((bits, true));
    let sets = |bits| Some((bits, false));
    match word {
        "defaults" => sets(0),
        "ro" => sets(RDONLY),
        "rw" => clears(RDONLY),
        "nosuid" => sets(1 << 1),
        "suid" => clears(1 << 1),
        "nodev" => sets(1 << 2),
        "dev" => clears(1 << 2),
        "noexec" => sets(1 << 3),
        "exec" => clears(1 << 3),
        "sync" => sets(1 << 4),
        "async" => clears(1 << 4),
        "mand" => sets(1 << 6),
        "nomand" => clears(1 << 6),
        "dirsync" => sets(1 << 7),
        "noatime" => sets(1 << 10),
        "atime" => clears(1 << 10),
        "nodiratime" => sets(1 << 11),
        "diratime" => clears(1 << 11),
        "bind" => sets(BIND),
        "rbind" => sets(BIND | REC),
        "unbindable" => sets(1 << 17),
        "runbindable" => sets(1 << 17 | REC),
        "private" => sets(1 << 18),
        "rprivate" => sets(1 << 18 | REC),
        "slave" => sets(1 << 19),
        "rslave" => sets(1 << 19 | REC),
        "shared" => sets(1 << 20),
        "rshared" => sets(1 << 20 | REC),
        "relatime" => sets(1 << 21),
        "norelatime" => clears(1 << 21),
        "strictatime" => sets(1 << 24),
        "nostrictatime" => clears(1 << 24),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! Mount options as `mounts[].options` of a specification lists them.

use rorqual_sys::mount::{
    ATIME_MASK, MountAttributes, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW,
    Propagation, RDONLY, STRICTATIME,
};

/// Options sorted by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// `bind` gives `Some(false)`, `rbind` gives `Some(true)`.
    pub bind: Option<bool>,
    pub remount: bool,
    pub copy_up: bool,
    /// `idmap` gives `Some(false)`, `ridmap` gives `Some(true)`.
    pub idmap: Option<bool>,
    pub attributes: MountAttributes,
    pub recursive: MountAttributes,
    pub propagation: Option<(Propagation, bool)>,
    /// What concerns the file system rather than the mount: what was switched on or off, under the kernel's names.
    pub switches: Vec<Switch>,
    /// What is bound lies below the source (our own option `x-rorqual.subpath=PATH`).
    pub subpath: Option<String>,
    /// What is mounted is made of layers (our own option `x-rorqual.layers=PLAN`, with the plan as JSON).
    pub layers: Option<String>,
    /// What is left goes to the file system.
    pub data: Vec<(String, Option<String>)>,
}

/// An option of every file system, on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    /// The names by which `fsconfig(2)` turns it on and off; none where only `mount(2)` has it.
    names: Option<(&'static str, &'static str)>,
    /// `MS_*`
    flag: u64,
    on: bool,
}

const SYNC: (Option<(&str, &str)>, u64) = (Some(("sync", "async")), 1 << 4);
const MANDATORY: (Option<(&str, &str)>, u64) = (Some(("mand", "nomand")), 1 << 6);
const DIRSYNC: (Option<(&str, &str)>, u64) = (Some(("dirsync", "dirsync")), 1 << 7);
const SILENT: (Option<(&str, &str)>, u64) = (None, 1 << 15);
const VERSIONS: (Option<(&str, &str)>, u64) = (None, 1 << 23);
const LAZY: (Option<(&str, &str)>, u64) = (Some(("lazytime", "nolazytime")), 1 << 25);

impl MountOptions {
    /// Sorts options; later ones win.
    pub(super) fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            parsed.take(option);
        }
        parsed
    }

    /// Returns the file system's options as a new one takes them, and the flags that only `mount(2)` takes.
    pub(super) fn for_new(&self) -> (Vec<(String, Option<String>)>, u64) {
        let on = || self.switches.iter().filter(|switch| switch.on);
        let named = on().filter_map(|switch| Some((switch.names?.0.to_owned(), None)));
        let flags = on().filter(|switch| switch.names.is_none()).map(|switch| switch.flag);
        (named.chain(self.data.iter().cloned()).collect(), flags.fold(0, |all, one| all | one))
    }

    /// Returns the file system's options as one that is mounted already takes them.
    pub(super) fn for_change(&self) -> Vec<(String, Option<String>)> {
        let name = |switch: &Switch| {
            let (on, off) = switch.names?;
            Some((if switch.on { on } else { off }.to_owned(), None))
        };
        self.switches.iter().filter_map(name).chain(self.data.iter().cloned()).collect()
    }

    /// Names what a bind mount, which has no file system of its own, cannot have.
    pub(super) fn without_effect_on_binds(&self) -> Vec<String> {
        let text = |(key, value): &(String, Option<String>)| {
            value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"))
        };
        let mut names: Vec<String> = self.data.iter().map(text).collect();
        let on = self.switches.iter().filter(|switch| switch.on);
        names.extend(on.filter_map(|switch| Some(switch.names?.0.to_owned())));
        if self.copy_up {
            names.push("tmpcopyup".to_owned());
        }
        names
    }

    fn take(&mut self, option: &str) {
        if let Some((set, clear)) = attribute(option) {
            apply(&mut self.attributes, set, clear);
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            apply(&mut self.recursive, set, clear);
        } else if let Some(propagation) = propagation(option) {
            self.propagation = Some(propagation);
        } else if let Some(switch) = switch(option) {
            self.switches.retain(|known| known.flag != switch.flag);
            self.switches.push(switch);
        } else {
            self.take_special(option);
        }
    }

    fn take_special(&mut self, option: &str) {
        match option {
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            // What a mount has anyway, and what mount(8) keeps for itself.
            "" | "defaults" | "_netdev" | "auto" | "noauto" | "nofail" | "user" | "nouser" => {}
            _ if let Some(path) = option.strip_prefix("x-rorqual.subpath=") => {
                self.subpath = Some(path.to_owned());
            }
            _ if let Some(plan) = option.strip_prefix("x-rorqual.layers=") => {
                self.layers = Some(plan.to_owned());
            }
            _ => {
                let (key, value) = match option.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (option, None),
                };
                self.data.push((key.to_owned(), value));
            }
        }
    }
}

fn apply(attributes: &mut MountAttributes, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !set | clear;
}

/// Reads the options of every file system that are not attributes of a mount.
fn switch(option: &str) -> Option<Switch> {
    let ((names, flag), on) = match option {
        "sync" => (SYNC, true),
        "async" => (SYNC, false),
        "mand" => (MANDATORY, true),
        "nomand" => (MANDATORY, false),
        "dirsync" => (DIRSYNC, true),
        "silent" => (SILENT, true),
        "loud" => (SILENT, false),
        "iversion" => (VERSIONS, true),
        "noiversion" => (VERSIONS, false),
        "lazytime" => (LAZY, true),
        "nolazytime" => (LAZY, false),
        _ => return None,
    };
    Some(Switch { names, flag, on })
}

/// Returns which attributes an option sets and clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "nodev" => (NODEV, 0),
        "dev" => (0, NODEV),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "nosymfollow" => (NOSYMFOLLOW, 0),
        "symfollow" => (0, NOSYMFOLLOW),
        // The three ways of keeping access times are one field; zero is `relatime`.
        "noatime" => (NOATIME, ATIME_MASK),
        "strictatime" => (STRICTATIME, ATIME_MASK),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (0, ATIME_MASK),
        _ => return None,
    })
}

/// Reads `shared`, `rprivate` and their like.
pub(super) fn propagation(option: &str) -> Option<(Propagation, bool)> {
    let by_name = |name: &str| match name {
        "private" => Some(Propagation::Private),
        "shared" => Some(Propagation::Shared),
        "slave" => Some(Propagation::Slave),
        "unbindable" => Some(Propagation::Unbindable),
        _ => None,
    };
    by_name(option)
        .map(|how| (how, false))
        .or_else(|| option.strip_prefix('r').and_then(by_name).map(|how| (how, true)))
}

#[cfg(test)]
mod tests;

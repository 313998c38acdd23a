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
    /// What is bound lies below the source (our own option `x-rorqual.subpath=PATH`).
    pub subpath: Option<String>,
    /// What is left goes to the file system.
    pub data: Vec<(String, Option<String>)>,
}

impl MountOptions {
    /// Sorts options; later ones win.
    pub(super) fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            parsed.take(option);
        }
        parsed
    }

    fn take(&mut self, option: &str) {
        if let Some((set, clear)) = attribute(option) {
            apply(&mut self.attributes, set, clear);
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            apply(&mut self.recursive, set, clear);
        } else if let Some(propagation) = propagation(option) {
            self.propagation = Some(propagation);
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
            // What a mount has anyway, or what no file system of today looks at.
            "" | "defaults" | "async" | "nomand" | "noiversion" | "loud" | "nolazytime"
            | "silent" | "_netdev" | "auto" | "noauto" | "user" | "nouser" => {}
            _ if let Some(path) = option.strip_prefix("x-rorqual.subpath=") => {
                self.subpath = Some(path.to_owned());
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

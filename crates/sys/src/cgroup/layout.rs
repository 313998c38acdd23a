//! Which hierarchies the host has and where. Looked up once: they do not move while a host runs.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};

use super::Error;

/// Version of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// One hierarchy per controller. Hosts that also mount version 2 without useful controllers
    /// (hybrid) count as this.
    V1,
    /// One hierarchy for all.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// Controllers of version 1, or `name=…`; empty for version 2.
    pub(super) controllers: Vec<String>,
    /// Which group is at the mount point; more than `/` inside a container without cgroup namespace.
    pub(super) root: String,
    /// The directory of the mount point.
    pub(super) fd: OwnedFd,
}

/// The hierarchies of the host.
#[derive(Debug)]
pub struct Layout {
    version: Version,
    pub(super) hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Returns the layout of this host, as seen when a process first asks.
    pub fn current() -> Result<&'static Self, Error> {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        if let Some(known) = LAYOUT.get() {
            return Ok(known);
        }
        let text =
            std::fs::read_to_string("/proc/self/mountinfo").map_err(|_| Error::NotMounted)?;
        let layout = Self::from_mounts(&text)?;
        Ok(LAYOUT.get_or_init(|| layout))
    }

    /// Returns the version containers are put under.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the controllers containers can be limited by.
    pub fn controllers(&self) -> Vec<String> {
        match self.version {
            Version::V1 => {
                let all = self.hierarchies.iter().flat_map(|one| &one.controllers);
                all.filter(|name| !name.starts_with("name=")).cloned().collect()
            }
            Version::V2 => {
                let root = super::file::Directory::reopen(&self.hierarchies[0].fd, "");
                let text = root.and_then(|root| root.read("cgroup.controllers"));
                text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
            }
        }
    }

    /// Removes the group at `path` from every hierarchy where nothing is below or in it; a missing one is fine.
    pub fn remove_empty(&self, path: &str) {
        let relative = path.trim_matches('/');
        if relative.is_empty() || relative.split('/').any(|part| matches!(part, "." | ".." | "")) {
            return;
        }
        for hierarchy in &self.hierarchies {
            // The kernel refuses while the group is in use, and that is what the caller wants.
            let _ = rustix::fs::unlinkat(&hierarchy.fd, relative, rustix::fs::AtFlags::REMOVEDIR);
        }
    }

    fn from_mounts(mountinfo: &str) -> Result<Self, Error> {
        let mounts: Vec<_> = mountinfo.lines().filter_map(parse_mount).collect();
        let unified = mounts.iter().find(|mount| mount.controllers.is_empty());
        let has_v1 = mounts
            .iter()
            .any(|mount| mount.controllers.iter().any(|name| !name.starts_with("name=")));
        let (version, chosen): (_, Vec<&Mount>) = match unified {
            Some(unified) if !has_v1 => (Version::V2, vec![unified]),
            _ if has_v1 => {
                (Version::V1, mounts.iter().filter(|mount| !mount.controllers.is_empty()).collect())
            }
            _ => return Err(Error::NotMounted),
        };
        let mut hierarchies: Vec<Hierarchy> = Vec::with_capacity(chosen.len());
        for mount in chosen {
            // The same hierarchy may be mounted at several places; the first is as good as any.
            if hierarchies.iter().any(|known| known.controllers == mount.controllers) {
                continue;
            }
            if let Some(fd) = open_root(&mount.at) {
                hierarchies.push(Hierarchy {
                    controllers: mount.controllers.clone(),
                    root: mount.root.clone(),
                    fd,
                });
            }
        }
        if hierarchies.is_empty() {
            return Err(Error::NotMounted);
        }
        Ok(Self { version, hierarchies })
    }
}

fn open_root(path: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(OsStr::from_bytes(path.as_bytes()), flags, Mode::empty()).ok()
}

/// One cgroup line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    controllers: Vec<String>,
    at: String,
    root: String,
}

/// Options of a cgroup mount that are no controllers.
const OTHER_OPTIONS: [&str; 9] = [
    "rw",
    "ro",
    "clone_children",
    "noprefix",
    "xattr",
    "cpuset_v2_mode",
    "favordynmods",
    "nofavordynmods",
    "none",
];

fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let root = unescape(before.next()?);
    let at = unescape(before.next()?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    let controllers = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => options
            .split(',')
            .filter(|name| !OTHER_OPTIONS.contains(name) && !name.starts_with("release_agent="))
            .map(str::to_owned)
            .collect(),
        _ => return None,
    };
    // A version 1 mount without controllers and without a name cannot be told apart.
    (kind == "cgroup2" || !controllers.is_empty()).then_some(Mount { controllers, at, root })
}

/// Takes back the octal escapes of `/proc/self/mountinfo`.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests;

//! A group of version 2: one directory.

mod apply;
mod measure;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::events::OomEvents;
use super::file::{Directory, pair, write_once};
use super::layout::{Hierarchy, Layout};
use super::tree::{self, Place, Wait};
use super::{Error, PATIENCE, Resources, Stats, Warning};

pub(super) use apply::{io_weight, swap_alone, weight_of_shares};

/// A group of version 2.
#[derive(Debug)]
pub(super) struct Group {
    hierarchy: &'static Hierarchy,
    directory: Directory,
}

impl Group {
    pub(super) fn create(layout: &'static Layout, path: &str) -> Result<Self, Error> {
        let hierarchy = &layout.hierarchies[0];
        let root = tree::root(&hierarchy.fd);
        if let Some((parents, _)) = path.rsplit_once('/') {
            tree::make(root, parents)?;
        }
        enable_controllers(hierarchy, path)?;
        let directory = Directory::make(root, path)?;
        Ok(Self { hierarchy, directory })
    }

    pub(super) fn open(layout: &'static Layout, places: &[Place]) -> Result<Self, Error> {
        let hierarchy = &layout.hierarchies[0];
        let place = places.iter().find(|(controllers, _)| controllers.is_empty());
        let (_, path) = place.ok_or_else(|| Error::Description("no version 2 group".to_owned()))?;
        let directory = Directory::reopen(&hierarchy.fd, tree::below(path, &hierarchy.root))?;
        Ok(Self { hierarchy, directory })
    }

    pub(super) fn description(&self) -> String {
        format!("0::/{}\n", self.directory.path)
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.fd.as_fd()
    }

    pub(super) fn add(&self, pid: i32) -> Result<(), Error> {
        self.directory.write("cgroup.procs", &pid.to_string())
    }

    pub(super) fn enter(&self) -> io::Result<()> {
        write_once(self.directory.open_file("cgroup.procs", OFlags::WRONLY)?, b"0")
    }

    pub(super) fn processes(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        self.directory.processes(recursive)
    }

    pub(super) fn freeze(&self) -> Result<(), Error> {
        self.directory.write("cgroup.freeze", "1")?;
        let frozen = self.wait_for("frozen", 1, "not frozen");
        if frozen.is_err() {
            self.thaw()?;
        }
        frozen
    }

    pub(super) fn thaw(&self) -> Result<(), Error> {
        self.directory.write("cgroup.freeze", "0")
    }

    pub(super) fn is_frozen(&self) -> Result<bool, Error> {
        Ok(pair(&self.directory.read("cgroup.events")?, "frozen") == Some(1))
    }

    /// Waits until `key` of `cgroup.events` has `value`; the kernel notifies by a priority event.
    fn wait_for(&self, key: &str, value: u64, state: &'static str) -> Result<(), Error> {
        const FILE: &str = "cgroup.events";
        let deadline = Instant::now() + PATIENCE;
        let fault = |source: io::Error| self.directory.fault("watch", FILE, source);
        let fd = self.directory.open_file(FILE, OFlags::RDONLY).map_err(fault)?;
        loop {
            let mut text = [0_u8; 256];
            let length =
                rustix::io::pread(&fd, &mut text, 0).map_err(|source| fault(source.into()))?;
            let text = String::from_utf8_lossy(&text[..length]);
            if pair(&text, key) == Some(value) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Stuck { path: format!("/{}", self.directory.path), state });
            }
            let mut fds = [PollFd::new(&fd, PollFlags::PRI)];
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(source) => return Err(fault(source.into())),
            }
        }
    }

    pub(super) fn kill_all(&self) -> Result<(), Error> {
        // Since 5.14; it also works on the frozen, who would stay so for later comers.
        if self.directory.write_if_present("cgroup.kill", "1")? {
            self.directory.write_if_present("cgroup.freeze", "0")?;
            return Ok(());
        }
        if self.processes(true)?.is_empty() {
            return Ok(());
        }
        let frozen = self.freeze().is_ok();
        let mut wait = Wait::new();
        loop {
            let now = self.processes(true)?;
            now.iter().copied().for_each(tree::kill);
            // Frozen ones die at once here, unlike on version 1.
            if now.is_empty() || frozen || !wait.again() {
                return self.thaw();
            }
        }
    }

    pub(super) fn delete(&self) -> Result<(), Error> {
        tree::remove(tree::root(&self.hierarchy.fd), &self.directory.path)
    }

    pub(super) fn apply(&self, resources: &Resources) -> Result<Vec<Warning>, Error> {
        apply::apply(&self.directory, resources)
    }

    /// Returns the limit of memory in force; -1 for none.
    pub(super) fn memory_limit(&self) -> Option<i64> {
        let limit = self.directory.read_number("memory.max").ok()?;
        Some(limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1))
    }

    pub(super) fn stats(&self) -> Result<Stats, Error> {
        measure::stats(&self.directory)
    }

    pub(super) fn watch_oom(&self) -> Result<OomEvents, Error> {
        let directory = Directory::reopen(&self.directory.fd, "")?;
        let path = &self.directory.path;
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        // The root of the hierarchy counts nothing.
        let around = if above.is_empty() {
            None
        } else {
            let fd = Directory::reopen(&self.directory.fd, "..").ok();
            fd.map(|around| Directory { path: above.to_owned(), ..around })
        };
        OomEvents::v2(Directory { path: path.clone(), ..directory }, around)
    }

    pub(super) fn oom_kills(&self) -> Result<u64, Error> {
        let text = self.directory.read_if_present("memory.events")?.unwrap_or_default();
        Ok(pair(&text, "oom_kill").unwrap_or(0))
    }
}

/// Hands the root's controllers down to the parent of the group `path`.
fn enable_controllers(hierarchy: &'static Hierarchy, path: &str) -> Result<(), Error> {
    let root = Directory::reopen(&hierarchy.fd, "")?;
    let wanted = root.read("cgroup.controllers")?;
    let wanted: Vec<_> = wanted.split_whitespace().collect();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let has_all = |directory: &Directory| -> Result<bool, Error> {
        let enabled = directory.read("cgroup.subtree_control")?;
        let enabled: Vec<_> = enabled.split_whitespace().collect();
        Ok(wanted.iter().all(|name| enabled.contains(name)))
    };
    if !parent.is_empty() && has_all(&Directory::reopen(&hierarchy.fd, parent)?)? {
        return Ok(());
    }
    let levels = path.match_indices('/').map(|(at, _)| &path[..at]);
    for level in std::iter::once("").chain(levels) {
        let directory = Directory::reopen(&hierarchy.fd, level)?;
        if !has_all(&directory)? {
            enable(&directory, &wanted)?;
        }
    }
    Ok(())
}

fn enable(directory: &Directory, wanted: &[&str]) -> Result<(), Error> {
    const FILE: &str = "cgroup.subtree_control";
    let all: Vec<_> = wanted.iter().map(|name| format!("+{name}")).collect();
    match directory.write_raw(FILE, &all.join(" ")) {
        Ok(()) => return Ok(()),
        // In a container of our own kind the root group holds processes and so cannot have children
        // with controllers until they live in a leaf.
        Err(fault) if fault.raw_os_error() == Some(libc::EBUSY) && directory.path.is_empty() => {
            move_to_leaf(directory)?;
        }
        Err(_) => {}
    }
    // One by one, so that a controller that refuses does not keep the others away; a limit that needs
    // it says so later.
    for name in all {
        drop(directory.write_raw(FILE, &name));
    }
    Ok(())
}

/// Moves the processes of the root group into a group `init` below it.
fn move_to_leaf(root: &Directory) -> Result<(), Error> {
    let leaf = Directory::make(root.fd.as_fd(), "init")?;
    let mut wait = Wait::new();
    loop {
        let processes = root.processes(false)?;
        for pid in &processes {
            match leaf.write_raw("cgroup.procs", &pid.to_string()) {
                Err(fault) if fault.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(leaf.fault("move a process into", "cgroup.procs", fault));
                }
                _ => {}
            }
        }
        if processes.is_empty() || !wait.again() {
            return Ok(());
        }
    }
}

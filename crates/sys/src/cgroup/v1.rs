//! A group of version 1: one directory in each hierarchy.

mod apply;
mod measure;

use std::fmt::Write as _;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};

use super::events::OomEvents;
use super::file::{Directory, pair, write_once};
use super::layout::{Hierarchy, Layout};
use super::tree::{self, Place, Wait};
use super::{Error, Resources, Stats, Warning};

/// The group's directory in one hierarchy.
#[derive(Debug)]
struct Part {
    hierarchy: &'static Hierarchy,
    directory: Directory,
    /// The name by which a thread enters, made before a child needs it.
    tasks: String,
}

impl Part {
    fn new(hierarchy: &'static Hierarchy, path: &str) -> Self {
        let directory = Directory::below(tree::root(&hierarchy.fd), path);
        Self { hierarchy, tasks: directory.name("tasks").into_owned(), directory }
    }

    fn root(&self) -> BorrowedFd<'static> {
        tree::root(&self.hierarchy.fd)
    }

    /// Hierarchies that only have a name limit nothing; systemd uses one for its book-keeping.
    fn is_named(hierarchy: &Hierarchy) -> bool {
        hierarchy.controllers.iter().all(|name| name.starts_with("name="))
    }
}

/// A group of version 1.
#[derive(Debug)]
pub(super) struct Group {
    parts: Vec<Part>,
}

impl Group {
    pub(super) fn create(layout: &'static Layout, path: &str) -> Result<Self, Error> {
        let mut group = Self { parts: Vec::with_capacity(layout.hierarchies.len()) };
        let made = group.make_all(layout, path);
        if let Err(error) = made {
            // What exists elsewhere of a group that cannot exist everywhere is of no use.
            drop(group.delete());
            return Err(error);
        }
        Ok(group)
    }

    fn make_all(&mut self, layout: &'static Layout, path: &str) -> Result<(), Error> {
        for hierarchy in &layout.hierarchies {
            match tree::make(tree::root(&hierarchy.fd), path) {
                Ok(()) => {
                    let part = Part::new(hierarchy, path);
                    let is_cpuset = hierarchy.controllers.iter().any(|name| name == "cpuset");
                    let filled =
                        if is_cpuset { fill_cpuset(hierarchy, &part.directory) } else { Ok(()) };
                    self.parts.push(part);
                    filled?;
                }
                Err(_) if Part::is_named(hierarchy) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn open(layout: &'static Layout, places: &[Place]) -> Result<Self, Error> {
        let mut parts = Vec::with_capacity(layout.hierarchies.len());
        for hierarchy in &layout.hierarchies {
            let place = places.iter().find(|(controllers, _)| {
                controllers.iter().any(|name| hierarchy.controllers.contains(name))
            });
            let Some((_, path)) = place else { continue };
            parts.push(Part::new(hierarchy, tree::below(path, &hierarchy.root)));
        }
        // A group that is half removed can still be opened, to remove the other half.
        match parts.first() {
            Some(_) if parts.iter().any(|part| part.directory.has(".")) => Ok(Self { parts }),
            Some(part) => Err(part.directory.fault("open", "directory", io::ErrorKind::NotFound)),
            None => Err(Error::Description("no hierarchy of this host".to_owned())),
        }
    }

    pub(super) fn description(&self) -> String {
        self.parts.iter().enumerate().fold(String::new(), |mut text, (at, part)| {
            let names = part.hierarchy.controllers.join(",");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}:{names}:/{}", at + 1, part.directory.path);
            text
        })
    }

    /// Returns the group's directory in the hierarchy of `controller`.
    fn part(&self, controller: &str) -> Option<&Directory> {
        self.whole_part(controller).map(|part| &part.directory)
    }

    fn whole_part(&self, controller: &str) -> Option<&Part> {
        let has = |part: &&Part| part.hierarchy.controllers.iter().any(|name| name == controller);
        self.parts.iter().find(has)
    }

    /// Returns a directory whose list of processes is the group's.
    fn any(&self) -> &Directory {
        self.part("freezer")
            .or_else(|| self.part("pids"))
            .or_else(|| self.part("memory"))
            .unwrap_or(&self.parts[0].directory)
    }

    pub(super) fn add(&self, pid: i32) -> Result<(), Error> {
        let pid = pid.to_string();
        self.parts.iter().try_for_each(|part| part.directory.write("cgroup.procs", &pid))
    }

    /// Moves the calling thread by its own `tasks` entry: the kernel needs no lock over all forks of
    /// the host for that, whose taking costs milliseconds.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let tasks = rustix::fs::openat(part.root(), &part.tasks, flags, Mode::empty())?;
            write_once(tasks, b"0")
        })
    }

    pub(super) fn processes(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        self.any().processes(recursive)
    }

    fn freezer(&self) -> Result<&Directory, Error> {
        self.part("freezer").ok_or_else(|| {
            Error::Unsupported("the kernel has no freezer controller: cannot pause".to_owned())
        })
    }

    pub(super) fn freeze(&self) -> Result<(), Error> {
        let freezer = self.freezer()?;
        let mut wait = Wait::new();
        loop {
            // ORDER: asked again each time: a process forked while the group was freezing is only
            // caught by the next request.
            freezer.write("freezer.state", "FROZEN")?;
            if freezer.read("freezer.state")?.trim() == "FROZEN" {
                return Ok(());
            }
            if !wait.again() {
                freezer.write("freezer.state", "THAWED")?;
                return Err(Error::Stuck {
                    path: format!("/{}", freezer.path),
                    state: "not frozen",
                });
            }
        }
    }

    pub(super) fn thaw(&self) -> Result<(), Error> {
        self.freezer()?.write("freezer.state", "THAWED")
    }

    pub(super) fn is_frozen(&self) -> Result<bool, Error> {
        match self.part("freezer") {
            Some(freezer) => Ok(freezer.read("freezer.state")?.trim() == "FROZEN"),
            None => Ok(false),
        }
    }

    pub(super) fn kill_all(&self) -> Result<(), Error> {
        if self.processes(true)?.is_empty() {
            return Ok(());
        }
        // Standing still they cannot fork; without a freezer several rounds have to do.
        let frozen = self.freeze().is_ok();
        let mut signalled = Vec::new();
        let mut wait = Wait::new();
        loop {
            let now = self.processes(true)?;
            let fresh: Vec<_> = now.into_iter().filter(|pid| !signalled.contains(pid)).collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                tree::kill(pid);
                signalled.push(pid);
            }
            if !frozen && !wait.again() {
                return Err(Error::Stuck {
                    path: format!("/{}", self.any().path),
                    state: "forking",
                });
            }
        }
        // ORDER: also when it was frozen before us: the signal only works on the running.
        match self.part("freezer") {
            Some(freezer) => freezer.write("freezer.state", "THAWED"),
            None => Ok(()),
        }
    }

    pub(super) fn delete(&self) -> Result<(), Error> {
        let mut first = Ok(());
        for part in &self.parts {
            let removed = tree::remove(part.root(), &part.directory.path);
            if first.is_ok() {
                first = removed;
            }
        }
        first
    }

    pub(super) fn apply(&self, resources: &Resources) -> Result<Vec<Warning>, Error> {
        apply::apply(self, resources)
    }

    pub(super) fn stats(&self) -> Result<Stats, Error> {
        measure::stats(self)
    }

    fn memory(&self) -> Result<&Part, Error> {
        self.whole_part("memory")
            .ok_or_else(|| Error::Unsupported("the kernel has no memory controller".to_owned()))
    }

    pub(super) fn watch_oom(&self) -> Result<OomEvents, Error> {
        let memory = self.memory()?;
        OomEvents::v1(Part::new(memory.hierarchy, &memory.directory.path).directory)
    }

    pub(super) fn oom_kills(&self) -> Result<u64, Error> {
        let text = self.memory()?.directory.read("memory.oom_control")?;
        Ok(pair(&text, "oom_kill").unwrap_or(0))
    }
}

/// Gives a new group the processors and memory nodes of its parent: it takes no process before.
fn fill_cpuset(hierarchy: &'static Hierarchy, group: &Directory) -> Result<(), Error> {
    if is_filled(group)? {
        return Ok(());
    }
    let parents = group.path.match_indices('/').map(|(at, _)| &group.path[..at]);
    let mut from = Directory::reopen(&hierarchy.fd, "")?;
    for path in parents {
        let next = Directory::reopen(&hierarchy.fd, path)?;
        copy_cpuset(&from, &next)?;
        // From now on the kernel copies for groups made below.
        next.write_if_present("cgroup.clone_children", "1")?;
        from = next;
    }
    copy_cpuset(&from, group)
}

fn is_filled(group: &Directory) -> Result<bool, Error> {
    Ok(!group.read("cpuset.cpus")?.trim().is_empty()
        && !group.read("cpuset.mems")?.trim().is_empty())
}

fn copy_cpuset(from: &Directory, to: &Directory) -> Result<(), Error> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if to.read(file)?.trim().is_empty() {
            to.write(file, from.read(file)?.trim())?;
        }
    }
    Ok(())
}

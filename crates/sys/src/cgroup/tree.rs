//! Groups as directories: paths, making, walking, removing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::file::{Base, Directory};
use super::{Error, PATIENCE};

/// LIMIT: as the kernel's `PATH_MAX`, and far above any sane nesting.
const MAX_PATH: usize = 4096;
const MAX_DEPTH: usize = 64;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// One line of a description: controllers and a path without leading slash.
pub(super) type Place = (Vec<String>, String);

/// Returns `path` without empty parts and slashes at its ends.
///
/// # Errors
///
/// The root itself, and paths that would leave it.
pub(super) fn clean(path: &str) -> Result<String, Error> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let bad = parts.is_empty()
        || path.len() > MAX_PATH
        || parts.len() > MAX_DEPTH
        || parts.iter().any(|part| *part == ".." || part.contains(['\0', '\n']));
    if bad { Err(Error::Path(path.to_owned())) } else { Ok(parts.join("/")) }
}

/// Reads lines of the form `number:controllers:path`.
pub(super) fn parse_description(text: &str) -> Result<Vec<Place>, Error> {
    let wrong = || Error::Description(text.to_owned());
    let lines = text.lines().filter(|line| !line.is_empty());
    let places: Vec<Place> = lines
        .map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = fields.next().zip(fields.next()).ok_or_else(wrong)?;
            let controllers: Vec<_> =
                controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            // A process in the root group is described by a bare slash.
            let path =
                if path == "/" { String::new() } else { clean(path).map_err(|_| wrong())? };
            Ok((controllers, path))
        })
        .collect::<Result<_, Error>>()?;
    if places.is_empty() { Err(wrong()) } else { Ok(places) }
}

/// Returns `path` as seen below a mount point that shows `root`.
pub(super) fn below<'a>(path: &'a str, root: &str) -> &'a str {
    let root = root.trim_matches('/');
    match path.strip_prefix(root) {
        Some(rest) if !root.is_empty() && (rest.is_empty() || rest.starts_with('/')) => {
            rest.trim_start_matches('/')
        }
        _ => path,
    }
}

impl Directory {
    /// Opens the group `path` below `root`.
    pub(super) fn reopen(root: impl AsFd, path: &str) -> Result<Self, Error> {
        let name = if path.is_empty() { "." } else { path };
        match rustix::fs::openat(root, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Self { fd: Base::Own(fd), path: path.to_owned() }),
            Err(source) => Err(fault("open", path, source)),
        }
    }

    /// Refers to the group `path` below the root of a hierarchy, whether there is one or not.
    pub(super) fn below(root: BorrowedFd<'static>, path: &str) -> Self {
        Self { fd: Base::Root(root), path: path.to_owned() }
    }

    /// Makes and opens the group `path` below `root`.
    pub(super) fn make(root: BorrowedFd<'_>, path: &str) -> Result<Self, Error> {
        make(root, path)?;
        Self::reopen(root, path)
    }

    /// Lists the names of the groups below this one.
    fn children(&self) -> Result<Vec<String>, Error> {
        let list = || -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            let own = rustix::fs::openat(&self.fd, &*self.name("."), DIRECTORY, Mode::empty())?;
            for entry in Dir::new(own)? {
                let entry = entry?;
                if entry.file_type() != FileType::Directory {
                    continue;
                }
                match entry.file_name().to_str() {
                    Ok("." | "..") | Err(_) => {}
                    Ok(name) => names.push(name.to_owned()),
                }
            }
            Ok(names)
        };
        match list() {
            // A removed directory can no longer be read.
            Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
            other => other.map_err(|source| fault("list", &self.path, source)),
        }
    }

    fn child(&self, name: &str) -> Result<Option<Self>, Error> {
        let path = format!("{}/{name}", self.path);
        match rustix::fs::openat(&self.fd, &*self.name(name), DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd: Base::Own(fd), path })),
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(fault("open", &path, source)),
        }
    }

    /// Calls `visit` for this group and, with `recursive`, for all below it.
    pub(super) fn walk(
        &self,
        recursive: bool,
        visit: &mut dyn FnMut(&Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        visit(self)?;
        if recursive {
            for name in self.children()? {
                if let Some(child) = self.child(&name)? {
                    child.walk(true, visit)?;
                }
            }
        }
        Ok(())
    }

    /// Lists the processes of this group and, with `recursive`, of all below it.
    pub(super) fn processes(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        let mut all = Vec::new();
        self.walk(recursive, &mut |group| {
            let text = match group.read_raw("cgroup.procs") {
                Ok(text) => text,
                // Gone meanwhile, or a threaded group, whose processes its parent lists.
                Err(fault)
                    if matches!(
                        fault.raw_os_error(),
                        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
                    ) =>
                {
                    return Ok(());
                }
                Err(source) => return Err(group.fault("read", "cgroup.procs", source)),
            };
            // Zero stands for a process this pid namespace cannot see.
            all.extend(
                text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0),
            );
            Ok(())
        })?;
        Ok(all)
    }

    fn remove_children(&self) -> Result<(), Error> {
        for name in self.children()? {
            if let Some(child) = self.child(&name)? {
                child.remove_children()?;
                match rustix::fs::unlinkat(&self.fd, &*self.name(&name), AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT | Errno::BUSY) => {}
                    Err(source) => return Err(fault("remove", &child.path, source)),
                }
            }
        }
        Ok(())
    }
}

/// Makes the group `path` below `root`, with those above it; it may be there already.
pub(super) fn make(root: BorrowedFd<'_>, path: &str) -> Result<(), Error> {
    let mode = Mode::from_raw_mode(0o755);
    let made = match rustix::fs::mkdirat(root, path, mode) {
        Err(Errno::NOENT) => {
            make_parents(root, path)?;
            rustix::fs::mkdirat(root, path, mode)
        }
        other => other,
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(source) => Err(fault("make", path, source)),
    }
}

fn make_parents(root: BorrowedFd<'_>, path: &str) -> Result<(), Error> {
    for (at, _) in path.match_indices('/') {
        match rustix::fs::mkdirat(root, &path[..at], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(source) => return Err(fault("make", &path[..at], source)),
        }
    }
    Ok(())
}

/// Removes the group `path` and those below it, waiting for dying processes to leave.
pub(super) fn remove(root: BorrowedFd<'_>, path: &str) -> Result<(), Error> {
    if path.is_empty() {
        return Err(Error::Path("/".to_owned()));
    }
    let mut wait = Wait::new();
    loop {
        match rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {}
            Err(source) => return Err(fault("remove", path, source)),
        }
        match Directory::reopen(root, path) {
            Ok(group) => group.remove_children()?,
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if !wait.again() {
            return Err(Error::Stuck { path: format!("/{path}"), state: "busy" });
        }
    }
}

fn fault(action: &str, path: &str, source: impl Into<io::Error>) -> Error {
    Error::File {
        action: action.to_owned(),
        file: "directory".to_owned(),
        path: format!("/{path}"),
        source: source.into(),
    }
}

/// Waiting for a state the kernel has no notification for: short naps that grow, up to a deadline.
pub(super) struct Wait {
    deadline: Instant,
    nap: Duration,
}

impl Wait {
    pub(super) fn new() -> Self {
        Self { deadline: Instant::now() + PATIENCE, nap: Duration::from_micros(50) }
    }

    /// Naps; tells whether there is time to look again.
    pub(super) fn again(&mut self) -> bool {
        std::thread::sleep(self.nap);
        self.nap = (self.nap * 2).min(Duration::from_millis(10));
        Instant::now() < self.deadline
    }
}

/// Sends `SIGKILL` to a process.
pub(super) fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // A process that is gone meanwhile is what was wanted.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Borrows the root directory of a hierarchy.
pub(super) fn root(fd: &'static OwnedFd) -> BorrowedFd<'static> {
    fd.as_fd()
}

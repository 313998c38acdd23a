//! Furnishing the root file system, in the child's own mount namespace.

mod cgroup;
mod copy_up;

use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rorqual_sys::mount::{
    self, FsContext, MountAttributes, NODEV, NOEXEC, NOSUID, Propagation, RDONLY,
};
use rustix::fs::{FileType, OFlags};

use super::{Init, StepError, Tried};
use crate::inroot::InRoot;
use crate::plan::{FsPlan, SourceId, Step, mount_flags};
use crate::text::reason;

const PROC_MAGIC: i64 = 0x9fa0;
/// LIMIT: what fsconfig(2) takes as one value, less the final null.
const MAX_VALUE: usize = 255;

impl Init<'_> {
    pub(super) fn mounts(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::IsolateMounts => mount::set_propagation(Path::new("/"), Propagation::Slave, true)
                .tried(|| "cannot isolate mounts".into()),
            Step::Root { source, at } => self.attach_root(*source, at),
            Step::Bind { source, destination, proc_allowed } => {
                self.attach_bind(*source, destination, *proc_allowed)
            }
            Step::Mount(plan) => self.mount_file_system(plan),
            Step::CgroupHierarchies { destination, attributes, private, list } => {
                self.mount_cgroups(destination, *attributes, *private, list)
            }
            Step::Remount { destination, attributes, recursive } => {
                self.change(destination, attributes, *recursive)
            }
            Step::Reconfigure { destination, data } => self.reconfigure(destination, data),
            Step::Propagate { destination, how, recursive } => {
                let attributes = MountAttributes { propagation: how.bits(), ..Default::default() };
                self.change(destination, &attributes, *recursive)
            }
            Step::Mask(path) => self.mask(path),
            Step::ReadOnly(path) => self.freeze(path),
            Step::RootReadOnly => {
                let attributes = MountAttributes { set: RDONLY, ..Default::default() };
                mount::set_attributes(self.root()?.fd().as_fd(), &attributes, false)
                    .tried(|| "cannot make the root read-only".into())
            }
            Step::Pivot => self.pivot(),
            Step::MoveRoot => self.move_root(),
            Step::RootPropagation { how, recursive } => {
                mount::set_propagation(Path::new("/"), *how, *recursive)
                    .tried(|| "cannot set the propagation of the root".into())
            }
            _ => Ok(()),
        }
    }

    /// Attaches the root file system, as a rule on top of the present root.
    ///
    /// Looking up absolute host paths still starts below it, so both worlds stay reachable until the pivot.
    fn attach_root(&mut self, source: SourceId, at: &Path) -> Result<(), StepError> {
        let what = || "cannot attach the root file system".to_owned();
        let late = self.late_source(source)?;
        let root = late.as_ref().map_or_else(|| self.source(source), |fd| Ok(fd.as_fd()))?;
        mount::attach_at(root, at).tried(what)?;
        let root = rustix::io::fcntl_dupfd_cloexec(root, 3).tried(what)?;
        let private =
            MountAttributes { propagation: Propagation::Private.bits(), ..Default::default() };
        mount::set_attributes(root.as_fd(), &private, true).tried(what)?;
        self.root = Some(InRoot::new(root));
        Ok(())
    }

    fn attach_bind(
        &self,
        source: SourceId,
        destination: &Path,
        proc_allowed: bool,
    ) -> Result<(), StepError> {
        let late = self.late_source(source)?;
        let source = late.as_ref().map_or_else(|| self.source(source), |fd| Ok(fd.as_fd()))?;
        let what = || format!("error mounting to rootfs at {destination:?}");
        let stat = rustix::fs::fstat(source).tried(what)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let target = self.mount_point(destination, directory)?;
        if is_proc(target.as_fd()).tried(what)? {
            let from_proc = is_proc(source).tried(what)?;
            let whole = destination == Path::new("/proc");
            if !proc_allowed || whole && !from_proc {
                return Err(inside_proc(destination));
            }
            // A link could have led from an allowed name to a forbidden one.
            self.root()?.open_without_links(destination, OFlags::PATH).tried(what)?;
        }
        mount::attach(source, target.as_fd()).map_err(|error| not_mounted(destination, &error))
    }

    /// Opens the place to mount on, making it where it is missing.
    fn mount_point(&self, destination: &Path, directory: bool) -> Result<OwnedFd, StepError> {
        let root = self.root()?;
        let opened =
            if directory { root.directory(destination, 0o755) } else { root.file(destination) };
        opened.map_err(|error| not_mounted(destination, &error))
    }

    fn mount_file_system(&self, plan: &FsPlan) -> Result<(), StepError> {
        let FsPlan { kind, destination, .. } = plan;
        let what = || format!("error mounting {kind:?} to rootfs at {destination:?}");
        // ORDER: looked at before a missing one is made: then the file system keeps what it gives by itself.
        let mode = self.permissions(destination).tried(what)?;
        let target = self.mount_point(destination, true)?;
        if mode.is_none() && chooses_its_mode(plan) {
            // The next start of the same container finds the directory and must come to the same permissions.
            open_to_all(target.as_fd()).tried(what)?;
        }
        if matches!(kind.as_str(), "proc" | "sysfs") {
            // A link would let the image choose where the runtime and programs find the kernel's files.
            self.root()?.open_without_links(destination, OFlags::PATH).map_err(|_| {
                StepError::new(format!("filesystem {kind:?} must be mounted on ordinary directory"))
            })?;
        } else {
            refuse_proc(target.as_fd(), destination)?;
        }
        // ORDER: opened before anything covers it.
        let original = if plan.copy_up {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            Some(self.root()?.open(destination, flags).tried(what)?)
        } else {
            None
        };
        let long = |value: &Option<String>| value.as_ref().is_some_and(|v| v.len() > MAX_VALUE);
        let classic = plan.classic != 0 || plan.data.iter().any(|(_, value)| long(value));
        let made = if classic {
            mount_classic(plan, target.as_fd(), mode).tried(what)?;
            self.root()?.open(destination, OFlags::PATH).tried(what)?
        } else {
            match make_file_system(plan, mode) {
                Err(error) if mount::errno(&error) == Some(libc::EPERM) => substitute(plan, error),
                other => other,
            }
            .tried(what)?
        };
        if let Some(original) = original {
            copy_up::copy(&original, made.as_fd())
                .tried(|| format!("cannot copy the content of {destination:?}"))?;
        }
        if classic {
            return Ok(());
        }
        mount::attach(made.as_fd(), target.as_fd()).tried(what)
    }

    /// Returns the permissions of a directory that is there already.
    fn permissions(&self, path: &Path) -> io::Result<Option<u32>> {
        let Some(directory) = self.existing(path)? else { return Ok(None) };
        Ok(Some(rustix::fs::fstat(&directory)?.st_mode & 0o7777))
    }

    /// Changes options of a file system that is mounted.
    fn reconfigure(
        &self,
        destination: &Path,
        data: &[(String, Option<String>)],
    ) -> Result<(), StepError> {
        let what = || format!("cannot change the file system at {destination:?}");
        let target = self.root()?.open(destination, OFlags::PATH).tried(what)?;
        let context = FsContext::pick(target.as_fd()).tried(what)?;
        configure(&context, data).and_then(|()| context.reconfigure()).tried(what)
    }

    fn change(
        &self,
        destination: &Path,
        attributes: &MountAttributes,
        recursive: bool,
    ) -> Result<(), StepError> {
        let what = || format!("cannot change the mount at {destination:?}");
        let target = self.root()?.open(destination, OFlags::PATH).tried(what)?;
        mount::set_attributes(target.as_fd(), attributes, recursive).tried(what)
    }

    /// Hides a path: a directory behind an empty one, a file behind `/dev/null`.
    fn mask(&mut self, path: &PathBuf) -> Result<(), StepError> {
        let what = || format!("can't mask path {path:?}");
        let Some(target) = self.existing(path).tried(what)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&target).tried(what)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.mask_directory(target.as_fd()).tried(what);
        }
        let null = self.null.as_ref().ok_or_else(|| StepError::new(what()))?;
        let cover = mount::clone_tree_fd(null.as_fd(), false).tried(what)?;
        mount::attach(cover.as_fd(), target.as_fd()).tried(what)
    }

    /// Covers a directory with an empty one. The first is made, all others are copies of it.
    fn mask_directory(&mut self, target: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(empty) = &self.empty {
            let copy = mount::clone_tree_fd(empty.as_fd(), false)?;
            return mount::attach(copy.as_fd(), target);
        }
        let context = FsContext::open("tmpfs")?;
        context.set_string("source", b"tmpfs")?;
        context.set_string("nr_blocks", b"1")?;
        context.set_string("nr_inodes", b"2")?;
        let empty = context.create(RDONLY | NOSUID | NODEV | NOEXEC)?;
        mount::attach(empty.as_fd(), target)?;
        self.empty = Some(empty);
        Ok(())
    }

    /// Makes a path read-only by mounting it over itself.
    fn freeze(&self, path: &PathBuf) -> Result<(), StepError> {
        let what = || format!("can't make {path:?} read-only");
        let Some(target) = self.existing(path).tried(what)? else { return Ok(()) };
        let copy = mount::clone_tree_fd(target.as_fd(), true).tried(what)?;
        let attributes = MountAttributes { set: RDONLY, ..Default::default() };
        mount::set_attributes(copy.as_fd(), &attributes, false).tried(what)?;
        mount::attach(copy.as_fd(), target.as_fd()).tried(what)
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let root = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
        match root.open(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Sets a kernel parameter of the namespaces that the process is in.
    ///
    /// The host's `/proc` has an entry of the same name for every network namespace and looks through all of them, which
    /// takes longer with every container; one that has just been mounted has none.
    pub(super) fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        match self.own_sysctl(name) {
            Ok(file) => std::fs::File::from(file).write_all(value.as_bytes()),
            Err(_) => std::fs::write(format!("/proc/sys/{name}"), value),
        }
    }

    /// Opens a kernel parameter below the container's own `/proc`, if it has one that can be written to.
    fn own_sysctl(&self, name: &str) -> io::Result<OwnedFd> {
        let root = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let all = root.open(Path::new("/proc/sys"), OFlags::PATH | OFlags::DIRECTORY)?;
        // The image may have files of these names.
        if !is_proc(all.as_fd())? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let file = InRoot::new(all).open_without_links(Path::new(name), flags)?;
        if is_proc(file.as_fd())? { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn pivot(&self) -> Result<(), StepError> {
        rustix::process::fchdir(self.root()?.fd()).tried(|| "cannot enter the root".into())?;
        mount::pivot_to_working_directory().tried(|| "cannot pivot to the new root".into())
    }

    fn move_root(&self) -> Result<(), StepError> {
        let what = || "cannot change the root".to_owned();
        rustix::process::fchdir(self.root()?.fd()).tried(what)?;
        rustix::process::chroot(".").tried(what)?;
        rustix::process::chdir("/").tried(what)
    }
}

fn not_mounted(destination: &Path, error: &io::Error) -> StepError {
    let hint = match mount::errno(error) {
        // COMPAT: clients show this sentence to users who mount a directory over a file.
        Some(libc::ENOTDIR) => {
            ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path \
             exists and is the expected type"
        }
        _ => "",
    };
    let shown = destination.to_string_lossy();
    StepError::new(format!("error mounting to rootfs at {shown:?}: {}{hint}", reason(error)))
}

fn is_proc(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(mount::file_system_magic(file)? == PROC_MAGIC)
}

/// Refuses a place to mount on to which a link in the image has led: what is mounted inside `/proc` could make the runtime
/// write to files of the container's choice.
pub(super) fn refuse_proc(target: BorrowedFd<'_>, destination: &Path) -> Result<(), StepError> {
    let inside = is_proc(target).tried(|| format!("cannot examine {destination:?}"))?;
    if inside { Err(inside_proc(destination)) } else { Ok(()) }
}

fn inside_proc(destination: &Path) -> StepError {
    StepError::new(format!("{destination:?} cannot be mounted because it is inside /proc"))
}

/// Makes a detached file system. A tmpfs takes the permissions of the directory it covers unless told otherwise.
fn make_file_system(plan: &FsPlan, covered: Option<u32>) -> io::Result<OwnedFd> {
    let context = FsContext::open(&plan.kind)?;
    context.set_string("source", plan.source.as_bytes())?;
    configure(&context, &plan.data)?;
    if let Some(mode) = default_mode(plan, covered) {
        context.set_string("mode", mode.as_bytes())?;
    }
    context.create(mount_flags(plan.attributes))
}

fn configure(context: &FsContext, data: &[(String, Option<String>)]) -> io::Result<()> {
    data.iter().try_for_each(|(key, value)| match value {
        Some(value) => context.set_string(key, value.as_bytes()),
        None => context.set_flag(key),
    })
}

/// Gives a directory the permissions that the kernel gives a new tmpfs.
fn open_to_all(directory: BorrowedFd<'_>) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o1777))?)
}

/// Returns the permissions a tmpfs gets when nobody chose any and there is something to cover.
fn default_mode(plan: &FsPlan, covered: Option<u32>) -> Option<String> {
    covered.filter(|_| chooses_its_mode(plan)).map(|mode| format!("{mode:o}"))
}

/// Tells whether nobody else chose permissions of a tmpfs.
fn chooses_its_mode(plan: &FsPlan) -> bool {
    plan.kind == "tmpfs" && !plan.data.iter().any(|(key, _)| key == "mode")
}

/// Some file systems cannot be made in a user namespace without the network or cgroup namespace to match: the host's
/// own is shown instead, with the same attributes.
fn substitute(plan: &FsPlan, error: io::Error) -> io::Result<OwnedFd> {
    let (path, recursive) = match plan.kind.as_str() {
        "sysfs" => ("/sys", true),
        "cgroup2" => ("/sys/fs/cgroup", false),
        _ => return Err(error),
    };
    let tree = mount::clone_tree(Path::new(path), recursive)?;
    let attributes = MountAttributes { set: plan.attributes, ..Default::default() };
    mount::set_attributes(tree.as_fd(), &attributes, false)?;
    Ok(tree)
}

/// Mounts with `mount(2)`, whose options may be a page long and which has flags of its own.
fn mount_classic(plan: &FsPlan, target: BorrowedFd<'_>, covered: Option<u32>) -> io::Result<()> {
    let mut data: Vec<String> = plan
        .data
        .iter()
        .map(|(key, value)| value.as_ref().map_or(key.clone(), |value| format!("{key}={value}")))
        .collect();
    if let Some(mode) = default_mode(plan, covered) {
        data.push(format!("mode={mode}"));
    }
    let flags = plan.classic | mount::classic_flags(plan.attributes);
    let path = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
    mount::mount_classic(&plan.source, &path, &plan.kind, flags, data.join(",").as_bytes())
}

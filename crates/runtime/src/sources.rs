//! Opens what a plan needs of the host: detached mounts and namespaces, before the clone and with the host's rights.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rorqual_core::mount::{OverlayPlan, RootfsPlan};
use rorqual_sys::mount::{self, FsContext, MountAttributes, Propagation, RDONLY};
use rorqual_sys::namespace::Namespaces;
use rorqual_sys::path::{Follow, Root};
use rorqual_sys::process::{self, CloneOptions, Cloned};
use rorqual_sys::userns;
use rustix::fs::{CWD, Mode, OFlags};

use crate::channel::{self, Report};
use crate::plan::{IdmapPlan, InitPlan, SourcePlan};
use crate::request::{Joined, Namespace};
use crate::{Error, StartFailure, users};

/// LIMIT: what fsconfig(2) takes as one value, less the final null.
const MAX_VALUE: usize = 255;
/// LIMIT: what mount(2) takes as options, less the final null; it cuts off the rest without a word.
const MAX_DATA: usize = 4095;

/// Who opens the mounts of a plan, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The parent, beforehand.
    AtOnce,
    /// The parent, bind mounts one by one when their turn comes.
    BindsInTurn,
    /// The child, which has rights in its user namespace that the parent has not.
    ByChild,
}

/// Opens the sources of a plan, detached mounts and namespaces, in order; leaves out those whose time is later.
pub(crate) fn open_all(
    plan: &InitPlan,
    given: Vec<Joined>,
    opening: Opening,
) -> Result<Vec<Option<OwnedFd>>, Error> {
    let mut opener = Opener { layers: plan.users.as_ref(), ..Opener::default() };
    let user = given.iter().find(|joined| joined.kind == Namespace::User);
    if let (Some(user), Some(map)) = (user, &plan.users) {
        let fd = user.fd.try_clone().map_err(|error| failed("copy a descriptor".into(), error))?;
        opener.users.push((map.uids.clone(), map.gids.clone(), fd));
    }
    opener.given = given.into_iter().map(|joined| Some(joined.fd)).collect();
    let late = |source: &SourcePlan| match source {
        SourcePlan::Bind { .. } => opening != Opening::AtOnce,
        SourcePlan::Rootfs(_) | SourcePlan::Part { .. } => opening == Opening::ByChild,
        SourcePlan::Namespace(_) | SourcePlan::Given(_) => false,
    };
    let each = plan.sources.iter();
    each.map(|source| if late(source) { Ok(None) } else { opener.open(source).map(Some) }).collect()
}

/// Opens one source, when the child has come to it.
pub(crate) fn open_late(plan: &InitPlan, index: usize) -> Result<OwnedFd, Error> {
    let source = plan
        .sources
        .get(index)
        .ok_or_else(|| Error::InvalidSpec("init wants what is not there".into()))?;
    Opener { layers: plan.users.as_ref(), ..Opener::default() }.open(source)
}

/// What sources of one plan have in common.
#[derive(Default)]
struct Opener<'a> {
    given: Vec<Option<OwnedFd>>,
    /// How layers are shown.
    layers: Option<&'a IdmapPlan>,
    /// User namespaces by their maps, each made once.
    users: Vec<(String, String, OwnedFd)>,
}

/// Whom layers are shown as belonging to: the user namespace, and its root on the host.
type LayerUsers<'a> = Option<(BorrowedFd<'a>, (u32, u32))>;

impl Opener<'_> {
    fn open(&mut self, source: &SourcePlan) -> Result<OwnedFd, Error> {
        match source {
            SourcePlan::Rootfs(RootfsPlan::Directory { path }) => mount::clone_tree(path, true)
                .map_err(|source| failed(format!("open root file system {path:?}"), source)),
            SourcePlan::Rootfs(RootfsPlan::Overlay(plan)) => self
                .layer_users()
                .and_then(|users| open_overlay_for(plan, users))
                .map_err(|source| failed("mount the overlay root file system".into(), source)),
            SourcePlan::Bind { path, subpath, idmap, .. } => {
                let user = idmap.as_ref().map(|map| self.user_namespace(map)).transpose();
                user.and_then(|user| open_bind(source, user)).map_err(|error| {
                    let shown =
                        subpath.as_ref().map_or_else(|| path.clone(), |below| path.join(below));
                    failed(format!("bind mount source {shown:?}"), error)
                })
            }
            SourcePlan::Part { whole, subpath } => self
                .layer_users()
                .and_then(|users| open_part(whole, subpath, users))
                .map_err(|source| failed(format!("mount {subpath:?} of an image"), source)),
            SourcePlan::Namespace(path) => {
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|error| failed(format!("open namespace {path:?}"), error.into()))
            }
            SourcePlan::Given(index) => self
                .given
                .get_mut(*index)
                .and_then(Option::take)
                .ok_or_else(|| Error::InvalidSpec("namespace descriptor is missing".into())),
        }
    }

    fn layer_users(&mut self) -> io::Result<LayerUsers<'_>> {
        let Some(map) = self.layers else { return Ok(None) };
        let root = users::root_of(map).ok_or_else(|| {
            io::Error::other("layers need a map in which user and group 0 have a place")
        })?;
        Ok(Some((self.user_namespace(map)?, root)))
    }

    fn user_namespace(&mut self, map: &IdmapPlan) -> io::Result<BorrowedFd<'_>> {
        let known =
            self.users.iter().position(|(uids, gids, _)| *uids == map.uids && *gids == map.gids);
        let at = match known {
            Some(at) => at,
            None => {
                let fd = userns::make(&map.uids, &map.gids)?;
                self.users.push((map.uids.clone(), map.gids.clone(), fd));
                self.users.len() - 1
            }
        };
        Ok(self.users[at].2.as_fd())
    }
}

fn failed(action: String, source: io::Error) -> Error {
    Error::Os { action, source }
}

fn open_bind(source: &SourcePlan, user: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let SourcePlan::Bind { path, subpath, recursive, attributes, recursive_attributes, idmap } =
        source
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let tree = match clone_below(path, subpath.as_deref(), *recursive) {
        // The kernel copies no mounts of another mount namespace, such as a container's own /dev/shm.
        Err(error) if mount::errno(&error) == Some(libc::EINVAL) && subpath.is_none() => {
            clone_of_process(path, *recursive).unwrap_or(Err(error))
        }
        other => other,
    }?;
    if let (Some(map), Some(user)) = (idmap, user) {
        mount::set_idmap(tree.as_fd(), user, map.recursive).map_err(unmappable)?;
    }
    for (attributes, recursive) in [(attributes, false), (recursive_attributes, true)] {
        if *attributes != MountAttributes::default() {
            mount::set_attributes(tree.as_fd(), attributes, recursive)?;
        }
    }
    Ok(tree)
}

/// The kernel says no more than "invalid argument" of a file system that cannot do it.
fn unmappable(error: io::Error) -> io::Error {
    match mount::errno(&error) {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => io::Error::other(
            "the file system it lies on cannot map ids (an id-mapped mount); bind it without idmap",
        ),
        _ => error,
    }
}

/// Puts layers together, and opens a part of them that no link leads out of.
///
/// Kernels before 6.15 copy no part of a mount that is in no namespace, so it gets one for a while.
fn open_part(whole: &RootfsPlan, subpath: &Path, users: LayerUsers<'_>) -> io::Result<OwnedFd> {
    let plan = match whole {
        RootfsPlan::Directory { path } => return clone_below(path, Some(subpath), false),
        RootfsPlan::Overlay(plan) => plan,
    };
    let tree = aside(Namespaces::MOUNT, || {
        mount::set_propagation(Path::new("/"), Propagation::Private, true)?;
        let at = plan.lower.first().ok_or(io::ErrorKind::InvalidInput)?;
        let whole = match users {
            Some(users) => open_overlay_mapped(plan, users),
            None => open_overlay(plan),
        }?;
        mount::attach_at(whole.as_fd(), at)?;
        clone_below(at, Some(subpath), false)
    })?;
    if plan.upper.is_none() {
        let attributes = MountAttributes { set: RDONLY, ..MountAttributes::default() };
        mount::set_attributes(tree.as_fd(), &attributes, false)?;
    }
    Ok(tree)
}

/// Copies the mount at `path`, or at a path inside it that no link leads out of.
fn clone_below(path: &Path, subpath: Option<&Path>, recursive: bool) -> io::Result<OwnedFd> {
    let Some(subpath) = subpath else { return mount::clone_tree(path, recursive) };
    let below = Root::open(path)?.open_handle(subpath, Follow::Yes)?;
    mount::clone_tree_fd(below.as_fd(), recursive)
}

/// Writes the id maps of a process in a new user namespace.
pub(crate) fn write_maps(pid: i32, uids: &str, gids: &str) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        // An unprivileged user may map only himself, and must give up setgroups(2) for it.
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    std::fs::write(format!("/proc/{pid}/gid_map"), gids)?;
    std::fs::write(format!("/proc/{pid}/uid_map"), uids)
}

fn open_overlay_for(plan: &OverlayPlan, users: LayerUsers<'_>) -> io::Result<OwnedFd> {
    match users {
        None => open_overlay(plan),
        Some(users) => aside(Namespaces::MOUNT, || {
            mount::set_propagation(Path::new("/"), Propagation::Private, true)?;
            open_overlay_mapped(plan, users)
        }),
    }
}

/// Puts layers together that show their ids by the map of a user namespace, the writable one too: on the disk all is as
/// without.
///
/// In a mount namespace of its own, for the mapped layers take the places of those they are made of: kernels before 6.15
/// put nothing together that is in no namespace.
fn open_overlay_mapped(
    plan: &OverlayPlan,
    (user, (uid, gid)): (BorrowedFd<'_>, (u32, u32)),
) -> io::Result<OwnedFd> {
    // The kernel wants both writable directories on one mount.
    let writable = plan.upper.as_ref().map(|upper| upper.upper.parent().unwrap_or(&upper.upper));
    for path in plan.lower.iter().map(PathBuf::as_path).chain(writable) {
        let tree = mount::clone_tree(path, false)?;
        mount::set_idmap(tree.as_fd(), user, false).map_err(unmappable)?;
        mount::attach_at(tree.as_fd(), path)?;
    }
    // ORDER: before the overlay is made, which remembers who made it and makes its own files as that user; the host's has
    // no place in the map.
    userns::access_files_as(uid, gid)?;
    open_overlay(plan)
}

fn open_overlay(plan: &OverlayPlan) -> io::Result<OwnedFd> {
    if let ([only], None) = (plan.lower.as_slice(), &plan.upper) {
        // The kernel wants two layers or more; one alone needs no overlay.
        let tree = mount::clone_tree(only, false)?;
        let attributes = MountAttributes { set: RDONLY, ..MountAttributes::default() };
        mount::set_attributes(tree.as_fd(), &attributes, false)?;
        return Ok(tree);
    }
    if !mount::overlay_takes_layers() {
        return overlay_by_list(plan);
    }
    match overlay_by_layers(plan) {
        Err(error) if mount::errno(&error) == Some(libc::EINVAL) => overlay_by_list(plan),
        other => other,
    }
}

fn overlay_by_layers(plan: &OverlayPlan) -> io::Result<OwnedFd> {
    let context = FsContext::open("overlay")?;
    context.set_string("source", b"overlay")?;
    let mut handles = Vec::new();
    for layer in &plan.lower {
        set_path(&context, "lowerdir+", layer, &mut handles)?;
    }
    if let Some(upper) = &plan.upper {
        set_path(&context, "upperdir", &upper.upper, &mut handles)?;
        set_path(&context, "workdir", &upper.work, &mut handles)?;
    }
    for option in &plan.options {
        set_option(&context, option)?;
    }
    context.create(if plan.upper.is_none() { RDONLY } else { 0 })
}

/// Gives a directory by its path, or by a descriptor's where the path is too long.
fn set_path(
    context: &FsContext,
    key: &str,
    path: &Path,
    handles: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= MAX_VALUE {
        return context.set_string(key, bytes);
    }
    let handle = directory(path)?;
    context.set_string(key, descriptor_path(handle.as_fd()).as_bytes())?;
    handles.push(handle);
    Ok(())
}

fn set_option(context: &FsContext, option: &str) -> io::Result<()> {
    match option.split_once('=') {
        Some((key, value)) => context.set_string(key, value.as_bytes()),
        None => context.set_flag(option),
    }
}

/// For kernels before 6.5, whose newer calls take no list of layers that is longer than a few names.
///
/// `mount(2)` takes a page of options, but only together with a place to mount at: a child process does it in a mount
/// namespace of its own and sends the mount.
fn overlay_by_list(plan: &OverlayPlan) -> io::Result<OwnedFd> {
    aside(Namespaces::MOUNT, || mount_aside(plan))
}

/// Opens `/proc/PID/root/…` from inside that process's mount namespace; `None` for other paths.
fn clone_of_process(path: &Path, recursive: bool) -> Option<io::Result<OwnedFd>> {
    let rest = path.strip_prefix("/proc").ok()?;
    let mut parts = rest.components();
    let pid: u32 = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    let inside = parts.as_path().strip_prefix("root").ok()?;
    let inside = Path::new("/").join(inside);
    Some(aside(Namespaces::empty(), || {
        let at = format!("/proc/{pid}/ns/mnt");
        let namespace = rustix::fs::open(at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // ORDER: only behind this is the path the container's own, and its links lead nowhere else.
        rorqual_sys::namespace::join(namespace.as_fd(), Namespaces::MOUNT)?;
        mount::clone_tree(&inside, recursive)
    }))
}

/// Opens a mount in a process of its own, which may be in other namespaces than this one.
fn aside(
    namespaces: Namespaces,
    open: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let (ours, theirs) = crate::channel::pair()?;
    let options = CloneOptions { namespaces, ..CloneOptions::default() };
    match process::clone_process(&options)? {
        Cloned::Child => {
            drop(ours);
            let report = match open() {
                Ok(tree) => Report::Mounted(tree),
                Err(error) => Report::Failed {
                    failure: StartFailure::Other,
                    message: crate::text::reason(&error),
                },
            };
            // The parent sees the end of the conversation if this fails.
            let _ = channel::send_report(theirs.as_fd(), &report);
            process::exit_now(0)
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            let report = channel::receive_report(ours.as_fd());
            process::wait_pidfd(pidfd.as_fd())?;
            match report? {
                Report::Mounted(tree) => Ok(tree),
                Report::Failed { message, .. } => Err(io::Error::other(message)),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// Mounts an overlay in this process' own mount namespace and detaches a copy.
fn mount_aside(plan: &OverlayPlan) -> io::Result<OwnedFd> {
    mount::set_propagation(Path::new("/"), Propagation::Private, true)?;
    // ORDER: the layers are opened here because the kernel refuses those of another mount namespace.
    let handles: Vec<OwnedFd> =
        plan.lower.iter().map(|path| directory(path)).collect::<io::Result<_>>()?;
    let list: Vec<String> = handles.iter().map(|fd| descriptor_path(fd.as_fd())).collect();
    let mut options = vec![format!("lowerdir={}", list.join(":")).into_bytes()];
    if let Some(upper) = &plan.upper {
        for (key, path) in [("upperdir=", &upper.upper), ("workdir=", &upper.work)] {
            options.push([key.as_bytes(), escape(path).as_slice()].concat());
        }
    }
    options.extend(plan.options.iter().map(|option| quoted(option).into_bytes()));
    let data = options.join(&b","[..]);
    if data.len() > MAX_DATA {
        return Err(io::Error::other("too many layers for this kernel"));
    }
    let at = plan.lower.first().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = if plan.upper.is_none() { RDONLY } else { 0 };
    mount::mount_classic("overlay", at, "overlay", flags, &data)?;
    mount::clone_tree(at, false)
}

/// Labels have commas of their own, which security modules keep in quotes.
fn quoted(option: &str) -> String {
    match option.split_once('=') {
        Some(("context", label)) => format!("context=\"{label}\""),
        _ => option.to_owned(),
    }
}

/// Overlay splits its options at commas and lists at colons, unless escaped.
fn escape(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

//! The base layer below every container: what the runtime mounts over, so that mounting changes nothing in a container.
//!
//! It lies below the image's layers: where an image has one of these names itself (whatever its kind), the image's shows.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rorqual_sys::path::Dir;
use rustix::fs::Timespec;

/// Name of its directory; a change of what is in it takes a new name.
const NAME: &str = "base-1";
/// COMPAT: what dockerd prepares in every container.
const DIRECTORIES: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
const FILES: [&str; 5] =
    [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Returns the base layer's tree, made if it is not there yet.
pub(crate) fn ensure(layers: &Path) -> io::Result<PathBuf> {
    let tree = layers.join(NAME).join("fs");
    if tree.is_dir() {
        return Ok(tree);
    }
    let home = Dir::open(layers)?;
    let ingest = crate::layer::unique(".ingest-");
    home.mkdir(OsStr::new(&ingest), 0o700)?;
    fill(&home.child(OsStr::new(&ingest))?)?;
    match home.rename(OsStr::new(&ingest), &home, OsStr::new(NAME)) {
        Ok(()) => {}
        Err(_) if tree.is_dir() => home.remove_tree(OsStr::new(&ingest))?,
        Err(error) => return Err(error),
    }
    Ok(tree)
}

fn fill(dir: &Dir) -> io::Result<()> {
    dir.mkdir(OsStr::new("fs"), 0o755)?;
    let root = rorqual_sys::path::Root::from_fd(dir.child(OsStr::new("fs"))?.into());
    for path in DIRECTORIES {
        root.mkdirs(Path::new(path), 0o755)?;
    }
    for path in FILES {
        let (parent, name) = root.parent(Path::new(path))?;
        parent.create(name)?;
        parent.chmod(name, 0o755)?;
    }
    let (etc, mtab) = root.parent(Path::new("etc/mtab"))?;
    etc.symlink(mtab, OsStr::new("/proc/mounts"))?;
    let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
    for path in DIRECTORIES {
        let (parent, name) = root.parent(Path::new(path))?;
        parent.set_mtime(name, epoch)?;
    }
    Ok(())
}

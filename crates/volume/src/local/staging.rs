//! Data on their way into or out of a volume. What is not whole lies in `<root>/.staging` and is nobody's volume:
//!
//! ```text
//! .staging/new-TOKEN      a volume that is being copied or imported
//! .staging/fill-NAME      an image's content on its way into an empty volume
//! .staging/filled-NAME    the same, whole: it is moved in, at the next start at the latest
//! .staging/trash-NAME     a removed volume whose record may still be there
//! .staging/gone-N         what nothing refers to any more
//! ```
//!
//! INVARIANT: a name in `.staging` changes its meaning only by a rename.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rorqual_core::VolumeName;
use rorqual_store::blocking;
use rorqual_sys::feed::{self, Feed};
use rorqual_sys::path::Dir;
use rustix::fs::RenameFlags;

use super::{Local, failed};
use crate::archive::export::{digests, export};
use crate::archive::import::{Base, import};
use crate::archive::{ChunkSet, Header};
use crate::contract::Error;
use crate::progress::Progress;
use crate::tree::copy::copy;

const STAGING: &str = ".staging";

static GONE: AtomicU64 = AtomicU64::new(0);

/// A volume in the making; see [`Local::stage`].
#[derive(Clone, Debug)]
pub struct Staged {
    token: String,
    data: PathBuf,
}

impl Staged {
    /// Returns what identifies it, also for the next daemon.
    pub fn token(&self) -> &str {
        &self.token
    }
}

fn open(path: &Path) -> Result<Dir, Error> {
    Dir::open(path).map_err(failed("open", path))
}

impl Local {
    fn staging(&self) -> PathBuf {
        self.root.join(STAGING)
    }

    fn ensure_staging(&self) -> Result<PathBuf, Error> {
        let path = self.staging();
        let made = DirBuilder::new().recursive(true).mode(0o701).create(&self.root);
        let made = made.and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(&path));
        made.map_err(failed("make", &path)).map(|()| path)
    }

    /// Makes the directory of a volume in the making. `token` must be new.
    pub async fn stage(&self, token: String) -> Result<Staged, Error> {
        let home = self.ensure_staging()?.join(format!("new-{token}"));
        let data = home.join("_data");
        blocking(move || {
            super::make_directory(&data)?;
            Ok(Staged { token, data })
        })
        .await
    }

    /// Copies all files of the directory `source` into it, and has the disk keep them.
    pub async fn copy_into(
        &self,
        staged: &Staged,
        source: PathBuf,
        progress: Progress,
    ) -> Result<(), Error> {
        let data = staged.data.clone();
        blocking(move || {
            let target = open(&data)?;
            copy(&open(&source)?, &target, &progress)?;
            flush(&target, &data)
        })
        .await
    }

    /// Reads an archive into it, verifies it, and has the disk keep it. `base` is the data of the volume that an
    /// incremental archive builds on.
    pub async fn import_into(
        &self,
        staged: &Staged,
        archive: Box<dyn Read + Send>,
        base: Option<PathBuf>,
        progress: Progress,
    ) -> Result<Header, Error> {
        let data = staged.data.clone();
        blocking(move || {
            let base = base.map(|base| Base::learn(&open(&base)?, &Progress::default()));
            let base = base.transpose()?;
            let target = open(&data)?;
            let archive = io::BufReader::with_capacity(1 << 20, archive);
            let header = import(&target, archive, base.as_ref(), &progress)?;
            flush(&target, &data)?;
            Ok(header)
        })
        .await
    }

    /// Turns it into the volume `name`, whose record says so already. Doing so again is fine.
    pub async fn publish(&self, token: &str, name: &VolumeName) -> Result<(), Error> {
        let from = self.staging().join(format!("new-{token}"));
        let to = self.root.join(name.as_str());
        blocking(move || {
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, flags) {
                Ok(()) => Ok(()),
                Err(rustix::io::Errno::NOENT) if to.exists() => Ok(()),
                Err(error) => Err(failed("publish", &to)(error.into())),
            }
        })
        .await
    }

    /// Refuses a name for a new volume under which there are data already, though no record.
    pub async fn check_free(&self, name: &VolumeName) -> Result<(), Error> {
        let path = self.root.join(name.as_str());
        let taken = blocking(move || path.exists().then_some(path)).await;
        match taken {
            Some(path) => Err(Error::Conflict(format!(
                "{} exists, though it belongs to no volume; move it away first",
                path.display()
            ))),
            None => Ok(()),
        }
    }

    /// Takes a volume in the making back.
    pub async fn unstage(&self, token: &str) {
        self.discard(OsString::from(format!("new-{token}"))).await;
    }

    /// Opens the archive of a directory, produced while it is read; dropping it ends that.
    pub fn export(
        &self,
        source: PathBuf,
        header: Header,
        have: ChunkSet,
        progress: Progress,
    ) -> Result<Feed, Error> {
        let shown = source.clone();
        let feed = feed::produce("volume-export", move |sink| {
            let _guard = progress.guard();
            let source = open(&source).map_err(io::Error::other)?;
            export(&source, &header, &have, sink, &progress).map_err(io::Error::other)
        });
        feed.map_err(failed("export", &shown))
    }

    /// Returns the digests of all chunks of a directory's files.
    pub async fn digests(&self, source: PathBuf, progress: Progress) -> Result<ChunkSet, Error> {
        blocking(move || digests(&open(&source)?, &progress)).await
    }

    /// Makes the directory into which a volume's first content goes; `None` where it must be copied in place, because
    /// something is mounted there.
    pub async fn begin_fill(&self, name: &VolumeName) -> Result<Option<PathBuf>, Error> {
        let (staging, data) = (self.ensure_staging()?, self.mountpoint(name));
        let fill = staging.join(format!("fill-{name}"));
        let mounter = std::sync::Arc::clone(&self.mounter);
        self.discard(OsString::from(format!("fill-{name}"))).await;
        blocking(move || {
            if mounter.is_mounted(&data).map_err(failed("look at", &data))? {
                return Ok(None);
            }
            let from = open(&data)?.own_stat().map_err(failed("look at", &data))?;
            std::fs::create_dir(&fill).map_err(failed("make", &fill))?;
            let into = open(&fill)?;
            // As the volume's own directory, which keeps its looks where there is nothing to copy.
            let mode = rustix::fs::Mode::from_raw_mode(from.st_mode);
            rustix::fs::fchmod(&into, mode).map_err(|e| failed("make", &fill)(e.into()))?;
            let project = rorqual_sys::quota::project_of(open(&data)?).unwrap_or(0);
            if project != 0 {
                let joined = rorqual_sys::quota::join_project(&into, project);
                joined.map_err(failed("bound the size of", &fill))?;
            }
            Ok(Some(fill))
        })
        .await
    }

    /// Moves a volume's first content in, all or nothing: should we die under way, the next daemon goes on.
    pub async fn end_fill(&self, name: &VolumeName) -> Result<(), Error> {
        let (staging, data) = (self.staging(), self.mountpoint(name));
        let name = name.to_string();
        blocking(move || {
            let [fill, filled] =
                ["fill", "filled"].map(|kind| staging.join(format!("{kind}-{name}")));
            std::fs::rename(&fill, &filled).map_err(failed("fill", &data))?;
            move_in(&filled, &data).map_err(failed("fill", &data))
        })
        .await
    }

    /// Gives a fill up.
    pub async fn call_fill_off(&self, name: &VolumeName) {
        self.discard(OsString::from(format!("fill-{name}"))).await;
    }

    /// Moves a volume's data to where nobody looks for them.
    pub(super) async fn set_aside(&self, name: &VolumeName) -> Result<(), Error> {
        let trash = self.ensure_staging()?.join(format!("trash-{name}"));
        let directory = self.root.join(name.as_str());
        // Left by a removal that failed later; what is there now is the same volume's.
        self.discard(OsString::from(format!("trash-{name}"))).await;
        blocking(move || match std::fs::rename(&directory, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed("remove", &directory)),
        })
        .await
    }

    /// Removes what [`Self::set_aside`] left, in the background.
    pub(super) async fn empty(&self, name: &VolumeName) {
        self.discard(OsString::from(format!("trash-{name}"))).await;
    }

    /// Takes the meaning of a name in `.staging` away and removes what it names, in the background.
    async fn discard(&self, name: OsString) {
        let staging = self.staging();
        blocking(move || {
            let gone = unique_gone();
            match std::fs::rename(staging.join(&name), staging.join(&gone)) {
                Ok(()) => {
                    // Nobody waits for it; the next daemon finds what is left.
                    spawn(move || remove(&staging, OsStr::new(&gone)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, ?name, "cannot discard"),
            }
        })
        .await;
    }

    /// Goes on with what an earlier daemon left half done and removes what was not to be. Returns the volumes whose
    /// removal was under way, so that their records go, too. Blocking.
    ///
    /// ORDER: after [`Self::publish`] for every record that wants it, and before anything is staged.
    pub async fn sweep(&self) -> Vec<VolumeName> {
        let (staging, root) = (self.staging(), self.root.clone());
        blocking(move || {
            let mut removed = Vec::new();
            let Ok(directory) = Dir::open(&staging) else { return removed };
            let entries = directory.entries().unwrap_or_default();
            let mut rest = Vec::new();
            for entry in entries {
                let name = entry.name.to_string_lossy().into_owned();
                if let Some(volume) = name.strip_prefix("filled-") {
                    let data = root.join(volume).join("_data");
                    match move_in(&staging.join(&name), &data) {
                        Err(error) if data.exists() => {
                            tracing::error!(volume, %error, "cannot fill a volume");
                            continue;
                        }
                        Ok(()) => continue,
                        Err(_) => {}
                    }
                }
                if let Some(volume) = name.strip_prefix("trash-") {
                    removed.extend(volume.parse::<VolumeName>());
                    // Stays until its record is gone.
                    continue;
                }
                rest.push(entry.name);
            }
            let removal = move || rest.iter().for_each(|name| remove(&staging, name));
            spawn(removal);
            removed
        })
        .await
    }
}

/// Names what nothing refers to; also a next daemon with our process id finds another name.
fn unique_gone() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let number = GONE.fetch_add(1, Ordering::Relaxed);
    format!("gone-{}-{number}", now.unwrap_or_default().as_nanos())
}

fn spawn(removal: impl FnOnce() + Send + 'static) {
    if std::thread::Builder::new().name("trash".to_owned()).spawn(removal).is_err() {
        tracing::warn!("cannot start a thread to remove files");
    }
}

fn remove(staging: &Path, name: &OsStr) {
    let removed = Dir::open(staging).and_then(|directory| directory.remove_tree(name));
    if let Err(error) = removed {
        tracing::warn!(%error, path = %staging.join(name).display(), "cannot remove");
    }
}

/// Moves all that is in `filled` into `data`, gives that the looks of `filled`, and removes `filled`.
fn move_in(filled: &Path, data: &Path) -> io::Result<()> {
    let (from, to) = (Dir::open(filled)?, Dir::open(data)?);
    for entry in from.entries()? {
        // What somebody has put there meanwhile stays; then an earlier attempt was here or the name is taken.
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&from, &entry.name, &to, &entry.name, flags) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let looks = crate::tree::entry::Entry::of_directory(&from, Vec::new())?;
    looks.dress_root(&to)?;
    let (parent, name) = (filled.parent().unwrap_or(filled), filled.file_name());
    Dir::open(parent)?.remove_tree(name.unwrap_or_default())
}

/// Has the disk keep all that was written to the file system of `directory`.
fn flush(directory: &Dir, path: &Path) -> Result<(), Error> {
    rustix::fs::syncfs(directory).map_err(|error| failed("write", path)(error.into()))
}

#[cfg(test)]
mod tests;

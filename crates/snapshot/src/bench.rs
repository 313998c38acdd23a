//! The workbench on overlays: edits go through an overlay that no namespace shows, and what they leave becomes a layer by
//! a rename.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rorqual_core::mount::OverlayPlan;
use rorqual_core::{ContainerId, DiffId};
use rorqual_store::blocking;
use rorqual_sys::path::{Dir, Follow, Root};
use rorqual_sys::xattr;
use rustix::fs::{FileType, Stat};

use crate::compare::{self, Closeness, Difference};
use crate::edit::{self, Editor, Sources};
use crate::layer::io_failed;
use crate::listing::RootListing;
use crate::overlay::Overlay;
use crate::pack::Packer;
use crate::tar::{Reader, Writer};
use crate::workbench::{Contents, Edit, FileTree, Mountable, Selection, TreeStat, Workbench};
use crate::{
    Archive, ChangeKind, Error, LayerBlob, LayerInfo, LayerSource, Snapshotter, commit, feed,
    mount, select, skeleton, whiteout,
};

/// LIMIT: directories inside each other that are tidied.
const MAX_DEPTH: usize = 400;

impl Sources for Overlay {
    fn tree(&self, tree: &FileTree) -> Result<Option<Root>, Error> {
        let failed = || io_failed("open the files of a build");
        match tree {
            FileTree::Directory(path) => Root::open(path).map(Some).map_err(failed()),
            FileTree::Layers(layers) => {
                for id in layers {
                    self.need(id)?;
                }
                let lower = self.lower(layers, false);
                match lower.as_slice() {
                    [] => Ok(None),
                    [one] => Root::open(one).map(Some).map_err(failed()),
                    all => {
                        let view = mount::view(all, None).map_err(failed())?;
                        Ok(Some(Root::from_fd(view)))
                    }
                }
            }
        }
    }
}

impl Overlay {
    /// Opens a snapshot for writing, without the base layer: what a builder makes is not to depend on it.
    fn writable(&self, snapshot: &ContainerId) -> Result<Root, Error> {
        let failed = || io_failed("open the files of a build");
        let plan = self.plan_of(snapshot)?;
        let layers = self.layers_of(snapshot)?;
        let mut lower = self.lower(&layers, false);
        if lower.is_empty() {
            // The kernel's overlay needs something below.
            let nothing = self.container_dir(snapshot).join("nothing");
            match std::fs::create_dir(&nothing) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed()(error));
                }
                _ => lower.push(nothing),
            }
        }
        mount::view(&lower, plan.upper.as_ref()).map(Root::from_fd).map_err(failed())
    }

    fn in_tree<T>(
        &self,
        tree: &FileTree,
        none: T,
        work: impl FnOnce(&Root) -> io::Result<T>,
    ) -> Result<T, Error> {
        match self.tree(tree)? {
            Some(root) => work(&root).map_err(io_failed("look into the files of a build")),
            None => Ok(none),
        }
    }

    fn find_mountable(&self, tree: &FileTree, path: &str) -> Result<Option<Mountable>, Error> {
        let failed = || io_failed(format!("look for {path:?}"));
        let Some(root) = self.tree(tree)? else {
            // The empty file system has its root and nothing else; what the base layer has there does no harm.
            let root = path.trim_matches('/').is_empty();
            return Ok(root.then(|| reading(self.lower(&[], true))));
        };
        let resolved = select::resolve(&RootListing(&root), path.as_bytes(), true);
        let Some(path) = resolved.map_err(failed())? else { return Ok(None) };
        let relative = Path::new(OsStr::from_bytes(&path));
        let places = match tree {
            FileTree::Layers(layers) => self.lower(layers, false),
            FileTree::Directory(path) => vec![path.clone()],
        };
        let mut below = Vec::new();
        for lower in places {
            let layer = Root::open(&lower).map_err(failed())?;
            match shows(&layer, relative).map_err(failed())? {
                Shown::Nothing => {}
                Shown::Hidden => break,
                Shown::File if below.is_empty() => {
                    return Ok(Some(Mountable::File(lower.join(relative))));
                }
                Shown::File => break,
                Shown::Directory { last } => {
                    below.push(lower.join(relative));
                    if last {
                        break;
                    }
                }
            }
        }
        Ok((!below.is_empty()).then(|| reading(below)))
    }

    /// Reads a layer's tar again.
    fn stored_tar(&self, layer: &DiffId) -> Result<feed::Feed, Error> {
        let home = self.layer_home(layer);
        let (dir, id) = (Dir::open(&home).map_err(io_failed("open a layer"))?, layer.clone());
        let tar = feed::produce(move |sink| {
            skeleton::write_tar(&dir, &id, sink)
                .map_err(|error| io::Error::other(error.to_string()))
        });
        tar.map_err(io_failed("start a thread"))
    }

    fn commit_now(&self, snapshot: &ContainerId) -> Result<LayerInfo, Error> {
        let failed = || io_failed("make a layer of a build step");
        let plan = self.plan_of(snapshot)?;
        let upper = self.container_dir(snapshot).join("upper");
        let lower = plan.lower.iter().map(|path| Root::open(path));
        let lower = lower.collect::<io::Result<Vec<_>>>().map_err(failed())?;
        let root = Root::open(&upper).map_err(failed())?;
        let differences = compare::differences(&root, &lower, Closeness::Content);
        let differences = differences.map_err(failed())?;
        tidy(&root, &differences).map_err(failed())?;
        let tar = commit::pack(root, differences).map_err(failed())?;
        let info = self.adopt(&upper, tar)?;
        // Best effort: what stays is swept with the next collection.
        if let Err(error) = self.discard_snapshot(snapshot) {
            tracing::warn!(%error, "cannot remove the snapshot of a build step");
        }
        Ok(info)
    }
}

fn reading(lower: Vec<PathBuf>) -> Mountable {
    let options = mount::OPTIONS.map(str::to_owned).to_vec();
    Mountable::Layers(OverlayPlan { lower, upper: None, options })
}

/// Writes a tar again with times bounded; notes whether one was later.
fn clamp(
    tar: feed::Feed,
    sink: &mut feed::Sink,
    latest: i64,
    later: &AtomicBool,
) -> io::Result<()> {
    let mut reader = Reader::new(tar);
    let mut writer = Writer::new(sink);
    while let Some(mut entry) = reader.next_entry()? {
        if entry.sparse.is_some() {
            // Its data are pieces, which only its own headers place.
            let text = "a sparse file in a layer whose times are to be set";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        if (entry.mtime.0, entry.mtime.1) > (latest, 0) {
            entry.mtime = (latest, 0);
            later.store(true, Ordering::Release);
        }
        writer.header(&entry)?;
        if entry.stored > 0 {
            loop {
                let data = reader.data()?;
                if data.is_empty() {
                    break;
                }
                let len = data.len();
                io::Write::write_all(writer.sink(), data)?;
                reader.consume(len);
            }
            writer.pad(entry.stored)?;
        }
    }
    writer.finish().map(drop)
}

/// What one layer has at a path.
enum Shown {
    Nothing,
    /// It hides what lies below it.
    Hidden,
    File,
    Directory {
        /// It hides what lies below it.
        last: bool,
    },
}

/// Looks for a path without links in one layer, name by name: any of its directories may hide what lies below.
fn shows(layer: &Root, path: &Path) -> io::Result<Shown> {
    let mut dir = layer.dir().try_clone()?;
    let mut last = whiteout::is_opaque(&dir)?;
    let nothing = |last| if last { Shown::Hidden } else { Shown::Nothing };
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        let Some(stat) = dir.find(name)? else { return Ok(nothing(last)) };
        if whiteout::is_whiteout(&stat) {
            return Ok(Shown::Hidden);
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(if names.peek().is_none() { Shown::File } else { Shown::Hidden });
        }
        dir = dir.child(name)?;
        last |= whiteout::is_opaque(&dir)?;
    }
    Ok(Shown::Directory { last })
}

/// Makes a writable directory hold exactly what its tar says: nothing that does not differ, no sockets, and deletions one
/// by one instead of directories that hide all.
fn tidy(upper: &Root, differences: &[Difference]) -> io::Result<()> {
    let listed = differences.iter().map(|found| found.path.as_slice()).collect::<HashSet<_>>();
    tidy_directory(upper.dir(), &[], &listed, 0)?;
    for found in differences.iter().filter(|found| found.kind == ChangeKind::Deleted) {
        let (dir, name) = upper.parent(Path::new(OsStr::from_bytes(&found.path)))?;
        if dir.find(name)?.is_none() {
            whiteout::make(&dir, name)?;
        }
    }
    Ok(())
}

fn tidy_directory(dir: &Dir, path: &[u8], listed: &HashSet<&[u8]>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    if whiteout::is_opaque(dir)? {
        xattr::remove(dir, OsStr::new(whiteout::OPAQUE))?;
    }
    let before = dir.own_stat()?;
    let mut changed = false;
    for entry in dir.entries()? {
        let below = select::joined(path, entry.name.as_bytes());
        let keep = listed.contains(below.as_slice());
        if entry.kind == FileType::Directory {
            tidy_directory(&dir.child(&entry.name)?, &below, listed, depth + 1)?;
            if !keep {
                dir.rmdir(&entry.name)?;
                changed = true;
            }
        } else if !keep || entry.kind == FileType::Socket {
            dir.unlink(&entry.name)?;
            changed = true;
        }
    }
    if changed {
        let time =
            rustix::fs::Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec as _ };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(dir, &times)?;
    }
    Ok(())
}

fn at(path: &str) -> PathBuf {
    PathBuf::from(format!("/{}", path.trim_start_matches('/')))
}

fn described(name: &str, stat: &Stat, link: String) -> TreeStat {
    TreeStat {
        name: name.to_owned(),
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size as u64,
        mtime: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_mtime_nsec as i64),
        link,
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn stat(root: &Root, path: &Path) -> io::Result<Option<TreeStat>> {
    let stat = match root.stat(path, Follow::No) {
        Ok(stat) => stat,
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let link = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => root.read_link(path)?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let name = path.file_name().unwrap_or(OsStr::new("/")).to_string_lossy();
    Ok(Some(described(&name, &stat, link)))
}

fn list(root: &Root, path: &Path) -> io::Result<Vec<TreeStat>> {
    let dir = root.open_dir(path)?;
    let mut all = Vec::new();
    for entry in dir.entries()? {
        let Some(stat) = dir.find(&entry.name)? else { continue };
        let link = match entry.kind {
            FileType::Symlink => dir.read_link(&entry.name)?.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        all.push(described(&entry.name.to_string_lossy(), &stat, link));
    }
    Ok(all)
}

fn read(root: &Root, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = || io_failed(format!("read {}", path.display()));
    let file = match root.open_file(path) {
        Ok(file) => file,
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed())?;
    if bytes.len() as u64 > limit {
        let text = format!("{} has more than {limit} bytes", path.display());
        return Err(Error::InvalidArgument(text));
    }
    Ok(Some(bytes))
}

#[async_trait]
impl Workbench for Overlay {
    async fn edit(&self, snapshot: &ContainerId, edits: Vec<Edit>) -> Result<(), Error> {
        let (this, snapshot) = (self.clone(), *snapshot);
        blocking(move || {
            let root = this.writable(&snapshot)?;
            let editor = Editor::new(&root, &this);
            edits.iter().try_for_each(|edit| editor.apply(edit))
        })
        .await
    }

    async fn commit(&self, snapshot: &ContainerId) -> Result<LayerInfo, Error> {
        let (this, snapshot) = (self.clone(), *snapshot);
        blocking(move || this.commit_now(&snapshot)).await
    }

    async fn missing(&self, tree: &FileTree, paths: Vec<String>) -> Result<Vec<String>, Error> {
        let (this, tree) = (self.clone(), tree.clone());
        blocking(move || {
            let all = paths.clone();
            this.in_tree(&tree, all, |root| edit::missing(root, &paths))
        })
        .await
    }

    async fn contents(&self, tree: &FileTree, selection: Selection) -> Result<Contents, Error> {
        let (this, tree) = (self.clone(), tree.clone());
        blocking(move || match this.tree(&tree)? {
            Some(root) => select::contents(&RootListing(&root), &selection),
            None => select::contents(&select::Nothing, &selection),
        })
        .await
    }

    async fn stat(&self, tree: &FileTree, path: &str) -> Result<Option<TreeStat>, Error> {
        let (this, tree, path) = (self.clone(), tree.clone(), at(path));
        blocking(move || this.in_tree(&tree, None, |root| stat(root, &path))).await
    }

    async fn list(&self, tree: &FileTree, path: &str) -> Result<Vec<TreeStat>, Error> {
        let (this, tree, path) = (self.clone(), tree.clone(), at(path));
        blocking(move || this.in_tree(&tree, Vec::new(), |root| list(root, &path))).await
    }

    async fn read(
        &self,
        tree: &FileTree,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let (this, tree, path) = (self.clone(), tree.clone(), at(path));
        blocking(move || match this.tree(&tree)? {
            Some(root) => read(&root, &path, limit),
            None => Ok(None),
        })
        .await
    }

    async fn unpack(&self, directory: PathBuf, archive: LayerBlob) -> Result<(), Error> {
        blocking(move || {
            let failed = || io_failed(format!("open {}", directory.display()));
            let root = Root::open(&directory).map_err(failed())?;
            crate::tree::unpack(root, archive)
        })
        .await
    }

    async fn archive(&self, tree: &FileTree, latest: Option<i64>) -> Result<Archive, Error> {
        let (this, tree) = (self.clone(), tree.clone());
        let root = blocking(move || this.tree(&tree)).await?;
        let feed = feed::produce(move |sink| {
            let mut packer = Packer::new(sink).no_later_than(latest);
            if let Some(root) = root {
                packer.contents(root.dir(), b"", 0)?;
            }
            packer.finish().map(drop)
        });
        Ok(Box::new(feed.map_err(io_failed("start a thread"))?))
    }

    async fn no_later_than(&self, layer: &DiffId, latest: i64) -> Result<LayerInfo, Error> {
        let info = self.need(layer)?;
        let tar = self.stored_tar(layer)?;
        let later = Arc::new(AtomicBool::new(false));
        let found = Arc::clone(&later);
        let clamped = feed::produce(move |sink| clamp(tar, sink, latest, &found));
        let blob: LayerBlob = Box::new(clamped.map_err(io_failed("start a thread"))?);
        let made = self.apply(LayerSource { blob, expected: None }).await?;
        // What was written anew for nothing goes with the next collection.
        Ok(if later.load(Ordering::Acquire) { made } else { info })
    }

    async fn mountable(&self, tree: &FileTree, path: &str) -> Result<Option<Mountable>, Error> {
        let (this, tree, path) = (self.clone(), tree.clone(), path.to_owned());
        blocking(move || this.find_mountable(&tree, &path)).await
    }
}

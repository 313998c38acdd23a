//! Files of a container or an image: `cp`, `export`, and what the engine reads of them.
//!
//! The root is a descriptor and every path is resolved inside it; the container's processes may change anything meanwhile.

use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_core::Timestamp;
use rorqual_core::idmap::IdMaps;
use rorqual_core::mount::OverlayPlan;
use rorqual_store::blocking;
use rorqual_sys::path::{Dir, Follow, Root};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::decompress::decompress;
use crate::entry_path::{failed, reading};
use crate::feed;
use crate::layer::io_failed;
use crate::mount;
use crate::pack::Packer;
use crate::tar::Reader;
use crate::unpack::{Purpose, Unpacker};
use crate::{Archive, ArchiveStat, Error, Extract, LayerBlob, Tree, remapped};

/// LIMIT: links followed to tell where one leads, as in the kernel.
const MAX_LINKS: usize = 40;

/// Where writes go.
pub(crate) enum Writes {
    /// To the root we read: a running container's.
    Here,
    /// To an overlay that is mounted for each write.
    Overlay(Box<OverlayPlan>),
    /// Nowhere.
    Refused,
}

/// A root reached by descriptor.
pub(crate) struct OpenTree {
    pub(crate) root: Arc<Root>,
    pub(crate) writes: Writes,
    /// The process whose root it is, with everything mounted there.
    pub(crate) process: Option<i32>,
    /// Who its users are on the host, where they are not the same.
    pub(crate) users: Option<IdMaps>,
    /// Whose it is, for messages.
    pub(crate) name: String,
}

impl OpenTree {
    fn missing(&self, path: &str) -> impl Fn(io::Error) -> Error + Send + 'static {
        let (path, container) = (path.to_owned(), self.name.clone());
        move |source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::NoSuchPath { path: path.clone(), container: container.clone() }
            }
            _ => Error::Io { action: format!("open {path:?}"), source },
        }
    }
}

/// A path as `cp` means it.
struct Target {
    /// What to look at; a trailing slash or `/.` follows a final link.
    path: PathBuf,
    follow: Follow,
    /// Name in front of everything in an archive; `.` stands for the content alone.
    name: String,
}

impl Target {
    fn parse(path: &str) -> Self {
        let path = format!("/{}", path.trim_start_matches('/'));
        let content = path.ends_with("/.") || path.ends_with('/') && path == "/";
        let follow =
            if path.ends_with('/') || path.ends_with("/.") { Follow::Yes } else { Follow::No };
        let trimmed = path.trim_end_matches("/.").trim_end_matches('/');
        let name = trimmed.rsplit('/').next().unwrap_or_default();
        let name = if content { "." } else { name };
        // `..` at the end names no entry, but the directory it leads to does.
        let (name, follow) = if name == ".." { (".", Follow::Yes) } else { (name, follow) };
        let shown = if trimmed.is_empty() { "/" } else { trimmed };
        Self { path: PathBuf::from(shown), follow, name: name.to_owned() }
    }
}

fn stat(root: &Root, path: &str) -> io::Result<ArchiveStat> {
    let target = Target::parse(path);
    let stat = root.stat(&target.path, target.follow)?;
    let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let name = if target.path == Path::new("/") { "/" } else { &target.name };
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    Ok(ArchiveStat {
        name: name.to_owned(),
        size: stat.st_size as u64,
        mode: stat.st_mode,
        mtime: Timestamp::from_nanos(seconds * 1_000_000_000 + stat.st_mtime_nsec),
        link_target: if link { link_target(root, &target.path)? } else { String::new() },
    })
}

/// Tells the path a link leads to inside the root, whether it is there or not.
fn link_target(root: &Root, path: &Path) -> io::Result<String> {
    let mut resolved = PathBuf::from("/");
    let mut rest = path.components().map(|c| c.as_os_str().to_owned()).collect::<Vec<_>>();
    rest.reverse();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match name.as_bytes() {
            b"/" => resolved = PathBuf::from("/"),
            b"." => {}
            b".." => drop(resolved.pop()),
            _ => {
                let next = resolved.join(&name);
                match root.read_link(&next) {
                    Ok(link) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP.into());
                        }
                        rest.extend(link.components().rev().map(|c| c.as_os_str().to_owned()));
                    }
                    Err(_) => resolved = next,
                }
            }
        }
    }
    Ok(resolved.to_string_lossy().into_owned())
}

fn pack(root: &Root, path: &str, users: Option<IdMaps>, sink: &mut feed::Sink) -> io::Result<()> {
    let target = Target::parse(path);
    let mut packer = Packer::new(sink).seen_inside(users);
    let whole = target.name == "." || target.follow == Follow::Yes;
    if whole && is_directory(root, &target.path)? {
        let dir = root.open_dir(&target.path)?;
        packer.directory(&dir, target.name.as_bytes())?;
        packer.contents(&dir, target.name.as_bytes(), 0)?;
    } else {
        let (dir, name) = root.parent(&target.path)?;
        packer.tree(&dir, name, target.name.as_bytes())?;
    }
    packer.finish().map(drop)
}

fn extract(
    root: &Root,
    path: &str,
    archive: LayerBlob,
    (how, users): (Extract, Option<&IdMaps>),
) -> Result<(), Error> {
    let root = Root::from_fd(root.dir().try_clone().map_err(io_failed("open a root"))?.into());
    let free = rustix::fs::fstatvfs(&root)
        .map_err(|error| io_failed("measure free space")(error.into()))?;
    let budget = free.f_bavail.saturating_mul(free.f_frsize);
    // COMPAT: dockerd keeps the archive's owners in both cases; its documentation says otherwise.
    let purpose = Purpose::Files { keep_kind: how.no_overwrite_dir_non_dir, owners: true };
    let base = format!("/{}", path.trim_matches('/'));
    let mut unpacker = Unpacker::new(root, purpose, budget).below(base.as_bytes());
    let plain = decompress(archive).map_err(reading)?;
    let mut reader = Reader::new(BufReader::with_capacity(128 * 1024, plain));
    while let Some(mut entry) = reader.next_entry().map_err(reading)? {
        if let Some(users) = users {
            remapped::outside(users, &mut entry).map_err(failed(&entry.path))?;
        }
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

/// Unpacks a tar (plain or compressed) below a root, with the archive's owners.
pub(crate) fn unpack(root: Root, archive: LayerBlob) -> Result<(), Error> {
    let how = Extract { copy_uid_gid: true, ..Extract::default() };
    extract(&root, "/", archive, (how, None))
}

fn destination(root: &Root, path: &str) -> io::Result<Dir> {
    let path = format!("/{}", path.trim_start_matches('/'));
    root.open_dir(Path::new(&path))
}

#[async_trait]
impl Tree for OpenTree {
    async fn stat(&self, path: &str) -> Result<ArchiveStat, Error> {
        let (root, text) = (Arc::clone(&self.root), path.to_owned());
        let missing = self.missing(path);
        blocking(move || stat(&root, &text)).await.map_err(missing)
    }

    async fn archive(&self, path: &str) -> Result<Archive, Error> {
        self.stat(path).await?;
        let (root, path, users) = (Arc::clone(&self.root), path.to_owned(), self.users.clone());
        let feed = feed::produce(move |sink| pack(&root, &path, users, sink));
        Ok(Box::new(feed.map_err(io_failed("start a thread"))?))
    }

    async fn export(&self) -> Result<Archive, Error> {
        let root = match self.process {
            // COMPAT: of a running container, too, only its own files are exported.
            Some(pid) => {
                let alone = blocking(move || mount::process_root_alone(pid)).await;
                Arc::new(Root::from_fd(alone.map_err(io_failed("open a container's own files"))?))
            }
            None => Arc::clone(&self.root),
        };
        let users = self.users.clone();
        let feed = feed::produce(move |sink| {
            let mut packer = Packer::new(sink).seen_inside(users);
            packer.contents(root.dir(), b"", 0)?;
            packer.finish().map(drop)
        });
        Ok(Box::new(feed.map_err(io_failed("start a thread"))?))
    }

    async fn extract(&self, path: &str, archive: LayerBlob, how: Extract) -> Result<(), Error> {
        if how.read_only {
            // COMPAT: dockerd's text.
            let text = "container rootfs is marked read-only";
            return Err(Error::InvalidArgument(text.to_owned()));
        }
        let root = match &self.writes {
            Writes::Here => Arc::clone(&self.root),
            Writes::Overlay(plan) => {
                let plan = plan.clone();
                let mounting = io_failed("mount a container's files");
                let view = blocking(move || mount::view(&plan.lower, plan.upper.as_ref())).await;
                Arc::new(Root::from_fd(view.map_err(mounting)?))
            }
            Writes::Refused => {
                let text = "the files of an image cannot be changed";
                return Err(Error::InvalidArgument(text.to_owned()));
            }
        };
        let (text, missing) = (path.to_owned(), self.missing(path));
        let users = self.users.clone();
        let work = move |users: Option<&IdMaps>| {
            match destination(&root, &text) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    // COMPAT: dockerd's text.
                    let text = "extraction point is not a directory";
                    return Err(Error::InvalidArgument(text.to_owned()));
                }
                result => result.map_err(missing)?,
            };
            extract(&root, &text, archive, (how, users))
        };
        blocking(move || match &users {
            None => work(None),
            Some(maps) => remapped::as_root(maps, || work(Some(maps)))
                .map_err(io_failed("write as the container's root"))?,
        })
        .await
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let (root, text) = (Arc::clone(&self.root), path.to_owned());
        blocking(move || {
            let file = match root.open_file(Path::new(&text)) {
                Ok(file) => file,
                Err(error) if absent(&error) => return Ok(None),
                Err(error) => return Err(io_failed(format!("open {text:?}"))(error)),
            };
            let mut bytes = Vec::new();
            let read = file.take(limit + 1).read_to_end(&mut bytes);
            read.map_err(io_failed(format!("read {text:?}")))?;
            if bytes.len() as u64 > limit {
                return Err(Error::InvalidArgument(format!("{text} has more than {limit} bytes")));
            }
            Ok(Some(bytes))
        })
        .await
    }

    async fn copy_out(&self, path: &str, host_dir: PathBuf) -> Result<(), Error> {
        let (root, text) = (Arc::clone(&self.root), path.to_owned());
        blocking(move || {
            let target = Target::parse(&text);
            let dir = match root.open_dir(&target.path) {
                Ok(dir) => dir,
                Err(error) if absent(&error) => return Ok(()),
                Err(error) => return Err(io_failed(format!("open {text:?}"))(error)),
            };
            copy_tree(dir, &host_dir)
        })
        .await
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Copies by way of a tar stream, which keeps everything a layer keeps.
fn copy_tree(dir: Dir, host_dir: &Path) -> Result<(), Error> {
    let copying = || io_failed(format!("copy to {}", host_dir.display()));
    let root = Root::open(host_dir).map_err(copying())?;
    let stream = feed::produce(move |sink| {
        let mut packer = Packer::new(sink);
        packer.directory(&dir, b".")?;
        packer.contents(&dir, b"", 0)?;
        packer.finish().map(drop)
    });
    let mut unpacker = Unpacker::new(root, Purpose::Copy, u64::MAX);
    let mut reader = Reader::new(stream.map_err(copying())?);
    while let Some(entry) = reader.next_entry().map_err(reading)? {
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

/// Tells whether `path` is a directory below `root`, following links.
fn is_directory(root: &Root, path: &Path) -> io::Result<bool> {
    let stat = root.stat(path, Follow::Yes)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

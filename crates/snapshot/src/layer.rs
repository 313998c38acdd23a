//! Layers on disk: `layers/<hex>/` holds `fs/` (the tree), `skeleton.zst` (the rest of its tar) and `layer.json`.
//!
//! A layer is unpacked in one pass beside its final place, verified, made durable and renamed; a directory under its
//! DiffID is therefore always whole. Knows nothing of containers.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rorqual_core::{DiffId, Timestamp};
use rorqual_sys::path::{Dir, Root};
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::decompress::{Compression, decompress_told};
use crate::entry_path::reading;
use crate::feed::{Feed, HashOn};
use crate::skeleton::Recorder;
use crate::sync::Syncer;
use crate::tar::Reader;
use crate::unpack::{Purpose, Stored, Unpacker};
use crate::{Error, LayerInfo, LayerSource};

/// LIMIT: bytes behind the end mark that we still take for padding of tapes and pipes.
const MAX_TRAILER: u64 = 64 << 20;
/// LIMIT: data of one entry that no file holds in the form it came in (sparse files); it passes through memory.
const MAX_KEPT: u64 = 256 << 20;

/// How layers are written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Wait for the disk before a layer becomes visible.
    pub durable: bool,
    /// Bound in bytes on what one layer unpacks to.
    pub max_layer: u64,
}

impl Default for Options {
    fn default() -> Self {
        // LIMIT: larger than any sane layer, smaller than what a bomb wants; free space bounds it further.
        Self { durable: true, max_layer: 1 << 40 }
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    #[serde(flatten)]
    info: LayerInfo,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Returns a name that no living ingest has.
pub(crate) fn unique(prefix: &str) -> String {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let now = Timestamp::from(SystemTime::now()).nanos();
    format!("{prefix}{now:x}-{:x}-{serial:x}", std::process::id())
}

pub(crate) fn io_failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    move |source| Error::Io { action, source }
}

/// Reads what is known of a layer, `None` when it is not there.
pub(crate) fn find(layers: &Path, id: &DiffId) -> Result<Option<LayerInfo>, Error> {
    let path = layers.join(id.0.hex()).join("layer.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_failed(format!("read {}", path.display()))(error)),
    };
    let record = serde_json::from_slice::<Record>(&text)
        .map_err(|error| io_failed(format!("read {}", path.display()))(error.into()))?;
    Ok(Some(record.info))
}

/// Unpacks a layer. Blocking.
pub(crate) fn apply(
    layers: &Path,
    source: LayerSource,
    options: Options,
    syncer: &Syncer,
) -> Result<LayerInfo, Error> {
    let ingest = unique(".ingest-");
    let home = Dir::open(layers).map_err(io_failed("open the layers"))?;
    let result = unpack(&home, &ingest, source, options).and_then(|info| {
        let syncer = options.durable.then_some(syncer);
        publish(&home, layers, &ingest, info, syncer)
    });
    if result.is_err() {
        // Best effort: what stays is swept at the next start.
        home.remove_tree(OsStr::new(&ingest)).ok();
    }
    result
}

fn unpack(
    home: &Dir,
    ingest: &str,
    source: LayerSource,
    options: Options,
) -> Result<LayerInfo, Error> {
    let making = || io_failed("make a layer's directory");
    home.mkdir(OsStr::new(ingest), 0o700).map_err(making())?;
    let dir = home.child(OsStr::new(ingest)).map_err(making())?;
    for (name, mode) in [("fs", 0o755), ("aside", 0o700)] {
        dir.mkdir(OsStr::new(name), mode).map_err(making())?;
    }
    let fs = dir.child(OsStr::new("fs")).map_err(making())?;
    let root = Root::from_fd(fs.try_clone().map_err(making())?.into());
    let skeleton = dir.create(OsStr::new("skeleton.zst")).map_err(making())?;
    let mut unpacker = Unpacker::new(root, Purpose::Layer, budget(home, options)?);
    unpacker.keep_aside(dir.child(OsStr::new("aside")).map_err(making())?);

    let (blob, compression) = decompress_told(source.blob).map_err(reading)?;
    let hash_on = if compression == Compression::Plain { HashOn::Reading } else { HashOn::Using };
    let (feed, hasher) = Feed::start(blob, hash_on).map_err(io_failed("start a thread"))?;
    let recorder = Recorder::new(skeleton).map_err(making())?;
    entries(feed, &mut unpacker, recorder)?;

    let found = DiffId(hasher.digest());
    if let Some(expected) = source.expected.filter(|expected| *expected != found) {
        return Err(Error::WrongDigest { expected, found });
    }
    // Most layers replace nothing of their own.
    dir.rmdir(OsStr::new("aside")).ok();
    let disk = measure(&fs).map_err(io_failed("measure a layer"))?.disk;
    Ok(LayerInfo { diff_id: found, size: unpacker.size, disk, tar: hasher.bytes() })
}

/// Makes a layer of a directory that holds exactly what `tar` says, without writing its files again. Blocking.
pub(crate) fn adopt(
    layers: &Path,
    tree: &Path,
    tar: Feed,
    options: Options,
    syncer: &Syncer,
) -> Result<LayerInfo, Error> {
    let home = Dir::open(layers).map_err(io_failed("open the layers"))?;
    let ingest = unique(".ingest-");
    let result = record(&home, &ingest, tar).and_then(|mut info| {
        if let Some(known) = find(layers, &info.diff_id)? {
            home.remove_tree(OsStr::new(&ingest)).map_err(io_failed("remove a second copy"))?;
            return Ok(known);
        }
        let fs = layers.join(&ingest).join("fs");
        std::fs::rename(tree, &fs).map_err(io_failed("move a layer's files"))?;
        let opened = Dir::open(&fs).map_err(io_failed("measure a layer"))?;
        info.disk = measure(&opened).map_err(io_failed("measure a layer"))?.disk;
        publish(&home, layers, &ingest, info, options.durable.then_some(syncer))
    });
    if result.is_err() {
        // Best effort: what stays is swept at the next start.
        home.remove_tree(OsStr::new(&ingest)).ok();
    }
    result
}

/// Writes the skeleton of a tar whose files lie where it says.
fn record(home: &Dir, ingest: &str, tar: Feed) -> Result<LayerInfo, Error> {
    let making = || io_failed("make a layer's directory");
    let recording = || io_failed("record a layer's tar");
    home.mkdir(OsStr::new(ingest), 0o700).map_err(making())?;
    let dir = home.child(OsStr::new(ingest)).map_err(making())?;
    let skeleton = dir.create(OsStr::new("skeleton.zst")).map_err(making())?;
    let mut recorder = Recorder::new(skeleton).map_err(making())?;
    let (feed, hasher) = tar.hashing();
    let mut reader = Reader::new(feed).recording();
    let mut size = 0_u64;
    while let Some(entry) = reader.next_entry().map_err(reading)? {
        recorder.raw(&reader.take_raw()).map_err(recording())?;
        // COMPAT: dockerd counts the length of a link's target, too.
        let link =
            if entry.kind == crate::tar::Kind::Symlink { entry.link.len() as u64 } else { 0 };
        size = size.saturating_add(entry.size).saturating_add(link);
        if entry.stored > 0 {
            recorder.file(&entry.path, entry.stored).map_err(recording())?;
        }
    }
    recorder.raw(&reader.take_raw()).map_err(recording())?;
    loop {
        let bytes = reader.trailer().map_err(reading)?;
        if bytes.is_empty() {
            break;
        }
        recorder.raw(&bytes).map_err(recording())?;
    }
    recorder.finish().map(drop).map_err(recording())?;
    Ok(LayerInfo { diff_id: DiffId(hasher.digest()), size, disk: 0, tar: hasher.bytes() })
}

/// Bounds what may come out by the free space, so that a bomb ends before the disk does.
fn budget(home: &Dir, options: Options) -> Result<u64, Error> {
    let free = rustix::fs::fstatvfs(home)
        .map_err(|error| io_failed("measure free space")(error.into()))?;
    Ok(options.max_layer.min(free.f_bavail.saturating_mul(free.f_frsize)))
}

fn entries(feed: Feed, unpacker: &mut Unpacker, mut recorder: Recorder) -> Result<(), Error> {
    let recording = || io_failed("record a layer's tar");
    let mut reader = Reader::new(feed).recording();
    while let Some(entry) = reader.next_entry().map_err(reading)? {
        recorder.raw(&reader.take_raw()).map_err(recording())?;
        if entry.sparse.is_some() || Unpacker::wastes(&entry) {
            keep_data(&entry, &mut reader, unpacker, &mut recorder)?;
            continue;
        }
        if let Stored::AsFile(path) = unpacker.entry(&entry, &mut reader)? {
            recorder.file(&path, entry.stored).map_err(recording())?;
        }
    }
    recorder.raw(&reader.take_raw()).map_err(recording())?;
    let mut behind = 0;
    loop {
        let bytes = reader.trailer().map_err(reading)?;
        if bytes.is_empty() {
            break;
        }
        behind += bytes.len() as u64;
        if behind > MAX_TRAILER {
            return Err(Error::InvalidArchive("too much data behind the end mark".to_owned()));
        }
        recorder.raw(&bytes).map_err(recording())?;
    }
    unpacker.finish()?;
    recorder.finish().map(drop).map_err(recording())
}

/// Unpacks an entry whose data no file will hold in this form, and keeps the data in the skeleton.
fn keep_data(
    entry: &crate::tar::Entry,
    reader: &mut Reader<Feed>,
    unpacker: &mut Unpacker,
    recorder: &mut Recorder,
) -> Result<(), Error> {
    let data = reader.read_all(MAX_KEPT).map_err(reading)?;
    recorder.raw(&data).map_err(io_failed("record a layer's tar"))?;
    let len = data.len() as u64;
    let mut again = Reader::again(io::Cursor::new(data), len);
    unpacker.entry(entry, &mut again)?;
    Ok(())
}

fn publish(
    home: &Dir,
    layers: &Path,
    ingest: &str,
    info: LayerInfo,
    syncer: Option<&Syncer>,
) -> Result<LayerInfo, Error> {
    let id = &info.diff_id;
    let failed = || io_failed(format!("publish layer {id}"));
    let record = Record { version: 1, info: info.clone() };
    let text = serde_json::to_vec(&record).map_err(|error| failed()(error.into()))?;
    std::fs::write(layers.join(ingest).join("layer.json"), text).map_err(failed())?;
    if let Some(syncer) = syncer {
        // ORDER: all of the layer is on disk before its name says so.
        syncer.sync().map_err(failed())?;
    }
    match home.rename(OsStr::new(ingest), home, OsStr::new(id.0.hex())) {
        Ok(()) => {}
        Err(error) if exists(&error) => {
            // Somebody else unpacked the same layer meanwhile: theirs is as good.
            home.remove_tree(OsStr::new(ingest)).map_err(failed())?;
            return find(layers, id)?.ok_or_else(|| Error::NoSuchLayer(id.clone()));
        }
        Err(error) => return Err(failed()(error)),
    }
    if syncer.is_some() {
        rustix::fs::fsync(home).map_err(|error| failed()(error.into()))?;
    }
    Ok(info)
}

fn exists(error: &io::Error) -> bool {
    [Errno::EXIST, Errno::NOTEMPTY].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// What a tree occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Sum of file sizes, once per inode.
    pub(crate) size: u64,
    /// Bytes on disk, once per inode.
    pub(crate) disk: u64,
}

/// Measures all below a directory.
pub(crate) fn measure(dir: &Dir) -> io::Result<Measure> {
    let mut total = Measure::default();
    walk(dir, 0, &mut HashSet::new(), &mut total)?;
    Ok(total)
}

fn walk(dir: &Dir, depth: usize, seen: &mut HashSet<u64>, total: &mut Measure) -> io::Result<()> {
    // LIMIT: descriptors held at once; what lies deeper is not counted.
    if depth > 200 {
        return Ok(());
    }
    for entry in dir.entries()? {
        let Some(stat) = dir.find(&entry.name)? else { continue };
        if entry.kind == FileType::Directory {
            total.disk += stat.st_blocks as u64 * 512;
            walk(&dir.child(&entry.name)?, depth + 1, seen, total)?;
        } else if stat.st_nlink == 1 || seen.insert(stat.st_ino) {
            total.disk += stat.st_blocks as u64 * 512;
            if matches!(entry.kind, FileType::RegularFile | FileType::Symlink) {
                total.size += stat.st_size as u64;
            }
        }
    }
    Ok(())
}

/// Returns the directory of a layer's tree.
pub(crate) fn tree(layers: &Path, id: &DiffId) -> PathBuf {
    layers.join(id.0.hex()).join("fs")
}

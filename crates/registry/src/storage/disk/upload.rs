//! Uploads on a disk: who writes to one, what its bytes so far hash to, and how it becomes a blob.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use rorqual_core::{Algorithm, Digest};
use tokio::task::{JoinHandle, spawn_blocking};

use super::super::{Hasher, Pieces, too_large};
use super::{Disk, failed, found, lock, make_parents, publish};
use crate::error::{Code, Error, Result};

/// Where the uploads of this process stand.
pub(super) type Standings = Arc<Mutex<HashMap<String, Standing>>>;

/// Where an upload of this process stands.
pub(super) enum Standing {
    /// A request writes to it.
    Busy,
    /// Nobody does; its bytes so far, hashed.
    At(u64, Hasher),
}

// LIMIT: what is gathered before it is handed to a blocking thread; as much again is being written meanwhile.
const BATCH: usize = 256 << 10;
// LIMIT: bytes that are not on their way to the disk yet. What has to be there before a name leads to it gets there while the rest
// comes, and not all of it at the end.
const FLUSH: usize = 16 << 20;

impl Disk {
    /// Takes an upload for one request.
    pub(super) fn claim(&self, upload: &str) -> Result<Claim> {
        let path = self.upload_path(upload).join("data");
        let size =
            found(fs::metadata(&path)).map_err(failed("stat", &path))?.map_or(0, |m| m.len());
        let standings = Arc::clone(&self.0.standings);
        let hasher = match lock(&standings).insert(upload.to_owned(), Standing::Busy) {
            Some(Standing::Busy) => {
                let text = "another request writes to this upload";
                return Err(Error::refused(Code::BlobUploadInvalid, text));
            }
            Some(Standing::At(at, hasher)) if at == size => Some(hasher),
            // It was begun by another process, or before a restart.
            _ => (size == 0).then(|| Hasher::new(Algorithm::Sha256)),
        };
        Ok(Claim { standings, upload: upload.to_owned(), path, at: size, hasher })
    }
}

/// An upload that one request owns.
pub(super) struct Claim {
    standings: Standings,
    upload: String,
    path: PathBuf,
    at: u64,
    /// `None`: the bytes so far were not seen by this process and are read again at the end.
    hasher: Option<Hasher>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let upload = std::mem::take(&mut self.upload);
        match self.hasher.take() {
            Some(hasher) => {
                lock(&self.standings).insert(upload, Standing::At(self.at, hasher));
            }
            None => {
                lock(&self.standings).remove(&upload);
            }
        }
    }
}

impl Claim {
    fn open(self) -> io::Result<Writing> {
        make_parents(&self.path, false)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        Ok(Writing { claim: self, file: Arc::new(file) })
    }

    /// Forgets the upload for good.
    pub(super) fn forget(mut self) {
        self.hasher = None;
        if let Some(folder) = self.path.parent() {
            fs::remove_dir_all(folder).ok();
        }
    }

    /// Makes the upload a blob at `target` if it has the digest; returns its size.
    pub(super) fn commit(mut self, expected: Digest, target: &Path) -> Result<u64> {
        let path = self.path.clone();
        let hasher = self.digest(expected.algorithm()).map_err(failed("read", &path))?;
        let found = hasher.finish()?;
        if found != expected {
            self.forget();
            return Err(Error::WrongDigest { expected, found });
        }
        let finish = || {
            if target.exists() {
                return Ok(());
            }
            // An upload of no bytes at all has no file yet.
            make_parents(&path, false)?;
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            // ORDER: the bytes are on disk before a name leads to them.
            file.sync_data()?;
            publish(&path, target, true)
        };
        finish().map_err(failed("publish", target))?;
        let size = self.at;
        self.forget();
        Ok(size)
    }

    fn digest(&mut self, algorithm: Algorithm) -> io::Result<Hasher> {
        if let Some(hasher) = self.hasher.take().filter(|known| known.algorithm() == algorithm) {
            return Ok(hasher);
        }
        let mut hasher = Hasher::new(algorithm);
        let Some(mut file) = found(File::open(&self.path))? else { return Ok(hasher) };
        let mut piece = vec![0; BATCH];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(hasher),
                count => hasher.update(&piece[..count]),
            }
        }
    }
}

/// An upload that grows.
struct Writing {
    claim: Claim,
    file: Arc<File>,
}

impl Writing {
    /// Adds pieces; what a failure left behind the last good one is cut off.
    fn write(mut self, pieces: Vec<Bytes>) -> Result<Self> {
        for piece in pieces {
            if let Err(error) = self.file.write_all_at(&piece, self.claim.at) {
                self.file.set_len(self.claim.at).ok();
                return Err(failed("write", &self.claim.path)(error));
            }
            self.claim.at += piece.len() as u64;
            if let Some(hasher) = &mut self.claim.hasher {
                hasher.update(&piece);
            }
        }
        Ok(self)
    }
}

/// Brings what was written to the disk while more comes.
struct Flushing {
    file: Arc<File>,
    path: PathBuf,
    waiting: usize,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Flushing {
    fn new(writing: &Writing) -> Self {
        let (file, path) = (Arc::clone(&writing.file), writing.claim.path.clone());
        Self { file, path, waiting: 0, running: None }
    }

    /// So many bytes more are written.
    async fn add(&mut self, len: usize) -> Result<()> {
        self.waiting += len;
        if self.waiting < FLUSH || self.running.as_ref().is_some_and(|last| !last.is_finished()) {
            return Ok(());
        }
        self.end().await?;
        self.waiting = 0;
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        self.running = Some(spawn_blocking(move || {
            let synced = file.sync_data();
            if synced.is_err() {
                // ORDER: the kernel tells of lost bytes once; who reads them after that may see them still. Without the file the
                // upload begins anew.
                fs::remove_file(&path).ok();
            }
            synced
        }));
        Ok(())
    }

    /// Waits for what is on its way.
    async fn end(&mut self) -> Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.await.map_err(io::Error::other).flatten().map_err(failed("sync", &self.path))
    }
}

/// Adds pieces to an upload that stands at `offset`.
pub(super) async fn append(
    disk: &Disk,
    upload: &str,
    offset: u64,
    mut pieces: Pieces,
    limit: u64,
) -> Result<u64> {
    let name = upload.to_owned();
    let open = move |disk: &Disk| {
        let claim = disk.claim(&name)?;
        if claim.at != offset {
            let text = format!("the upload stands at {}, not at {offset}", claim.at);
            return Err(Error::refused(Code::BlobUploadRange, text));
        }
        let path = claim.path.clone();
        claim.open().map_err(failed("open", &path))
    };
    let writing = disk.run(open).await?;
    let mut flushing = Flushing::new(&writing);
    let (mut total, mut batch, mut held) = (offset, Vec::new(), 0);
    let mut turn = spawn_blocking(move || Ok(writing));
    let broken = loop {
        match pieces.next().await {
            Some(Ok(piece)) => {
                total += piece.len() as u64;
                if total > limit {
                    break Some(too_large(limit));
                }
                held += piece.len();
                batch.push(piece);
            }
            Some(Err(error)) => break Some(Error::Body(error)),
            None => break None,
        }
        if held >= BATCH {
            let (writing, full) = (joined(turn).await?, std::mem::take(&mut batch));
            turn = spawn_blocking(move || writing.write(full));
            flushing.add(held).await?;
            held = 0;
        }
    };
    let writing = joined(turn).await?;
    let writing = joined(spawn_blocking(move || writing.write(batch))).await?;
    flushing.end().await?;
    broken.map_or(Ok(writing.claim.at), Err)
}

async fn joined<T>(handle: JoinHandle<Result<T>>) -> Result<T> {
    handle.await.map_err(|error| Error::Storage { action: "write".into(), source: error.into() })?
}

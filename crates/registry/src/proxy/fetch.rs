//! Fetches of blobs: one per blob, however many want it. The bytes go to a spool file; clients follow it as it grows. The
//! last byte is held back until the digest is verified, so no client ever holds a whole blob that is wrong.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, StatusCode, header};
use rorqual_core::{BoxError, Digest, full_message};
use rorqual_store::blocking;
use tokio::sync::watch;

use super::upstream::{self, Upstream};
use crate::error::{Error, Result};
use crate::name::{Name, key};
use crate::repository::Repositories;
use crate::storage::{Hasher, Pieces, too_large};

/// The fetches that are under way.
pub(super) struct Fetches {
    running: Arc<Mutex<HashMap<String, Fetch>>>,
    limit: u64,
}

/// What is fetched, and where it goes.
pub(super) struct Order {
    pub(super) what: String,
    pub(super) path: String,
    pub(super) name: Name,
    pub(super) digest: Digest,
    pub(super) upstream: Arc<Upstream>,
    pub(super) repositories: Arc<Repositories>,
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Running(u64),
    Done,
    Failed,
}

/// A fetch that can be followed.
#[derive(Clone)]
pub(crate) struct Fetch {
    size: u64,
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
}

// LIMIT: what is gathered before it is written, and what a client gets at once.
const PIECE: u64 = 64 << 10;
// LIMIT: times that a broken fetch goes on where it stood.
const RESUMES: usize = 3;

impl Fetches {
    pub(super) fn new(limit: u64) -> Self {
        Self { running: Arc::default(), limit }
    }

    pub(super) fn join(&self, what: &str) -> Option<Fetch> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(what).cloned()
    }

    /// Begins a fetch whose answer has begun. It goes on when its first client is gone.
    pub(super) async fn start(&self, order: Order, answer: reqwest::Response) -> Result<Fetch> {
        let size = upstream::length(&answer)?;
        if size > self.limit {
            return Err(too_large(self.limit));
        }
        let folder = order.repositories.storage.spool();
        let path = folder.join(format!("fetch-{}", crate::notify::new_id()));
        let opened = path.clone();
        let file = blocking(move || {
            std::fs::create_dir_all(&folder)?;
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(opened)
        })
        .await
        .map_err(|error| Error::io("make a spool file", error))?;
        let file = Arc::new(file);
        let (sender, progress) = watch::channel(Progress::Running(0));
        let fetch = Fetch { size, file: Arc::clone(&file), progress };
        let running = Arc::clone(&self.running);
        let entry = |running: &Mutex<HashMap<String, Fetch>>, what: &str, fetch: Option<Fetch>| {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            match fetch {
                Some(fetch) => running.insert(what.to_owned(), fetch),
                None => running.remove(what),
            };
        };
        entry(&running, &order.what, Some(fetch.clone()));
        tokio::spawn(async move {
            let spool = Spool { path, file, size, at: 0, sender };
            let what = order.what.clone();
            let (result, spool) = spool.run(&order, answer).await;
            if let Err(error) = &result {
                tracing::warn!(error = full_message(error), "cannot fetch {what}");
            }
            // ORDER: from here on it is found in the storage.
            entry(&running, &what, None);
            spool.end(result.is_ok()).await;
        });
        Ok(fetch)
    }
}

struct Spool {
    path: PathBuf,
    file: Arc<File>,
    size: u64,
    at: u64,
    sender: watch::Sender<Progress>,
}

impl Spool {
    async fn run(mut self, order: &Order, answer: reqwest::Response) -> (Result<()>, Self) {
        let mut hasher = Some(Hasher::new(order.digest.algorithm()));
        let mut answer = Some(answer);
        for _ in 0..=RESUMES {
            let got = match answer.take() {
                Some(answer) => self.take(answer, &mut hasher).await,
                None => match self.resume(order).await {
                    Ok(answer) => self.take(answer, &mut hasher).await,
                    Err(error) => Err(error),
                },
            };
            match got {
                Ok(()) if self.at == self.size => {
                    return (self.keep(order, hasher.take()).await, self);
                }
                Err(error @ (Error::Full(_) | Error::Storage { .. })) => return (Err(error), self),
                Ok(()) | Err(_) => {}
            }
        }
        (Err(Error::Upstream("it breaks off again and again".to_owned())), self)
    }

    async fn resume(&self, order: &Order) -> Result<reqwest::Response> {
        let range = [(header::RANGE, format!("bytes={}-", self.at))];
        let answer = order.upstream.request(Method::GET, &order.path, &order.name, &range).await?;
        match (answer.status(), self.at) {
            (StatusCode::PARTIAL_CONTENT, _) | (StatusCode::OK, 0) => Ok(answer),
            (status, _) => Err(Error::Upstream(format!("it answers {status} to a range"))),
        }
    }

    /// Writes what comes.
    async fn take(&mut self, answer: reqwest::Response, hasher: &mut Option<Hasher>) -> Result<()> {
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Error::Upstream(error.to_string()))?;
            if self.at + piece.len() as u64 > self.size {
                return Err(Error::Upstream("it sends more than it said".to_owned()));
            }
            let (file, at, length) = (Arc::clone(&self.file), self.at, piece.len() as u64);
            let Some(mut hashing) = hasher.take() else { return Ok(()) };
            let (written, hashing) = blocking(move || {
                hashing.update(&piece);
                (file.write_all_at(&piece, at), hashing)
            })
            .await;
            *hasher = Some(hashing);
            written.map_err(|error| Error::io("write to the spool", error))?;
            self.at += length;
            self.sender.send_replace(Progress::Running(self.at));
        }
        Ok(())
    }

    /// Makes a blob of it, if it is what it should be.
    async fn keep(&self, order: &Order, hasher: Option<Hasher>) -> Result<()> {
        let found = match hasher {
            Some(hasher) => hasher.finish()?,
            None => return Err(Error::Upstream("it was not read".to_owned())),
        };
        if found != order.digest {
            return Err(Error::Upstream(format!("it sent {found} for {}", order.digest)));
        }
        let repositories = &order.repositories;
        repositories.pin(&order.digest).await?;
        repositories.storage.adopt(&self.path, &key::blob(&order.digest)).await?;
        repositories.enlist(&order.name).await?;
        repositories.put_link(&order.name, &order.digest, self.size).await
    }

    async fn end(self, is_good: bool) {
        let Self { path, sender, .. } = self;
        // Where it became the blob itself it is gone already.
        blocking(move || std::fs::remove_file(path).ok()).await;
        sender.send_replace(if is_good { Progress::Done } else { Progress::Failed });
    }
}

impl Fetch {
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of a part, as they come.
    pub(crate) fn pieces(self, part: Range<u64>) -> Pieces {
        let pieces =
            futures_util::stream::try_unfold((self, part), |(mut fetch, part)| async move {
                if part.is_empty() {
                    return Ok(None);
                }
                let ready = fetch.wait(&part).await?;
                let file = Arc::clone(&fetch.file);
                let end = part.end.min(ready).min(part.start + PIECE);
                let piece = blocking(move || {
                    let mut piece = vec![0; (end - part.start) as usize];
                    file.read_exact_at(&mut piece, part.start).map(|()| Bytes::from(piece))
                })
                .await?;
                Ok::<_, BoxError>(Some((piece, (fetch, end..part.end))))
            });
        pieces.boxed()
    }

    /// Waits until there is something to send of a part; returns up to where.
    async fn wait(&mut self, part: &Range<u64>) -> Result<u64, BoxError> {
        let (size, start) = (self.size, part.start);
        let ready = move |progress: &Progress| match progress {
            Progress::Done => Some(Ok(size)),
            Progress::Failed => Some(Err("the upstream's blob is not complete")),
            Progress::Running(at) => {
                let shown = (*at).min(size.saturating_sub(1));
                (shown > start).then_some(Ok(shown))
            }
        };
        let progress = *self.progress.wait_for(|progress| ready(progress).is_some()).await?;
        match ready(&progress) {
            Some(Ok(shown)) => Ok(shown),
            Some(Err(text)) => Err(text.into()),
            None => Err("the fetch ended".into()),
        }
    }
}

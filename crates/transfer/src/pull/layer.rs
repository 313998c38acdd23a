//! One layer in one pass: from the network through the digest and onto disk as it is, and at the same time unpacked.
//!
//! A connection that breaks is taken up where it broke. What is not whole and verified at the end is not there.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use rorqual_content::{Blobs, Descriptor};
use rorqual_core::{DiffId, Digest, ErrorKind};
use rorqual_snapshot::LayerSource;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::job::Stage;
use super::refused;
use crate::Error;
use crate::archive::Pieces;
use crate::record::{Stores, other};
use crate::registry::{Failure, Reason, Session};

// LIMIT: pieces between the network and the disk; each is some ten KiB.
const PIECES: usize = 16;
// LIMIT: pieces between the disk and the unpacking.
const AHEAD: usize = 16;
/// LIMIT: one layer as it is sent.
const MAX_LAYER: u64 = 1 << 40;
// LIMIT: how often one blob may be taken up again, whatever the progress.
const MAX_RESUMES: u32 = 500;

type Unpacking = JoinHandle<Result<rorqual_snapshot::LayerInfo, rorqual_snapshot::Error>>;

/// A layer to fetch.
pub(super) struct Fetch {
    pub(super) stores: Stores,
    /// Servers in the order they are asked.
    pub(super) sessions: Vec<Arc<Session>>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) blob: Descriptor,
    pub(super) diff: DiffId,
}

/// Tells whether a blob is the plain tar, which is written again from the unpacked layer and not kept beside it.
fn is_plain(blob: &Descriptor, diff: &DiffId) -> bool {
    blob.digest == diff.0
}

/// Tells whether a layer is here, unpacked and as it was sent.
pub(super) async fn is_here(
    stores: &Stores,
    blob: &Descriptor,
    diff: &DiffId,
) -> Result<bool, Error> {
    let unpacked = stores.snapshots.find_layer(diff).await?.is_some();
    Ok(unpacked && (is_plain(blob, diff) || stores.blobs.size(&blob.digest)?.is_some()))
}

impl Fetch {
    /// Fetches and unpacks it, and tells how far that is.
    pub(super) async fn run(self, stage: Arc<watch::Sender<Stage>>) -> Result<(), Error> {
        if self.slots.available_permits() == 0 {
            stage.send_replace(Stage::Waiting);
        }
        let _slot = self.slots.acquire().await.map_err(other("wait for a turn"))?;
        // Another pull may have brought it meanwhile.
        if is_here(&self.stores, &self.blob, &self.diff).await? {
            return Ok(());
        }
        if self.blob.size > MAX_LAYER {
            let text = format!(
                "layer {} has {} bytes, more than {MAX_LAYER}",
                self.blob.digest, self.blob.size
            );
            return Err(refused(ErrorKind::InvalidArgument, text));
        }
        let plain = is_plain(&self.blob, &self.diff);
        if !plain && self.stores.blobs.size(&self.blob.digest)?.is_some() {
            return self.unpack_stored(&stage).await;
        }
        let unpacked = self.stores.snapshots.find_layer(&self.diff).await?.is_some();
        let (unpacking, pieces) = if unpacked { (None, None) } else { self.unpack().unzip() };
        let (sender, receiver) = mpsc::channel(PIECES);
        let keep = (!plain).then(|| Arc::clone(&self.stores.blobs));
        let (digest, size) = (self.blob.digest.clone(), self.blob.size);
        let writing =
            tokio::task::spawn_blocking(move || write(receiver, keep, pieces, &digest, size));
        self.finish(sender, writing, unpacking, &stage).await
    }

    async fn unpack_stored(&self, stage: &watch::Sender<Stage>) -> Result<(), Error> {
        stage.send_replace(Stage::Downloaded);
        let blob = self.stores.blobs.open(&self.blob.digest)?;
        let source = LayerSource { blob, expected: Some(self.diff.clone()) };
        self.stores.snapshots.apply(source).await?;
        Ok(())
    }

    /// Begins to unpack what will come.
    fn unpack(&self) -> Option<(Unpacking, SyncSender<Vec<u8>>)> {
        let (sender, pieces) = Pieces::channel(AHEAD, self.blob.size);
        let source = LayerSource { blob: Box::new(pieces), expected: Some(self.diff.clone()) };
        let snapshots = Arc::clone(&self.stores.snapshots);
        Some((tokio::spawn(async move { snapshots.apply(source).await }), sender))
    }

    /// Receives all bytes, then waits until they are stored and unpacked. Also a failure waits for both, so that nothing
    /// goes on behind it.
    async fn finish(
        &self,
        sender: mpsc::Sender<Bytes>,
        writing: JoinHandle<Result<(), Error>>,
        unpacking: Option<Unpacking>,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), Error> {
        let receiving = self.receive(sender, stage);
        let (received, unpacking) = abreast(receiving, unpacking).await;
        let written = writing.await.map_err(other("store a layer"))?;
        if written.is_ok() && received.is_ok() {
            stage.send_replace(Stage::Downloaded);
        }
        let unpacked = match unpacking {
            Outcome::Ended(result) => result,
            Outcome::Running(unpacking) => ended(unpacking.await),
        };
        match (written, unpacked, received) {
            (Ok(()), Ok(()), Ok(())) => Ok(()),
            // The network's failure is the cause of the others, but when it is theirs.
            (_, _, Err(failure)) if failure.reason != Reason::Local => Err(failure.into()),
            (_, Err(Error::Snapshot(error)), _) if !is_cut(&error) => Err(self.explained(error)),
            (Err(error), ..) => Err(error),
            (_, Err(error), _) => Err(error),
            (_, _, Err(failure)) => Err(failure.into()),
        }
    }

    /// Says whose fault a layer is that cannot be unpacked.
    fn explained(&self, error: rorqual_snapshot::Error) -> Error {
        match error {
            rorqual_snapshot::Error::InvalidArchive(why) => refused(
                ErrorKind::InvalidArgument,
                format!("layer {} cannot be unpacked: {why}", self.blob.digest),
            ),
            other => other.into(),
        }
    }

    /// Receives the bytes of the blob from one server after another.
    async fn receive(
        &self,
        sender: mpsc::Sender<Bytes>,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), Failure> {
        let mut done = 0;
        let mut last = Failure::new(Reason::Unreachable, "no server to ask");
        for (at, session) in self.sessions.iter().enumerate() {
            match self.receive_from(session, &sender, stage, &mut done).await {
                Ok(()) => return Ok(()),
                Err(failure) if session.is_open(&failure) && failure.reason != Reason::Local => {
                    tracing::debug!(server = session.authority(), error = %failure, "asking the next server");
                    last = failure;
                }
                Err(failure) => return Err(failure),
            }
            if at + 1 == self.sessions.len() {
                break;
            }
        }
        Err(last)
    }

    /// Receives from one server, taking up what breaks.
    async fn receive_from(
        &self,
        session: &Session,
        sender: &mpsc::Sender<Bytes>,
        stage: &watch::Sender<Stage>,
        done: &mut u64,
    ) -> Result<(), Failure> {
        let (mut tries, mut resumes) = (0, 0);
        while *done < self.blob.size {
            let before = *done;
            let failure = match self.stretch(session, sender, stage, done).await {
                Ok(()) if *done == self.blob.size => break,
                Ok(()) => {
                    let text = format!("layer {} ended after {done} bytes", self.blob.digest);
                    Failure::transient(Reason::Unreachable, text)
                }
                Err(failure) => failure,
            };
            resumes += 1;
            tries = if *done > before { 1 } else { tries + 1 };
            if !failure.transient || tries >= session.attempts() || resumes >= MAX_RESUMES {
                return Err(failure);
            }
            session.pause(tries, &failure).await;
        }
        Ok(())
    }

    /// Receives as much as one answer brings.
    async fn stretch(
        &self,
        session: &Session,
        sender: &mpsc::Sender<Bytes>,
        stage: &watch::Sender<Stage>,
        done: &mut u64,
    ) -> Result<(), Failure> {
        let mut stream = match session.blob(&self.blob, *done).await {
            Err(failure) if failure.reason == Reason::Unknown => {
                self.foreign(session, *done, failure).await?
            }
            stream => stream?,
        };
        while let Some(piece) = stream.piece().await? {
            if *done + piece.len() as u64 > self.blob.size {
                let text = format!(
                    "layer {} is longer than the {} bytes that its manifest says",
                    self.blob.digest, self.blob.size
                );
                return Err(Failure::new(Reason::Untrusted, text));
            }
            *done += piece.len() as u64;
            // Who writes has failed, and says why itself.
            let gone = |_| Failure::new(Reason::Local, "the layer cannot be stored");
            sender.send(piece).await.map_err(gone)?;
            stage.send_replace(Stage::Downloading(*done));
        }
        Ok(())
    }

    /// Asks at the addresses that the manifest names for a blob which the registry does not have.
    async fn foreign(
        &self,
        session: &Session,
        from: u64,
        mut failure: Failure,
    ) -> Result<crate::registry::Stream, Failure> {
        let urls = self.blob.more.get("urls").and_then(serde_json::Value::as_array);
        // LIMIT: more addresses than this make no blob more likely to be there.
        for url in urls.into_iter().flatten().filter_map(serde_json::Value::as_str).take(5) {
            match session.foreign(url, &self.blob, from).await {
                Ok(stream) => return Ok(stream),
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }
}

/// How unpacking stands when receiving ended.
enum Outcome {
    Ended(Result<(), Error>),
    Running(Unpacking),
}

fn ended(
    result: Result<
        Result<rorqual_snapshot::LayerInfo, rorqual_snapshot::Error>,
        tokio::task::JoinError,
    >,
) -> Result<(), Error> {
    result.map_err(other("unpack a layer"))?.map(drop).map_err(Error::from)
}

/// Receives while another task unpacks; when that fails, nothing more is received.
async fn abreast(
    receiving: impl Future<Output = Result<(), Failure>>,
    unpacking: Option<Unpacking>,
) -> (Result<(), Failure>, Outcome) {
    let Some(mut unpacking) = unpacking else { return (receiving.await, Outcome::Ended(Ok(()))) };
    tokio::pin!(receiving);
    tokio::select! {
        received = &mut receiving => (received, Outcome::Running(unpacking)),
        unpacked = &mut unpacking => match ended(unpacked) {
            Ok(()) => (receiving.await, Outcome::Ended(Ok(()))),
            Err(error) => {
                let failure = Failure::new(Reason::Local, "the layer cannot be unpacked");
                (Err(failure), Outcome::Ended(Err(error)))
            }
        },
    }
}

/// Tells whether unpacking failed because nothing more came.
fn is_cut(error: &rorqual_snapshot::Error) -> bool {
    match error {
        rorqual_snapshot::Error::Io { source, .. } => {
            source.kind() == std::io::ErrorKind::UnexpectedEof
        }
        rorqual_snapshot::Error::InvalidArchive(why) => why.contains("unexpected end of file"),
        _ => false,
    }
}

/// Stores what comes and hands it on to be unpacked. Fails when not all of it came, or its digest is another; then nothing of it
/// stays. Blocking.
fn write(
    mut receiver: mpsc::Receiver<Bytes>,
    keep: Option<Arc<dyn Blobs>>,
    mut unpacking: Option<SyncSender<Vec<u8>>>,
    digest: &Digest,
    size: u64,
) -> Result<(), Error> {
    let mut ingest = keep.as_ref().map(|blobs| blobs.ingest(size)).transpose()?;
    let keeps = ingest.is_some();
    let mut done = 0;
    while let Some(piece) = receiver.blocking_recv() {
        done += piece.len() as u64;
        if let Some(ingest) = &mut ingest {
            ingest.write_all(&piece).map_err(other(&format!("store layer {digest}")))?;
        }
        // A failed unpacking is reported by its own task; one that has all it needs takes no more.
        if unpacking.as_ref().is_some_and(|sender| sender.send(piece.into()).is_err()) {
            unpacking = None;
            if !keeps {
                break;
            }
        }
    }
    if done < size {
        let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(other(&format!("store layer {digest}"))(cut));
    }
    if let Some(ingest) = ingest {
        ingest.commit(Some(digest))?;
    }
    Ok(())
}

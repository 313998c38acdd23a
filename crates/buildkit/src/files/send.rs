//! The sending end: walks a tree, announces it, and serves the content that is asked for.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_build::{Error, TreeEntry};
use tokio::sync::mpsc;

use super::batch::{Batch, FULL};
use super::stat_of;
use crate::wire::{Packet, PacketType};

/// LIMIT: bytes of one packet of content; several files are on their way at a time, and each waits in some buffers.
const PIECE: usize = FULL;
/// Bytes that are there for a piece from the start: most files are small.
const FIRST: usize = 8 << 10;
/// Files sent at a time, so that small ones do not wait for large ones.
const WORKERS: usize = 4;

/// A tree that can be sent. Blocking.
pub trait SourceTree: Send + Sync + 'static {
    /// Calls `each` with every entry, depth first, sorted by name component; paths are relative and clean.
    fn walk(&self, each: &mut dyn FnMut(TreeEntry) -> Result<(), Error>) -> Result<(), Error>;
    /// Opens the content of a file of the walk. `None` when it has gone away meanwhile.
    fn open(&self, path: &str) -> Result<Option<SourceFile>, Error>;
}

/// Content of a file.
pub type SourceFile = Box<dyn Read + Send>;

/// Where packets go.
pub(crate) type Outgoing = mpsc::Sender<Batch>;

type Announced = Arc<Mutex<HashMap<u32, String>>>;

/// Sends a tree: takes what the receiver says, returns when it is satisfied. A failure is told to the receiver, too.
pub(crate) async fn serve_tree(
    tree: Arc<dyn SourceTree>,
    mut incoming: mpsc::Receiver<Batch>,
    outgoing: Outgoing,
) -> Result<(), Error> {
    let announced = Announced::default();
    // Requests are taken at once, whatever is being sent: HTTP/2 ends a connection on which too many small frames lie
    // unread. LIMIT: each file is asked for once, so no more wait than were announced.
    let (asked, queue) = mpsc::unbounded_channel::<(u32, String)>();
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    let mut work = tokio::task::JoinSet::new();
    {
        let (tree, announced, outgoing) =
            (Arc::clone(&tree), Arc::clone(&announced), outgoing.clone());
        work.spawn_blocking(move || announce(&*tree, &announced, &outgoing));
    }
    for _ in 0..WORKERS {
        work.spawn(send_files(Arc::clone(&tree), Arc::clone(&queue), outgoing.clone()));
    }
    let result = loop {
        tokio::select! {
            Some(done) = work.join_next() => {
                if let Err(error) = flatten(done) {
                    break Err(error);
                }
            }
            batch = incoming.recv() => {
                let taken = batch.map_or(Err(Error::Cancelled), |batch| {
                    take_requests(batch, &announced, &asked)
                });
                match taken {
                    Ok(Said::More) => {}
                    Ok(Said::Done) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        }
    };
    let last = match &result {
        Ok(()) => Packet { r#type: PacketType::PacketFin as i32, ..Packet::default() },
        Err(error) => Packet {
            r#type: PacketType::PacketErr as i32,
            data: rorqual_core::full_message(error).into_bytes(),
            ..Packet::default()
        },
    };
    outgoing.send(Batch::of(last)).await.ok();
    result
}

/// Whether the receiver has all that it wants.
enum Said {
    More,
    Done,
}

fn take_requests(
    batch: Batch,
    announced: &Announced,
    asked: &mpsc::UnboundedSender<(u32, String)>,
) -> Result<Said, Error> {
    for packet in batch {
        match asked_for(&packet, announced)? {
            Some(file) => asked.send(file).map_err(|_| Error::Cancelled)?,
            None => return Ok(Said::Done),
        }
    }
    Ok(Said::More)
}

fn flatten(done: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    done.unwrap_or(Err(Error::Cancelled))
}

/// The file that a packet asks for; `None` when the receiver is done.
fn asked_for(packet: &Packet, announced: &Announced) -> Result<Option<(u32, String)>, Error> {
    let invalid = |message: String| Error::Invalid { message, location: None };
    match PacketType::try_from(packet.r#type) {
        Ok(PacketType::PacketReq) => {
            let path = announced.lock().unwrap_or_else(PoisonError::into_inner).remove(&packet.id);
            let wrong = || invalid(format!("invalid file id {}", packet.id));
            Ok(Some((packet.id, path.ok_or_else(wrong)?)))
        }
        Ok(PacketType::PacketFin) => Ok(None),
        Ok(PacketType::PacketErr) => {
            let text = String::from_utf8_lossy(&packet.data);
            Err(invalid(format!("error from receiver: {text}")))
        }
        _ => Err(invalid("the receiver broke the protocol of file transfer".to_owned())),
    }
}

fn announce(
    tree: &dyn SourceTree,
    announced: &Announced,
    outgoing: &Outgoing,
) -> Result<(), Error> {
    let mut next = 0;
    let mut batch = Batch::default();
    tree.walk(&mut |entry| {
        if entry.mode & 0o170_000 == 0o100_000 {
            let mut announced = announced.lock().unwrap_or_else(PoisonError::into_inner);
            announced.insert(next, entry.path.clone());
        }
        next += 1;
        let stat = Some(stat_of(entry));
        batch.push(Packet { r#type: PacketType::PacketStat as i32, stat, ..Packet::default() });
        if batch.is_full() { put(outgoing, std::mem::take(&mut batch)) } else { Ok(()) }
    })?;
    batch.push(Packet { r#type: PacketType::PacketStat as i32, ..Packet::default() });
    put(outgoing, batch)
}

fn put(outgoing: &Outgoing, batch: Batch) -> Result<(), Error> {
    outgoing.blocking_send(batch).map_err(|_| Error::Cancelled)
}

async fn send_files(
    tree: Arc<dyn SourceTree>,
    queue: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<(u32, String)>>>,
    outgoing: Outgoing,
) -> Result<(), Error> {
    loop {
        let next = queue.lock().await.recv().await;
        let Some((id, path)) = next else { return Ok(()) };
        let (tree, outgoing) = (Arc::clone(&tree), outgoing.clone());
        let sent = tokio::task::spawn_blocking(move || send_file(&*tree, id, &path, &outgoing));
        flatten(sent.await)?;
    }
}

fn send_file(tree: &dyn SourceTree, id: u32, path: &str, outgoing: &Outgoing) -> Result<(), Error> {
    let r#type = PacketType::PacketData as i32;
    let mut batch = Batch::default();
    if let Some(mut file) = tree.open(path)? {
        loop {
            let data = piece(&mut file).map_err(|source| Error::Other {
                action: format!("read {path:?}"),
                kind: rorqual_core::ErrorKind::Internal,
                source: source.into(),
            })?;
            if data.is_empty() {
                break;
            }
            batch.push(Packet { r#type, id, data, ..Packet::default() });
            if batch.is_full() {
                put(outgoing, std::mem::take(&mut batch))?;
            }
        }
    }
    batch.push(Packet { r#type, id, ..Packet::default() });
    put(outgoing, batch)
}

/// Reads the next piece of a file, which is empty at its end.
fn piece(file: &mut SourceFile) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(FIRST);
    file.take(PIECE as u64).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests;

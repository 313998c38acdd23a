//! Packets on their way between a connection and a disk. They are handed on in batches, as each hand-over wakes a thread,
//! which costs more than most packets do; what waits is bounded by its bytes. Knows nothing of their meaning.

use std::sync::Arc;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use crate::wire::Packet;

/// LIMIT: bytes of a batch, which its last packet may pass.
pub(super) const FULL: usize = 128 << 10;
/// LIMIT: batches that wait.
const DEPTH: usize = 8;
/// LIMIT: bytes of batches that wait; what is larger waits alone.
const ROOM: usize = 2 << 20;
/// What a packet takes beside what is in it.
const OVERHEAD: usize = 256;

/// Packets that are handed on together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    packets: Vec<Packet>,
    bytes: usize,
    /// Where waiting is bounded by the sender's own reading, there is none.
    room: Option<OwnedSemaphorePermit>,
}

impl Batch {
    /// A batch of one.
    pub(crate) fn of(packet: Packet) -> Self {
        let mut batch = Self::default();
        batch.push(packet);
        batch
    }

    /// Adds a packet.
    pub(crate) fn push(&mut self, packet: Packet) {
        self.bytes += size(&packet);
        self.packets.push(packet);
    }

    /// Tells whether it is to be handed on.
    pub(crate) const fn is_full(&self) -> bool {
        self.bytes >= FULL
    }
}

impl IntoIterator for Batch {
    type Item = Packet;
    type IntoIter = Packets;

    fn into_iter(self) -> Packets {
        Packets { packets: self.packets.into_iter(), _room: self.room }
    }
}

/// The packets of a batch; its room is free once all were taken.
pub(crate) struct Packets {
    packets: std::vec::IntoIter<Packet>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Iterator for Packets {
    type Item = Packet;

    fn next(&mut self) -> Option<Packet> {
        self.packets.next()
    }
}

fn size(packet: &Packet) -> usize {
    let entry = packet.stat.as_ref().map_or(0, |stat| {
        let xattrs = stat.xattrs.iter().map(|(name, value)| name.len() + value.len());
        stat.path.len() + stat.linkname.len() + xattrs.sum::<usize>()
    });
    OVERHEAD + packet.data.len() + entry
}

/// Makes a queue for batches.
pub(crate) fn queue() -> (mpsc::Sender<Batch>, mpsc::Receiver<Batch>) {
    mpsc::channel(DEPTH)
}

/// Makes a stream of packets of what is handed on.
pub(crate) fn stream(queue: mpsc::Receiver<Batch>) -> impl Stream<Item = Packet> + Send {
    tokio_stream::wrappers::ReceiverStream::new(queue).flat_map(futures_util::stream::iter)
}

/// Hands on what comes, until nothing comes any more or nobody takes it.
///
/// # Errors
///
/// When the stream fails; what came before was handed on.
pub(crate) async fn hand_on(
    mut incoming: impl Stream<Item = Result<Packet, Status>> + Unpin,
    queue: mpsc::Sender<Batch>,
) -> Result<(), Status> {
    let room = Arc::new(Semaphore::new(ROOM));
    let mut next = incoming.next().await;
    while let Some(packet) = next {
        let mut batch = Batch::of(packet?);
        let mut failure = None;
        // What is here already comes along.
        let ended = loop {
            if batch.is_full() {
                break false;
            }
            match incoming.next().now_or_never() {
                None => break false,
                Some(None) => break true,
                Some(Some(Ok(packet))) => batch.push(packet),
                Some(Some(Err(status))) => {
                    failure = Some(status);
                    break true;
                }
            }
        };
        let bytes = u32::try_from(batch.bytes.min(ROOM)).unwrap_or(u32::MAX);
        batch.room = Arc::clone(&room).acquire_many_owned(bytes).await.ok();
        if queue.send(batch).await.is_err() {
            return Ok(());
        }
        if ended {
            return failure.map_or(Ok(()), Err);
        }
        next = incoming.next().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

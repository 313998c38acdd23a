//! Bodies: of answers, whole or streamed, and of requests, bounded or handed to a blocking reader.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use rorqual_core::BoxError;
use tokio::sync::mpsc;

/// Body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A request body beyond its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request body is larger than {0} bytes")]
pub struct TooLarge(pub usize);

// LIMIT: pieces in flight between a blocking thread and a connection; together with PIECE it bounds memory per stream.
const PIECES: usize = 4;
const PIECE: usize = 64 << 10;

/// Makes a body of bytes that are there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Makes a body without bytes.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// Makes a body of pieces as they come; an error cuts the connection, so that the client sees a broken answer.
pub fn stream(pieces: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

/// Makes a body of what is sent; sending waits while the client is slow and fails once it is gone.
pub fn channel() -> (mpsc::Sender<Result<Bytes, BoxError>>, Body) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, stream(receiver_stream(receiver)))
}

fn receiver_stream<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

/// Makes a body of what a blocking reader yields. The reader is dropped when the client goes away.
pub fn reader(mut reader: impl Read + Send + 'static) -> Body {
    let (sender, body) = channel();
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let item = match reader.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error.into()),
            };
            let is_last = item.is_err();
            if sender.blocking_send(item).is_err() || is_last {
                return;
            }
        }
    });
    body
}

// LIMIT: piece of a file that is on its way to a client; one is being sent while the next is read.
const FILE_PIECE: u64 = 64 << 10;

/// Makes a body of a part of a file, read piece by piece as the client takes it. A file that turns out to be shorter
/// cuts the connection.
pub fn file(file: Arc<File>, range: Range<u64>) -> Body {
    stream(futures_util::stream::try_unfold(range, move |range| {
        let file = Arc::clone(&file);
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let len = (range.end - range.start).min(FILE_PIECE) as usize;
            let piece = match read_cached(&file, range.start, len) {
                Some(piece) => piece,
                None => {
                    let read = move || {
                        let mut piece = vec![0; len];
                        file.read_exact_at(&mut piece, range.start)?;
                        Ok::<_, io::Error>(piece)
                    };
                    tokio::task::spawn_blocking(read).await??
                }
            };
            let rest = range.start + piece.len() as u64..range.end;
            Ok(Some((Bytes::from(piece), rest)))
        }
    }))
}

/// Reads what the kernel has in memory, without waiting for the disk: most files that are asked for were asked for lately, and a
/// hop to another thread costs more than the reading. `None` when somebody has to wait.
fn read_cached(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut piece = vec![0; len];
    let mut buffers = [io::IoSliceMut::new(&mut piece)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    // A part is as good as all; nothing at all is the end, which is the waiting reader's to tell.
    let count = rustix::io::preadv2(file, &mut buffers, offset, flags).ok()?;
    piece.truncate(count);
    (count > 0).then_some(piece)
}

/// A blocking writer whose bytes become the body; it fails once the client is gone.
pub fn writer() -> (impl io::Write + Send + 'static, mpsc::Sender<Result<Bytes, BoxError>>, Body) {
    let (sender, body) = channel();
    (ChannelWriter(sender.clone()), sender, body)
}

struct ChannelWriter(mpsc::Sender<Result<Bytes, BoxError>>);

impl io::Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE);
        let piece = Bytes::copy_from_slice(&bytes[..count]);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Body of a request.
pub struct RequestBody(Inner);

enum Inner {
    Bytes(Bytes),
    Incoming(Unread),
}

// LIMIT: what is read of a body that nobody wants, so that its client gets to read the answer instead of finding its
// connection closed while it writes.
const UNWANTED: usize = 64 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(10);

/// A body that comes over the connection. What nobody has read when it is dropped is read and thrown away.
struct Unread(Option<Incoming>);

impl Unread {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let frame = self.0.as_mut()?.frame().await;
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        frame
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(incoming) = self.0.take().filter(|incoming| !incoming.is_end_stream()) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(UNWANTED_TIME, throw_away(incoming)));
        }
    }
}

async fn throw_away(mut incoming: Incoming) {
    let mut count = 0;
    while let Some(Ok(frame)) = incoming.frame().await {
        count += frame.data_ref().map_or(0, Bytes::len);
        if count > UNWANTED {
            return;
        }
    }
}

impl RequestBody {
    pub(crate) const fn incoming(body: Incoming) -> Self {
        Self(Inner::Incoming(Unread(Some(body))))
    }

    /// Makes a body of bytes that are there.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Inner::Bytes(bytes.into()))
    }

    /// Reads it whole.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] beyond `limit` bytes, otherwise the connection's fault.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, BoxError> {
        let mut incoming = match self.0 {
            Inner::Bytes(bytes) if bytes.len() > limit => return Err(TooLarge(limit).into()),
            Inner::Bytes(bytes) => return Ok(bytes),
            Inner::Incoming(incoming) => incoming,
        };
        let mut bytes = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(TooLarge(limit).into());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.into())
    }

    /// Tells whether nothing comes any more.
    pub fn is_end(&self) -> bool {
        match &self.0 {
            Inner::Bytes(bytes) => bytes.is_empty(),
            Inner::Incoming(Unread(incoming)) => {
                incoming.as_ref().is_none_or(hyper::body::Body::is_end_stream)
            }
        }
    }

    /// Turns it into its pieces as they come. A body that breaks off is an error there, never an early end.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
        futures_util::stream::unfold(Some(self.0), |inner| async {
            match inner? {
                Inner::Bytes(bytes) => Some((Ok(bytes), None)),
                Inner::Incoming(mut incoming) => loop {
                    match incoming.frame().await? {
                        Err(error) => return Some((Err(error.into()), None)),
                        Ok(frame) => {
                            if let Ok(data) = frame.into_data() {
                                return Some((Ok(data), Some(Inner::Incoming(incoming))));
                            }
                        }
                    }
                },
            }
        })
    }

    /// Turns it into a blocking reader, to be read on a blocking thread. A body that breaks off is an error there,
    /// never an early end.
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        let mut incoming = match self.0 {
            Inner::Bytes(bytes) => return Box::new(bytes.reader()),
            Inner::Incoming(incoming) => incoming,
        };
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            loop {
                let item = match incoming.frame().await {
                    None => return sender.send(Ok(None)).await.unwrap_or_default(),
                    Some(Err(error)) => Err(io::Error::other(error)),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => Ok(Some(data)),
                        Err(_) => continue,
                    },
                };
                let is_last = item.is_err();
                if sender.send(item).await.is_err() || is_last {
                    return;
                }
            }
        });
        Box::new(ChannelReader { receiver, piece: Bytes::new(), ended: false })
    }
}

struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    ended: bool,
}

impl Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = self.piece.len().min(buf.len());
        buf[..count].copy_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        Ok(count)
    }
}

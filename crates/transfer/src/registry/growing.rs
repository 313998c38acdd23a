//! Sending a blob while it is still being made: its digest is known at its end only, and what breaks is taken up in the usual way
//! once it is whole.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rorqual_content::{Descriptor, ReadAt};
use rorqual_core::BoxError;
use tokio::sync::watch;

use super::failure::{Failure, Reason};
use super::session::{Call, MakeBody, Session};
use super::upload::{PIECE, Sent, Upload, finished};
use super::wire::{Activity, Body};

/// Blobs that end before this go in one request, whose digest is asked for before.
const WORTH: u64 = 4 << 20;

/// Is told how many bytes are sent, and of how many.
pub(crate) type Sending = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A blob that is being made.
#[derive(Default)]
pub(crate) struct Growing(watch::Sender<State>);

#[derive(Clone, Default)]
struct State {
    bytes: Option<Arc<dyn ReadAt>>,
    written: u64,
    /// How much of what it is made from went into what is written.
    used: u64,
    /// How much it is made from.
    source: u64,
    end: End,
}

#[derive(Clone, Default, PartialEq)]
enum End {
    #[default]
    Open,
    Whole(Descriptor),
    GivenUp,
}

/// How far sending came.
pub(crate) enum Progressed {
    /// Nothing was sent.
    Not,
    /// The registry has it.
    Done(Sent),
    /// An upload is open that did not come to its end.
    Open(Upload),
}

impl Growing {
    /// Says where its bytes are read, and how many it is made from.
    pub(crate) fn begin(&self, bytes: Arc<dyn ReadAt>, source: u64) {
        self.0.send_modify(|state| (state.bytes, state.source) = (Some(bytes), source));
    }

    /// There are more bytes; `used` of those that it is made from are in what there is now.
    pub(crate) fn grow(&self, len: u64, used: u64) {
        self.0.send_modify(|state| {
            state.written += len;
            state.used = used;
        });
    }

    /// Returns how many bytes there are.
    pub(crate) fn written(&self) -> u64 {
        self.0.borrow().written
    }

    /// All bytes are there, or there will be no more. The first word counts.
    pub(crate) fn end(&self, blob: Option<Descriptor>) {
        self.0.send_if_modified(|state| {
            let open = state.end == End::Open;
            if open {
                state.end = blob.map_or(End::GivenUp, End::Whole);
            }
            open
        });
    }

    /// Waits until it is known whether it has more bytes than are worth it; false when not.
    async fn is_large(&self) -> bool {
        let mut state = self.0.subscribe();
        let state = state.wait_for(|state| state.written >= WORTH || state.end != End::Open).await;
        state.is_ok_and(|state| state.end == End::Open)
    }

    /// Waits for its end; `None` when it was given up.
    async fn whole(&self) -> Option<Descriptor> {
        let mut state = self.0.subscribe();
        let state = state.wait_for(|state| state.end != End::Open).await.ok()?;
        match &state.end {
            End::Whole(blob) => Some(blob.clone()),
            End::Open | End::GivenUp => None,
        }
    }
}

impl Session {
    /// Sends a blob while it is being made. Fails only with what would fail again: the rest is left to the caller, who has the
    /// blob then.
    pub(crate) async fn send_growing(
        &self,
        growing: &Growing,
        sending: &Sending,
    ) -> Result<Progressed, Failure> {
        if !growing.is_large().await {
            return Ok(Progressed::Not);
        }
        let mut upload = match self.open_upload().await {
            Ok(upload) => upload,
            Err(failure) if failure.transient => return Ok(Progressed::Not),
            Err(failure) => return Err(failure),
        };
        let call = call(&upload, growing, sending);
        let answer = tokio::select! {
            answer = self.once(&call) => answer,
            // What was packed before it was sent may be there already: then the rest is spared.
            Some(true) = self.is_there(growing) => {
                let call = Call::new(Method::DELETE, upload.location.clone());
                if let Err(failure) = self.once(&call).await {
                    tracing::debug!(%failure, "an upload that is not needed is left to the registry");
                }
                return Ok(Progressed::Done(Sent::Exists));
            }
        };
        let ended = async {
            upload.location = self.location(&answer?)?;
            let Some(blob) = growing.whole().await else {
                return Err(Failure::new(Reason::Invalid, "a layer was not packed to its end"));
            };
            let uri = finished(&upload.location, &blob.digest)?;
            let end = Call::new(Method::PUT, uri).header(CONTENT_LENGTH, "0");
            self.once(&end).await.map(drop)
        };
        match ended.await {
            Ok(()) => Ok(Progressed::Done(Sent::Uploaded)),
            Err(failure) => {
                tracing::debug!(%failure, "a layer that is packed meanwhile is sent again");
                Ok(Progressed::Open(upload))
            }
        }
    }

    async fn is_there(&self, growing: &Growing) -> Option<bool> {
        let blob = growing.whole().await?;
        self.has_blob(&blob.digest).await.ok()
    }
}

/// COMPAT: one request of unknown length, as dockerd sends layers; what comes in pieces needs to say where each belongs.
fn call(upload: &Upload, growing: &Growing, sending: &Sending) -> Call {
    let activity = Arc::new(Activity::default());
    let make: MakeBody = {
        let (state, sending) = (growing.0.subscribe(), Arc::clone(sending));
        let activity = Arc::clone(&activity);
        Arc::new(move || body(state.clone(), Arc::clone(&sending), Arc::clone(&activity)))
    };
    let mut call = Call::new(Method::PATCH, upload.location.clone());
    call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Call { body: Some(make), activity: Some(activity), ..call }
}

/// How much of what a blob is made from is sent, where only what was packed is counted: between two moments at which both were
/// known they are taken to grow alike.
#[derive(Clone, Copy, Default)]
struct Share {
    from: (u64, u64),
    to: (u64, u64),
}

impl Share {
    /// Looks at `sent` packed bytes, of which as many as `now` says are written and used.
    fn of(&mut self, sent: u64, now: &State) -> u64 {
        if sent > self.to.0 {
            *self = Self { from: self.to, to: (now.written, now.used.min(now.source)) };
        }
        let (sent, packed) = (sent - self.from.0, self.to.0 - self.from.0);
        let used = u128::from(self.to.1 - self.from.1) * u128::from(sent);
        self.from.1 + u64::try_from(used / u128::from(packed.max(1))).unwrap_or(0)
    }
}

/// Makes a body of what is there and of what comes.
///
/// COMPAT: dockerd tells how much of the plain layer is sent, too; the size of the packed one is known at its end only.
fn body(state: watch::Receiver<State>, sending: Sending, activity: Arc<Activity>) -> Body {
    let begin = (state, 0, Share::default());
    let pieces = stream::try_unfold(begin, move |(mut state, at, mut share)| {
        let (sending, activity) = (Arc::clone(&sending), Arc::clone(&activity));
        async move {
            let more = |state: &State| state.written > at || state.end != End::Open;
            let now = state.wait_for(more).await?.clone();
            if now.written == at {
                return match now.end {
                    End::Whole(_) => Ok(None),
                    End::Open | End::GivenUp => Err("the layer was not packed to its end".into()),
                };
            }
            let piece = piece(now.bytes.clone(), at, now.written).await?;
            let at = at + piece.len() as u64;
            activity.piece();
            if matches!(&now.end, End::Whole(blob) if at == blob.size) {
                activity.end();
            }
            sending(share.of(at, &now), now.source);
            Ok::<_, BoxError>(Some((Frame::data(piece), (state, at, share))))
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

async fn piece(bytes: Option<Arc<dyn ReadAt>>, at: u64, written: u64) -> Result<Bytes, BoxError> {
    let bytes = bytes.ok_or("a layer has no bytes")?;
    let len = usize::try_from(written - at).unwrap_or(PIECE).min(PIECE);
    let read = move || {
        let mut piece = vec![0; len];
        let count = bytes.read_at(&mut piece, at)?;
        piece.truncate(count);
        if count > 0 { Ok(piece) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) }
    };
    Ok(Bytes::from(tokio::task::spawn_blocking(read).await??))
}

#[cfg(test)]
mod tests;

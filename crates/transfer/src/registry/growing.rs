//! Sending a blob while it is still being made: its digest is known at its end only, and what breaks is taken up in the usual way
//! once it is whole.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rorqual_content::{Descriptor, ReadAt};
use rorqual_core::BoxError;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::failure::{Failure, Reason};
use super::session::{Call, MakeBody, Session};
use super::upload::{PIECE, PIECES, Sent, Upload, finished};
use super::wire::{Activity, Body};

/// Blobs that end before this go in one request, whose digest is asked for before.
const WORTH: u64 = 4 << 20;

/// Is told how many bytes are sent, and of how many; 0 while that is not known.
pub(crate) type Sending = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A blob that is being made.
#[derive(Default)]
pub(crate) struct Growing(watch::Sender<State>);

#[derive(Clone, Default)]
struct State {
    bytes: Option<Arc<dyn ReadAt>>,
    written: u64,
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
    /// Says where its bytes are read.
    pub(crate) fn begin(&self, bytes: Arc<dyn ReadAt>) {
        self.0.send_modify(|state| state.bytes = Some(bytes));
    }

    /// There are more bytes.
    pub(crate) fn grow(&self, len: u64) {
        self.0.send_modify(|state| state.written += len);
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

/// Makes a body of what is there and of what comes, read by a thread of its own.
fn body(state: watch::Receiver<State>, sending: Sending, activity: Arc<Activity>) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BoxError>>(PIECES);
    let known = state.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = follow(state, &sender) {
            // If the connection has gone there is nobody left to tell.
            sender.blocking_send(Err(error)).ok();
        }
    });
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut at = 0;
    let frames = pieces.map(move |piece| {
        let piece = piece?;
        at += piece.len() as u64;
        activity.piece();
        let total = match &known.borrow().end {
            End::Whole(blob) => blob.size,
            End::Open | End::GivenUp => 0,
        };
        if at == total {
            activity.end();
        }
        sending(at, total);
        Ok(Frame::data(piece))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn follow(
    mut state: watch::Receiver<State>,
    sender: &mpsc::Sender<Result<Bytes, BoxError>>,
) -> Result<(), BoxError> {
    let runtime = Handle::current();
    let mut at = 0;
    loop {
        let more = |state: &State| state.written > at || state.end != End::Open;
        let now = runtime.block_on(async {
            tokio::select! {
                now = state.wait_for(more) => Some(now.map(|now| now.clone())),
                // Nobody wants more of it.
                () = sender.closed() => None,
            }
        });
        let Some(now) = now else { return Ok(()) };
        let State { bytes, written, end } = now?;
        if written == at {
            return match end {
                End::Whole(_) => Ok(()),
                End::Open | End::GivenUp => Err("the layer was not packed to its end".into()),
            };
        }
        let Some(bytes) = bytes else { return Err("a layer has no bytes".into()) };
        while at < written {
            let mut piece = vec![0; PIECE.min(usize::try_from(written - at).unwrap_or(PIECE))];
            let len = bytes.read_at(&mut piece, at)?;
            if len == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            piece.truncate(len);
            at += len as u64;
            if sender.blocking_send(Ok(Bytes::from(piece))).is_err() {
                return Ok(());
            }
        }
    }
}

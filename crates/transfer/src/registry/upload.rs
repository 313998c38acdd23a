//! Sending blobs and manifests: what is there already is not sent, what another repository has is mounted, the rest goes in
//! chunks that are taken up where they broke off.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderName, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rorqual_content::Descriptor;
use rorqual_core::{BoxError, Digest};
use tokio::sync::mpsc;

use super::failure::{Failure, Reason};
use super::redirect;
use super::session::{Call, MakeBody, Session};
use super::wire::{self, Activity, Body};

/// LIMIT: bytes of one request; what breaks is sent again from here on where the registry does not say how much it has.
const CHUNK: u64 = 128 << 20;
/// Blobs up to here go in one request.
const WHOLE: u64 = 8 << 20;
// LIMIT: pieces between the thread that reads and the connection, and their size.
pub(super) const PIECES: usize = 4;
pub(super) const PIECE: usize = 256 * 1024;
// LIMIT: how often one upload may be taken up again, whatever the progress.
const MAX_RESUMES: u32 = 200;
// LIMIT: repositories that a blob is asked for before it is sent.
const MAX_MOUNTS: usize = 3;

const MIN_CHUNK: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// How a blob came to be at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was there.
    Exists,
    /// The registry had it in this repository.
    Mounted(String),
    /// It was sent.
    Uploaded,
}

/// Opens the bytes of a blob, as often as they are needed.
pub(crate) trait Source: Send + Sync {
    /// Reads from some byte on. Blocking.
    fn open(&self, from: u64) -> std::io::Result<Box<dyn Read + Send>>;
}

/// A blob to send.
pub(crate) struct Content<'c> {
    pub(crate) blob: &'c Descriptor,
    pub(crate) source: Arc<dyn Source>,
    /// Paths of repositories at the same registry that may have it.
    pub(crate) mounts: &'c [String],
    /// Is told how many bytes are sent.
    pub(crate) progress: Arc<dyn Fn(u64) + Send + Sync>,
}

/// An upload under way.
pub(crate) struct Upload {
    pub(super) location: Uri,
    sent: u64,
    chunk: u64,
}

impl Session {
    /// Tells whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        let uri = self.uri(&format!("blobs/{digest}"))?;
        match self.call(Call::new(Method::HEAD, uri)).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.reason == Reason::Unknown => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Sees to it that the repository has a blob.
    pub(crate) async fn upload(&self, content: &Content<'_>) -> Result<Sent, Failure> {
        if self.has_blob(&content.blob.digest).await? {
            return Ok(Sent::Exists);
        }
        let (upload, mounted) = self.begin(content).await?;
        match mounted {
            Some(from) => Ok(Sent::Mounted(from)),
            None => self.bring(upload, content).await,
        }
    }

    /// Takes up an upload that broke off.
    pub(crate) async fn resume(
        &self,
        mut upload: Upload,
        content: &Content<'_>,
    ) -> Result<Sent, Failure> {
        // The answer to its end may be what was lost.
        if self.has_blob(&content.blob.digest).await? {
            return Ok(Sent::Uploaded);
        }
        if !self.ask(&mut upload, content.blob.size).await {
            upload = self.open_upload().await?;
        }
        self.bring(upload, content).await
    }

    async fn bring(&self, mut upload: Upload, content: &Content<'_>) -> Result<Sent, Failure> {
        let (mut tries, mut resumes) = (0, 0);
        loop {
            let before = upload.sent;
            let failure = match self.advance(&mut upload, content).await {
                Ok(true) => return Ok(Sent::Uploaded),
                Ok(false) => continue,
                Err(failure) => failure,
            };
            tries = if upload.sent > before { 1 } else { tries + 1 };
            resumes += 1;
            let lost = failure.reason == Reason::Unknown;
            if !(failure.transient || lost) || tries >= self.attempts() || resumes >= MAX_RESUMES {
                return Err(failure);
            }
            self.pause(tries, &failure).await;
            if lost || !self.ask(&mut upload, content.blob.size).await {
                // The registry has forgotten it, or only the answer to its end was lost.
                if self.has_blob(&content.blob.digest).await.unwrap_or(false) {
                    return Ok(Sent::Uploaded);
                }
                upload = self.open_upload().await?;
            }
        }
    }

    async fn begin(&self, content: &Content<'_>) -> Result<(Upload, Option<String>), Failure> {
        let digest =
            utf8_percent_encode(&content.blob.digest.to_string(), NON_ALPHANUMERIC).to_string();
        for from in content.mounts.iter().take(MAX_MOUNTS) {
            let from_text = utf8_percent_encode(from, NON_ALPHANUMERIC);
            let uri = self.uri(&format!("blobs/uploads/?mount={digest}&from={from_text}"))?;
            match self.call(self.empty(Method::POST, uri)).await {
                Ok(answer) if answer.status() == StatusCode::CREATED => {
                    let nowhere = Upload { location: Uri::default(), sent: 0, chunk: CHUNK };
                    return Ok((nowhere, Some(from.clone())));
                }
                // It cannot, and has opened an upload instead.
                Ok(answer) => return Ok((self.opened(&answer)?, None)),
                Err(failure) if failure.reason == Reason::Unauthorized => return Err(failure),
                // Whoever may not read there just sends the blob.
                Err(_) => {}
            }
        }
        Ok((self.open_upload().await?, None))
    }

    /// Opens an upload.
    pub(super) async fn open_upload(&self) -> Result<Upload, Failure> {
        let uri = self.uri("blobs/uploads/")?;
        let answer = self.call(self.empty(Method::POST, uri)).await?;
        self.opened(&answer)
    }

    #[expect(clippy::unused_self, reason = "requests belong to a session")]
    fn empty(&self, method: Method, uri: Uri) -> Call {
        Call::new(method, uri).header(CONTENT_LENGTH, "0")
    }

    fn opened(&self, answer: &Response<Incoming>) -> Result<Upload, Failure> {
        let location = self.location(answer)?;
        let least = answer.headers().get(MIN_CHUNK).and_then(|value| value.to_str().ok());
        let least = least.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Ok(Upload { location, sent: 0, chunk: CHUNK.max(least) })
    }

    pub(super) fn location(&self, answer: &Response<Incoming>) -> Result<Uri, Failure> {
        let untrusted = |text: &str| Failure::new(Reason::Untrusted, text);
        let text = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let text =
            text.ok_or_else(|| untrusted("the registry does not say where to send a blob to"))?;
        let base = self.uri("blobs/uploads/")?;
        let location = redirect::resolve(&base, text);
        location.ok_or_else(|| untrusted("the registry sends a blob to what is no address"))
    }

    /// Sends one more piece; true once the blob is there.
    async fn advance(&self, upload: &mut Upload, content: &Content<'_>) -> Result<bool, Failure> {
        let size = content.blob.size;
        if upload.sent == 0 && size <= WHOLE {
            let uri = finished(&upload.location, &content.blob.digest)?;
            self.once(&body_call(Method::PUT, uri, content, 0, size)).await?;
            return Ok(true);
        }
        if upload.sent < size {
            let end = size.min(upload.sent + upload.chunk);
            let range = format!("{}-{}", upload.sent, end - 1);
            let call = body_call(Method::PATCH, upload.location.clone(), content, upload.sent, end);
            let answer = self.once(&call.header(CONTENT_RANGE, &range)).await?;
            upload.location = self.location(&answer)?;
            upload.sent = end;
            return Ok(false);
        }
        let uri = finished(&upload.location, &content.blob.digest)?;
        self.once(&self.empty(Method::PUT, uri)).await?;
        Ok(true)
    }

    /// Asks how far an upload came; false when it is not known there.
    async fn ask(&self, upload: &mut Upload, size: u64) -> bool {
        let Ok(answer) = self.once(&Call::new(Method::GET, upload.location.clone())).await else {
            return false;
        };
        let range = answer.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let end = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
        // COMPAT: `0-0` stands for nothing as well as for one byte.
        upload.sent = end.filter(|end| *end > 0).map_or(0, |end| (end + 1).min(size));
        if let Ok(location) = self.location(&answer) {
            upload.location = location;
        }
        true
    }

    /// Puts a manifest or index under a tag or digest.
    pub(crate) async fn put_manifest(
        &self,
        reference: &str,
        kind: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let uri = self.uri(&format!("manifests/{reference}"))?;
        let bytes = Bytes::copy_from_slice(bytes);
        let mut call = Call::new(Method::PUT, uri).header(CONTENT_TYPE, kind);
        call.body = Some(Arc::new(move || wire::full(bytes.clone())));
        self.call(call).await.map(drop)
    }
}

/// Address that ends an upload; what the registry put into it stays.
pub(super) fn finished(location: &Uri, digest: &Digest) -> Result<Uri, Failure> {
    let sign = if location.query().is_some() { '&' } else { '?' };
    let digest = utf8_percent_encode(&digest.to_string(), NON_ALPHANUMERIC).to_string();
    let text = format!("{location}{sign}digest={digest}");
    text.parse().map_err(|_| Failure::new(Reason::Untrusted, "the registry gave no usable address"))
}

fn body_call(method: Method, uri: Uri, content: &Content<'_>, from: u64, to: u64) -> Call {
    let activity = Arc::new(Activity::default());
    let make: MakeBody = {
        let (source, progress) = (Arc::clone(&content.source), Arc::clone(&content.progress));
        let activity = Arc::clone(&activity);
        Arc::new(move || {
            streamed(Arc::clone(&source), (from, to), Arc::clone(&progress), Arc::clone(&activity))
        })
    };
    let call = Call::new(method, uri)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, &(to - from).to_string());
    Call { body: Some(make), activity: Some(activity), ..call }
}

/// Makes a body of a part of a source, read by a thread of its own.
fn streamed(
    source: Arc<dyn Source>,
    (from, to): (u64, u64),
    progress: Arc<dyn Fn(u64) + Send + Sync>,
    activity: Arc<Activity>,
) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BoxError>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let read = || -> std::io::Result<()> {
            let mut reader = source.open(from)?.take(to - from);
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                (&mut reader).take(PIECE as u64).read_to_end(&mut piece)?;
                if piece.is_empty() || sender.blocking_send(Ok(Bytes::from(piece))).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            // If the connection has gone there is nobody left to tell.
            sender.blocking_send(Err(error.into())).ok();
        }
    });
    let mut at = from;
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let frames = pieces.map(move |piece| {
        let piece = piece?;
        at += piece.len() as u64;
        activity.piece();
        if at >= to {
            activity.end();
        }
        progress(at);
        Ok(Frame::data(piece))
    });
    StreamBody::new(frames).boxed_unsync()
}

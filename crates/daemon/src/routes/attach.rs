//! Connections that become a process's terminal or streams: attach and exec, raw or as a web socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use rorqual_api::ApiVersion;
use rorqual_api::frame::{self, Stream};
use rorqual_core::detach::Watch;
use rorqual_core::full_message;
use rorqual_engine::{AttachRequest, Attached, ExecStart, ExecView, LogRecords};
use rorqual_http::{Answer, BoxFuture, Hijack, Protocol, RawStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::context::Context;
use crate::detach;
use crate::error::invalid;
use crate::request::{ApiRequest, Result, refuse};
use crate::routes::streams::record_bytes;
use crate::websocket;

/// LIMIT: a client that was told that there is no more keeps its connection no longer than this.
const PARTING: Duration = Duration::from_secs(10);

/// Whom to tell that a client left with the detach keys.
pub(super) enum Leave {
    /// A container's client.
    Container(Arc<Context>, String),
    /// An exec's client.
    Exec(Arc<Context>, String),
}

impl Leave {
    /// Waits until what clients ask for after the end of the output is known.
    async fn settled(&self) {
        if let Self::Exec(context, id) = self {
            context.engine.execs.settled(id).await;
        }
    }

    async fn note(self) {
        let noted = match self {
            Self::Container(context, id) => context.engine.containers.note_detach(&id).await,
            Self::Exec(context, id) => context.engine.execs.note_detach(&id).await,
        };
        if let Err(error) = noted {
            tracing::debug!(%error, "cannot note that a client detached");
        }
    }
}

fn attach_request(request: &ApiRequest) -> AttachRequest {
    let flag = |name| request.query.flag(name);
    AttachRequest {
        logs: flag("logs"),
        stream: flag("stream"),
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
    }
}

/// `POST /containers/{id}/attach`
pub(super) async fn attach(context: Arc<Context>, request: ApiRequest) -> Result {
    let keys = detach::keys(request.query.text("detachKeys"))?;
    let how = attach_request(&request);
    let id = request.param("id").to_owned();
    let attached = context.engine.containers.attach(&id, how).await?;
    let hijack = hijack(&request, attached, how.stdin, keys, Leave::Container(context, id));
    Ok(Answer::Hijack(hijack))
}

/// Hands the connection to a process.
pub(super) fn hijack(
    request: &ApiRequest,
    attached: Attached,
    stdin: bool,
    keys: Vec<u8>,
    leave: Leave,
) -> Hijack {
    let tty = attached.tty;
    upgraded(request, tty, move |client| Box::pin(converse(client, attached, stdin, keys, leave)))
}

/// Hands the connection to an exec, which starts afterwards.
pub(super) fn hijack_exec(
    request: &ApiRequest,
    context: Arc<Context>,
    exec: ExecView,
    how: ExecStart,
    keys: Vec<u8>,
) -> Hijack {
    let tty = exec.spec.tty;
    // ORDER: the head goes out before the start, as dockerd does it: some clients lose what comes
    // in one piece with the head.
    upgraded(request, tty, move |mut client| {
        Box::pin(async move {
            let id = exec.id.to_string();
            match context.engine.execs.start(&id, how).await {
                Ok(Some(attached)) => {
                    let leave = Leave::Exec(context, id);
                    return converse(client, attached, exec.spec.stdin, keys, leave).await;
                }
                Ok(None) => {}
                // COMPAT: why nothing runs is told here; clients ask for the exit code afterwards.
                Err(error) => {
                    let text = format!("{}\r\n", full_message(&error)).into_bytes();
                    let text = if tty { text } else { frame::encode(Stream::Stdout, &text) };
                    client.write_all(&text).await.ok();
                }
            }
            let (from_client, to_client) = tokio::io::split(client);
            part(from_client, to_client).await;
        })
    })
}

fn upgraded(
    request: &ApiRequest,
    tty: bool,
    take: impl FnOnce(RawStream) -> BoxFuture<()> + Send + 'static,
) -> Hijack {
    let asks_politely = request.parts.headers.contains_key(UPGRADE);
    // COMPAT: the second type tells new clients that frames follow; without asking nobody is told.
    let is_framed = asks_politely && !tty && request.version >= ApiVersion::v1(42);
    let kind = if is_framed {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if asks_politely {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    }
    Hijack {
        protocol: if asks_politely { Protocol::Upgraded } else { Protocol::Bare },
        headers,
        take: Box::new(take),
    }
}

/// Copies between client and process until the output has ended or the client has left.
async fn converse(client: RawStream, attached: Attached, stdin: bool, keys: Vec<u8>, leave: Leave) {
    let Attached { tty, logs, stream } = attached;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    if let Some(logs) = logs
        && replay(logs, tty, &mut to_client).await.is_err()
    {
        return;
    }
    if let Some(process) = stream {
        let watch = tty.then(|| Watch::new(keys));
        match pump(&mut from_client, &mut to_client, process, stdin, watch).await {
            Ended::Detached => leave.note().await,
            // ORDER: clients take the end of the connection for the end of the process and ask for its exit code.
            Ended::Output => leave.settled().await,
            Ended::Client => return,
        }
    }
    part(from_client, to_client).await;
}

/// Ends a conversation: nothing more is sent, and what the client still says is read until it ends too. A connection that
/// is closed with something unread is reset, and the client may lose the end of the output.
async fn part(mut from_client: impl AsyncRead + Unpin, mut to_client: impl AsyncWrite + Unpin) {
    if to_client.shutdown().await.is_ok() {
        let unheard = async { tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await };
        // Why it ends, and whether it does, changes nothing any more.
        let _ended = tokio::time::timeout(PARTING, unheard).await;
    }
}

async fn replay(
    mut logs: LogRecords,
    tty: bool,
    to_client: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    while let Some(record) = logs.next().await {
        match record {
            Ok(record) => to_client.write_all(&record_bytes(&record, tty, false, false)).await?,
            Err(error) => tracing::warn!(%error, "cannot read the log of a container"),
        }
    }
    to_client.flush().await
}

/// Why a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// No more output.
    Output,
    /// The client is gone.
    Client,
    /// The client typed the detach keys.
    Detached,
}

async fn pump(
    from_client: &mut (impl AsyncRead + Unpin),
    to_client: &mut (impl AsyncWrite + Unpin),
    process: UnixStream,
    stdin: bool,
    watch: Option<Watch>,
) -> Ended {
    let (mut output, input) = process.into_split();
    let outward = async {
        let copied = tokio::io::copy(&mut output, to_client).await;
        let flushed = to_client.flush().await;
        if copied.is_ok() && flushed.is_ok() { Ended::Output } else { Ended::Client }
    };
    let inward = async {
        if stdin {
            let detached = forward(from_client, input, watch).await;
            if detached {
                return;
            }
        }
        // The end of input is not the end of output.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = outward => ended,
        () = inward => Ended::Detached,
    }
}

/// Copies what the client types; true when it typed the detach keys.
async fn forward(
    from_client: &mut (impl AsyncRead + Unpin),
    mut input: tokio::net::unix::OwnedWriteHalf,
    mut watch: Option<Watch>,
) -> bool {
    let mut buf = vec![0; 16 << 10];
    let mut passed = Vec::new();
    while let Ok(count) = from_client.read(&mut buf).await {
        if count == 0 {
            break;
        }
        let (typed, is_left) = match &mut watch {
            None => (&buf[..count], false),
            Some(watch) => {
                passed.clear();
                let is_left = watch.feed(&buf[..count], &mut passed);
                (passed.as_slice(), is_left)
            }
        };
        if input.write_all(typed).await.is_err() || is_left {
            return is_left;
        }
    }
    // Dropping this half shuts down writing, which ends the process's standard input.
    drop(input);
    false
}

/// `GET /containers/{id}/attach/ws`
pub(super) async fn attach_websocket(context: Arc<Context>, request: ApiRequest) -> Result {
    let keys = detach::keys(request.query.text("detachKeys"))?;
    let Some(accept) = websocket::accept(&request.parts.headers) else {
        return refuse(invalid("this endpoint needs a web socket: send Upgrade: websocket"));
    };
    let how = attach_request(&request);
    let id = request.param("id").to_owned();
    let attached = context.engine.containers.attach(&id, how).await?;
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", accept);
    let leave = Leave::Container(context, id);
    Ok(Answer::Hijack(Hijack {
        protocol: Protocol::Upgraded,
        headers,
        take: Box::new(move |client| {
            Box::pin(async move {
                // A web socket carries raw bytes in messages; the conversation is the same behind it.
                let (near, far) = tokio::io::duplex(64 << 10);
                let frames = websocket::serve(client, far);
                let talk = converse_unframed(near, attached, how.stdin, keys, leave);
                tokio::join!(frames, talk);
            })
        }),
    }))
}

/// As [`converse`], with frames taken off: web sockets were never multiplexed.
async fn converse_unframed(
    client: tokio::io::DuplexStream,
    attached: Attached,
    stdin: bool,
    keys: Vec<u8>,
    leave: Leave,
) {
    let Attached { tty, logs, stream } = attached;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    if let Some(logs) = logs
        && replay(logs, true, &mut to_client).await.is_err()
    {
        return;
    }
    let Some(process) = stream else { return };
    if tty {
        let watch = Some(Watch::new(keys));
        if pump(&mut from_client, &mut to_client, process, stdin, watch).await == Ended::Detached {
            leave.note().await;
        }
    } else {
        let (mut output, input) = process.into_split();
        let outward = async {
            let (mut decoder, mut buf) =
                (rorqual_api::frame::Decoder::default(), vec![0; 16 << 10]);
            while let Ok(count @ 1..) = output.read(&mut buf).await {
                let mut plain = Vec::with_capacity(count);
                let fed = decoder.feed(&buf[..count], |_, bytes| plain.extend_from_slice(bytes));
                if fed.is_err() || to_client.write_all(&plain).await.is_err() {
                    return;
                }
            }
        };
        let inward = async {
            if stdin {
                forward(&mut from_client, input, None).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = outward => {}
            () = inward => {}
        }
    }
    to_client.shutdown().await.ok();
}

/// Keeps the type of pieces in one place.
pub(super) type Piece = std::result::Result<Bytes, rorqual_core::BoxError>;

#[cfg(test)]
mod tests;

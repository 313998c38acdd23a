//! One connection: HTTP/1.1 or HTTP/2 told by the first bytes, and taking it over.
//!
//! Docker's clients take over HTTP/1.1 connections in two ways: politely, with `Upgrade`, and as the oldest do, by
//! simply sending raw bytes behind the request. Both end here in the same way: hyper is stopped between two polls and
//! gives back the connection with the bytes that it has read too far.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::body::{self, Body, RequestBody};
use crate::file::{self, FileAnswer};
use crate::server::{Answer, Hijack, Limits, Protocol, Request, Service};
use crate::transport::{Peer, PeerCertificates, RawStream};

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection to its end.
pub(crate) async fn serve<S: Service>(
    mut io: RawStream,
    service: Arc<S>,
    limits: Limits,
    stop: CancellationToken,
) {
    let peer = Known { peer: io.peer(), certificates: io.certificates() };
    let first = tokio::select! {
        first = tokio::time::timeout(limits.head_timeout, first_bytes(&mut io)) => first,
        () = stop.cancelled() => return,
    };
    let Ok(Ok(first)) = first else { return };
    if first.is_empty() {
        return;
    }
    let is_h2 = first == H2_PREFACE;
    io.unread(first);
    if is_h2 {
        serve_h2(io, service, stop, peer).await;
        return;
    }
    let mut next = Some(io);
    while let Some(io) = next {
        next = serve_h1(io, Arc::clone(&service), limits, &stop, peer.clone()).await;
    }
}

/// Reads as many bytes as it takes to tell the protocol.
async fn first_bytes(io: &mut RawStream) -> io::Result<Bytes> {
    let mut first = BytesMut::with_capacity(H2_PREFACE.len());
    while first.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&first) {
        let room = H2_PREFACE.len() - first.len();
        if (&mut *io).take(room as u64).read_buf(&mut first).await? == 0 {
            break;
        }
    }
    Ok(first.freeze())
}

async fn serve_h2<S: Service>(
    io: RawStream,
    service: Arc<S>,
    stop: CancellationToken,
    peer: Known,
) {
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let (service, peer) = (Arc::clone(&service), peer.clone());
        async move {
            let (mut parts, body) = request.into_parts();
            peer.tell(&mut parts.extensions);
            let body = RequestBody::incoming(body);
            let answer = match service.call(Request { parts, body }).await {
                Answer::Response(response) => response,
                Answer::File(file) => file.into_response(),
                Answer::Hijack(_) => plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // LIMIT: streams of one connection at a time, and bytes of the heads of one request.
        .max_concurrent_streams(256)
        .max_header_list_size(64 << 10);
    let mut connection = builder.serve_connection(TokioIo::new(io), answer);
    // ORDER: one future for the whole connection: a new one per poll would take its waker along when it is dropped.
    let mut stopping = Box::pin(stop.cancelled());
    let mut is_stopping = false;
    let ended = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "connection ended");
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

/// What the service, hyper's side of the connection and the driver tell each other.
#[derive(Default)]
struct Shared {
    /// The kernel can send files over it.
    is_plain: bool,
    /// A request that may take over the connection is under way.
    may_hijack: AtomicBool,
    /// The client has shut its sending side meanwhile; hyper does not know.
    hidden_end: AtomicBool,
    /// The last write could not be finished.
    is_writing: AtomicBool,
    taken: Mutex<Option<Taken>>,
}

/// Why hyper loses the connection.
enum Taken {
    Hijack(Hijack),
    /// For the time that the kernel sends a file; then it goes on with the next request.
    File(FileAnswer),
}

/// What is known of a client.
#[derive(Clone)]
struct Known {
    peer: Option<Peer>,
    certificates: Option<PeerCertificates>,
}

impl Known {
    fn tell(&self, extensions: &mut http::Extensions) {
        if let Some(peer) = self.peer {
            extensions.insert(peer);
        }
        if let Some(certificates) = &self.certificates {
            extensions.insert(certificates.clone());
        }
    }
}

/// Serves requests until the connection ends (`None`) or hyper was taken off it for a while.
async fn serve_h1<S: Service>(
    io: RawStream,
    service: Arc<S>,
    limits: Limits,
    stop: &CancellationToken,
    peer: Known,
) -> Option<RawStream> {
    let shared = Arc::new(Shared { is_plain: io.plain_tcp().is_some(), ..Shared::default() });
    let watched = Watched { io, shared: Arc::clone(&shared) };
    let for_requests = Arc::clone(&shared);
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let (mut parts, body) = request.into_parts();
        peer.tell(&mut parts.extensions);
        // ORDER: hyper looks for the client's end as soon as this returns, before the answer is polled.
        for_requests.may_hijack.store(service.may_hijack(&parts), Ordering::Relaxed);
        let request = Request { parts, body: RequestBody::incoming(body) };
        answer_h1(Arc::clone(&service), request, limits, Arc::clone(&for_requests))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // COMPAT: scripts look for `Api-Version` in the output of curl.
        .title_case_headers(true)
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes);
    let mut connection = builder.serve_connection(TokioIo::new(watched), answer);

    let mut stopping = Box::pin(stop.cancelled());
    let mut is_stopping = false;
    let mut patience: Option<Pin<Box<tokio::time::Sleep>>> = None;
    let taken = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            return Poll::Ready(None);
        }
        // ORDER: an earlier answer on this connection must be on its way before the connection changes hands.
        if !shared.is_writing.load(Ordering::Relaxed)
            && let Some(taken) = lock(&shared.taken).take()
        {
            return Poll::Ready(Some(taken));
        }
        if shared.hidden_end.load(Ordering::Relaxed) {
            let timer = patience
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(limits.hijack_patience)));
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await;
    let taken = taken?;
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner().io;
    io.unread(parts.read_buf);
    match taken {
        Taken::Hijack(hijack) => {
            take_over(io, hijack).await;
            None
        }
        Taken::File(file) => match send_file(&mut io, file).await {
            Ok(()) if !stop.is_cancelled() => Some(io),
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(%error, "connection ended");
                None
            }
        },
    }
}

async fn send_file(io: &mut RawStream, answer: FileAnswer) -> io::Result<()> {
    io.write_all(&answer.head_bytes()).await?;
    let stream = io.plain_tcp().ok_or(io::ErrorKind::Unsupported)?;
    file::send(stream, &answer.file, answer.range.clone()).await
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer_h1<S: Service>(
    service: Arc<S>,
    mut request: Request,
    limits: Limits,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    if shared.may_hijack.load(Ordering::Relaxed) {
        // The whole body first: what follows it belongs to whoever takes over.
        let Ok(bytes) = request.body.bytes(limits.hijack_body).await else {
            return Ok(plain(StatusCode::BAD_REQUEST));
        };
        request.body = RequestBody::from_bytes(bytes);
    }
    let may_send = shared.is_plain && request.body.is_end() && file::may_send(&request.parts);
    match service.call(request).await {
        Answer::File(answer) if may_send => {
            *lock(&shared.taken) = Some(Taken::File(answer));
            pending().await
        }
        Answer::File(answer) => Ok(answer.into_response()),
        Answer::Response(response) => {
            // From here on a client that ends is gone, as with any other request.
            shared.may_hijack.store(false, Ordering::Relaxed);
            Ok(response)
        }
        Answer::Hijack(hijack) => {
            *lock(&shared.taken) = Some(Taken::Hijack(hijack));
            // The driver takes the connection away from hyper, and this future with it.
            pending().await
        }
    }
}

async fn take_over(mut io: RawStream, hijack: Hijack) {
    let Hijack { protocol, headers, take } = hijack;
    let mut head = match protocol {
        Protocol::Upgraded => b"HTTP/1.1 101 UPGRADED\r\n".to_vec(),
        Protocol::Bare => b"HTTP/1.1 200 OK\r\n".to_vec(),
    };
    write_headers(&mut head, &headers);
    head.extend_from_slice(b"\r\n");
    let sent = async {
        io.write_all(&head).await?;
        io.flush().await
    };
    if sent.await.is_ok() {
        take(io).await;
    }
}

/// Writes headers as they stand in a head.
pub(crate) fn write_headers(head: &mut Vec<u8>, headers: &http::HeaderMap) {
    for (name, value) in headers {
        head.extend_from_slice(canonical(name.as_str()).as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
}

/// Writes `content-type` as `Content-Type`, for clients that compare letters.
fn canonical(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('-')
        .map(|part| if part.is_empty() { String::new() } else { word(part) })
        .collect::<Vec<_>>()
        .join("-")
}

/// hyper's side of the connection.
struct Watched {
    io: RawStream,
    shared: Arc<Shared>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.shared.hidden_end.load(Ordering::Relaxed)
            && self.shared.may_hijack.load(Ordering::Relaxed)
        {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let is_end = matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        if is_end && buf.remaining() > 0 && self.shared.may_hijack.load(Ordering::Relaxed) {
            self.shared.hidden_end.store(true, Ordering::Relaxed);
            // The driver starts its clock at the next poll.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }
}

impl Watched {
    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.shared.is_writing.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

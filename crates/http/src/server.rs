//! The server: accepts connections, hands requests to a [`Service`], ends gracefully.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::response;
use rustls::ServerConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{Body, RequestBody};
use crate::connection;
use crate::file::FileAnswer;
use crate::listen::{Bound, Socket};
use crate::transport::{RawStream, Transport, sealed};

/// A future that can be kept and sent.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request.
pub struct Request {
    /// Method, path, headers.
    pub parts: Parts,
    /// Body.
    pub body: RequestBody,
}

/// What a service answers.
pub enum Answer {
    /// An answer of HTTP.
    Response(http::Response<Body>),
    /// The connection changes hands.
    Hijack(Hijack),
    /// A part of a file, sent by the kernel where it can be.
    File(FileAnswer),
}

/// How the head of a hijacked connection's answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `101 UPGRADED`, for clients that asked with `Upgrade`.
    Upgraded,
    /// `200 OK`, for old clients that take over the connection unasked.
    Bare,
}

/// A connection that changes hands after the head of its answer.
pub struct Hijack {
    /// How the head looks.
    pub protocol: Protocol,
    /// Headers of the head (`Content-Type`, `Upgrade`, …).
    pub headers: http::HeaderMap,
    /// Who takes over: bytes that came right behind the request included.
    pub take: Box<dyn FnOnce(RawStream) -> BoxFuture<()> + Send>,
}

/// Answers requests.
///
/// The future is dropped when the client goes away, so work that must end well belongs into a task of its own.
pub trait Service: Send + Sync + 'static {
    /// Tells whether the request may take over its connection. Such a client may have shut its sending side already,
    /// which otherwise means that it went away.
    fn may_hijack(&self, head: &Parts) -> bool;

    /// Answers a request.
    fn call(self: Arc<Self>, request: Request) -> BoxFuture<Answer>;

    /// Adds headers to answers that the server makes itself.
    fn decorate(&self, _head: &mut response::Parts) {}
}

/// Bounds on what clients may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time for the head of a request; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Connections of one listener at a time; further ones wait in its queue.
    pub connections: usize,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of the body of a request that may take over its connection.
    pub hijack_body: usize,
    /// How long a client that has shut its sending side waits for its connection to be taken over.
    pub hijack_patience: Duration,
}

impl Limits {
    /// Fits the number of connections to how many descriptors the process may have: what connections do needs more of
    /// them, so that half are left for that, and `listeners` share the other half.
    #[must_use]
    pub fn for_descriptors(self, descriptors: u64, listeners: usize) -> Self {
        let half = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
        let share = half / listeners.max(1);
        // LIMIT: with fewer, clients that follow logs would keep everybody else out.
        Self { connections: self.connections.min(share).max(8), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // LIMIT: as dockerd; clients keep idle connections and must not find them closed under a request.
            head_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(10),
            // LIMIT: half of the descriptors that a process commonly has; see `Limits::for_descriptors`.
            connections: 512,
            // LIMIT: registry credentials travel in a header.
            head_bytes: 256 << 10,
            headers: 128,
            hijack_body: 1 << 20,
            hijack_patience: Duration::from_secs(60),
        }
    }
}

/// A server on any number of listeners.
pub struct Server<S> {
    service: Arc<S>,
    limits: Limits,
    /// No new connections, no new requests.
    stop: CancellationToken,
    /// Connections end now.
    cut: CancellationToken,
    connections: TaskTracker,
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        let Self { service, limits, stop, cut, connections } = self;
        Self {
            service: Arc::clone(service),
            limits: *limits,
            stop: stop.clone(),
            cut: cut.clone(),
            connections: connections.clone(),
        }
    }
}

impl<S: Service> Server<S> {
    /// Makes a server.
    pub fn new(service: Arc<S>, limits: Limits) -> Self {
        Self {
            service,
            limits,
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    /// Serves a listener until [`Self::stop`]; the listener is closed (and its socket file gone) when this returns.
    pub async fn serve(&self, listener: Bound, tls: Option<Arc<ServerConfig>>) {
        let acceptor = tls.map(TlsAcceptor::from);
        // Each listener has its own share: who floods one cannot close the others.
        let room = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = accept(&listener, &room) => accepted,
            };
            match accepted {
                Ok((transport, place)) => self.spawn(transport, acceptor.clone(), place),
                Err(error) => {
                    tracing::warn!(%error, address = %listener.address, "cannot accept a connection");
                    // Out of descriptors: connections that end make room, and a tight loop helps nobody.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn spawn(
        &self,
        transport: Transport,
        acceptor: Option<TlsAcceptor>,
        place: OwnedSemaphorePermit,
    ) {
        let (service, limits) = (Arc::clone(&self.service), self.limits);
        let (stop, cut) = (self.stop.clone(), self.cut.clone());
        self.connections.spawn(async move {
            let serve = async {
                let transport = match (acceptor, transport) {
                    (Some(acceptor), Transport::Tcp(stream)) => {
                        match handshake(&acceptor, stream, limits.handshake_timeout).await {
                            Ok(transport) => transport,
                            Err(error) => return tracing::debug!(%error, "TLS handshake failed"),
                        }
                    }
                    (_, transport) => transport,
                };
                connection::serve(RawStream::new(transport), service, limits, stop).await;
            };
            tokio::select! {
                () = serve => {}
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }

    /// Stops accepting; requests under way go on, idle connections end.
    pub fn stop(&self) {
        self.stop.cancel();
        self.connections.close();
    }

    /// Waits until all connections have ended, after [`Self::stop`].
    pub async fn drained(&self) {
        self.connections.wait().await;
    }

    /// Ends all connections at once.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

/// Accepts a connection once there is room for it.
async fn accept(
    listener: &Bound,
    room: &Arc<Semaphore>,
) -> std::io::Result<(Transport, OwnedSemaphorePermit)> {
    // INVARIANT: the semaphore is never closed.
    let place = Arc::clone(room).acquire_owned().await.map_err(std::io::Error::other)?;
    let transport = match &listener.socket {
        Socket::Unix(socket) => Transport::Unix(socket.accept().await?.0),
        Socket::Tcp(socket) => {
            let (stream, _) = socket.accept().await?;
            stream.set_nodelay(true).ok();
            keep_alive(&stream);
            Transport::Tcp(stream)
        }
    };
    Ok((transport, place))
}

/// Has the kernel find out about peers that vanished without a word: a stream may be silent for hours, so silence
/// alone ends none.
fn keep_alive(stream: &tokio::net::TcpStream) {
    use rustix::net::sockopt;
    // LIMIT: a peer is given up after 30 + 4 * 15 seconds without an answer.
    let set = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, Duration::from_secs(30)))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15)))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, 4));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection goes without keep-alive");
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: tokio::net::TcpStream,
    timeout: Duration,
) -> std::io::Result<Transport> {
    let stream = tokio::time::timeout(timeout, acceptor.accept(sealed(stream))).await??;
    Ok(Transport::Tls(Box::new(stream)))
}

#[cfg(test)]
mod tests;

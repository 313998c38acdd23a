//! HTTP/2 on a connection that somebody else made: one end serves, the other calls. Which end of the transport calls is
//! independent of who dialled it: the daemon serves `/grpc` and calls on `/session`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower_service::Service;

/// A connection with both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// LIMIT: the largest message; definitions of large builds are bigger than gRPC's usual 4 MiB, clients send up to 16.
pub(crate) const LARGEST_MESSAGE: usize = 16 << 20;
/// LIMIT: what travels unread on one stream; larger windows only help where the way is long.
const WINDOW: u32 = 1 << 20;
/// LIMIT: what travels unread on a connection. As h2 lets small frames wait only up to half of this, counting each as 256
/// bytes, it is large enough for a stream's window full of entries of a tree.
const CONNECTION_WINDOW: u32 = 16 * WINDOW;
/// LIMIT: calls at a time on one connection.
const STREAMS: u32 = 256;
/// How long a silent peer is believed to be there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers calls by the path of their service.
pub(crate) trait Services: Clone + Send + Sync + 'static {
    /// Answers one call.
    fn call(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
}

/// Serves calls until the connection ends. Dropping the future ends all calls.
pub(crate) async fn serve(io: impl Duplex, services: impl Services) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = services.call(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
        .serve_connection(TokioIo::new(io), service)
        .await
}

/// The answer for services that are not there.
pub(crate) fn unimplemented(path: &str) -> Response<Body> {
    tonic::Status::unimplemented(format!("unknown service {}", path.trim_start_matches('/')))
        .into_http()
}

/// The calling end of a connection.
#[derive(Clone)]
pub(crate) struct Caller {
    sender: SendRequest<Body>,
}

impl Caller {
    /// Starts HTTP/2; the second value must be polled for anything to happen and ends with the connection.
    pub(crate) async fn new(
        io: impl Duplex,
    ) -> Result<(Self, impl Future<Output = Result<(), hyper::Error>> + Send), hyper::Error> {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await?;
        Ok((Self { sender }, connection))
    }
}

impl Service<Request<Body>> for Caller {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // HTTP/2 wants an authority, a path alone is what generated clients give.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let uri = http::Uri::builder().scheme("http").authority("localhost").path_and_query(path);
        if let Ok(uri) = uri.build() {
            *request.uri_mut() = uri;
        }
        let answer = self.sender.send_request(request);
        Box::pin(async move { Ok(answer.await?.map(Body::new)) })
    }
}

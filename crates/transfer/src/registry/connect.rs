//! Connections to registries: addresses that may be reached, proxies, TLS. Knows no HTTP but a proxy's `CONNECT`.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

// LIMIT: time for one address to answer, and for a handshake; slower servers are as good as none.
const CONNECT: Duration = Duration::from_secs(15);
const HANDSHAKE: Duration = Duration::from_secs(20);
// LIMIT: a proxy's answer to CONNECT.
const MAX_PROXY_HEAD: usize = 16 << 10;
// LIMIT: addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
// LIMIT: sealed bytes that one look at the socket takes; rustls by itself asks for 4 KiB at a time, a fourth of a record.
const SEALED: usize = 64 << 10;

/// Which addresses may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Any.
    All,
    /// Those that everybody could reach.
    Public,
}

/// Why TLS was not agreed on; told apart from the rest by those who may try without.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TlsFailure(String);

/// A place that a public registry sent us to and that only we can reach.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} has a private address, and a registry on the internet sent us there: refused, as it may be meant to reach what only this machine can"
)]
pub(super) struct PrivateTarget(String);

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection.
pub(super) struct Stream {
    inner: Box<dyn Duplex>,
    /// A proxy that is asked with whole addresses.
    proxied: bool,
}

/// Makes connections by one set of rules.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: Arc<ClientConfig>,
    /// For proxies that are reached by TLS themselves.
    pub(super) proxy_tls: Arc<ClientConfig>,
    pub(super) proxies: Arc<Matcher>,
    pub(super) reach: Reach,
    pub(super) is_private: fn(IpAddr) -> bool,
}

/// Looks up a name; literal addresses are their own answer.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer from DNS"))?;
    let found = found.map_err(|error| {
        // COMPAT: the words people search for.
        io::Error::new(error.kind(), format!("lookup {host}: {}", plain(&error)))
    })?;
    Ok(found.take(MAX_ADDRESSES).collect())
}

fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once("failed to lookup address information: ") {
        Some((_, rest)) => rest.to_owned(),
        None => text,
    }
}

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let host = uri.host().ok_or_else(|| invalid("an address without a host"))?.to_owned();
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let Some(proxy) = self.proxies.intercept(&uri) else {
            let tcp = self.dial(&host, port).await?;
            return self.finish(Box::new(tcp), &host, https).await;
        };
        self.check_behind_proxy(&host)?;
        let to = proxy.uri();
        let name = to.host().ok_or_else(|| invalid("a proxy without a host"))?;
        let proxy_https = to.scheme_str() == Some("https");
        let proxy_port = to.port_u16().unwrap_or(if proxy_https { 443 } else { 80 });
        if !matches!(to.scheme_str(), Some("http" | "https")) {
            return Err(invalid("only http and https proxies are supported"));
        }
        // The proxy is ours: wherever it is, it may be reached.
        let tcp = Self { reach: Reach::All, ..self.clone() }.dial(name, proxy_port).await;
        let tcp =
            tcp.map_err(|error| io::Error::new(error.kind(), format!("proxy {name}: {error}")))?;
        let mut stream: Box<dyn Duplex> = Box::new(tcp);
        if proxy_https {
            stream = handshake(Arc::clone(&self.proxy_tls), stream, name).await?;
        }
        if !https {
            return Ok(Stream { inner: stream, proxied: true });
        }
        tunnel(&mut stream, &host, port, proxy.basic_auth()).await?;
        self.finish(stream, &host, https).await
    }

    /// Behind a proxy names are not ours to look up; what is an address already can be told.
    fn check_behind_proxy(&self, host: &str) -> io::Result<()> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match (self.reach, literal) {
            (Reach::Public, Ok(address)) if (self.is_private)(address) => Err(private(host)),
            (Reach::Public, Err(_)) if host.eq_ignore_ascii_case("localhost") => Err(private(host)),
            _ => Ok(()),
        }
    }

    async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut found = addresses(host, port).await?;
        if self.reach == Reach::Public {
            found.retain(|address| !(self.is_private)(address.ip()));
            if found.is_empty() {
                return Err(private(host));
            }
        }
        let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in found {
            match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    tcp.set_nodelay(true)?;
                    return Ok(tcp);
                }
                Ok(Err(error)) => {
                    let text = error.to_string();
                    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
                    // COMPAT: the words people search for.
                    let text = format!("dial tcp {address}: connect: {text}");
                    failure = io::Error::new(error.kind(), text);
                }
                Err(_) => {
                    let text = format!("dial tcp {address}: i/o timeout");
                    failure = io::Error::new(io::ErrorKind::TimedOut, text);
                }
            }
        }
        Err(failure)
    }

    async fn finish(&self, stream: Box<dyn Duplex>, host: &str, https: bool) -> io::Result<Stream> {
        if !https {
            return Ok(Stream { inner: stream, proxied: false });
        }
        let inner = handshake(Arc::clone(&self.tls), stream, host).await?;
        Ok(Stream { inner, proxied: false })
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn private(host: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, PrivateTarget(host.to_owned()))
}

async fn handshake(
    config: Arc<ClientConfig>,
    stream: Box<dyn Duplex>,
    host: &str,
) -> io::Result<Box<dyn Duplex>> {
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|error| invalid(&error.to_string()))?;
    let stream = BufReader::with_capacity(SEALED, stream);
    let connecting = TlsConnector::from(config).connect(name, stream);
    let failed = |text: String| io::Error::other(TlsFailure(text));
    match tokio::time::timeout(HANDSHAKE, connecting).await {
        Ok(Ok(tls)) => Ok(Box::new(tls)),
        Ok(Err(error)) => Err(failed(format!("tls: {error}"))),
        Err(_) => Err(failed("tls: handshake timeout".to_owned())),
    }
}

/// Has a proxy connect to the server.
async fn tunnel(
    stream: &mut Box<dyn Duplex>,
    host: &str,
    port: u16,
    auth: Option<&http::HeaderValue>,
) -> io::Result<()> {
    let mut head =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(auth) = auth {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(auth.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await?;
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_PROXY_HEAD {
                return Err(io::Error::other("the proxy's answer is too long"));
            }
            answer.push(stream.read_u8().await?);
        }
        Ok(())
    };
    let read = tokio::time::timeout(HANDSHAKE, reading).await;
    read.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the proxy does not answer"))??;
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().next().unwrap_or_default();
    if line.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        return Ok(());
    }
    Err(io::Error::other(format!("the proxy refuses to connect to {host}:{port}: {line}")))
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

//! Reading a file from an address, as `import http://…` and `ADD http://…` do: one GET over HTTP or HTTPS, a few redirects, no
//! credentials.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// LIMIT: as browsers and Go's client.
const REDIRECTS: usize = 10;
/// LIMIT: a server that does not answer, or says nothing more, for this long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(60);
/// LIMIT: a tag of a server; longer ones are not remembered.
const MAX_ETAG: usize = 1024;
/// LIMIT: pieces that have come and are not read yet; a piece has at most some hundred KiB.
const AHEAD: usize = 4;

/// Why a file cannot be read from an address.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No address that we can read.
    #[error("invalid address {0:?}: need http:// or https:// and a host")]
    Address(String),
    /// The way there failed.
    // COMPAT: dockerd's form.
    #[error("Get \"{url}\": {reason}")]
    Unreachable {
        /// Where to.
        url: String,
        /// Why.
        reason: String,
    },
    /// The server refused.
    // COMPAT: dockerd's text.
    #[error("Got HTTP status code >= 400: {0}")]
    Refused(StatusCode),
}

/// Opens the file at an address. The reader blocks, and is for blocking threads only; it fails where the server stops early.
pub async fn open_remote(url: &str) -> Result<Box<dyn Read + Send>, RemoteError> {
    // COMPAT: a bare host and path mean HTTP.
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    Ok(reader(follow(url, None).await?.into_body()))
}

/// What is at an address.
#[derive(Debug)]
pub enum RemoteAnswer {
    /// What it was when its server gave that tag.
    Same,
    /// A file, whose content is on its way.
    File(RemoteFile),
}

/// A file on its way.
#[derive(Debug)]
pub struct RemoteFile {
    /// The server's tag of this content.
    pub etag: Option<String>,
    /// When it was changed last, as the server says.
    pub modified: Option<SystemTime>,
    /// Bytes, where the server says how many.
    pub length: Option<u64>,
    body: Incoming,
}

impl RemoteFile {
    /// Waits for the next piece; `None` when it is whole. Fails where the server stops early.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        next_piece(&mut self.body).await
    }
}

/// Asks for the file at an address, unless it is still what had this tag. Dropping the file ends the transfer.
pub async fn fetch_remote(url: &str, etag: Option<&str>) -> Result<RemoteAnswer, RemoteError> {
    let answer = follow(url.to_owned(), etag).await?;
    if answer.status() == StatusCode::NOT_MODIFIED {
        return Ok(RemoteAnswer::Same);
    }
    let text = |name: header::HeaderName| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let etag = text(header::ETAG).filter(|etag| etag.len() <= MAX_ETAG);
    let modified = text(header::LAST_MODIFIED);
    let modified = modified.and_then(|text| httpdate::parse_http_date(&text).ok());
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    Ok(RemoteAnswer::File(RemoteFile { etag, modified, length, body: answer.into_body() }))
}

/// Asks, and goes where the answers lead.
async fn follow(mut url: String, etag: Option<&str>) -> Result<Response<Incoming>, RemoteError> {
    for _ in 0..=REDIRECTS {
        let failed = |reason: String| RemoteError::Unreachable { url: url.clone(), reason };
        let answer = timeout(PATIENCE, get(&url, etag))
            .await
            .map_err(|_| failed(format!("no answer within {PATIENCE:?}")))??;
        let status = answer.status();
        if status == StatusCode::NOT_MODIFIED && etag.is_some() {
            return Ok(answer);
        }
        if status.is_redirection() {
            let place = answer.headers().get(header::LOCATION).and_then(|text| text.to_str().ok());
            let place = place.ok_or_else(|| failed(format!("{status} without a location")))?;
            url = joined(&url, place);
            continue;
        }
        if status.is_client_error() || status.is_server_error() {
            return Err(RemoteError::Refused(status));
        }
        return Ok(answer);
    }
    Err(RemoteError::Unreachable { url, reason: format!("stopped after {REDIRECTS} redirects") })
}

/// Where a redirect leads: to an address, or to another path of the same server.
fn joined(from: &str, place: &str) -> String {
    let Ok(base) = from.parse::<Uri>() else { return place.to_owned() };
    let (Some(scheme), Some(authority)) = (base.scheme_str(), base.authority()) else {
        return place.to_owned();
    };
    if place.contains("://") {
        place.to_owned()
    } else if let Some(rest) = place.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if place.starts_with('/') {
        format!("{scheme}://{authority}{place}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{place}")
    }
}

async fn get(url: &str, etag: Option<&str>) -> Result<Response<Incoming>, RemoteError> {
    let invalid = || RemoteError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(invalid()),
    };
    let failed = |reason: String| RemoteError::Unreachable { url: url.to_owned(), reason };
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let bare = host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((bare, port))
        .await
        .map_err(|error| failed(format!("dial tcp {host}:{port}: {}", system_text(&error))))?;
    if !tls {
        return exchange(stream, &uri, etag).await.map_err(|error| failed(error.to_string()));
    }
    let name = rustls_pki_types::ServerName::try_from(bare.to_owned()).map_err(|_| invalid())?;
    let connector = tokio_rustls::TlsConnector::from(trust().map_err(failed)?);
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| failed(format!("tls: {error}")))?;
    exchange(stream, &uri, etag).await.map_err(|error| failed(error.to_string()))
}

/// COMPAT: Go writes system errors in small letters, without their number.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("connect: {}", text.to_lowercase())
}

/// Whom the host trusts.
fn trust() -> Result<Arc<rustls::ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("the host has no certificates to trust: install ca-certificates".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    uri: &Uri,
    etag: Option<&str>,
) -> Result<Response<Incoming>, hyper::Error> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    tokio::spawn(async move {
        // What fails here also fails where the body is read.
        connection.await.ok();
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let mut request = Request::new(Empty::<Bytes>::new());
    if let Ok(path) = path.parse() {
        *request.uri_mut() = path;
    }
    let plain = [(header::HOST, host), (header::USER_AGENT, "rorqual"), (header::ACCEPT, "*/*")];
    for (name, value) in plain.into_iter().chain(etag.map(|etag| (header::IF_NONE_MATCH, etag))) {
        if let Ok(value) = value.parse() {
            request.headers_mut().insert(name, value);
        }
    }
    sender.send_request(request).await
}

async fn next_piece(body: &mut Incoming) -> io::Result<Option<Bytes>> {
    loop {
        match timeout(PATIENCE, body.frame()).await {
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(io::Error::other(error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A body that is fetched as it is read.
fn reader(mut body: Incoming) -> Box<dyn Read + Send> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let item = next_piece(&mut body).await;
            let is_last = !matches!(item, Ok(Some(_)));
            if sender.send(item).await.is_err() || is_last {
                return;
            }
        }
    });
    Box::new(Pieces { receiver, piece: Bytes::new(), ended: false })
}

struct Pieces {
    receiver: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;

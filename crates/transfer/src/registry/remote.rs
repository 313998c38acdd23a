//! Reading a file from an address, as `import http://…` and `ADD http://…` do: by the rules for registries (proxies, certificates, where redirects may lead),
//! but with one try and without credentials.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::connect::Reach;
use super::redirect;
use super::wire::{self, Route, Wire};

/// LIMIT: pieces that have come and are not read yet; a piece has at most some hundred KiB.
const AHEAD: usize = 4;
/// LIMIT: a tag of a server; longer ones are not remembered.
const MAX_ETAG: usize = 1024;

/// Why a file cannot be read from an address.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No address that we can read.
    #[error("invalid address {0:?}: need http:// or https:// and a host")]
    Address(String),
    /// The way there failed; says where to and why.
    #[error("{0}")]
    Unreachable(String),
    /// The server refused.
    // COMPAT: dockerd's text.
    #[error("Got HTTP status code >= 400: {0}")]
    Refused(StatusCode),
}

/// What is at an address.
pub enum RemoteAnswer {
    /// What it was when its server gave that tag.
    Same,
    /// A file, whose content is on its way.
    File(RemoteFile),
}

/// A file on its way. Dropping it ends the transfer.
pub struct RemoteFile {
    /// The server's tag of this content.
    pub etag: Option<String>,
    /// When it was changed last, as the server says.
    pub modified: Option<SystemTime>,
    /// Bytes, where the server says how many.
    pub length: Option<u64>,
    wire: Arc<Wire>,
    body: Incoming,
}

impl RemoteFile {
    /// Waits for the next piece; `None` when it is whole. Fails where the server stops early.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        self.wire.piece(&mut self.body).await.map_err(io::Error::other)
    }

    /// Makes it a reader that blocks, for blocking threads only; it fails where the server stops early.
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        reader(self)
    }
}

/// Opens the file at an address. The reader blocks, and is for blocking threads only; it fails where the server stops early.
pub(super) async fn open(wire: &Arc<Wire>, url: &str) -> Result<Box<dyn Read + Send>, RemoteError> {
    match fetch(wire, url, None).await? {
        RemoteAnswer::File(file) => Ok(file.into_reader()),
        RemoteAnswer::Same => Err(RemoteError::Refused(StatusCode::NOT_MODIFIED)),
    }
}

/// Asks for the file at an address, unless it is still what had this tag.
pub(super) async fn fetch(
    wire: &Arc<Wire>,
    url: &str,
    etag: Option<&str>,
) -> Result<RemoteAnswer, RemoteError> {
    let first = address(url)?;
    let mut uri = first.clone();
    let mut redirects = 0;
    loop {
        let route = route(wire, &first, &uri).await;
        let mut request = Request::new(wire::empty());
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(Ok(etag)) = etag.map(HeaderValue::from_str) {
            request.headers_mut().insert(header::IF_NONE_MATCH, etag);
        }
        let answer = wire.exchange(request, &route, None).await;
        let answer = answer.map_err(|failure| RemoteError::Unreachable(failure.text))?;
        let status = answer.status();
        if status == StatusCode::NOT_MODIFIED && etag.is_some() {
            return Ok(RemoteAnswer::Same);
        }
        if status.is_redirection() {
            redirects += 1;
            uri = redirect::follow(&answer, &uri, redirects, true).map_err(|failure| {
                // COMPAT: dockerd's form.
                RemoteError::Unreachable(format!("Get \"{}\": {failure}", wire::shown(&uri)))
            })?;
            continue;
        }
        if status.is_client_error() || status.is_server_error() {
            return Err(RemoteError::Refused(status));
        }
        return Ok(RemoteAnswer::File(file(Arc::clone(wire), answer)));
    }
}

fn file(wire: Arc<Wire>, answer: Response<Incoming>) -> RemoteFile {
    let text = |name: header::HeaderName| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let etag = text(header::ETAG).filter(|etag| etag.len() <= MAX_ETAG);
    let modified = text(header::LAST_MODIFIED);
    let modified = modified.and_then(|text| httpdate::parse_http_date(&text).ok());
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    RemoteFile { etag, modified, length, wire, body: answer.into_body() }
}

/// Reads what a user wrote; credentials in it are left out.
fn address(url: &str) -> Result<Uri, RemoteError> {
    let invalid = || RemoteError::Address(url.to_owned());
    // COMPAT: a bare host and path mean HTTP.
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = whole.parse().map_err(|_| invalid())?;
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let bare = authority.rsplit_once('@').map_or(authority, |(_, bare)| bare);
    let named = uri.host().is_some_and(|host| !host.is_empty());
    if !named || !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid());
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = uri.scheme_str().unwrap_or_default();
    Uri::builder()
        .scheme(scheme)
        .authority(bare)
        .path_and_query(path)
        .build()
        .map_err(|_| invalid())
}

/// Says by which rules an address is reached: the one that the user named by any way, what it leads to as a registry's redirects.
async fn route(wire: &Wire, first: &Uri, uri: &Uri) -> Route {
    let authority = |uri: &Uri| uri.authority().map(ToString::to_string).unwrap_or_default();
    let stranger = !redirect::same_server(first, uri);
    let reach = match stranger && wire.is_public(&authority(first)).await {
        true => Reach::Public,
        false => Reach::All,
    };
    Route { authority: authority(uri), verify: true, reach }
}

/// A body that is fetched as it is read.
fn reader(mut file: RemoteFile) -> Box<dyn Read + Send> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let item = file.piece().await;
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

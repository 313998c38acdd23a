//! Requests over one kept-alive HTTP/1.1 connection, with the API version agreed on first.
//!
//! Most daemons speak our newest version, so that is tried without asking; one that does not says so, and is asked then.

use std::sync::{Mutex, OnceLock};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::{Connection, Error, Host, Result, TlsFiles, dial};

pub use http::Method;

type WireBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// The newest API version this client speaks.
const NEWEST: (u32, u32) = (1, 51);
/// The version of daemons that do not tell theirs.
const OLDEST: (u32, u32) = (1, 24);
// LIMIT: a daemon with a hundred thousand containers lists them in less.
const LARGEST_ANSWER: usize = 256 << 20;

/// How a client behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// TLS material; plain when absent.
    pub tls: Option<TlsFiles>,
    /// Version that is used without asking the daemon, as `1.41`.
    pub api_version: Option<String>,
    /// Headers added to each request.
    pub headers: Vec<(String, String)>,
    /// `User-Agent`
    pub user_agent: String,
}

/// What follows a request's head.
pub enum Body {
    /// Nothing.
    Empty,
    /// A JSON document, written already.
    Json(Bytes),
    /// Bytes that come while they are sent, with their media type.
    Stream(Box<dyn Stream<Item = std::io::Result<Bytes>> + Send + Unpin>, &'static str),
}

impl From<Value> for Body {
    /// Writes the document; null is no body.
    fn from(document: Value) -> Self {
        if document.is_null() { Self::Empty } else { Self::Json(document.to_string().into()) }
    }
}

/// A request without its version prefix.
pub struct Request {
    /// The verb.
    pub method: Method,
    /// Path and query below `/v1.x`, already percent-encoded.
    pub path: String,
    /// What follows the head.
    pub body: Body,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Request {
    /// Makes a request without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: Body::Empty, headers: Vec::new() }
    }

    /// Adds a body.
    #[must_use]
    pub fn with(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Makes the same request again; `None` for what can be sent only once.
    fn again(&self) -> Option<Self> {
        let body = match &self.body {
            Body::Empty => Body::Empty,
            Body::Json(document) => Body::Json(document.clone()),
            Body::Stream(..) => return None,
        };
        let (method, path) = (self.method.clone(), self.path.clone());
        Some(Self { method, path, body, headers: self.headers.clone() })
    }
}

/// A successful answer whose body was not read yet.
pub struct Response {
    /// Status and headers.
    pub head: http::response::Parts,
    body: Incoming,
}

impl Response {
    /// Returns a header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Returns the next bytes of the body, `None` at its end.
    ///
    /// # Cancellation
    /// Nothing is lost when the future is dropped.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Reads the whole body.
    pub async fn bytes(mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if all.len() + bytes.len() > LARGEST_ANSWER {
                return Err(Error::TooLarge);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// Reads the whole body as JSON; an empty one is null.
    pub async fn json(self) -> Result<Value> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// A daemon and the connection to it.
pub struct Client {
    host: Host,
    options: Options,
    version: OnceLock<(u32, u32)>,
    ping: OnceLock<HeaderMap>,
    idle: Mutex<Option<SendRequest<WireBody>>>,
}

impl Client {
    /// Makes a client; nothing is connected yet.
    pub fn new(host: Host, options: Options) -> Self {
        let version = OnceLock::new();
        if let Some(fixed) = options.api_version.as_deref().and_then(parse_version) {
            let _ = version.set(fixed);
        }
        Self { host, options, version, ping: OnceLock::new(), idle: Mutex::new(None) }
    }

    /// Returns where the daemon is.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the newest version this client speaks.
    pub fn newest_version() -> String {
        format!("{}.{}", NEWEST.0, NEWEST.1)
    }

    /// Returns the version that is or would be spoken, without asking.
    pub fn current_version(&self) -> String {
        let (major, minor) = self.version.get().copied().unwrap_or(NEWEST);
        format!("{major}.{minor}")
    }

    /// Agrees with the daemon on a version; asks at most once.
    pub async fn version(&self) -> Result<(u32, u32)> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let headers = self.ping().await?;
        let theirs = headers.get("api-version").and_then(|value| value.to_str().ok());
        let version = theirs.and_then(parse_version).unwrap_or(OLDEST).min(NEWEST);
        Ok(*self.version.get_or_init(|| version))
    }

    /// Returns the headers of `/_ping`; asks at most once.
    pub async fn ping(&self) -> Result<&HeaderMap> {
        if let Some(headers) = self.ping.get() {
            return Ok(headers);
        }
        let (head, _) = self.exchange(Request::new(Method::HEAD, "/_ping"), "").await?.into_parts();
        Ok(self.ping.get_or_init(|| head.headers))
    }

    /// Sends a request and checks its status.
    ///
    /// # Errors
    /// `Daemon` with the daemon's text when the status is 400 or above.
    pub async fn send(&self, request: Request) -> Result<Response> {
        let answer = self.ask(request).await?;
        checked(answer).await
    }

    /// Sends a request below the version that is spoken with this daemon, and finds that out by the first answer.
    async fn ask(&self, request: Request) -> Result<http::Response<Incoming>> {
        if self.version.get().is_none()
            && let Some(again) = request.again()
        {
            let answer = self.exchange(again, &prefix(NEWEST)).await?;
            if answer.status() != http::StatusCode::BAD_REQUEST {
                let _ = self.version.set(NEWEST);
                return Ok(answer);
            }
            match refusal(answer).await {
                // COMPAT: dockerd's words for a version that it does not know.
                Error::Daemon { message, .. } if message.contains("is too new") => {}
                other => return Err(other),
            }
        }
        let version = self.version().await?;
        self.exchange(request, &prefix(version)).await
    }

    /// `GET` of a JSON document.
    pub async fn get(&self, path: impl Into<String>) -> Result<Value> {
        self.send(Request::new(Method::GET, path)).await?.json().await
    }

    /// `POST` of a JSON document (none when null) for a JSON document.
    pub async fn post(&self, path: impl Into<String>, body: impl Into<Body>) -> Result<Value> {
        self.send(Request::new(Method::POST, path).with(body.into())).await?.json().await
    }

    /// `DELETE`
    pub async fn delete(&self, path: impl Into<String>) -> Result<Value> {
        self.send(Request::new(Method::DELETE, path)).await?.json().await
    }

    /// Turns a request's connection into a raw stream; the media type says how it is framed.
    pub async fn hijack(&self, mut request: Request) -> Result<(Connection, Option<String>)> {
        request.headers.push(("connection", "Upgrade".to_owned()));
        if !request.headers.iter().any(|(name, _)| *name == "upgrade") {
            request.headers.push(("upgrade", "tcp".to_owned()));
        }
        let answer = self.ask(request).await?;
        if answer.status().as_u16() >= 300 {
            checked(answer).await?;
            return Err(Error::Daemon { status: 500, message: "unable to upgrade".to_owned() });
        }
        let media = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.map(str::to_owned);
        let upgraded = hyper::upgrade::on(answer).await?;
        Ok((Box::new(TokioIo::new(upgraded)), media))
    }

    async fn exchange(&self, request: Request, prefix: &str) -> Result<http::Response<Incoming>> {
        let request = self.wire_request(request, prefix)?;
        let mut sender = self.connected().await?;
        let answer = sender.send_request(request).await?;
        // The connection serves the next request once this answer's body was read; whoever asks
        // before that waits for `ready` in vain and gets a connection of its own.
        if let Ok(mut idle) = self.idle.lock() {
            *idle = Some(sender);
        }
        Ok(answer)
    }

    async fn connected(&self) -> Result<SendRequest<WireBody>> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.take());
        if let Some(sender) = idle
            && !sender.is_closed()
        {
            // Lets the connection's task see that the last answer was read to its end.
            tokio::task::yield_now().await;
            if sender.is_ready() {
                return Ok(sender);
            }
        }
        let stream = dial(&self.host, self.options.tls.as_ref()).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Failures reach whoever waits for the answer.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    fn wire_request(&self, request: Request, prefix: &str) -> Result<http::Request<WireBody>> {
        let base = match &self.host {
            Host::Tcp { base, .. } => base.as_str(),
            _ => "",
        };
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(format!("{base}{prefix}{}", request.path));
        for (name, value) in &self.options.headers {
            builder = builder
                .header(HeaderName::try_from(name.as_str()).map_err(http::Error::from)?, value);
        }
        builder = builder.header("user-agent", self.options.user_agent.as_str());
        builder = builder.header(HOST, self.host_header());
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        let body: WireBody = match request.body {
            Body::Empty => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Body::Json(document) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                Full::from(document).map_err(|never| match never {}).boxed_unsync()
            }
            Body::Stream(stream, media) => {
                builder = builder.header(CONTENT_TYPE, media);
                StreamBody::new(stream.map(|bytes| bytes.map(Frame::data))).boxed_unsync()
            }
        };
        Ok(builder.body(body)?)
    }

    fn host_header(&self) -> HeaderValue {
        let name = match &self.host {
            Host::Tcp { address, .. } => address.as_str(),
            // COMPAT: docker's name for a daemon behind a socket.
            _ => "api.moby.localhost",
        };
        HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("localhost"))
    }
}

/// Takes an answer apart; one that says no is an error.
async fn checked(answer: http::Response<Incoming>) -> Result<Response> {
    if answer.status().as_u16() >= 400 {
        return Err(refusal(answer).await);
    }
    let (head, body) = answer.into_parts();
    Ok(Response { head, body })
}

/// Reads why the daemon said no.
async fn refusal(answer: http::Response<Incoming>) -> Error {
    let (head, body) = answer.into_parts();
    let status = head.status.as_u16();
    let bytes = match (Response { head, body }).bytes().await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let message = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|document| document.get("message")?.as_str().map(|text| text.trim().to_owned()))
        .unwrap_or(text);
    Error::Daemon { status, message }
}

/// Returns what a path starts with.
fn prefix((major, minor): (u32, u32)) -> String {
    format!("/v{major}.{minor}")
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().trim_start_matches('v').split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests;

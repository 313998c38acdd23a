//! A conversation with one server about one repository: credentials, redirects, tries, and what is asked for.
//!
//! Credentials and tokens go to that server only, never along a redirect.

mod document;
mod login;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use rorqual_content::{Descriptor, MAX_DOCUMENT, verify};
use rorqual_core::{Digest, Reference};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::challenge::{self, Challenge};
use super::connect::Reach;
use super::endpoint::Endpoint;
use super::failure::{Failure, Reason};
use super::redirect;
use super::token::{self, Exchange, Scope, Token};
use super::wire::{self, Activity, Body, Route, Wire};
use crate::RegistryAuth;
use document::{bare_type, document_type, next_page};

pub(super) use login::login;

// LIMIT: how often one request asks who we are; tokens may end while it waits.
const MAX_CHALLENGES: usize = 5;
// LIMIT: pages of tags, and tags in all.
const MAX_PAGES: usize = 1000;
const MAX_TAGS: usize = 100_000;
// LIMIT: one page of tags.
const MAX_PAGE: usize = 16 << 20;
/// A token is not used so shortly before its end.
const MARGIN: Duration = Duration::from_secs(5);

/// The documents that we understand. COMPAT: the rest is asked for, too, to say what is wrong with it.
const ACCEPTED: &str = concat!(
    "application/vnd.docker.distribution.manifest.v2+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.oci.image.index.v1+json, */*"
);

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What the server wants to know of who asks.
enum Access {
    /// It was not asked yet, or wants nothing.
    Open,
    Basic,
    Token(challenge::Bearer, Option<Token>),
}

/// Makes a request's body, for each try anew.
pub(super) type MakeBody = Arc<dyn Fn() -> Body + Send + Sync>;

/// A request to be made, as often as it takes.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<MakeBody>,
    pub(super) activity: Option<Arc<Activity>>,
}

impl Call {
    pub(super) fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, headers: HeaderMap::new(), body: None, activity: None }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// A manifest or index as the registry has it.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
}

/// The bytes of a blob on their way.
pub(crate) struct Stream {
    wire: Arc<Wire>,
    body: Incoming,
    /// Bytes in front of what was asked for, from servers that know no ranges.
    skip: u64,
}

impl Stream {
    /// Returns the next piece, `None` at the end of what the server sends.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(mut piece) = self.wire.piece(&mut self.body).await? else { return Ok(None) };
            let skipped = self.skip.min(piece.len() as u64);
            self.skip -= skipped;
            let piece = piece.split_off(skipped as usize);
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }
}

/// A conversation.
pub(crate) struct Session {
    pub(super) wire: Arc<Wire>,
    pub(super) endpoint: Endpoint,
    path: String,
    auth: RegistryAuth,
    scope: Scope,
    access: Mutex<Access>,
}

impl Session {
    pub(super) fn new(
        wire: Arc<Wire>,
        endpoint: Endpoint,
        repository: &str,
        auth: RegistryAuth,
        scope: Scope,
    ) -> Self {
        let path = endpoint.path(repository);
        Self { wire, endpoint, path, auth, scope, access: Mutex::new(Access::Open) }
    }

    /// Names the server, for messages.
    pub(crate) fn authority(&self) -> &str {
        &self.endpoint.authority
    }

    /// Tells whether a failure leaves the question open for the next server of the same name.
    pub(crate) fn is_open(&self, failure: &Failure) -> bool {
        let unreached = matches!(failure.reason, Reason::Unreachable | Reason::Tls);
        if !self.endpoint.https && failure.reason == Reason::Unreachable {
            self.wire.forget_plain(&self.endpoint.authority);
        }
        self.endpoint.mirror || (!self.endpoint.verify && self.endpoint.https && unreached)
    }

    /// Remembers that this server was reached.
    pub(crate) fn note_reached(&self) {
        if !self.endpoint.https && !self.endpoint.verify && !self.endpoint.mirror {
            self.wire.note_plain(&self.endpoint);
        }
    }

    /// Address of something below the repository.
    pub(super) fn uri(&self, rest: &str) -> Result<Uri, Failure> {
        let text = format!("{}/v2/{}/{rest}", self.endpoint.base(), self.path);
        text.parse()
            .map_err(|_| Failure::new(Reason::Invalid, format!("{text:?} is not an address")))
    }

    async fn authorization(&self, offline: bool) -> Result<Option<HeaderValue>, Failure> {
        if !self.auth.registry_token.is_empty() {
            return Ok(token::bearer(&self.auth.registry_token));
        }
        let mut access = self.access.lock().await;
        match &mut *access {
            Access::Open => Ok(None),
            Access::Basic => Ok(token::basic(&self.auth)),
            Access::Token(_, Some(token)) if token.until > Instant::now() + MARGIN => {
                Ok(Some(token.header.clone()))
            }
            Access::Token(challenge, token) => {
                let exchange = Exchange {
                    wire: &self.wire,
                    endpoint: &self.endpoint,
                    auth: &self.auth,
                    challenge,
                    scope: &self.scope,
                    offline,
                };
                Ok(Some(token.insert(exchange.token().await?).header.clone()))
            }
        }
    }

    /// Learns from a 401 what is wanted; fails when nothing more can be done about it.
    async fn challenged(
        &self,
        used: Option<&HeaderValue>,
        headers: &HeaderMap,
    ) -> Result<(), Failure> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenge::parse(values.filter_map(|value| value.to_str().ok()));
        let unauthorized = |text: &str| Failure::new(Reason::Unauthorized, text);
        let mut access = self.access.lock().await;
        // Somebody else may have got a token meanwhile: that one is tried first.
        if let (Access::Token(_, Some(token)), Some(used)) = (&*access, used)
            && token.header != *used
        {
            return Ok(());
        }
        *access = match challenge {
            None => return Err(unauthorized("unauthorized: authentication required")),
            // COMPAT: dockerd's text.
            Some(Challenge::Basic) if self.auth.username.is_empty() => {
                return Err(unauthorized("no basic auth credentials"));
            }
            Some(Challenge::Basic) if matches!(*access, Access::Basic) => {
                return Err(unauthorized("unauthorized: authentication required"));
            }
            Some(Challenge::Basic) => Access::Basic,
            Some(Challenge::Bearer(bearer)) => Access::Token(bearer, None),
        };
        Ok(())
    }

    /// Makes a request with all it takes: credentials, redirects, further tries. Bad answers are failures.
    pub(super) async fn call(&self, call: Call) -> Result<Response<Incoming>, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.once(&call).await {
                Err(failure) if failure.transient && tries < self.wire.options.attempts => {
                    self.wire.pause(tries, &failure).await;
                }
                result => return result,
            }
        }
    }

    /// Makes a request once, but for credentials and redirects.
    pub(super) async fn once(&self, call: &Call) -> Result<Response<Incoming>, Failure> {
        let own: Uri = self.endpoint.base().parse().unwrap_or_default();
        let mut uri = call.uri.clone();
        let (mut redirects, mut challenges) = (0, 0);
        loop {
            let home = redirect::same_server(&uri, &own);
            let header = if home { self.authorization(false).await? } else { None };
            let answer = self.send(call, &uri, header.as_ref(), home).await?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && home && challenges < MAX_CHALLENGES {
                challenges += 1;
                let headers = answer.headers().clone();
                let refusal = self.wire.refusal(answer).await;
                match self.challenged(header.as_ref(), &headers).await {
                    Ok(()) if self.auth.registry_token.is_empty() => continue,
                    // What the registry says is worth more than what we can say.
                    Ok(()) => return Err(refusal),
                    Err(failure) if refusal.text.starts_with("unexpected") => return Err(failure),
                    Err(failure) if failure.text.starts_with("no basic") => return Err(failure),
                    Err(_) => return Err(refusal),
                }
            }
            let follows = matches!(call.method, Method::GET | Method::HEAD);
            if follows && status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                redirects += 1;
                uri = redirect::follow(&answer, &uri, redirects, self.endpoint.verify)?;
                continue;
            }
            if status.is_success() {
                return Ok(answer);
            }
            return Err(self.wire.refusal(answer).await);
        }
    }

    async fn send(
        &self,
        call: &Call,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
        home: bool,
    ) -> Result<Response<Incoming>, Failure> {
        let route = self.route(uri, home).await;
        let body = call.body.as_ref().map_or_else(wire::empty, |make| make());
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = call.headers.clone();
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.wire.exchange(request, &route, call.activity.as_deref()).await
    }

    /// Says by which rules an address is reached: our own server by its own, others as strangers.
    async fn route(&self, uri: &Uri, home: bool) -> Route {
        if home {
            let authority = self.endpoint.authority.clone();
            return Route { authority, verify: self.endpoint.verify, reach: Reach::All };
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let public = self.wire.is_public(&self.endpoint.authority).await;
        let reach = if public { Reach::Public } else { Reach::All };
        let own = super::endpoint::split(&authority).0
            == super::endpoint::split(&self.endpoint.authority).0;
        Route { authority, verify: self.endpoint.verify || !own, reach }
    }

    /// Asks what a tag or digest leads to, without fetching it; `None` when the registry does not say it all.
    pub(crate) async fn head_manifest(
        &self,
        reference: &str,
    ) -> Result<Option<Descriptor>, Failure> {
        let uri = self.uri(&format!("manifests/{reference}"))?;
        let answer = self.call(Call::new(Method::HEAD, uri).header(ACCEPT, ACCEPTED)).await;
        let headers = match answer {
            Ok(answer) => answer.into_parts().0.headers,
            // The head has no words: those that are worth reading come with the body.
            Err(failure)
                if matches!(
                    failure.reason,
                    Reason::Unknown | Reason::Denied | Reason::Unauthorized
                ) =>
            {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let digest = text(&DIGEST).and_then(|text| text.parse::<Digest>().ok());
        let size = text(&http::header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let kind = text(&CONTENT_TYPE).map(bare_type);
        let (Some(digest), Some(size), Some(kind)) = (digest, size, kind) else { return Ok(None) };
        Ok(Some(Descriptor::new(kind, digest, size)))
    }

    /// Fetches a manifest or index, verified when it is asked for by digest.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Document, Failure> {
        let uri = self.uri(&format!("manifests/{reference}"))?;
        let call = Call::new(Method::GET, uri).header(ACCEPT, ACCEPTED);
        let (head, bytes) = self.whole(&call, MAX_DOCUMENT as usize).await?;
        let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        let untrusted = |error: rorqual_content::Error| {
            Failure::new(Reason::Untrusted, format!("manifest verification failed: {error}"))
        };
        let own = Digest::sha256(Sha256::digest(&bytes).into());
        let digest = match reference.parse::<Digest>() {
            Ok(wanted) => {
                verify(&bytes, &wanted).map_err(untrusted)?;
                wanted
            }
            Err(_) => {
                if let Some(said) = text(&DIGEST).and_then(|text| text.parse::<Digest>().ok()) {
                    verify(&bytes, &said).map_err(untrusted)?;
                }
                own
            }
        };
        let kind = document_type(text(&CONTENT_TYPE).map(bare_type).unwrap_or_default(), &bytes)?;
        let descriptor = Descriptor::new(&kind, digest, bytes.len() as u64);
        Ok(Document { descriptor, bytes })
    }

    /// Reads a small blob whole, verified.
    pub(crate) async fn small_blob(
        &self,
        blob: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, Failure> {
        if blob.size > limit {
            let text = format!("blob {} has {} bytes, more than {limit}", blob.digest, blob.size);
            return Err(Failure::new(Reason::Untrusted, text));
        }
        let uri = self.uri(&format!("blobs/{}", blob.digest))?;
        let (_, bytes) = self.whole(&Call::new(Method::GET, uri), limit as usize).await?;
        verify(&bytes, &blob.digest).map_err(|error| {
            Failure::new(Reason::Untrusted, format!("blob verification failed: {error}"))
        })?;
        Ok(bytes)
    }

    /// Makes a request and reads its answer whole, as often as it takes.
    async fn whole(
        &self,
        call: &Call,
        limit: usize,
    ) -> Result<(http::response::Parts, Vec<u8>), Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let read = async {
                let (head, body) = self.once(call).await?.into_parts();
                Ok((head, self.wire.read(body, limit).await?))
            };
            match read.await {
                Err(failure) if Failure::is_transient(&failure) && tries < self.attempts() => {
                    self.wire.pause(tries, &failure).await;
                }
                result => return result,
            }
        }
    }

    /// Begins to fetch a blob from some byte on; the caller tries again.
    pub(crate) async fn blob(&self, blob: &Descriptor, from: u64) -> Result<Stream, Failure> {
        let uri = self.uri(&format!("blobs/{}", blob.digest))?;
        let answer = self.once(&ranged(uri, from)).await?;
        self.stream(answer, blob, from)
    }

    /// Begins to fetch a blob from an address that its descriptor names: from a stranger, without credentials.
    pub(crate) async fn foreign(
        &self,
        url: &str,
        blob: &Descriptor,
        from: u64,
    ) -> Result<Stream, Failure> {
        let bad = || Failure::new(Reason::Untrusted, format!("{url:?} is not an address"));
        let uri = redirect::resolve(&Uri::from_static("https://invalid/"), url).ok_or_else(bad)?;
        let call = ranged(uri.clone(), from);
        let answer = self.send(&call, &uri, None, false).await?;
        if !answer.status().is_success() {
            return Err(self.wire.refusal(answer).await);
        }
        self.stream(answer, blob, from)
    }

    fn stream(
        &self,
        answer: Response<Incoming>,
        blob: &Descriptor,
        from: u64,
    ) -> Result<Stream, Failure> {
        let (head, body) = answer.into_parts();
        let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        let begins = text(CONTENT_RANGE)
            .and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
        let skip = match (head.status, begins) {
            (StatusCode::PARTIAL_CONTENT, Some(begins)) if begins == from => 0,
            (StatusCode::PARTIAL_CONTENT, _) => {
                let text = "the registry sends another range than was asked for";
                return Err(Failure::new(Reason::Untrusted, text));
            }
            _ => from,
        };
        let length = text(http::header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        if let Some(length) = length
            && length != blob.size - from + skip
        {
            let text = format!(
                "blob {} has {} bytes at the registry, but its manifest says {}",
                blob.digest,
                length + from - skip,
                blob.size
            );
            return Err(Failure::new(Reason::Untrusted, text));
        }
        Ok(Stream { wire: Arc::clone(&self.wire), body, skip })
    }

    /// Lists all tags.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut uri = self.uri("tags/list")?;
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let call = Call::new(Method::GET, uri.clone());
            let (head, bytes) = self.whole(&call, MAX_PAGE).await?;
            let page = serde_json::from_slice::<Page>(&bytes).map_err(|error| {
                Failure::new(Reason::Untrusted, format!("the list of tags cannot be read: {error}"))
            })?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > MAX_TAGS {
                let text = format!("the repository has more than {MAX_TAGS} tags");
                return Err(Failure::new(Reason::Untrusted, text));
            }
            let link = head.headers.get(http::header::LINK).and_then(|value| value.to_str().ok());
            match link.and_then(next_page).and_then(|link| redirect::resolve(&uri, link)) {
                // A list goes on at the server where it began.
                Some(next) if redirect::same_server(&next, &uri) => uri = next,
                _ => break,
            }
        }
        // What is no tag could lead anywhere when it is put into an address.
        tags.retain(|tag| format!("x:{tag}").parse::<Reference>().is_ok());
        Ok(tags)
    }

    /// Waits before another try.
    pub(crate) async fn pause(&self, tries: u32, failure: &Failure) {
        self.wire.pause(tries, failure).await;
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.wire.options.attempts
    }
}

fn ranged(uri: Uri, from: u64) -> Call {
    let call = Call::new(Method::GET, uri);
    if from == 0 { call } else { call.header(RANGE, &format!("bytes={from}-")) }
}

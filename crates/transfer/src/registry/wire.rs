//! Single requests on the wire: a client per set of rules, deadlines, and failures in words. Knows no credentials.
//!
//! HTTP/1.1 on purpose: layers come over connections of their own, so one window does not bound them all.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rorqual_core::{BoxError, Repository};

use super::connect::{Connector, PrivateTarget, Reach, TlsFailure, addresses};
use super::endpoint::{self, Endpoint, Purpose};
use super::failure::{self, Failure, Reason};
use super::options::RegistryOptions;
use super::tls;
use crate::Error;

/// What a request carries.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

// LIMIT: words of a bad answer that are read.
const MAX_WORDS: usize = 64 << 10;
// LIMIT: clients and names remembered; a daemon that speaks to more registries starts anew.
const MAX_KNOWN: usize = 1000;
// LIMIT: a registry that wants us to wait longer is told to the user instead.
const MAX_AFTER: Duration = Duration::from_secs(60);
// LIMIT: idle connections to one server, and how long they are kept.
const IDLE: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(30);
/// A registry may hash all that was sent before it answers.
const AFTER_BODY: u32 = 10;

/// Makes a body of nothing.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Makes a body of bytes in memory.
pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// By which rules a request goes out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    /// `host[:port]` that settings know the server by.
    pub(super) authority: String,
    pub(super) verify: bool,
    pub(super) reach: Reach,
}

/// How far a body has been sent, so that silence can be told from work.
#[derive(Debug, Default)]
pub(super) struct Activity {
    pieces: AtomicU64,
    ended: AtomicU64,
}

impl Activity {
    pub(super) fn piece(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.ended.store(1, Ordering::Relaxed);
    }
}

/// The way to all registries under one set of settings.
pub(crate) struct Wire {
    pub(super) options: RegistryOptions,
    proxies: Arc<Matcher>,
    clients: Mutex<HashMap<Route, Client<Connector, Body>>>,
    /// Whether hosts are on the internet.
    public: Mutex<HashMap<String, bool>>,
    /// Servers that turned out not to speak TLS.
    plain: Mutex<HashSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    pub(super) fn new(options: RegistryOptions) -> Self {
        let proxies = &options.proxies;
        let matcher = Matcher::builder()
            .http(proxies.http.clone())
            .https(proxies.https.clone())
            .no(proxies.none.clone())
            .build();
        Self {
            options,
            proxies: Arc::new(matcher),
            clients: Mutex::default(),
            public: Mutex::default(),
            plain: Mutex::default(),
        }
    }

    /// Lists the endpoints of a repository, those that answered lately first.
    pub(super) async fn endpoints(
        &self,
        repository: &Repository,
        purpose: Purpose,
    ) -> Result<Vec<Endpoint>, Error> {
        let mut found = Vec::new();
        if endpoint::has_networks(&self.options) {
            let (host, port) = endpoint::split(repository.host());
            let looked_up = addresses(host, port.unwrap_or(443)).await.unwrap_or_default();
            found.extend(looked_up.iter().map(std::net::SocketAddr::ip));
        }
        let mut endpoints = endpoint::endpoints(&self.options, repository, purpose, &found)?;
        let plain = lock(&self.plain);
        endpoints.retain(|endpoint| {
            let known = !endpoint.verify && plain.contains(&endpoint.authority);
            !(known && endpoint.https && !endpoint.mirror)
        });
        Ok(endpoints)
    }

    /// Remembers that an insecure registry has no TLS.
    pub(super) fn note_plain(&self, endpoint: &Endpoint) {
        let mut plain = lock(&self.plain);
        if plain.len() < MAX_KNOWN {
            plain.insert(endpoint.authority.clone());
        }
    }

    /// Forgets it: it may speak TLS now.
    pub(super) fn forget_plain(&self, authority: &str) {
        lock(&self.plain).remove(authority);
    }

    /// Tells whether a server is on the internet, as far as its addresses say.
    pub(super) async fn is_public(&self, authority: &str) -> bool {
        let (host, port) = endpoint::split(authority);
        if let Some(known) = lock(&self.public).get(host) {
            return *known;
        }
        let private = self.options.is_private;
        let is_public = match addresses(host, port.unwrap_or(443)).await {
            Ok(found) => !found.is_empty() && found.iter().all(|address| !private(address.ip())),
            // Behind a proxy we may not be able to look: then it is not ours.
            Err(_) => host.parse::<IpAddr>().map_or(true, |address| !private(address)),
        };
        let mut public = lock(&self.public);
        if public.len() < MAX_KNOWN {
            public.insert(host.to_owned(), is_public);
        }
        is_public
    }

    fn client(&self, route: &Route) -> Result<Client<Connector, Body>, Failure> {
        if let Some(client) = lock(&self.clients).get(route) {
            return Ok(client.clone());
        }
        let connector = Connector {
            tls: tls::config(&self.options.certificates, &route.authority, route.verify)?,
            proxy_tls: tls::config(&[], "", true)?,
            proxies: Arc::clone(&self.proxies),
            reach: route.reach,
            is_private: self.options.is_private,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(IDLE_TIME)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        let mut clients = lock(&self.clients);
        if clients.len() >= MAX_KNOWN {
            clients.clear();
        }
        clients.insert(route.clone(), client.clone());
        Ok(client)
    }

    /// Sends a request and waits for the head of its answer; silence ends it.
    pub(super) async fn exchange(
        &self,
        mut request: Request<Body>,
        route: &Route,
        activity: Option<&Activity>,
    ) -> Result<Response<Incoming>, Failure> {
        let agent = http::HeaderValue::from_str(&self.options.user_agent);
        if let Ok(agent) = agent {
            request.headers_mut().insert(USER_AGENT, agent);
        }
        // A proxy reads plain requests itself: who we are to it stands in each. Through a tunnel it is told once.
        if request.uri().scheme_str() == Some("http")
            && let Some(proxy) = self.proxies.intercept(request.uri())
            && let Some(auth) = proxy.basic_auth()
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, auth.clone());
        }
        let what = format!("{} \"{}\"", method_word(request.method()), shown(request.uri()));
        let client = self.client(route)?;
        let answer = client.request(request);
        tokio::pin!(answer);
        let (mut seen, mut quiet) = (0, 0);
        loop {
            tokio::select! {
                answer = &mut answer => return answer.map_err(|error| told(&what, &error)),
                () = tokio::time::sleep(self.options.patience) => {
                    let (pieces, ended) = activity.map_or((0, false), |activity| {
                        (activity.pieces.load(Ordering::Relaxed), activity.ended.load(Ordering::Relaxed) == 1)
                    });
                    quiet += 1;
                    if pieces != seen {
                        (seen, quiet) = (pieces, 0);
                    } else if quiet >= if ended { AFTER_BODY } else { 1 } {
                        let text = format!("{what}: the server does not answer");
                        return Err(Failure::transient(Reason::Unreachable, text));
                    }
                }
            }
        }
    }

    /// Reads why a server said no.
    pub(super) async fn refusal(&self, answer: Response<Incoming>) -> Failure {
        let (head, body) = answer.into_parts();
        let bytes = self.read(body, MAX_WORDS).await.unwrap_or_default();
        let mut failure = failure::read(head.status, &bytes);
        let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        failure.after = after.and_then(retry_after);
        if failure.after.is_some_and(|after| after > MAX_AFTER) {
            failure.transient = false;
        }
        failure
    }

    /// Reads a whole body; fails beyond `limit`.
    pub(super) async fn read(&self, mut body: Incoming, limit: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut body).await? {
            if bytes.len() + piece.len() > limit {
                let text =
                    format!("the registry sends more than {limit} bytes where that is too much");
                return Err(Failure::new(Reason::Untrusted, text));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Reads the next piece of a body; silence ends it.
    pub(super) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = tokio::time::timeout(self.options.patience, body.frame()).await;
            let silent = || Failure::transient(Reason::Unreachable, "the server has gone silent");
            match frame.map_err(|_| silent())? {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let text = format!("the connection to the server broke: {}", chain(&error));
                    return Err(Failure::transient(Reason::Unreachable, text));
                }
            }
        }
    }

    /// Waits before another try; `tries` were made.
    pub(super) async fn pause(&self, tries: u32, failure: &Failure) {
        let backed_off = self.options.pause.saturating_mul(1 << tries.saturating_sub(1).min(6));
        // Jitter keeps many clients from coming back at once.
        let mut random = [0; 1];
        getrandom::fill(&mut random).ok();
        let jittered = backed_off.mul_f64(0.5 + f64::from(random[0]) / 512.0);
        let wait = failure.after.map_or(jittered, |after| after.max(jittered));
        tracing::debug!(error = %failure, tries, ?wait, "a registry is asked again");
        tokio::time::sleep(wait.min(MAX_AFTER)).await;
    }
}

/// COMPAT: Go's `Get "https://…"`, which people and tools look for.
fn method_word(method: &http::Method) -> String {
    let lower = method.as_str().to_ascii_lowercase();
    let mut chars = lower.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// Shows an address without its query: that may hold a secret.
pub(super) fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    format!("{scheme}://{authority}{}", uri.path())
}

/// Reads seconds or a date.
fn retry_after(text: &str) -> Option<Duration> {
    // A date is rare, and one in the far future the same as a refusal.
    text.trim().parse::<u64>().ok().map(Duration::from_secs)
}

fn chain(error: &dyn std::error::Error) -> String {
    rorqual_core::full_message(error)
}

fn told(what: &str, error: &hyper_util::client::legacy::Error) -> Failure {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            let inner = io.get_ref();
            let is_tls = inner.and_then(|inner| inner.downcast_ref::<TlsFailure>()).is_some();
            let is_private =
                inner.and_then(|inner| inner.downcast_ref::<PrivateTarget>()).is_some();
            if is_tls {
                return Failure::new(Reason::Tls, format!("{what}: {io}"));
            }
            if is_private {
                return Failure::new(Reason::Untrusted, format!("{what}: {io}"));
            }
            // A name that nobody knows and an address that refuses stay so for a while.
            let lasting = error.is_connect();
            let text = format!("{what}: {io}");
            return Failure {
                transient: !lasting || io.kind() == std::io::ErrorKind::TimedOut,
                ..Failure::transient(Reason::Unreachable, text)
            };
        }
        cause = inner.source();
    }
    Failure::transient(Reason::Unreachable, format!("{what}: {}", chain(error)))
}

//! The upstream: requests with tokens, within the budget. It is a registry's client as small as a cache needs it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use reqwest::{Client, Response, Url};
use serde::Deserialize;

use crate::config::Proxy as Settings;
use crate::error::{Error, Result};
use crate::name::Name;

/// The registry behind the cache.
pub(crate) struct Upstream {
    client: Client,
    base: Url,
    credentials: Option<(String, String)>,
    tokens: Mutex<HashMap<String, (String, Instant)>>,
    budget: Mutex<Budget>,
}

struct Budget {
    /// Requests per hour; 0: any number.
    rate: u32,
    left: f64,
    at: Instant,
}

// LIMIT: an upstream that does not even answer is away.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
// LIMIT: tokens remembered, one per repository.
const TOKENS: usize = 1000;
const HOUR: f64 = 3600.0;

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

fn away(error: &reqwest::Error) -> Error {
    // The causes say what was tried; the address stays out of it, it may hold a name of the inside.
    Error::Upstream(rorqual_core::full_message(&error))
}

/// Follows redirects to the hosts that serve blobs, but never from TLS to none, nor into this machine.
fn redirects(base: &Url) -> reqwest::redirect::Policy {
    let is_local = is_local(base);
    reqwest::redirect::Policy::custom(move |attempt| {
        let from_tls = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
        if attempt.previous().len() > 5 {
            attempt.error("too many redirects")
        } else if from_tls && attempt.url().scheme() != "https" {
            attempt.error("a redirect away from TLS")
        } else if !is_local && self::is_local(attempt.url()) {
            attempt.error("a redirect to a private address")
        } else {
            attempt.follow()
        }
    })
}

/// Tells whether a URL names an address of this machine or its private networks.
fn is_local(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_matches(['[', ']']);
    match host.parse::<std::net::IpAddr>().map(|address| address.to_canonical()) {
        Ok(std::net::IpAddr::V4(v4)) => {
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()
        }
        Ok(std::net::IpAddr::V6(v6)) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

impl Upstream {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let wrong = |error: String| {
            Error::Config(format!("cannot use the upstream {:?}: {error}", settings.url))
        };
        let base = Url::parse(&settings.url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong("need http:// or https://".to_owned()));
        }
        let password = match &settings.password_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("{}: {error}", path.display())))?,
            None => String::new(),
        };
        let credentials =
            settings.username.clone().map(|user| (user, password.trim_end().to_owned()));
        let mut client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(redirects(&base))
            .user_agent(concat!("rorqual-registry/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.ca {
            let pem = std::fs::read(path)
                .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            client = client.tls_certs_merge(authorities);
        }
        let client = client.build().map_err(|error| wrong(error.to_string()))?;
        let rate = settings.budget;
        let budget = Mutex::new(Budget { rate, left: f64::from(rate), at: Instant::now() });
        Ok(Self { client, base, credentials, tokens: Mutex::default(), budget })
    }

    /// Asks the upstream for a path.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        name: &Name,
        headers: &[(HeaderName, String)],
    ) -> Result<Response> {
        self.spend()?;
        let scope = format!("repository:{name}:pull");
        let known = self.known_token(&scope);
        let answer = self.send(&method, path, headers, known).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
        let Some(challenge) = challenge.map(str::to_owned) else { return Ok(answer) };
        let authorization = if challenge.to_ascii_lowercase().starts_with("bearer ") {
            Some(self.token(&challenge, &scope).await?)
        } else {
            self.basic()
        };
        if authorization.is_none() {
            return Ok(answer);
        }
        self.send(&method, path, headers, authorization).await
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(HeaderName, String)],
        authorization: Option<String>,
    ) -> Result<Response> {
        let url = self.base.join(path).map_err(|error| Error::Upstream(error.to_string()))?;
        let mut request = self.client.request(method.clone(), url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| away(&error))
    }

    fn basic(&self) -> Option<String> {
        use base64::Engine as _;
        let (user, password) = self.credentials.as_ref()?;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Some(format!("Basic {text}"))
    }

    fn known_token(&self, scope: &str) -> Option<String> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, until) = tokens.get(scope)?;
        (*until > Instant::now()).then(|| token.clone())
    }

    /// Gets a token from where the challenge says.
    async fn token(&self, challenge: &str, scope: &str) -> Result<String> {
        let odd = |text: &str| Error::Upstream(format!("its token service is odd: {text}"));
        let values = parameters(challenge);
        let realm = values.get("realm").ok_or_else(|| odd("no realm"))?;
        let mut realm = Url::parse(realm).map_err(|error| odd(&error.to_string()))?;
        let is_same = realm.host_str() == self.base.host_str();
        // Credentials go to the upstream itself or over TLS.
        if realm.scheme() != "https" && !(is_same && self.base.scheme() == "http") {
            return Err(odd("its realm has no TLS"));
        }
        if let Some(service) = values.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        realm.query_pairs_mut().append_pair("scope", scope);
        let mut request = self.client.get(realm);
        if let Some(basic) = self.basic() {
            request = request.header(AUTHORIZATION, basic);
        }
        let answer = request.send().await.map_err(|error| away(&error))?;
        if !answer.status().is_success() {
            return Err(Error::Upstream(format!("its token service answers {}", answer.status())));
        }
        // LIMIT: tokens are some kilobytes.
        let bytes = body(answer, 1 << 20).await?;
        let found: TokenAnswer =
            serde_json::from_slice(&bytes).map_err(|error| odd(&error.to_string()))?;
        let token = if found.token.is_empty() { found.access_token } else { found.token };
        let authorization = format!("Bearer {token}");
        // COMPAT: 60 seconds where nothing is said; some before that it is not used any more.
        let lifetime = Duration::from_secs(found.expires_in.unwrap_or(60).max(60) - 10);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS {
            tokens.clear();
        }
        tokens.insert(scope.to_owned(), (authorization.clone(), Instant::now() + lifetime));
        Ok(authorization)
    }

    /// Takes one request from the budget.
    fn spend(&self) -> Result<()> {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.rate == 0 {
            return Ok(());
        }
        let rate = f64::from(budget.rate);
        let now = Instant::now();
        let since = now.duration_since(budget.at).as_secs_f64();
        budget.left = (since / HOUR).mul_add(rate, budget.left).min(rate);
        budget.at = now;
        if budget.left < 1.0 {
            return Err(Error::TooMany {
                message: "the budget of requests to the upstream is spent".to_owned(),
                retry_after: Duration::from_secs_f64((1.0 - budget.left) * HOUR / rate),
            });
        }
        budget.left -= 1.0;
        Ok(())
    }
}

/// Reads `realm="…",service="…"` behind a challenge's scheme.
fn parameters(challenge: &str) -> HashMap<String, String> {
    let mut rest = challenge.split_once(' ').map_or("", |(_, rest)| rest);
    let mut found = HashMap::new();
    while let Some((name, tail)) = rest.split_once('=') {
        let (value, tail) = match tail.strip_prefix('"') {
            Some(tail) => tail.split_once('"').unwrap_or((tail, "")),
            None => tail.split_once(',').unwrap_or((tail, "")),
        };
        found.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = tail.trim_start_matches([',', ' ']);
    }
    found
}

/// Reads a small body whole.
pub(crate) async fn body(answer: Response, limit: u64) -> Result<Bytes> {
    let mut pieces = answer.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| away(&error))?;
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(Error::Upstream(format!("it sends more than {limit} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

/// Returns the length that an answer promises.
pub(crate) fn length(answer: &Response) -> Result<u64> {
    let text = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Upstream("it does not say how long the blob is".to_owned()))
}

#[cfg(test)]
mod tests;

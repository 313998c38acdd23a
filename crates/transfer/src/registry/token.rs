//! The token protocol: what we want to do at a registry is exchanged for a token at the server it names.
//!
//! Credentials go to that server only when it belongs to the registry: a registry must not be able to have them sent elsewhere.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::challenge::Bearer;
use super::connect::Reach;
use super::endpoint::{self, Endpoint};
use super::failure::{Failure, Reason};
use super::redirect;
use super::wire::{self, Route, Wire};
use crate::RegistryAuth;

// LIMIT: a token server's answer; tokens are some KiB.
const MAX_ANSWER: usize = 1 << 20;
/// Docker's own name in this protocol; servers take any.
const CLIENT: &str = "rorqual";
/// Tokens live that long when nobody says how long. COMPAT: less is taken for this, too.
const LIFETIME: u64 = 60;
/// LIMIT: no token is used for longer without asking again.
const LONGEST: u64 = 24 * 3600;

/// What is to be done where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    pub(super) fn extend(&mut self, more: impl Iterator<Item = Self>) {
        self.0.extend(more.flat_map(|scope| scope.0));
    }

    /// Adds what the registry says that it wants.
    fn with(&self, asked: &str) -> Vec<String> {
        let mut all = self.0.clone();
        for one in asked.split(' ').filter(|one| !one.is_empty()) {
            if !all.iter().any(|known| known == one) {
                all.push(one.to_owned());
            }
        }
        all
    }
}

/// A token, and until when it is used.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) header: HeaderValue,
    pub(super) until: Instant,
    /// To keep instead of a password.
    pub(super) refresh: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    expires_in: u64,
}

/// `Authorization: Basic …`
pub(super) fn basic(auth: &RegistryAuth) -> Option<HeaderValue> {
    let text = STANDARD.encode(format!("{}:{}", auth.username, auth.password));
    secret(&format!("Basic {text}"))
}

pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn form(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Whether a name belongs to the same owner as another: same host, or below the same registered domain.
pub(super) fn is_related(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    if a == b {
        return true;
    }
    let is_address = |host: &str| host.contains(':') || host.parse::<std::net::IpAddr>().is_ok();
    if is_address(&a) || is_address(&b) {
        return false;
    }
    match (registered(&a), registered(&b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// Returns the part of a name that somebody registered: two labels, three below `co.uk` and its like.
fn registered(host: &str) -> Option<&str> {
    let dots: Vec<usize> = host.rmatch_indices('.').map(|(at, _)| at).collect();
    let last = dots.first()?;
    let second = dots.get(1).map_or(0, |at| at + 1);
    let narrow = host.len() - last - 1 == 2 && last - second <= 3;
    if !narrow {
        return Some(&host[second..]);
    }
    // All of `co.uk` is nobody's.
    dots.get(1)?;
    Some(&host[dots.get(2).map_or(0, |at| at + 1)..])
}

/// Asks for a token.
pub(super) struct Exchange<'w> {
    pub(super) wire: &'w Wire,
    pub(super) endpoint: &'w Endpoint,
    pub(super) auth: &'w RegistryAuth,
    pub(super) challenge: &'w Bearer,
    pub(super) scope: &'w Scope,
    /// Ask for something to keep instead of the password.
    pub(super) offline: bool,
}

impl Exchange<'_> {
    pub(super) async fn token(&self) -> Result<Token, Failure> {
        let realm = self.realm()?;
        let route = self.route(&realm).await?;
        let (mut answer, mut posted) = (None, false);
        if !self.auth.identity_token.is_empty() {
            let request = self.post(&realm)?;
            answer = Some(self.wire.exchange(request, &route, None).await?);
            posted = true;
        }
        // COMPAT: a server that does not know the newer way is asked in the older one.
        let old = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        let answer = match answer {
            Some(answer) if !old.contains(&answer.status()) || self.auth.password.is_empty() => {
                answer
            }
            _ => {
                posted = false;
                self.wire.exchange(self.get(&realm)?, &route, None).await?
            }
        };
        tracing::debug!(realm = realm.host(), posted, status = %answer.status(), "asked for a token");
        if !answer.status().is_success() {
            let mut failure = self.wire.refusal(answer).await;
            if matches!(failure.reason, Reason::Invalid | Reason::Denied) && posted {
                failure.reason = Reason::Unauthorized;
            }
            if failure.reason == Reason::Unauthorized && !failure.text.starts_with("unauthorized") {
                let text = failure.text.trim_end_matches(" (401 Unauthorized)");
                failure.text = format!("unauthorized: {text}");
            }
            return Err(failure);
        }
        let bytes = self.wire.read(answer.into_body(), MAX_ANSWER).await?;
        read(&bytes)
    }

    fn realm(&self) -> Result<Uri, Failure> {
        let bad = |why: &str| {
            let text = format!(
                "token server {:?} of {}: {why}",
                self.challenge.realm, self.endpoint.authority
            );
            Failure::new(Reason::Untrusted, text)
        };
        let uri = self.challenge.realm.parse::<Uri>().map_err(|_| bad("not an address"))?;
        let scheme = uri.scheme_str().unwrap_or_default().to_owned();
        let host = uri.host().ok_or_else(|| bad("not an address"))?;
        if !matches!(scheme.as_str(), "http" | "https") || host.contains('@') {
            return Err(bad("need https://host/path"));
        }
        if scheme == "http" && self.endpoint.verify && !self.auth.is_anonymous() {
            return Err(bad("credentials are not sent without TLS"));
        }
        Ok(uri)
    }

    /// Finds the rules for the token server, and refuses one that has no business with our credentials.
    async fn route(&self, realm: &Uri) -> Result<Route, Failure> {
        let authority = realm.authority().map(ToString::to_string).unwrap_or_default();
        let (home, _) = endpoint::split(&self.endpoint.authority);
        let host = realm.host().unwrap_or_default();
        let related = is_related(home, host.trim_start_matches('[').trim_end_matches(']'));
        let public = self.wire.is_public(&self.endpoint.authority).await;
        let neighbour = !public && !self.wire.is_public(&authority).await;
        let lent = self.endpoint.lends_to(&authority);
        if !self.auth.is_anonymous() && !related && !neighbour && !lent {
            let text = format!(
                "registry {} wants the credentials for it to be sent to {host}, which is somebody else: refused; if {host} is its \
                 token server, name it in token-servers of the registry's entry in registry-rules",
                self.endpoint.authority
            );
            return Err(Failure::new(Reason::Untrusted, text));
        }
        let own = redirect::same_server(realm, &self.endpoint.base().parse().unwrap_or_default());
        let reach = if public && !own { Reach::Public } else { Reach::All };
        // A token server is as trustworthy as the registry on the same host.
        let verify = self.endpoint.verify || !is_related(home, host);
        Ok(Route { authority, verify, reach })
    }

    fn get(&self, realm: &Uri) -> Result<Request<wire::Body>, Failure> {
        let scopes = self.scope.with(&self.challenge.scope);
        let mut pairs = vec![("service", self.challenge.service.as_str())];
        pairs.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        let known = !self.auth.username.is_empty();
        if known {
            pairs.push(("account", &self.auth.username));
        }
        if self.offline {
            pairs.extend([("client_id", CLIENT), ("offline_token", "true")]);
        }
        let sign = if realm.query().is_some() { '&' } else { '?' };
        let request = Request::get(format!("{realm}{sign}{}", form(&pairs)));
        let request = match known.then(|| basic(self.auth)).flatten() {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        };
        request.body(wire::empty()).map_err(broken)
    }

    fn post(&self, realm: &Uri) -> Result<Request<wire::Body>, Failure> {
        let scopes = self.scope.with(&self.challenge.scope).join(" ");
        let body = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &self.auth.identity_token),
            ("service", &self.challenge.service),
            ("client_id", CLIENT),
            ("scope", &scopes),
            ("access_type", "offline"),
        ]);
        Request::builder()
            .method(Method::POST)
            .uri(realm)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(wire::full(Bytes::from(body)))
            .map_err(broken)
    }
}

fn broken(error: http::Error) -> Failure {
    Failure::new(Reason::Untrusted, format!("the token server's address cannot be used: {error}"))
}

fn read(bytes: &[u8]) -> Result<Token, Failure> {
    let answer = serde_json::from_slice::<Answer>(bytes).map_err(|error| {
        Failure::new(
            Reason::Untrusted,
            format!("the token server's answer cannot be read: {error}"),
        )
    })?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    let header = Some(token).filter(|token| !token.is_empty()).and_then(|token| bearer(&token));
    let header = header.ok_or_else(|| {
        Failure::new(
            Reason::Unauthorized,
            "authorization server did not include a token in the response",
        )
    })?;
    let seconds = answer.expires_in.clamp(LIFETIME, LONGEST);
    Ok(Token {
        header,
        until: Instant::now() + Duration::from_secs(seconds),
        refresh: Some(answer.refresh_token).filter(|token| !token.is_empty()),
    })
}

#[cfg(test)]
mod tests;

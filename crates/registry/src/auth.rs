//! Who asks, and what they may do: anonymous, user and password, or token. Decides per repository and action; the storage
//! and its contents are no business of this module.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Code, Error, Result};

pub(crate) mod htpasswd;
pub(crate) mod keys;
pub(crate) mod policy;
pub(crate) mod token;

use htpasswd::Htpasswd;
use policy::Policy;
use token::{Issuer, Verifier};

/// What somebody wants to do, or may: the form it has in tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// `repository` or `registry`
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Of the repository; `catalog` of the registry.
    pub(crate) name: String,
    /// `pull`, `push`, `delete`, `*`
    #[serde(default)]
    pub(crate) actions: Vec<String>,
}

impl Access {
    pub(crate) fn repository(name: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Self { kind: "repository".to_owned(), name: name.to_owned(), actions }
    }

    pub(crate) fn catalog() -> Self {
        let (kind, name) = ("registry".to_owned(), "catalog".to_owned());
        Self { kind, name, actions: vec!["*".to_owned()] }
    }

    /// Tells whether this right covers what is wanted.
    pub(crate) fn covers(&self, wanted: &Self) -> bool {
        let has = |action: &String| self.actions.iter().any(|own| own == "*" || own == action);
        self.kind == wanted.kind && self.name == wanted.name && wanted.actions.iter().all(has)
    }

    fn scope(&self) -> String {
        format!("{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    Anonymous,
    User(String),
}

impl Actor {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Anonymous => "",
            Self::User(name) => name,
        }
    }
}

/// How requests are decided.
pub(crate) enum Auth {
    /// Everybody may do everything.
    Open,
    /// User and password at each request.
    Basic { users: Arc<Htpasswd>, policy: Option<Arc<Policy>> },
    /// Tokens, of the own service or of a foreign one.
    Token { verifier: Verifier, realm: String, service: String, issuer: Option<Box<Issuer>> },
}

/// Reads user and password of a request.
pub(crate) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Auth {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let policy = config.auth.policy.as_deref().map(Policy::load).transpose()?.map(Arc::new);
        let users = config.auth.htpasswd.as_deref().map(Htpasswd::load).transpose()?.map(Arc::new);
        match (&config.auth.token, users) {
            (None, None) => Ok(Self::Open),
            (None, Some(users)) => Ok(Self::Basic { users, policy }),
            (Some(token), users) => {
                let (verifier, issuer) = token::set_up(token, users, policy)?;
                let issuer = issuer.map(Box::new);
                let (realm, service) = (token.realm.clone(), token.service.clone());
                Ok(Self::Token { verifier, realm, service, issuer })
            }
        }
    }

    /// Returns the own token service.
    pub(crate) fn issuer(&self) -> Option<&Issuer> {
        match self {
            Self::Token { issuer, .. } => issuer.as_deref(),
            _ => None,
        }
    }

    /// Reads files again that have changed.
    pub(crate) fn reload(&self) {
        match self {
            Self::Open => {}
            Self::Basic { users, policy } => {
                users.reload();
                if let Some(policy) = policy {
                    policy.reload();
                }
            }
            Self::Token { verifier, issuer, .. } => {
                verifier.reload();
                if let Some(issuer) = issuer {
                    issuer.reload();
                }
            }
        }
    }

    /// Lets a request pass that wants all of `wanted` (nothing: just to be known), or says how to ask better.
    pub(crate) async fn check(
        &self,
        headers: &HeaderMap,
        wanted: &[Access],
        is_tls: bool,
    ) -> Result<Actor> {
        match self {
            Self::Open => Ok(Actor::Anonymous),
            Self::Basic { users, policy } => {
                check_basic(users, policy.as_deref(), headers, wanted).await
            }
            Self::Token { verifier, realm, service, .. } => {
                let refused = |error: Option<&str>| {
                    unauthorized_token(realm, service, headers, wanted, is_tls, error)
                };
                let Some(token) = bearer(headers) else { return Err(refused(None)) };
                let claims =
                    verifier.verify(token).await.map_err(|_| refused(Some("invalid_token")))?;
                let covered = |access: &Access| claims.access.iter().any(|own| own.covers(access));
                if !wanted.iter().all(covered) {
                    return Err(refused(Some("insufficient_scope")));
                }
                let is_known = !claims.sub.is_empty();
                Ok(if is_known { Actor::User(claims.sub) } else { Actor::Anonymous })
            }
        }
    }

    /// Like [`Self::check`] for the web pages, whose readers have a browser: passwords there in token mode, too.
    pub(crate) async fn check_web(&self, headers: &HeaderMap, wanted: &[Access]) -> Result<Actor> {
        match self {
            Self::Open => Ok(Actor::Anonymous),
            Self::Basic { users, policy } => {
                check_basic(users, policy.as_deref(), headers, wanted).await
            }
            Self::Token { issuer: Some(issuer), .. } => {
                check_basic(issuer.users(), issuer.policy(), headers, wanted).await
            }
            Self::Token { issuer: None, .. } => {
                let text = "the pages need a token service of this registry's own";
                Err(Error::refused(Code::Denied, text))
            }
        }
    }

    /// Tells whether somebody may see a repository in a list.
    pub(crate) fn may_see(&self, actor: &Actor, name: &str) -> bool {
        let policy = match self {
            Self::Open => None,
            Self::Basic { policy, .. } => policy.as_deref(),
            Self::Token { issuer, .. } => issuer.as_ref().and_then(|issuer| issuer.policy()),
        };
        policy.is_none_or(|policy| policy.allows(actor, &Access::repository(name, &["pull"])))
    }
}

async fn check_basic(
    users: &Arc<Htpasswd>,
    policy: Option<&Policy>,
    headers: &HeaderMap,
    wanted: &[Access],
) -> Result<Actor> {
    let refused = |message: &str| Error::Unauthorized {
        message: message.to_owned(),
        challenge: "Basic realm=\"registry\", charset=\"UTF-8\"".to_owned(),
    };
    let actor = match basic(headers) {
        Some((user, password)) => {
            if !users.verify(&user, &password).await? {
                return Err(refused("wrong user or password"));
            }
            Actor::User(user)
        }
        // A policy may let everybody pull; to be known takes a password in any case.
        None if !wanted.is_empty() && policy.is_some() => Actor::Anonymous,
        None => return Err(refused("authentication required")),
    };
    let denied = wanted.iter().find(|access| match policy {
        Some(policy) => !policy.allows(&actor, access),
        None => false,
    });
    match (denied, &actor) {
        (None, _) => Ok(actor),
        (Some(_), Actor::Anonymous) => Err(refused("authentication required")),
        (Some(access), Actor::User(user)) => {
            let text = format!("{user:?} may not {} {}", access.actions.join(" and "), access.name);
            Err(Error::refused(Code::Denied, text))
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "each is a part of the challenge")]
fn unauthorized_token(
    realm: &str,
    service: &str,
    headers: &HeaderMap,
    wanted: &[Access],
    is_tls: bool,
    error: Option<&str>,
) -> Error {
    let own;
    let realm = if realm.is_empty() {
        // The own service is where the request came to.
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let forwarded = headers.get("x-forwarded-proto").and_then(|scheme| scheme.to_str().ok());
        let is_https = is_tls || forwarded == Some("https");
        own = format!("{}://{host}/token", if is_https { "https" } else { "http" });
        &own
    } else {
        realm
    };
    let clean = |text: &str| text.replace(['"', '\\'], "");
    let mut challenge = format!("Bearer realm=\"{}\",service=\"{}\"", clean(realm), clean(service));
    if !wanted.is_empty() {
        let scopes: Vec<_> = wanted.iter().map(Access::scope).collect();
        challenge.push_str(&format!(",scope=\"{}\"", clean(&scopes.join(" "))));
    }
    if let Some(error) = error {
        challenge.push_str(&format!(",error=\"{error}\""));
    }
    Error::Unauthorized { message: "authentication required".to_owned(), challenge }
}

#[cfg(test)]
mod tests;

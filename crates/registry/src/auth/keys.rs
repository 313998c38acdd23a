//! The public keys that tokens are checked with: our own, those in a file, or those that a foreign service publishes.
//!
//! Published keys are asked for with the first token, again after an hour, and when a token names one that is not known. While the
//! service is away, what was known before holds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Client, Url};
use tokio::sync::Mutex;

use super::token::unusable;
use crate::error::{Error, Result};

// LIMIT: a key set; real ones have some KiB.
const MAX_SET: usize = 1 << 20;
// LIMIT: how long a withdrawn key may still be believed.
const HOLDS: Duration = Duration::from_secs(3600);
// LIMIT: strangers must not make us ask the service more often than this.
const PAUSE: Duration = Duration::from_secs(10);
// LIMIT: a request waits for the service no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A key, and what it may be used for.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// All keys of one service.
pub(super) struct Keys {
    known: RwLock<Arc<Vec<Key>>>,
    source: Source,
}

enum Source {
    Own,
    File(PathBuf),
    Published(Box<Published>),
}

struct Published {
    client: Client,
    url: Url,
    /// When the service was asked, and whether it answered; held while it is asked.
    asked: Mutex<Option<(Instant, bool)>>,
    pause: Duration,
}

const EC: &[Algorithm] = &[Algorithm::ES256, Algorithm::ES384];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

impl Keys {
    /// The key of the own service.
    pub(super) fn own(key: Key) -> Self {
        Self { known: RwLock::new(Arc::new(vec![key])), source: Source::Own }
    }

    /// The keys of a foreign service, by file or address; `ca` is the authority of the address. Reads files.
    pub(super) fn foreign(source: &Path, ca: Option<&Path>) -> Result<Self> {
        let Some(url) = address(source) else {
            let known = RwLock::new(Arc::new(from_file(source)?));
            return Ok(Self { known, source: Source::File(source.to_owned()) });
        };
        let published = Published::new(url, ca)?;
        Ok(Self { known: RwLock::default(), source: Source::Published(Box::new(published)) })
    }

    pub(super) fn all(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, keys: Vec<Key>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Reads the file again. Blocking.
    pub(super) fn reload(&self) {
        let Source::File(file) = &self.source else { return };
        match from_file(file) {
            Ok(fresh) => self.replace(fresh),
            Err(error) => tracing::warn!(%error, "the token keys stay as they were"),
        }
    }

    /// Asks the service for its keys if they are old, or lack the one that a token names.
    pub(super) async fn freshen(&self, wanted: Option<&str>) {
        let Source::Published(published) = &self.source else { return };
        let mut asked = published.asked.lock().await;
        let known = self.all();
        let lacks = wanted.map_or(known.is_empty(), |wanted| {
            !known.iter().any(|key| key.id.as_deref().is_none_or(|id| id == wanted))
        });
        let due = asked.is_none_or(|(at, answered)| {
            let age = at.elapsed();
            age >= HOLDS || (age >= published.pause && (lacks || !answered))
        });
        if !due {
            return;
        }
        let answer = published.fetch().await;
        *asked = Some((Instant::now(), answer.is_ok()));
        match answer {
            Ok(fresh) => self.replace(fresh),
            Err(error) => tracing::warn!(%error, "the token keys stay as they were"),
        }
    }
}

/// Reads an address among the paths.
pub(crate) fn address(source: &Path) -> Option<Url> {
    let text = source.to_str()?;
    let is_address = text.starts_with("https://") || text.starts_with("http://");
    is_address.then(|| Url::parse(text).ok()).flatten()
}

impl Published {
    fn new(url: Url, ca: Option<&Path>) -> Result<Self> {
        let wrong =
            |why: String| Error::Config(format!("cannot use the token keys at {url}: {why}"));
        // Who can change the keys on their way can make any token.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if url.scheme() != "https" && !is_here && host != "localhost" {
            return Err(wrong("need https:// beyond this machine".to_owned()));
        }
        let mut client =
            Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = ca {
            let failed =
                |error: &dyn std::fmt::Display| wrong(format!("{}: {error}", ca.display()));
            let pem = std::fs::read(ca).map_err(|error| failed(&error))?;
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
            client = client.tls_certs_merge(authorities);
        }
        let client = client.build().map_err(|error| wrong(rorqual_core::full_message(&error)))?;
        Ok(Self { client, url, asked: Mutex::default(), pause: PAUSE })
    }

    async fn fetch(&self) -> Result<Vec<Key>> {
        let away = |error: reqwest::Error| Error::Upstream(rorqual_core::full_message(&error));
        let answer = self.client.get(self.url.clone()).send().await.map_err(away)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Error::Upstream(format!("{} answers {status}", self.url)));
        }
        let mut bytes = Vec::new();
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(away)?;
            if bytes.len() + piece.len() > MAX_SET {
                return Err(Error::Upstream(format!(
                    "{} is larger than {MAX_SET} bytes",
                    self.url
                )));
            }
            bytes.extend_from_slice(&piece);
        }
        parse(&bytes).map_err(|why| Error::Upstream(format!("{}: {why}", self.url)))
    }
}

fn from_file(file: &Path) -> Result<Vec<Key>> {
    let bytes = std::fs::read(file).map_err(|error| unusable(file, &error.to_string()))?;
    parse(&bytes).map_err(|why| unusable(file, why))
}

/// Reads public keys: a JSON web key set, or PEM.
fn parse(bytes: &[u8]) -> Result<Vec<Key>, &'static str> {
    if let Ok(set) = serde_json::from_slice::<JwkSet>(bytes) {
        let keys: Vec<Key> = set.keys.iter().filter_map(from_jwk).collect();
        return if keys.is_empty() { Err("no key of a known kind") } else { Ok(keys) };
    }
    let ec = DecodingKey::from_ec_pem(bytes).map(|key| (EC, key));
    let either = ec
        .or_else(|_| DecodingKey::from_rsa_pem(bytes).map(|key| (RSA, key)))
        .or_else(|_| DecodingKey::from_ed_pem(bytes).map(|key| (&[Algorithm::EdDSA][..], key)));
    let (algorithms, key) =
        either.map_err(|_| "need a JSON web key set, or a public key in PEM")?;
    Ok(vec![Key { id: None, algorithms: algorithms.to_vec(), decoding: key }])
}

fn from_jwk(jwk: &jsonwebtoken::jwk::Jwk) -> Option<Key> {
    use jsonwebtoken::jwk::AlgorithmParameters as P;
    let algorithms = match &jwk.algorithm {
        P::EllipticCurve(_) => EC.to_vec(),
        P::RSA(_) => RSA.to_vec(),
        P::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        // A shared secret is no public key.
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: jwk.common.key_id.clone(), algorithms, decoding: key })
}

#[cfg(test)]
mod tests;

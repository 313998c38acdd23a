//! Pull-through cache: what is asked for and not here is fetched from the upstream, verified, kept, and passed on while it
//! comes. When the upstream is away, what is here is served, with a warning.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Response, StatusCode, header};
use rorqual_core::{Digest, Timestamp};
use rorqual_http::Body;
use rorqual_store::KeyedLocks;

use crate::app::answer as respond;
use crate::config::{Config, Proxy as Settings};
use crate::document::Document;
use crate::error::{Code, Error, Result};
use crate::metrics::Metrics;
use crate::name::{Name, Reference, Tag, key};
use crate::repository::{Manifest, Repositories, TagRecord, age, encode};
use crate::storage::{Durability, Hasher};

mod fetch;
mod upstream;

pub(crate) use fetch::Fetch;
use upstream::Upstream;

/// The cache of one upstream.
pub(crate) struct Proxy {
    upstream: Arc<Upstream>,
    repositories: Arc<Repositories>,
    metrics: Arc<Metrics>,
    settings: Settings,
    /// What the upstream said it does not have, and when.
    missing: Mutex<HashMap<String, Instant>>,
    /// One request to the upstream for one thing at a time.
    turns: KeyedLocks<String>,
    fetches: fetch::Fetches,
}

// LIMIT: missing things remembered.
const MISSING: usize = 10_000;
const STALE: &str = "110 - \"the upstream is away: this may be out of date\"";

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

impl Proxy {
    pub(crate) fn new(
        config: &Config,
        settings: &Settings,
        repositories: &Arc<Repositories>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        Ok(Self {
            upstream: Arc::new(Upstream::new(settings)?),
            repositories: Arc::clone(repositories),
            metrics: Arc::clone(metrics),
            settings: settings.clone(),
            missing: Mutex::default(),
            turns: KeyedLocks::default(),
            fetches: fetch::Fetches::new(config.limits.blob.0),
        })
    }

    /// Finds a manifest here or at the upstream; with it a warning when it may be out of date.
    pub(crate) async fn manifest(
        &self,
        name: &Name,
        reference: &Reference,
    ) -> Result<(Manifest, Option<String>)> {
        if let Some(found) = self.fresh(name, reference).await? {
            self.metrics.cache("hit");
            return Ok((found, None));
        }
        let what = format!("{name} {reference}");
        let _turn = self.turns.lock(what.clone()).await;
        // Somebody may have fetched it while we waited.
        if let Some(found) = self.fresh(name, reference).await? {
            self.metrics.cache("hit");
            return Ok((found, None));
        }
        let cached = self.repositories.resolve(name, reference).await?;
        let fetched = match self.check_missing(&what) {
            Ok(()) => self.refresh(name, reference, cached.as_ref()).await,
            Err(error) => Err(error),
        };
        match (fetched, cached) {
            (Ok(manifest), _) => Ok((manifest, None)),
            (Err(error @ Error::Refused { .. }), _) => {
                self.note_missing(what);
                if let Reference::Tag(tag) = reference {
                    self.repositories.storage.delete(&key::tag(name, tag)).await?;
                }
                Err(error)
            }
            (Err(error), Some(cached)) => {
                tracing::warn!(%error, "serving {what} from the cache");
                self.metrics.cache("stale");
                Ok((cached, Some(STALE.to_owned())))
            }
            (Err(error), None) => {
                self.metrics.cache("error");
                Err(error)
            }
        }
    }

    /// Finds what needs no question to the upstream.
    async fn fresh(&self, name: &Name, reference: &Reference) -> Result<Option<Manifest>> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => {
                let Some(record) = self.repositories.tag(name, tag).await? else { return Ok(None) };
                let now = Timestamp::from(SystemTime::now());
                if now.since(record.pushed) > self.settings.refresh.0 {
                    return Ok(None);
                }
                record.digest
            }
        };
        let found = self.repositories.manifest(name, &digest).await?;
        if let Some(manifest) = &found
            && age(manifest.modified) > self.settings.ttl.0 / 4
        {
            self.repositories.touch_manifest(name, &digest).await?;
        }
        Ok(found)
    }

    /// Asks the upstream; only what changed is fetched.
    async fn refresh(
        &self,
        name: &Name,
        reference: &Reference,
        cached: Option<&Manifest>,
    ) -> Result<Manifest> {
        let path = format!("/v2/{name}/manifests/{reference}");
        let accept = [(header::ACCEPT, ACCEPT.to_owned())];
        if let (Reference::Tag(tag), Some(cached)) = (reference, cached) {
            let head = self.upstream.request(Method::HEAD, &path, name, &accept).await?;
            self.check_status(&head, &path)?;
            let digest = head.headers().get(super::api::DIGEST).and_then(|v| v.to_str().ok());
            if digest.is_some_and(|digest| digest == cached.digest.to_string()) {
                self.believe(name, tag, cached).await?;
                self.metrics.cache("hit");
                return Ok(cached.clone());
            }
        }
        self.metrics.cache("miss");
        let answer = self.upstream.request(Method::GET, &path, name, &accept).await?;
        self.check_status(&answer, &path)?;
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let kind = kind.map(str::to_owned);
        let bytes = upstream::body(answer, self.repositories.config.limits.manifest.0).await?;
        let digest = match reference {
            Reference::Digest(expected) => {
                let found = Hasher::digest(expected.algorithm(), &bytes)?;
                if found != *expected {
                    return Err(Error::Upstream(format!("it sent {found} for {expected}")));
                }
                found
            }
            Reference::Tag(_) => Hasher::digest(rorqual_core::Algorithm::Sha256, &bytes)?,
        };
        let document = Document::parse(&bytes, kind.as_deref())
            .map_err(|error| Error::Upstream(format!("it sent a manifest of no use: {error}")))?;
        let tags: Vec<&Tag> = match reference {
            Reference::Tag(tag) => vec![tag],
            Reference::Digest(_) => Vec::new(),
        };
        let (repositories, kept) = (&self.repositories, digest.clone());
        repositories.store_manifest(name, kept, &document, bytes, &tags).await?;
        let found = self.repositories.manifest(name, &digest).await?;
        found.ok_or_else(|| Error::Upstream("what it sent vanished".to_owned()))
    }

    /// Notes that a tag still leads where it did.
    async fn believe(&self, name: &Name, tag: &Tag, manifest: &Manifest) -> Result<()> {
        let record = TagRecord {
            digest: manifest.digest.clone(),
            media_type: manifest.head.media_type.clone(),
            size: manifest.bytes.len() as u64,
            pushed: Timestamp::from(SystemTime::now()),
        };
        let key = key::tag(name, tag);
        self.repositories.storage.put(&key, encode(&record), Durability::Volatile).await
    }

    #[expect(clippy::unused_self, reason = "reads as one of the steps")]
    fn check_status(&self, answer: &reqwest::Response, path: &str) -> Result<()> {
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => {
                let text = format!("the upstream has no {path}");
                let code = if path.contains("/blobs/") {
                    Code::BlobUnknown
                } else {
                    Code::ManifestUnknown
                };
                Err(Error::refused(code, text))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = format!("the upstream does not give {path} to this registry");
                Err(Error::refused(Code::Denied, text))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(Error::TooMany {
                message: "the upstream says: too many requests".to_owned(),
                retry_after: Duration::from_secs(60),
            }),
            status => Err(Error::Upstream(format!("it answers {status}"))),
        }
    }

    fn check_missing(&self, what: &str) -> Result<()> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        match missing.get(what) {
            Some(at) if at.elapsed() < self.settings.refresh.0 => {
                let text = format!("the upstream has no {what}");
                Err(Error::refused(Code::ManifestUnknown, text))
            }
            _ => Ok(()),
        }
    }

    fn note_missing(&self, what: String) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() >= MISSING {
            let most = self.settings.refresh.0;
            missing.retain(|_, at| at.elapsed() < most);
        }
        if missing.len() >= MISSING {
            missing.clear();
        }
        // What is known to be missing is asked for again once the time is over, however often it is wanted meanwhile.
        let is_known = missing.get(&what).is_some_and(|at| at.elapsed() < self.settings.refresh.0);
        if !is_known {
            missing.insert(what, Instant::now());
        }
    }

    /// Asks the upstream for a blob's size.
    pub(crate) async fn blob_size(&self, name: &Name, digest: &Digest) -> Result<u64> {
        let path = format!("/v2/{name}/blobs/{digest}");
        let answer = self.upstream.request(Method::HEAD, &path, name, &[]).await?;
        self.check_status(&answer, &path)?;
        upstream::length(&answer)
    }

    /// Begins to fetch a blob, or joins a fetch that is under way.
    pub(crate) async fn blob(&self, name: &Name, digest: &Digest) -> Result<Fetch> {
        let what = format!("{name} {digest}");
        let _turn = self.turns.lock(what.clone()).await;
        if let Some(fetch) = self.fetches.join(&what) {
            self.metrics.cache("hit");
            return Ok(fetch);
        }
        self.metrics.cache("miss");
        let path = format!("/v2/{name}/blobs/{digest}");
        let answer = self.upstream.request(Method::GET, &path, name, &[]).await?;
        self.check_status(&answer, &path)?;
        let order = fetch::Order {
            what,
            path,
            name: name.clone(),
            digest: digest.clone(),
            upstream: Arc::clone(&self.upstream),
            repositories: Arc::clone(&self.repositories),
        };
        self.fetches.start(order, answer).await
    }

    /// Passes a list of tags on; what is here when the upstream is away.
    pub(crate) async fn tags(&self, name: &Name, query: Option<&str>) -> Result<Response<Body>> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/v2/{name}/tags/list{query}");
        let mut headers = vec![(header::CONTENT_TYPE, "application/json".to_owned())];
        let asked = match self.upstream.request(Method::GET, &path, name, &[]).await {
            Ok(answer) => self.check_status(&answer, &path).map(|()| answer),
            Err(error) => Err(error),
        };
        match asked {
            Ok(answer) => {
                let link = answer.headers().get(header::LINK).and_then(|v| v.to_str().ok());
                // Only a path means the same here.
                let link = link.filter(|link| link.starts_with("</v2/")).map(str::to_owned);
                headers.extend(link.map(|link| (header::LINK, link)));
                let bytes = upstream::body(answer, 4 << 20).await?;
                Ok(respond(StatusCode::OK, headers, bytes))
            }
            Err(error @ Error::Refused { .. }) => Err(error),
            Err(error) => {
                let tags = self.repositories.tags(name, None, 1000).await?;
                if tags.is_empty() {
                    return Err(error);
                }
                headers.push((header::WARNING, STALE.to_owned()));
                let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
                let document = serde_json::json!({"name": name.as_str(), "tags": tags});
                Ok(respond(StatusCode::OK, headers, document.to_string()))
            }
        }
    }
}

//! Repositories over a storage: links to blobs, manifests, tags, referrers, and the promises to the collector.
//!
//! A blob's bytes are kept once; a repository has a link to each of its blobs, which says their size. Manifests belong to
//! their repository. Who begins to use something that a collector may think forgotten says so first and looks for the
//! collector's mark then; the collector marks first and looks then ([`crate::gc`]). So one of them always sees the other,
//! and a push never waits for a collection but for the instant in which the very thing it needs is being removed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use rorqual_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::document::Document;
use crate::error::{Code, Error, Result};
use crate::name::{Name, Tag, key};
use crate::storage::{Content, Durability, Object, Storage, list_all};

mod manifests;
pub(crate) mod trash;
pub(crate) mod uploads;

pub(crate) use manifests::{Manifest, referrers_index};

/// The repositories of one storage.
pub(crate) struct Repositories {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) config: Arc<Config>,
    pub(crate) sessions: uploads::Sessions,
    usage: crate::quota::Usage,
}

/// What a link says.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) size: u64,
}

/// What a tag leads to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TagRecord {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) pushed: Timestamp,
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    // These records are plain structures, which always encode.
    serde_json::to_vec(value).unwrap_or_default().into()
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(key: &str, object: &Object) -> Result<T> {
    serde_json::from_slice(&object.bytes)
        .map_err(|error| Error::Storage { action: format!("read {key}"), source: error.into() })
}

pub(crate) fn age(modified: SystemTime) -> Duration {
    modified.elapsed().unwrap_or_default()
}

// LIMIT: how long somebody waits for a collector to finish with one thing. It takes a few calls of the storage; a mark
// that is older was left by a collector that died.
pub(crate) const MARK_HOLDS: Duration = Duration::from_secs(60);
// LIMIT: calls of the storage that one request makes at a time.
const AT_ONCE: usize = 8;
const MARK_POLL: Duration = Duration::from_millis(20);

impl Repositories {
    pub(crate) fn new(storage: Arc<dyn Storage>, config: Arc<Config>) -> Self {
        let usage = crate::quota::Usage::default();
        Self { storage, config, sessions: uploads::Sessions::default(), usage }
    }

    pub(crate) const fn usage(&self) -> &crate::quota::Usage {
        &self.usage
    }

    /// Waits until a collector is done with something.
    async fn wait_for_collector(&self, mark: &str) -> Result<()> {
        while let Some(meta) = self.storage.head(mark).await? {
            if age(meta.modified) > MARK_HOLDS {
                self.storage.delete(mark).await?;
                break;
            }
            tokio::time::sleep(MARK_POLL).await;
        }
        Ok(())
    }

    /// Writes what a collector may be about to remove, so that it is there afterwards.
    async fn keep(
        &self,
        key: &str,
        mark: &str,
        bytes: Bytes,
        durability: Durability,
    ) -> Result<()> {
        // LIMIT: each turn means that a collector took an old version away just then.
        for _ in 0..16 {
            // ORDER: written first, and looked for the collector then: the collector does it the other way round.
            self.storage.put(key, bytes.clone(), durability).await?;
            self.wait_for_collector(mark).await?;
            // ORDER: a collector that was at work before the write may have taken it away and be gone before the look for its mark.
            if self.storage.head(key).await?.is_some() {
                return Ok(());
            }
        }
        let action = format!("keep {key} from being collected");
        Err(Error::Storage { action, source: "it is removed again and again".into() })
    }

    /// Says that a blob's bytes are about to be used.
    pub(crate) async fn pin(&self, digest: &Digest) -> Result<()> {
        // ORDER: first the pin, then the look: the collector does it the other way round.
        self.storage.put(&key::pin(digest), Bytes::new(), Durability::Volatile).await?;
        self.wait_for_collector(&key::condemned(digest)).await
    }

    /// Links a pinned blob to a repository.
    pub(crate) async fn put_link(&self, name: &Name, digest: &Digest, size: u64) -> Result<()> {
        let mark = key::condemned_link(name, digest);
        self.keep(&key::link(name, digest), &mark, encode(&Link { size }), Durability::Durable)
            .await
    }

    /// Finds a blob of a repository; returns its size.
    pub(crate) async fn find_blob(&self, name: &Name, digest: &Digest) -> Result<Option<u64>> {
        let link = key::link(name, digest);
        let Some(object) = self.storage.get(&link).await? else { return Ok(None) };
        Ok(Some(decode::<Link>(&link, &object)?.size))
    }

    /// Like [`Self::find_blob`] for somebody who may be about to push a manifest that needs it: what is old becomes young.
    pub(crate) async fn touch_blob(&self, name: &Name, digest: &Digest) -> Result<Option<u64>> {
        let link = key::link(name, digest);
        let Some(object) = self.storage.get(&link).await? else { return Ok(None) };
        let size = decode::<Link>(&link, &object)?.size;
        if self.is_old(object.modified) {
            self.pin(digest).await?;
            if self.storage.head(&key::blob(digest)).await?.is_none() {
                return Ok(None);
            }
            self.put_link(name, digest, size).await?;
        }
        Ok(Some(size))
    }

    /// Tells whether a collector may come for it before a push that uses it has ended.
    fn is_old(&self, modified: SystemTime) -> bool {
        !self.config.read_only && age(modified) > self.config.gc.grace.0 / 2
    }

    /// Opens a part of a blob.
    pub(crate) async fn open_blob(
        &self,
        digest: &Digest,
        range: std::ops::Range<u64>,
    ) -> Result<Content> {
        self.storage.open(&key::blob(digest), range).await
    }

    /// Takes a blob away from a repository; its bytes go with the next collection.
    pub(crate) async fn delete_blob(&self, name: &Name, digest: &Digest) -> Result<()> {
        let link = key::link(name, digest);
        if self.storage.head(&link).await?.is_none() {
            return Err(blob_unknown(digest));
        }
        self.storage.delete(&link).await?;
        self.usage.forget(name);
        Ok(())
    }

    /// Links a blob of another repository, if it is there.
    pub(crate) async fn mount(&self, from: &Name, name: &Name, digest: &Digest) -> Result<bool> {
        self.pin(digest).await?;
        let Some(size) = self.find_blob(from, digest).await? else { return Ok(false) };
        if self.storage.head(&key::blob(digest)).await?.is_none() {
            return Ok(false);
        }
        self.check_quota(name, size).await?;
        self.enlist(name).await?;
        self.put_link(name, digest, size).await?;
        self.usage.add(name, size);
        Ok(true)
    }

    /// Puts a repository into the catalog.
    pub(crate) async fn enlist(&self, name: &Name) -> Result<()> {
        let entry = key::catalog(name);
        if self.storage.head(&entry).await?.is_none() {
            self.storage.put(&entry, encode(&name.as_str()), Durability::Durable).await?;
        }
        Ok(())
    }

    /// Tells whether there is such a repository.
    pub(crate) async fn exists(&self, name: &Name) -> Result<bool> {
        Ok(self.storage.head(&key::catalog(name)).await?.is_some())
    }

    /// Lists all repositories, sorted.
    pub(crate) async fn catalog(&self) -> Result<Vec<Name>> {
        let entries = list_all(&*self.storage, key::CATALOG).await?;
        let names = entries.iter().map(|entry| entry.name.replace(',', "/"));
        let mut names: Vec<Name> = names.filter_map(|name| name.parse().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Lists tags of a repository behind `last`.
    pub(crate) async fn tags(
        &self,
        name: &Name,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Tag>> {
        let listed = self.storage.list(&key::folder(name, "tags"), last, limit).await?;
        Ok(listed.iter().filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// Finds what a tag leads to.
    pub(crate) async fn tag(&self, name: &Name, tag: &Tag) -> Result<Option<TagRecord>> {
        let key = key::tag(name, tag);
        self.storage.get(&key).await?.map(|object| decode(&key, &object)).transpose()
    }

    /// Lists the tags of a repository with what they lead to.
    pub(crate) async fn tag_records(&self, name: &Name) -> Result<Vec<(Tag, TagRecord)>> {
        let entries = list_all(&*self.storage, &key::folder(name, "tags")).await?;
        let tags: Vec<Tag> =
            entries.into_iter().filter_map(|entry| entry.name.parse().ok()).collect();
        let mut records = Vec::new();
        for some in tags.chunks(AT_ONCE) {
            let found = join_all(some.iter().map(|tag| self.tag(name, tag))).await;
            for (tag, record) in some.iter().zip(found) {
                records.extend(record?.map(|record| (tag.clone(), record)));
            }
        }
        Ok(records)
    }

    /// Reads a config or another small JSON blob for display; `None` when it is missing or too large.
    pub(crate) async fn small_blob(&self, digest: &Digest, size: u64) -> Result<Option<Vec<u8>>> {
        use futures_util::TryStreamExt as _;
        // LIMIT: image configs are some kilobytes; what is larger is not shown.
        if size > 1 << 20 || self.storage.head(&key::blob(digest)).await?.is_none() {
            return Ok(None);
        }
        match self.open_blob(digest, 0..size).await? {
            Content::Bytes(bytes) => Ok(Some(bytes.to_vec())),
            Content::File(file, range) => {
                rorqual_store::blocking(move || {
                    let mut bytes = vec![0; (range.end - range.start) as usize];
                    std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, range.start)
                        .map_err(|error| Error::io("read a blob", error))?;
                    Ok(Some(bytes))
                })
                .await
            }
            Content::Pieces(pieces) => {
                let bytes: Vec<Bytes> = pieces.try_collect().await.map_err(|error| {
                    Error::Storage { action: "read a blob".into(), source: error }
                })?;
                Ok(Some(bytes.concat()))
            }
        }
    }

    /// Checks that everything a manifest needs is in the repository, and keeps the collector away from it.
    async fn check_references(&self, name: &Name, document: &Document) -> Result<()> {
        let unknown = |digest: &Digest| {
            let text = format!("the manifest refers to {digest}, which is not in the repository");
            Error::refused(Code::ManifestBlobUnknown, text)
        };
        for some in document.blobs().chunks(AT_ONCE) {
            let found = join_all(some.iter().map(|blob| self.touch_blob(name, &blob.digest))).await;
            for (blob, size) in some.iter().zip(found) {
                let size = size?.ok_or_else(|| unknown(&blob.digest))?;
                if size != blob.size {
                    let text = format!("{} has {size} bytes, not {}", blob.digest, blob.size);
                    return Err(Error::refused(Code::ManifestInvalid, text));
                }
            }
        }
        for manifest in document.manifests() {
            if !self.touch_manifest(name, &manifest.digest).await? {
                return Err(unknown(&manifest.digest));
            }
        }
        Ok(())
    }
}

pub(crate) fn blob_unknown(digest: &Digest) -> Error {
    Error::refused(Code::BlobUnknown, format!("the repository has no blob {digest}"))
}

//! Manifests, their tags and their referrers. The bytes come back exactly as they were pushed.

use std::time::SystemTime;

use bytes::Bytes;
use rorqual_content::media_type;
use rorqual_core::{Algorithm, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Repositories, TagRecord, encode};
use crate::document::{Descriptor, Document};
use crate::error::{Code, Error, Result};
use crate::name::{Name, Reference, Tag, key};
use crate::storage::{Durability, Hasher, Object, list_all};

/// A manifest of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) head: Head,
    pub(crate) bytes: Bytes,
    pub(crate) modified: SystemTime,
}

/// What is kept in front of a manifest's bytes, on a line of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head {
    pub(crate) media_type: String,
    pub(crate) pushed: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
}

/// What a push of a manifest came to.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) subject: Option<Digest>,
}

impl Manifest {
    pub(crate) fn decode(key: &str, digest: Digest, object: &Object) -> Result<Self> {
        let damaged = |source: rorqual_core::BoxError| Error::Storage {
            action: format!("read {key}"),
            source,
        };
        let at = object.bytes.iter().position(|byte| *byte == b'\n');
        let at = at.ok_or_else(|| damaged("it has no head".into()))?;
        let head = serde_json::from_slice(&object.bytes[..at]).map_err(|e| damaged(e.into()))?;
        let bytes = object.bytes.slice(at + 1..);
        Ok(Self { digest, head, bytes, modified: object.modified })
    }

    pub(crate) fn encode(head: &Head, bytes: &[u8]) -> Bytes {
        let mut object = encode(head).to_vec();
        object.push(b'\n');
        object.extend_from_slice(bytes);
        object.into()
    }

    pub(crate) fn document(&self) -> Result<Document> {
        Document::parse(&self.bytes, Some(&self.head.media_type))
    }
}

pub(crate) fn manifest_unknown(reference: &dyn std::fmt::Display) -> Error {
    Error::refused(Code::ManifestUnknown, format!("the repository has no manifest {reference}"))
}

impl Repositories {
    /// Finds a manifest by its digest.
    pub(crate) async fn manifest(&self, name: &Name, digest: &Digest) -> Result<Option<Manifest>> {
        let key = key::manifest(name, digest);
        let Some(object) = self.storage.get(&key).await? else { return Ok(None) };
        Manifest::decode(&key, digest.clone(), &object).map(Some)
    }

    /// Finds a manifest by tag or digest.
    pub(crate) async fn resolve(
        &self,
        name: &Name,
        reference: &Reference,
    ) -> Result<Option<Manifest>> {
        match reference {
            Reference::Digest(digest) => self.manifest(name, digest).await,
            Reference::Tag(tag) => match self.tag(name, tag).await? {
                Some(record) => self.manifest(name, &record.digest).await,
                None => Ok(None),
            },
        }
    }

    /// Makes an old manifest young, for somebody who may be about to push an index that lists it.
    pub(crate) async fn touch_manifest(&self, name: &Name, digest: &Digest) -> Result<bool> {
        let key = key::manifest(name, digest);
        let Some(meta) = self.storage.head(&key).await? else { return Ok(false) };
        if !self.is_old(meta.modified) {
            return Ok(true);
        }
        let Some(object) = self.storage.get(&key).await? else { return Ok(false) };
        self.write_manifest(name, digest, object.bytes, Durability::Volatile).await?;
        Ok(true)
    }

    async fn write_manifest(
        &self,
        name: &Name,
        digest: &Digest,
        bytes: Bytes,
        durability: Durability,
    ) -> Result<()> {
        let mark = key::condemned_manifest(name, digest);
        self.keep(&key::manifest(name, digest), &mark, bytes, durability).await
    }

    /// Stores a manifest that was pushed as `reference`, under further tags too.
    #[expect(clippy::too_many_arguments, reason = "what the request names, and its body")]
    pub(crate) async fn put_manifest(
        &self,
        name: &Name,
        reference: &Reference,
        more: &[Tag],
        content_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<Stored> {
        let document = Document::parse(&bytes, content_type)?;
        let algorithm = match reference {
            Reference::Digest(digest) => digest.algorithm(),
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let found = Hasher::digest(algorithm, &bytes)?;
        if let Reference::Digest(expected) = reference
            && *expected != found
        {
            return Err(Error::WrongDigest { expected: expected.clone(), found });
        }
        self.check_references(name, &document).await?;
        let tags: Vec<&Tag> = match reference {
            Reference::Tag(tag) => std::iter::once(tag).chain(more).collect(),
            Reference::Digest(_) => more.iter().collect(),
        };
        self.check_tag_quota(name, &tags).await?;
        self.store_manifest(name, found, &document, bytes, &tags).await
    }

    /// Writes a manifest that was checked, what it refers to, and its tags.
    #[expect(clippy::too_many_arguments, reason = "the parts of one manifest")]
    pub(crate) async fn store_manifest(
        &self,
        name: &Name,
        digest: Digest,
        document: &Document,
        bytes: Bytes,
        tags: &[&Tag],
    ) -> Result<Stored> {
        self.enlist(name).await?;
        let pushed = Timestamp::from(SystemTime::now());
        let head = Head {
            media_type: document.media_type.clone(),
            pushed,
            subject: document.subject.clone(),
        };
        let object = Manifest::encode(&head, &bytes);
        self.write_manifest(name, &digest, object, Durability::Durable).await?;
        let size = bytes.len() as u64;
        if let Some(subject) = &document.subject {
            let descriptor = referrer(&digest, size, document);
            let key = key::referrer(name, subject, &digest);
            self.storage.put(&key, encode(&descriptor), Durability::Durable).await?;
        }
        // ORDER: a tag never leads to what is not there.
        for tag in tags {
            let record = TagRecord {
                digest: digest.clone(),
                media_type: document.media_type.clone(),
                size,
                pushed,
            };
            self.storage.put(&key::tag(name, tag), encode(&record), Durability::Durable).await?;
        }
        let Head { media_type, subject, .. } = head;
        Ok(Stored { digest, media_type, size, subject })
    }

    /// Deletes a tag, or a manifest with all its tags; they can be restored for a while.
    pub(crate) async fn delete_manifest(
        &self,
        name: &Name,
        reference: &Reference,
    ) -> Result<Digest> {
        match reference {
            Reference::Tag(tag) => {
                let record = self.tag(name, tag).await?;
                let record = record.ok_or_else(|| manifest_unknown(tag))?;
                self.trash_tag(name, tag, &record).await?;
                Ok(record.digest)
            }
            Reference::Digest(digest) => {
                let manifest = self.manifest(name, digest).await?;
                let manifest = manifest.ok_or_else(|| manifest_unknown(digest))?;
                let mut tags = Vec::new();
                for (tag, record) in self.tag_records(name).await? {
                    if record.digest == *digest {
                        tags.push(tag);
                    }
                }
                self.trash_manifest(name, &manifest, &tags).await?;
                Ok(digest.clone())
            }
        }
    }

    /// Lists what refers to a manifest, behind `last`; the names to go on from come along.
    pub(crate) async fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        last: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Descriptor>, Option<String>)> {
        let folder = key::referrers(name, subject);
        let listed = self.storage.list(&folder, last, limit).await?;
        let next = (listed.len() == limit).then(|| listed.last().map(|e| e.name.clone())).flatten();
        let mut found = Vec::new();
        for entry in listed {
            let key = format!("{folder}/{}", entry.name);
            // What was removed meanwhile is not there.
            if let Some(object) = self.storage.get(&key).await? {
                found.push(super::decode(&key, &object)?);
            }
        }
        Ok((found, next))
    }

    /// Lists all manifests of a repository, without their bytes.
    pub(crate) async fn manifest_digests(&self, name: &Name) -> Result<Vec<(Digest, SystemTime)>> {
        let entries = list_all(&*self.storage, &key::folder(name, "manifests")).await?;
        let found = entries
            .into_iter()
            .filter_map(|entry| Some((key::unflat(&entry.name)?, entry.meta.modified)));
        Ok(found.collect())
    }
}

fn referrer(digest: &Digest, size: u64, document: &Document) -> Descriptor {
    Descriptor {
        media_type: document.media_type.clone(),
        digest: digest.clone(),
        size,
        artifact_type: document.kind(),
        annotations: document.annotations.clone(),
        platform: None,
        urls: None,
    }
}

/// Makes the answer of the referrers endpoint.
pub(crate) fn referrers_index(found: &[Descriptor]) -> Bytes {
    encode(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": found,
    }))
}

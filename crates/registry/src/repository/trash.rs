//! The undo window: what was deleted is kept a while and can be restored. The collector treats what lies here as used.

use std::time::SystemTime;

use rorqual_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::manifests::{Head, Manifest};
use super::{Repositories, TagRecord, encode};
use crate::document::Document;
use crate::error::Result;
use crate::name::{Name, Tag, key};
use crate::storage::{Durability, Object, list_all};

/// What was deleted: tags, and the manifest itself if its bytes follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deleted {
    pub(crate) digest: Digest,
    #[serde(rename = "deleted")]
    pub(crate) at: Timestamp,
    pub(crate) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<Head>,
}

/// An entry of the trash with its key.
pub(crate) struct Trashed {
    pub(crate) key: String,
    pub(crate) deleted: Deleted,
    bytes: bytes::Bytes,
}

impl Trashed {
    /// What the deleted manifest refers to; a tag alone protects its manifest.
    pub(crate) fn document(&self) -> Option<Document> {
        let head = self.deleted.head.as_ref()?;
        Document::parse(&self.bytes, Some(&head.media_type)).ok()
    }
}

impl Repositories {
    async fn trash(&self, name: &Name, deleted: Deleted, bytes: &[u8]) -> Result<()> {
        if self.config.gc.undo.0.is_zero() {
            return Ok(());
        }
        let mut object = encode(&deleted).to_vec();
        object.push(b'\n');
        object.extend_from_slice(bytes);
        let folder = key::folder(name, "trash");
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).ok();
        let salt = u32::from_le_bytes(salt);
        let key = format!("{folder}/{:020}-{salt:08x}", deleted.at.nanos());
        self.storage.put(&key, object.into(), Durability::Durable).await
    }

    /// Removes a tag.
    pub(crate) async fn trash_tag(&self, name: &Name, tag: &Tag, record: &TagRecord) -> Result<()> {
        let deleted = Deleted {
            digest: record.digest.clone(),
            at: Timestamp::from(SystemTime::now()),
            tags: vec![tag.to_string()],
            head: None,
        };
        // ORDER: kept before it is gone.
        self.trash(name, deleted, &[]).await?;
        self.storage.delete(&key::tag(name, tag)).await
    }

    /// Removes a manifest and the tags that lead to it.
    pub(crate) async fn trash_manifest(
        &self,
        name: &Name,
        manifest: &Manifest,
        tags: &[Tag],
    ) -> Result<()> {
        let deleted = Deleted {
            digest: manifest.digest.clone(),
            at: Timestamp::from(SystemTime::now()),
            tags: tags.iter().map(ToString::to_string).collect(),
            head: Some(manifest.head.clone()),
        };
        self.trash(name, deleted, &manifest.bytes).await?;
        for tag in tags {
            self.storage.delete(&key::tag(name, tag)).await?;
        }
        self.storage.delete(&key::manifest(name, &manifest.digest)).await?;
        if let Some(subject) = &manifest.head.subject {
            self.storage.delete(&key::referrer(name, subject, &manifest.digest)).await?;
        }
        Ok(())
    }

    /// Lists what can be restored, oldest first.
    pub(crate) async fn trashed(&self, name: &Name) -> Result<Vec<Trashed>> {
        let folder = key::folder(name, "trash");
        let mut found = Vec::new();
        for entry in list_all(&*self.storage, &folder).await? {
            let key = format!("{folder}/{}", entry.name);
            let Some(object) = self.storage.get(&key).await? else { continue };
            found.extend(read(key, &object));
        }
        Ok(found)
    }

    /// Brings back what was deleted last and fits the digest or tag; returns what that was.
    pub(crate) async fn restore(&self, name: &Name, wanted: &str) -> Result<Option<Deleted>> {
        let fits = |deleted: &Deleted| {
            deleted.digest.to_string() == wanted || deleted.tags.iter().any(|tag| tag == wanted)
        };
        let mut trashed = self.trashed(name).await?;
        let Some(at) = trashed.iter().rposition(|entry| fits(&entry.deleted)) else {
            return Ok(None);
        };
        let Trashed { key, deleted, bytes } = trashed.swap_remove(at);
        let tags: Vec<Tag> = deleted.tags.iter().filter_map(|tag| tag.parse().ok()).collect();
        let (document, bytes) = match &deleted.head {
            Some(head) => (Document::parse(&bytes, Some(&head.media_type))?, bytes),
            None => match self.manifest(name, &deleted.digest).await? {
                Some(manifest) => (manifest.document()?, manifest.bytes),
                // The manifest was deleted as well, later: its own entry has the bytes.
                None => return Box::pin(self.restore_both(name, &key, &deleted)).await,
            },
        };
        let tags: Vec<&Tag> = tags.iter().collect();
        self.store_manifest(name, deleted.digest.clone(), &document, bytes, &tags).await?;
        self.storage.delete(&key).await?;
        Ok(Some(deleted))
    }

    async fn restore_both(
        &self,
        name: &Name,
        key: &str,
        deleted: &Deleted,
    ) -> Result<Option<Deleted>> {
        let trashed = self.trashed(name).await?;
        let whole = trashed
            .into_iter()
            .rfind(|entry| entry.deleted.digest == deleted.digest && entry.deleted.head.is_some());
        let Some(whole) = whole else { return Ok(None) };
        let Some(document) = whole.document() else { return Ok(None) };
        let tags: Vec<Tag> = deleted.tags.iter().filter_map(|tag| tag.parse().ok()).collect();
        let tags: Vec<&Tag> = tags.iter().collect();
        let digest = deleted.digest.clone();
        self.store_manifest(name, digest, &document, whole.bytes.clone(), &tags).await?;
        self.storage.delete(&whole.key).await?;
        self.storage.delete(key).await?;
        Ok(Some(deleted.clone()))
    }
}

fn read(key: String, object: &Object) -> Option<Trashed> {
    let at = object.bytes.iter().position(|byte| *byte == b'\n')?;
    let deleted = serde_json::from_slice(&object.bytes[..at]).ok()?;
    Some(Trashed { key, deleted, bytes: object.bytes.slice(at + 1..) })
}

//! Uploads: begun by one request, grown by others, ended by the one that brings the digest. They survive a restart.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rorqual_core::{Algorithm, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Repositories, age, decode, encode};
use crate::error::{Code, Error, Result};
use crate::name::{Name, key};
use crate::storage::{Durability, Pieces};

/// What is kept of an upload beside its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    repository: String,
    began: Timestamp,
    /// Named by clients that will send another digest than SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
}

/// The uploads that this process knows to be open, to bound their number; false for those whose session is not written yet.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, bool>>);

impl Sessions {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, bool>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.with(|open| open.len())
    }

    /// Notes one that begins; false when there are `most`.
    fn begin(&self, id: &str, most: usize) -> bool {
        self.with(|open| {
            let is_room = open.len() < most;
            if is_room {
                open.insert(id.to_owned(), false);
            }
            is_room
        })
    }

    /// Its session is written; whoever looks at the storage from now on sees it.
    fn begun(&self, id: &str) {
        self.with(|open| {
            if let Some(written) = open.get_mut(id) {
                *written = true;
            }
        });
    }

    fn end(&self, id: &str) {
        self.with(|open| open.remove(id));
    }

    /// Lists those whose sessions are written.
    fn written(&self) -> HashSet<String> {
        let written = |open: &mut HashMap<String, bool>| {
            open.iter().filter(|(_, written)| **written).map(|(id, _)| id.clone()).collect()
        };
        self.with(written)
    }

    /// Forgets those that another process ended: written before the storage was looked at, and not `found` there.
    fn forget_lost(&self, before: &HashSet<String>, found: &[String]) {
        self.with(|open| open.retain(|id, _| !before.contains(id) || found.contains(id)));
    }
}

fn new_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Storage {
        action: "draw a random number".into(),
        source: error.into(),
    })?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

impl Repositories {
    /// Begins an upload.
    pub(crate) async fn begin_upload(
        &self,
        name: &Name,
        algorithm: Option<Algorithm>,
    ) -> Result<String> {
        let most = self.config.limits.uploads;
        let id = new_id()?;
        if !self.sessions.begin(&id, most) {
            let message = format!("{most} uploads are under way, the limit of this registry");
            return Err(Error::TooMany { message, retry_after: Duration::from_secs(10) });
        }
        let session = Session {
            repository: name.to_string(),
            began: Timestamp::from(SystemTime::now()),
            algorithm: algorithm.map(|algorithm| algorithm.name().to_owned()),
        };
        let kept =
            self.storage.put(&key::session(&id), encode(&session), Durability::Volatile).await;
        if let Err(error) = kept {
            self.sessions.end(&id);
            return Err(error);
        }
        self.sessions.begun(&id);
        Ok(id)
    }

    /// Checks that an upload is one of the repository's.
    async fn session(&self, name: &Name, upload: &str) -> Result<()> {
        let key = key::session(upload);
        let unknown = || Error::refused(Code::BlobUploadUnknown, "no such upload");
        let object = self.storage.get(&key).await?.ok_or_else(unknown)?;
        let session: Session = decode(&key, &object)?;
        if session.repository == name.as_str() { Ok(()) } else { Err(unknown()) }
    }

    /// Returns where an upload stands.
    pub(crate) async fn upload_length(&self, name: &Name, upload: &str) -> Result<u64> {
        self.session(name, upload).await?;
        self.storage.length(upload).await
    }

    /// Adds to an upload, at `start` if the client says so.
    pub(crate) async fn append(
        &self,
        name: &Name,
        upload: &str,
        start: Option<u64>,
        pieces: Pieces,
    ) -> Result<u64> {
        self.session(name, upload).await?;
        let stands = self.storage.length(upload).await?;
        if let Some(start) = start.filter(|start| *start != stands) {
            let text = format!("the upload stands at {stands}, the chunk begins at {start}");
            return Err(Error::refused(Code::BlobUploadRange, text));
        }
        let limit = self.config.limits.blob.0;
        let appended = self.storage.append(upload, stands, pieces, limit).await;
        if let Err(Error::Full(_) | Error::Refused { code: Code::SizeInvalid, .. }) = &appended {
            // It can never end well; its room is needed.
            self.end_upload(upload).await?;
        }
        appended
    }

    /// Ends an upload: its bytes become a blob of the repository if they have the digest.
    pub(crate) async fn commit(&self, name: &Name, upload: &str, digest: &Digest) -> Result<u64> {
        let length = self.upload_length(name, upload).await?;
        if let Err(error) = self.check_quota(name, length).await {
            self.end_upload(upload).await?;
            return Err(error);
        }
        self.pin(digest).await?;
        let committed = self.storage.commit(upload, digest, &key::blob(digest)).await;
        let size = match committed {
            Ok(size) => size,
            Err(error) => {
                if matches!(error, Error::WrongDigest { .. } | Error::Full(_)) {
                    self.end_upload(upload).await?;
                }
                return Err(error);
            }
        };
        self.enlist(name).await?;
        self.put_link(name, digest, size).await?;
        self.usage.add(name, size);
        self.end_upload(upload).await?;
        Ok(size)
    }

    /// Calls an upload off.
    pub(crate) async fn cancel(&self, name: &Name, upload: &str) -> Result<()> {
        self.session(name, upload).await?;
        self.end_upload(upload).await
    }

    async fn end_upload(&self, upload: &str) -> Result<()> {
        self.sessions.end(upload);
        self.storage.discard(upload).await?;
        self.storage.delete(&key::session(upload)).await
    }

    /// Gives up uploads that nobody has added to for long; returns how many.
    pub(crate) async fn expire_uploads(&self, dry_run: bool) -> Result<usize> {
        let mut expired = 0;
        // ORDER: what is written after this may be missing in what is found.
        let before = self.sessions.written();
        let found = self.storage.folders(key::UPLOADS).await?;
        self.sessions.forget_lost(&before, &found);
        for upload in found {
            let folder = format!("{}/{upload}", key::UPLOADS);
            let entries = crate::storage::list_all(&*self.storage, &folder).await?;
            let newest = entries.iter().map(|entry| entry.meta.modified).max();
            // One without anything in it has only just begun, its session about to be written.
            let is_old = newest.is_some_and(|at| age(at) > self.config.limits.upload_age.0);
            if !is_old {
                continue;
            }
            expired += 1;
            if !dry_run && let Err(error) = self.end_upload(&upload).await {
                tracing::warn!(%error, upload, "cannot give up an upload");
            }
        }
        Ok(expired)
    }
}

#[cfg(test)]
mod tests;

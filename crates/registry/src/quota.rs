//! Quotas of repositories. What they hold is counted once, kept up to date by pushes here, and counted again after a while,
//! because other processes push too.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Quota, fits};
use crate::error::{Code, Error, Result};
use crate::name::{Name, Tag, key};
use crate::repository::{Link, Repositories, decode};
use crate::storage::list_all;

/// Bytes of repositories as counted last.
#[derive(Default)]
pub(crate) struct Usage(Mutex<HashMap<Name, (u64, Instant)>>);

// LIMIT: how long a count is believed.
const BELIEVED: Duration = Duration::from_secs(60);

impl Usage {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Name, (u64, Instant)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a repository grew.
    pub(crate) fn add(&self, name: &Name, size: u64) {
        self.with(|known| {
            if let Some((bytes, _)) = known.get_mut(name) {
                *bytes += size;
            }
        });
    }

    /// Has a repository counted anew.
    pub(crate) fn forget(&self, name: &Name) {
        self.with(|known| known.remove(name));
    }
}

impl Repositories {
    fn quotas<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Quota> {
        self.config.quotas.iter().filter(move |quota| fits(&quota.repository, name.as_str()))
    }

    /// Counts the bytes of a repository's blobs.
    pub(crate) async fn size(&self, name: &Name) -> Result<u64> {
        let mut bytes = 0;
        let folder = key::folder(name, "blobs");
        for entry in list_all(&*self.storage, &folder).await? {
            let key = format!("{folder}/{}", entry.name);
            if let Some(object) = self.storage.get(&key).await? {
                bytes += decode::<Link>(&key, &object)?.size;
            }
        }
        Ok(bytes)
    }

    /// Checks that a repository may grow by `size` bytes.
    pub(crate) async fn check_quota(&self, name: &Name, size: u64) -> Result<()> {
        let Some(most) = self.quotas(name).filter_map(|quota| quota.size).min() else {
            return Ok(());
        };
        let known = self.usage().with(|known| known.get(name).copied());
        let used = match known.filter(|(_, at)| at.elapsed() < BELIEVED) {
            Some((used, _)) => used,
            None => {
                let used = self.size(name).await?;
                self.usage().with(|known| known.insert(name.clone(), (used, Instant::now())));
                used
            }
        };
        if used.saturating_add(size) > most.0 {
            let text = format!("the repository holds {used} bytes of at most {}", most.0);
            return Err(Error::refused(Code::Denied, text));
        }
        Ok(())
    }

    /// Checks that a repository may have these tags.
    pub(crate) async fn check_tag_quota(&self, name: &Name, tags: &[&Tag]) -> Result<()> {
        let Some(most) = self.quotas(name).filter_map(|quota| quota.tags).min() else {
            return Ok(());
        };
        let there = list_all(&*self.storage, &key::folder(name, "tags")).await?;
        let is_new = |tag: &&&Tag| there.iter().all(|entry| entry.name != tag.as_str());
        let fresh = tags.iter().filter(is_new).count();
        if fresh > 0 && there.len() + fresh > most {
            let text = format!("the repository has {} tags of at most {most}", there.len());
            return Err(Error::refused(Code::Denied, text));
        }
        Ok(())
    }
}

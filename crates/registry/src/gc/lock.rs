//! One collector at a time, in all processes: a lock in the storage that its owner renews.
//!
//! Taking it and renewing it are writes that depend on what is there. A store that has no such writes, or takes the condition and does
//! not heed it, gets a moment in which a collector that wrote at the same time is seen.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::repository::age;
use crate::storage::{Durability, Storage, Swapped};

pub(super) const LOCK: &str = "gc/lock";
// LIMIT: a collector renews its lock at each repository; one that is older belongs to a collector that died.
const HOLDS: Duration = Duration::from_secs(600);
const RENEW: Duration = Duration::from_secs(60);
// LIMIT: time in which another collector that saw no lock either has written its own.
const SETTLES: Duration = Duration::from_millis(500);

/// The right to collect.
pub(super) struct Lock {
    owner: Bytes,
}

fn busy(message: &str) -> Error {
    Error::TooMany { message: message.to_owned(), retry_after: HOLDS }
}

impl Lock {
    /// Takes the lock, also from a collector that died.
    pub(super) async fn acquire(storage: &dyn Storage) -> Result<Self> {
        const BUSY: &str = "another collection is under way";
        let there = storage.get(LOCK).await?;
        if there.as_ref().is_some_and(|object| age(object.modified) < HOLDS) {
            return Err(busy(BUSY));
        }
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).ok();
        let owner = format!("{}-{:016x}", std::process::id(), u64::from_le_bytes(salt));
        let lock = Self { owner: owner.into() };
        let there = there.map(|object| object.bytes);
        match storage.swap(LOCK, there.as_deref(), lock.owner.clone()).await? {
            Swapped::Done if heeds(storage, &lock.owner).await? => return Ok(lock),
            Swapped::Done => {}
            Swapped::Differs => return Err(busy(BUSY)),
            Swapped::Unsupported => lock.write(storage).await?,
        }
        tokio::time::sleep(SETTLES).await;
        lock.renew(storage).await?;
        Ok(lock)
    }

    async fn write(&self, storage: &dyn Storage) -> Result<()> {
        storage.put(LOCK, self.owner.clone(), Durability::Volatile).await
    }

    /// Makes sure that the lock is still ours.
    pub(super) async fn renew(&self, storage: &dyn Storage) -> Result<()> {
        let lost = || busy("another collection took over");
        let found = storage.get(LOCK).await?;
        let object = found.filter(|object| object.bytes == self.owner).ok_or_else(lost)?;
        if age(object.modified) <= RENEW {
            return Ok(());
        }
        match storage.swap(LOCK, Some(&self.owner), self.owner.clone()).await? {
            Swapped::Done => Ok(()),
            Swapped::Differs => Err(lost()),
            Swapped::Unsupported => self.write(storage).await,
        }
    }

    /// Gives it back.
    pub(super) async fn release(self, storage: &dyn Storage) {
        if self.renew(storage).await.is_ok() {
            storage.delete(LOCK).await.ok();
        }
    }
}

/// Tells whether the store heeds conditions: it must not make anew what is there.
async fn heeds(storage: &dyn Storage, owner: &Bytes) -> Result<bool> {
    Ok(storage.swap(LOCK, None, owner.clone()).await? == Swapped::Differs)
}

#[cfg(test)]
mod tests;

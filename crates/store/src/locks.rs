//! Locks by key: asynchronous, cancellable, with guards that can move between tasks.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Table<K> = Arc<Mutex<HashMap<K, Arc<AsyncMutex<()>>>>>;

/// Locks that exist while somebody holds or wants them.
pub struct KeyedLocks<K> {
    table: Table<K>,
}

impl<K> Clone for KeyedLocks<K> {
    fn clone(&self) -> Self {
        Self { table: Arc::clone(&self.table) }
    }
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self { table: Table::default() }
    }
}

impl<K> fmt::Debug for KeyedLocks<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLocks").finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone> KeyedLocks<K> {
    /// Waits for the lock of `key`; first come, first served.
    ///
    /// # Cancellation
    ///
    /// Dropping the future gives up the place in the queue, nothing else.
    pub async fn lock(&self, key: K) -> KeyGuard<K> {
        let place = Place { mutex: Some(self.mutex(&key)), key, table: Arc::clone(&self.table) };
        let mutex = place.mutex.as_ref().map(Arc::clone).unwrap_or_default();
        let guard = mutex.lock_owned().await;
        KeyGuard { guard: Some(guard), _place: place }
    }

    /// Takes the lock of `key` if nobody has it.
    pub fn try_lock(&self, key: K) -> Option<KeyGuard<K>> {
        let place = Place { mutex: Some(self.mutex(&key)), key, table: Arc::clone(&self.table) };
        let guard = place.mutex.as_ref().and_then(|mutex| Arc::clone(mutex).try_lock_owned().ok());
        guard.map(|guard| KeyGuard { guard: Some(guard), _place: place })
    }

    /// Returns how many keys are held or wanted.
    pub fn len(&self) -> usize {
        entries(&self.table).len()
    }

    /// Tells whether nothing is held or wanted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn mutex(&self, key: &K) -> Arc<AsyncMutex<()>> {
        Arc::clone(entries(&self.table).entry(key.clone()).or_default())
    }
}

fn entries<K>(table: &Table<K>) -> MutexGuard<'_, HashMap<K, Arc<AsyncMutex<()>>>> {
    // A panic while the table is held cannot leave it half changed.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A holder or waiter; the last one to go removes the entry.
struct Place<K: Eq + Hash> {
    key: K,
    mutex: Option<Arc<AsyncMutex<()>>>,
    table: Table<K>,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut table = entries(&self.table);
        self.mutex = None;
        if table.get(&self.key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            table.remove(&self.key);
        }
    }
}

/// Holds one key's lock; dropping it lets the next one in.
pub struct KeyGuard<K: Eq + Hash> {
    // INVARIANT: dropped before `_place` (declaration order and `Drop`), so that the entry's count is right.
    guard: Option<OwnedMutexGuard<()>>,
    _place: Place<K>,
}

impl<K: Eq + Hash> Drop for KeyGuard<K> {
    fn drop(&mut self) {
        self.guard = None;
    }
}

impl<K: Eq + Hash> fmt::Debug for KeyGuard<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyGuard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

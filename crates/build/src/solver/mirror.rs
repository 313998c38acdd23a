//! Our copies of clients' directories: only what changed travels, and the digest of each file is taken while it comes, so
//! that fifty thousand unchanged files cost a walk through memory.
//!
//! ```text
//! mirrors/<key>-<number>/{files/,index}
//! ```
//!
//! A copy is one build's as long as the build needs it; another one with the same directory meanwhile gets a copy of its
//! own. The index is on disk only while it is true: it is removed before the first change and written behind the last one,
//! and a copy without index is begun anew.

mod index;
mod sink;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rorqual_snapshot::{Contents, Selection};
use rorqual_store::{KeyGuard, KeyedLocks, blocking};

use super::key::Keyed;
use crate::Error;
use crate::contract::TreeSink;
use crate::error::other;

use index::Index;
use sink::Sink;

/// LIMIT: copies of one directory at a time.
const MAX_COPIES: usize = 64;

/// All copies of one data root.
pub(crate) struct Mirrors {
    home: PathBuf,
    turns: KeyedLocks<String>,
}

/// A copy, as long as a build uses it.
pub(crate) struct Lease {
    home: PathBuf,
    index: Arc<Mutex<Index>>,
    _turn: KeyGuard<String>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("home", &self.home).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mirrors {
    /// Opens the copies below a directory. Blocking.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let home = directory.join("mirrors");
        for made in [&home, &directory.join("mounts")] {
            std::fs::create_dir_all(made).map_err(other(format!("make {}", made.display())))?;
        }
        Ok(Self { home, turns: KeyedLocks::default() })
    }

    /// Takes the first copy that nobody uses.
    pub(crate) async fn lease(&self, key: &str) -> Result<Lease, Error> {
        let name = Keyed::new("mirror").with(key.as_bytes()).digest();
        for number in 0..MAX_COPIES {
            let name = format!("{}-{number}", name.hex());
            let Some(turn) = self.turns.try_lock(name.clone()) else { continue };
            let home = self.home.join(name);
            let index = {
                let home = home.clone();
                blocking(move || Index::load(&home)).await
            };
            let index = index.map_err(other("open the copy of a client's directory"))?;
            return Ok(Lease { home, index: Arc::new(Mutex::new(index)), _turn: turn });
        }
        let text = format!("{MAX_COPIES} builds use this directory at the same time already");
        Err(Error::Unsupported(text))
    }
}

impl Lease {
    /// Returns where the files are.
    pub(crate) fn files(&self) -> PathBuf {
        self.home.join("files")
    }

    /// Begins to bring the copy up to date; `came` hears how many bytes have come.
    pub(crate) fn sink(&self, came: Box<dyn Fn(u64) + Send>) -> Result<Box<dyn TreeSink>, Error> {
        Ok(Box::new(Sink::new(self.home.clone(), Arc::clone(&self.index), came)?))
    }

    /// Takes the digest of what a selection picks, from the index alone.
    pub(crate) async fn contents(
        &self,
        selection: Selection,
    ) -> Result<Contents, rorqual_snapshot::Error> {
        let index = Arc::clone(&self.index);
        blocking(move || {
            let index = lock(&index);
            rorqual_snapshot::contents(&index.listing(), &selection)
        })
        .await
    }
}

#[cfg(test)]
mod tests;

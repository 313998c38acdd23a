//! What is known of earlier builds: records by key, in memory and in the database. A record is written once its layers are
//! on disk, and its layers stay while it is there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rorqual_core::{ContainerId, DiffId, Digest, Timestamp};
use rorqual_store::{Database, Durability, Record};
use rorqual_transfer::{Keeper, Kept};
use serde::{Deserialize, Serialize};

use super::Parts;
use super::keeper::{InUse, LayersHeld, SnapshotHeld};
use super::key::Keyed;
use crate::Error;
use crate::error::other;

/// What a record of the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheKind {
    /// What a step made.
    Regular,
    /// Our copy of a client's directory.
    SourceLocal,
    /// A git commit.
    SourceGit,
    /// A file from a URL.
    SourceHttp,
    /// A directory that outlives builds.
    CacheMount,
}

impl CacheKind {
    /// Returns its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regular | Self::SourceHttp => "regular",
            Self::SourceLocal => "source.local",
            Self::SourceGit => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
        }
    }
}

/// A record of the cache, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// Identity.
    pub id: String,
    /// What it is.
    pub kind: CacheKind,
    /// What made it.
    pub description: String,
    /// Bytes that it alone occupies.
    pub size: u64,
    /// A build uses it at this moment.
    pub in_use: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was used last.
    pub used: Timestamp,
    /// How often it was used.
    pub uses: u64,
}

/// What to take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Only these, by id; empty for all.
    pub ids: Vec<String>,
    /// Only of these kinds, by name; empty for all.
    pub kinds: Vec<String>,
    /// Only what was not used since.
    pub until: Option<Timestamp>,
    /// Bytes that may stay: what was used last does.
    pub keep: Option<u64>,
}

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Identities.
    pub ids: Vec<String>,
    /// Bytes that they occupied.
    pub size: u64,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) kind: CacheKind,
    pub(crate) description: String,
    /// The layers of each state that the step makes.
    pub(crate) outputs: Vec<Vec<DiffId>>,
    /// Name of a directory of ours that belongs to it.
    #[serde(default)]
    pub(crate) directory: String,
    /// What the server of a source calls this content.
    #[serde(default)]
    pub(crate) tag: String,
    pub(crate) size: u64,
    pub(crate) created: Timestamp,
    pub(crate) used: Timestamp,
    pub(crate) uses: u64,
}

impl Record for Entry {
    const KIND: &'static str = "build-cache";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.key.clone()
    }
}

/// An input: what it is called, its identity, and the entries it had.
pub(crate) type Seen = (String, String, Vec<(String, u64)>);

/// What the keys of a vertex were made of when it ran last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reasons {
    /// Of the vertex: its name and platform.
    pub(crate) id: String,
    /// The operation as fields, one a line.
    pub(crate) op: String,
    /// Each input: what it is called, its identity, and the entries it had.
    pub(crate) inputs: Vec<Seen>,
}

impl Reasons {
    /// Tells reasons apart; the entries of an input follow from its identity.
    fn identity(&self) -> Digest {
        let key = Keyed::new("reasons").with(self.op.as_bytes());
        let inputs = self.inputs.iter();
        let with = |key: Keyed, (name, content, _): &Seen| {
            key.with(name.as_bytes()).with(content.as_bytes())
        };
        inputs.fold(key, with).digest()
    }
}

impl Record for Reasons {
    const KIND: &'static str = "build-reasons";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// The cache of one data root.
pub struct Cache {
    database: Database,
    entries: Mutex<HashMap<String, Entry>>,
    in_use: Arc<InUse>,
    /// Identities of the reasons that this daemon has written, by their ids.
    noted: Mutex<HashMap<String, Digest>>,
}

/// LIMIT: a hundred bytes each; what is forgotten is written once more.
const MAX_NOTED: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

impl Cache {
    /// Reads what is known.
    pub async fn open(database: Database) -> Result<Self, Error> {
        let all = database.list::<Entry>().await.map_err(other("read the build cache"))?;
        let entries = all.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Ok(Self {
            database,
            entries: Mutex::new(entries),
            in_use: Arc::default(),
            noted: Mutex::default(),
        })
    }

    pub(crate) fn hold(&self, layers: &[DiffId]) -> LayersHeld {
        self.in_use.hold(layers)
    }

    pub(crate) fn hold_snapshot(&self, snapshot: ContainerId) -> SnapshotHeld {
        self.in_use.hold_snapshot(snapshot)
    }

    /// Finds a record whose layers are all here, and keeps them.
    pub(crate) async fn find(
        &self,
        key: &str,
        parts: &Parts,
    ) -> Result<Option<Vec<(Vec<DiffId>, LayersHeld)>>, Error> {
        let held = {
            let mut entries = lock(&self.entries);
            let Some(entry) = entries.get_mut(key) else { return Ok(None) };
            entry.used = now();
            entry.uses += 1;
            // ORDER: held before the record could be pruned.
            let hold = |layers: &Vec<DiffId>| (layers.clone(), self.in_use.hold(layers));
            (entry.outputs.iter().map(hold).collect::<Vec<_>>(), entry.clone())
        };
        let (outputs, entry) = held;
        for layer in outputs.iter().flat_map(|(layers, _)| layers) {
            let found = parts.snapshots.find_layer(layer).await;
            if found.map_err(other("look for a layer of the build cache"))?.is_none() {
                self.remove(key).await?;
                return Ok(None);
            }
        }
        self.write(entry).await?;
        Ok(Some(outputs))
    }

    /// Remembers what a step made.
    pub(crate) async fn put(&self, entry: Entry) -> Result<(), Error> {
        self.write(entry.clone()).await?;
        lock(&self.entries).insert(entry.key.clone(), entry);
        Ok(())
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        lock(&self.entries).get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        lock(&self.entries).values().cloned().collect()
    }

    /// Tells when a layer was made.
    pub(crate) fn made(&self, layer: &DiffId) -> Option<Timestamp> {
        let entries = lock(&self.entries);
        let makes =
            |entry: &&Entry| entry.outputs.iter().any(|layers| layers.last() == Some(layer));
        entries.values().filter(makes).map(|entry| entry.created).min()
    }

    async fn write(&self, entry: Entry) -> Result<(), Error> {
        let written = self.database.put(Durability::Normal, entry).await;
        written.map_err(other("write the build cache"))
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<(), Error> {
        let removed = self.database.remove::<Entry>(Durability::Normal, key).await;
        removed.map_err(other("write the build cache"))?;
        lock(&self.entries).remove(key);
        Ok(())
    }

    pub(crate) async fn reasons(&self, id: &str) -> Result<Option<Reasons>, Error> {
        let id = id.to_owned();
        let found = self.database.read(move |records| records.find::<Reasons>(&id)).await;
        found.map_err(other("read why a step ran"))
    }

    /// Notes under an id what the keys of a vertex were made of; what is noted already is not written again, as it may be
    /// long.
    pub(crate) async fn put_reasons(&self, id: &str, reasons: &Reasons) -> Result<(), Error> {
        let identity = reasons.identity();
        if lock(&self.noted).get(id) == Some(&identity) {
            return Ok(());
        }
        let written = Reasons { id: id.to_owned(), ..reasons.clone() };
        let written = self.database.put(Durability::Normal, written).await;
        written.map_err(other("note why a step ran"))?;
        let mut noted = lock(&self.noted);
        if noted.len() >= MAX_NOTED {
            noted.clear();
        }
        noted.insert(id.to_owned(), identity);
        Ok(())
    }

    fn busy(&self) -> Vec<DiffId> {
        self.in_use.layers()
    }

    fn in_use(entry: &Entry, busy: &[DiffId]) -> bool {
        let last = entry.outputs.iter().filter_map(|layers| layers.last());
        last.into_iter().any(|layer| busy.contains(layer))
    }

    /// Lists what the cache holds, what was used last first.
    pub(crate) async fn usage(&self, parts: &Parts) -> Result<Vec<CacheEntry>, Error> {
        let busy = self.busy();
        let mut all = Vec::new();
        for entry in self.all() {
            let in_use = Self::in_use(&entry, &busy);
            let size = size_of(&entry, parts).await?;
            let Entry { key, kind, description, created, used, uses, .. } = entry;
            all.push(CacheEntry { id: key, kind, description, size, in_use, created, used, uses });
        }
        all.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// Takes records away that nobody uses.
    pub(crate) async fn prune(
        &self,
        parts: &Parts,
        request: PruneRequest,
    ) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        let all = self.usage(parts).await?;
        let mut left = all.iter().map(|entry| entry.size).sum::<u64>();
        // What was used longest ago goes first.
        for entry in all.into_iter().rev() {
            if request.keep.is_some_and(|keep| left <= keep) {
                break;
            }
            let named = |list: &[String], name: &str| {
                list.is_empty() || list.iter().any(|known| name.starts_with(known.as_str()))
            };
            let meant = named(&request.ids, &entry.id)
                && named(&request.kinds, entry.kind.name())
                && request.until.is_none_or(|until| entry.used < until);
            if !meant || entry.in_use || !self.take_away(&entry.id, &parts.directory).await? {
                continue;
            }
            left = left.saturating_sub(entry.size);
            pruned.size += entry.size;
            pruned.ids.push(entry.id);
        }
        Ok(pruned)
    }

    /// Removes a record with the directory that belongs to it; returns false where that is in use.
    async fn take_away(&self, key: &str, home: &Path) -> Result<bool, Error> {
        let directory = self.get(key).map(|entry| entry.directory).unwrap_or_default();
        if !directory.is_empty() && !super::mounts::remove(&home.join(directory)).await? {
            return Ok(false);
        }
        self.remove(key).await?;
        Ok(true)
    }

    /// Keeps the cache within its bound.
    pub(crate) async fn trim(&self, keep: Option<u64>, parts: &Parts) {
        let Some(keep) = keep else { return };
        let request = PruneRequest { keep: Some(keep), ..PruneRequest::default() };
        if let Err(error) = self.prune(parts, request).await {
            let error = rorqual_core::full_message(&error);
            tracing::warn!(error, "cannot bound the build cache");
        }
    }
}

async fn size_of(entry: &Entry, parts: &Parts) -> Result<u64, Error> {
    if entry.kind == CacheKind::CacheMount {
        return super::mounts::size(&parts.directory.join(&entry.directory)).await;
    }
    Ok(entry.size)
}

impl Keeper for Cache {
    fn kept(&self) -> Kept {
        let entries = lock(&self.entries);
        let cached = entries.values().flat_map(|entry| entry.outputs.iter().flatten().cloned());
        Kept {
            layers: cached.chain(self.in_use.layers()).collect(),
            snapshots: self.in_use.snapshots(),
            blobs: Vec::new(),
        }
    }
}

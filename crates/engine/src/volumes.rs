//! Volumes of the local driver: a directory and a record each.
//!
//! Only directories that we own are touched here; filling one from an image is the snapshotter's business.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rorqual_core::{Filters, Timestamp, VolumeName};
use rorqual_store::{Database, Durability, blocking};

use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::records::VolumeRecord;
use crate::request::{Pruned, VolumeSpec};
use crate::view::VolumeView;
use crate::world::World;

/// Label that Docker gives to volumes without a name of the user's.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Records and directories of all volumes.
pub(crate) struct VolumeTable {
    root: PathBuf,
    database: Database,
    records: Mutex<BTreeMap<VolumeName, VolumeRecord>>,
    /// Held while a volume is made or removed.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl VolumeTable {
    /// Reads the records.
    pub(crate) async fn open(root: PathBuf, database: Database) -> Result<Self> {
        let records: Vec<VolumeRecord> = database.list().await?;
        let records = records.into_iter().map(|record| (record.name.clone(), record)).collect();
        Ok(Self { root, database, records: Mutex::new(records), changing: Arc::default() })
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<VolumeName, VolumeRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, name: &VolumeName) -> Option<VolumeRecord> {
        self.records().get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<VolumeRecord> {
        self.records().values().cloned().collect()
    }

    /// Returns the directory that containers see.
    pub(crate) fn data(&self, name: &VolumeName) -> PathBuf {
        self.root.join(name.as_str()).join("_data")
    }

    /// Returns a volume, made if it is not there, and whether it was made.
    ///
    /// # Cancellation
    ///
    /// Once begun, the making goes on without the caller, and whoever takes it back waits for its end.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        wanted: VolumeRecord,
    ) -> Result<(VolumeRecord, bool)> {
        // ORDER: our turn comes before the work is on its way, so that an undo cannot overtake it.
        let turn = Arc::clone(&self.changing).lock_owned().await;
        if let Some(known) = self.find(&wanted.name) {
            return Ok((known, false));
        }
        let table = Arc::clone(self);
        let making = tokio::spawn(async move {
            let made = table.make(wanted).await;
            drop(turn);
            made
        });
        match making.await {
            Ok(made) => made.map(|record| (record, true)),
            Err(failure) => Err(Error::Internal(format!("cannot make the volume: {failure}"))),
        }
    }

    async fn make(&self, wanted: VolumeRecord) -> Result<VolumeRecord> {
        let data = self.data(&wanted.name);
        blocking(move || make_directory(&data)).await?;
        // On disk before anybody is told of it.
        self.database.put(Durability::Full, wanted.clone()).await?;
        self.records().insert(wanted.name.clone(), wanted.clone());
        Ok(wanted)
    }

    /// Removes record and directory; a missing one is fine.
    pub(crate) async fn discard(&self, name: &VolumeName) -> Result<()> {
        let _turn = self.changing.lock().await;
        self.database.remove::<VolumeRecord>(Durability::Full, name.as_str()).await?;
        self.records().remove(name);
        let directory = self.root.join(name.as_str());
        blocking(move || remove_directory(&directory)).await
    }

    /// Sums the sizes of a volume's files. Blocking walk, elsewhere.
    pub(crate) async fn size(&self, name: &VolumeName) -> u64 {
        let data = self.data(name);
        blocking(move || tree_size(&data)).await
    }

    pub(crate) fn view(&self, record: &VolumeRecord) -> VolumeView {
        VolumeView {
            name: record.name.clone(),
            driver: "local".to_owned(),
            mountpoint: self.data(&record.name),
            created: record.created,
            labels: record.labels.clone(),
            options: record.options.clone(),
            usage: None,
        }
    }
}

fn failed(action: &str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { action: format!("{action} {}", path.display()), source }
}

fn make_directory(data: &Path) -> Result<()> {
    // As Docker: others may pass through `volumes/NAME`, not list it.
    let parent = data.parent().unwrap_or(data);
    DirBuilder::new()
        .recursive(true)
        .mode(0o701)
        .create(parent)
        .map_err(|source| failed("make", parent, source))?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(data)
        .map_err(|source| failed("make", data, source))
}

fn remove_directory(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", directory, source))
        }
        _ => Ok(()),
    }
}

fn tree_size(root: &Path) -> u64 {
    let mut open = vec![root.to_owned()];
    let mut total = 0;
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => total += meta.len(),
                Err(_) => {}
            }
        }
    }
    total
}

/// Makes a record; checks driver and options.
pub(crate) fn record(spec: VolumeSpec, created: Timestamp) -> Result<VolumeRecord> {
    if let Some(driver) = spec.driver.as_deref().filter(|driver| !matches!(*driver, "" | "local")) {
        // COMPAT: dockerd's text.
        return Err(Error::NotFound(format!(
            "create {}: error looking up volume plugin {driver}: plugin \"{driver}\" not found",
            spec.name.as_ref().map_or("", |name| name.as_str())
        )));
    }
    if let Some((key, _)) = spec.options.first_key_value() {
        return Err(if matches!(key.as_str(), "type" | "device" | "o" | "size") {
            Error::Unsupported(format!("volume option {key:?} is not supported by this version"))
        } else {
            // COMPAT: dockerd's text.
            let name = spec.name.as_ref().map_or("", |name| name.as_str());
            Error::Invalid(format!("create {name}: invalid option: {key:?}"))
        });
    }
    let mut labels = spec.labels;
    let anonymous = spec.name.is_none();
    let name = if let Some(name) = spec.name {
        name
    } else {
        labels.insert(ANONYMOUS.to_owned(), String::new());
        rorqual_core::ContainerId::from_random(World::random_bits()?).to_string().parse()?
    };
    Ok(VolumeRecord { name, created, labels, options: spec.options, anonymous })
}

/// The volumes of one daemon.
#[derive(Clone)]
pub struct Volumes {
    pub(crate) world: Arc<World>,
}

#[expect(
    clippy::unused_async,
    reason = "callers await every method alike, whether it waits today or not"
)]
impl Volumes {
    /// Makes a volume, or returns the one that is there.
    pub async fn create(&self, spec: VolumeSpec) -> Result<VolumeView> {
        let world = Arc::clone(&self.world);
        let record = record(spec, world.options.clock.now())?;
        self.world
            .to_its_end(async move {
                let (record, made) = world.volumes.ensure(record).await?;
                if made {
                    let driver = [("driver", "local".to_owned())];
                    world.event(EventKind::Volume, "create", record.name.as_str(), driver);
                }
                Ok(world.volumes.view(&record))
            })
            .await
    }

    fn find(&self, name: &str) -> Result<VolumeRecord> {
        let parsed = name.parse::<VolumeName>().ok();
        let found = parsed.and_then(|name| self.world.volumes.find(&name));
        found.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
    }

    /// Shows a volume.
    pub async fn inspect(&self, name: &str) -> Result<VolumeView> {
        self.find(name).map(|record| self.world.volumes.view(&record))
    }

    /// Lists volumes by name (filters `dangling`, `driver`, `label`, `name`).
    pub async fn list(&self, filters: Filters) -> Result<Vec<VolumeView>> {
        filters.check_keys(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.bool("dangling")?;
        let index = &self.world.index;
        let matches = |record: &VolumeRecord| {
            let unused = || index.users_of_volume(&record.name).is_empty();
            dangling.is_none_or(|wanted| wanted == unused())
                && filters.any("driver", |wanted| wanted == "local")
                && filters.any("name", |wanted| record.name.as_str().contains(wanted.as_str()))
                && filters.labels_match("label", |key| record.labels.get(key).map(String::as_str))
        };
        let records = self.world.volumes.all();
        Ok(records.iter().filter(|r| matches(r)).map(|r| self.world.volumes.view(r)).collect())
    }

    /// Removes a volume; with `force` a missing one is fine.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        let record = match self.find(name) {
            Ok(record) => record,
            Err(_) if force => return Ok(()),
            Err(error) => return Err(error),
        };
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { remove(&world, &record).await }).await
    }

    /// Removes unused volumes (filters `all`, `label`, `label!`); only anonymous ones unless `all`.
    pub async fn prune(&self, filters: Filters) -> Result<Pruned> {
        filters.check_keys(&["all", "label", "label!"])?;
        let all = filters.bool("all")?.unwrap_or(false);
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { prune(&world, &filters, all).await }).await
    }
}

async fn remove(world: &World, record: &VolumeRecord) -> Result<()> {
    let users = world.index.users_of_volume(&record.name);
    if !users.is_empty() {
        let users: Vec<String> = users.iter().map(ToString::to_string).collect();
        // COMPAT: clients look for this text.
        return Err(Error::Conflict(format!(
            "remove {}: volume is in use - [{}]",
            record.name,
            users.join(", ")
        )));
    }
    world.volumes.discard(&record.name).await?;
    let driver = [("driver", "local".to_owned())];
    world.event(EventKind::Volume, "destroy", record.name.as_str(), driver);
    Ok(())
}

async fn prune(world: &World, filters: &Filters, all: bool) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    for record in world.volumes.all() {
        let label = |key: &str| record.labels.get(key).map(String::as_str);
        let wanted = (all || record.anonymous)
            && filters.labels_match("label", label)
            && !(filters.has("label!") && filters.labels_match("label!", label));
        if !wanted || !world.index.users_of_volume(&record.name).is_empty() {
            continue;
        }
        let size = world.volumes.size(&record.name).await;
        if remove(world, &record).await.is_ok() {
            pruned.reclaimed += size;
            pruned.deleted.push(record.name.to_string());
        }
    }
    let reclaimed = [("reclaimed", pruned.reclaimed.to_string())];
    world.event(EventKind::Volume, "prune", "", reclaimed);
    Ok(pruned)
}

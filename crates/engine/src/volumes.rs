//! Volumes: their records, and who may have them. Where their data live is the driver's business.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rorqual_core::{ContainerId, Filters, Timestamp, VolumeName, full_message};
use rorqual_store::{Database, Durability};
use rorqual_volume::VolumeDriver;

use crate::container::Container;
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
    pub(crate) driver: Arc<dyn VolumeDriver>,
    database: Database,
    records: Mutex<BTreeMap<VolumeName, VolumeRecord>>,
    /// Held while a volume is made or removed.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl VolumeTable {
    /// Reads the records.
    pub(crate) async fn open(driver: Arc<dyn VolumeDriver>, database: Database) -> Result<Self> {
        let records: Vec<VolumeRecord> = database.list().await?;
        let records = records.into_iter().map(|record| (record.name.clone(), record)).collect();
        Ok(Self { driver, database, records: Mutex::new(records), changing: Arc::default() })
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
        self.driver.mountpoint(name)
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
        self.driver.create(&wanted.name).await?;
        // On disk before anybody is told of it. What was made for one container is as durable as its record, which follows.
        let durability = match wanted.labels.contains_key(ANONYMOUS) {
            true => Durability::Normal,
            false => Durability::Full,
        };
        self.database.put(durability, wanted.clone()).await?;
        self.records().insert(wanted.name.clone(), wanted.clone());
        Ok(wanted)
    }

    /// Removes record and directory; a missing one is fine.
    pub(crate) async fn discard(&self, name: &VolumeName) -> Result<()> {
        let _turn = self.changing.lock().await;
        // ORDER: the directory first, or nobody would know of it any more should we die in between.
        self.driver.remove(name).await?;
        self.database.remove::<VolumeRecord>(Durability::Full, name.as_str()).await?;
        self.records().remove(name);
        Ok(())
    }

    /// Makes a volume's data available to a container.
    pub(crate) async fn mount(&self, name: &VolumeName, user: ContainerId) -> Result<()> {
        match self.find(name) {
            Some(record) => Ok(self.driver.mount(name, &record.options, user).await?),
            None => Err(Error::NoSuchVolume(name.to_string())),
        }
    }

    /// Gives a container's volumes back to the driver; what cannot be unmounted is told.
    pub(crate) async fn unmount_all(&self, container: &Container) {
        for mount in &container.definition().mounts {
            let Some(name) = &mount.name else { continue };
            if let Err(error) = self.driver.unmount(name, container.id).await {
                tracing::warn!(volume = %name, error = full_message(&error), "cannot unmount");
            }
        }
    }

    /// Lets the driver know who uses what, after a restart.
    pub(crate) async fn recover(&self, running: &[Arc<Container>]) {
        let with_mounts = |record: &VolumeRecord| !record.options.is_empty();
        let known: Vec<VolumeName> =
            self.all().into_iter().filter(with_mounts).map(|record| record.name).collect();
        let users = running.iter().flat_map(|container| {
            let mounts = container.definition().mounts.clone();
            mounts.into_iter().filter_map(|mount| Some((mount.name?, container.id)))
        });
        let users = users.filter(|(name, _)| known.contains(name)).collect();
        self.driver.recover(known.clone(), users).await;
    }

    /// Sums the sizes of a volume's files.
    pub(crate) async fn size(&self, name: &VolumeName) -> u64 {
        self.driver.size(name).await
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

/// Makes a record; checks driver and options.
pub(crate) fn record(
    driver: &dyn VolumeDriver,
    spec: VolumeSpec,
    created: Timestamp,
) -> Result<VolumeRecord> {
    if let Some(other) = spec.driver.as_deref().filter(|driver| !matches!(*driver, "" | "local")) {
        // COMPAT: dockerd's text.
        return Err(Error::NotFound(format!(
            "create {}: error looking up volume plugin {other}: plugin \"{other}\" not found",
            spec.name.as_ref().map_or("", |name| name.as_str())
        )));
    }
    driver.check(&spec.options).map_err(|source| {
        // COMPAT: dockerd's text.
        let name = spec.name.as_ref().map_or("", |name| name.as_str());
        Error::Invalid(format!("create {name}: {source}"))
    })?;
    let mut labels = spec.labels;
    let anonymous = spec.name.is_none();
    let name = if let Some(name) = spec.name {
        name
    } else {
        labels.insert(ANONYMOUS.to_owned(), String::new());
        ContainerId::from_random(World::random_bits()?).to_string().parse()?
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
        let record = record(&*world.volumes.driver, spec, world.options.clock.now())?;
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

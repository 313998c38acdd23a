//! The records of all volumes, and the drivers that keep their data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rorqual_core::{ContainerId, VolumeName, full_message};
use rorqual_store::{Database, Durability, KeyGuard, KeyedLocks};
use rorqual_volume::{Described, Drivers, LOCAL, VolumeDriver};

use super::ANONYMOUS;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::records::VolumeRecord;
use crate::view::VolumeView;

/// Records and data of all volumes.
pub(crate) struct VolumeTable {
    pub(crate) drivers: Arc<Drivers>,
    pub(super) database: Database,
    records: Mutex<BTreeMap<VolumeName, VolumeRecord>>,
    /// Held while a volume is made or removed.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// Held per volume while its first content comes, or it is looked at whether there is any.
    filling: KeyedLocks<VolumeName>,
}

impl VolumeTable {
    /// Reads the records and finishes what an earlier daemon left half done.
    pub(crate) async fn open(drivers: Arc<Drivers>, database: Database) -> Result<Self> {
        let records: Vec<VolumeRecord> = database.list().await?;
        let records = records.into_iter().map(|record| (record.name.clone(), record)).collect();
        let table = Self {
            drivers,
            database,
            records: Mutex::new(records),
            changing: Arc::default(),
            filling: KeyedLocks::default(),
        };
        table.finish().await?;
        Ok(table)
    }

    /// ORDER: first what records say is whole becomes visible, then everything else that is not whole goes.
    async fn finish(&self) -> Result<()> {
        for record in self.all().into_iter().filter(|record| record.staged.is_some()) {
            self.publish(record).await?;
        }
        for name in self.drivers.local().sweep().await {
            self.database.remove::<VolumeRecord>(Durability::Full, name.as_str()).await?;
            self.records().remove(&name);
            self.drivers.local().forget(&name).await;
        }
        Ok(())
    }

    /// Puts the data of a record that has just been written in their place.
    pub(super) async fn publish(&self, record: VolumeRecord) -> Result<VolumeRecord> {
        let Some(token) = &record.staged else { return Ok(record) };
        self.drivers.local().publish(token, &record.name).await?;
        let record = VolumeRecord { staged: None, ..record };
        // Should this not reach the disk, the next daemon does the same again.
        self.database.put(Durability::Normal, record.clone()).await?;
        self.records().insert(record.name.clone(), record.clone());
        Ok(record)
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

    /// Returns who keeps a volume; what is not known is ours.
    pub(crate) fn driver_of(&self, name: &VolumeName) -> Arc<dyn VolumeDriver> {
        let driver = self.records().get(name).map(|record| record.driver.clone());
        self.drivers.named(driver.as_deref().unwrap_or(LOCAL))
    }

    /// Waits for its turn to look at a volume's content, and to fill it.
    pub(crate) async fn filling(&self, name: &VolumeName) -> KeyGuard<VolumeName> {
        self.filling.lock(name.clone()).await
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
        let driver = self.drivers.named(&wanted.driver);
        if wanted.driver != LOCAL && driver.describe(&wanted.name).await?.is_some() {
            // COMPAT: what a plugin has already is not made again.
            return self.keep(wanted).await;
        }
        driver.create(&wanted.name, &wanted.options).await.map_err(creating(&wanted.name))?;
        self.keep(wanted).await
    }

    /// Writes the record of a volume that is there.
    pub(super) async fn keep(&self, record: VolumeRecord) -> Result<VolumeRecord> {
        // On disk before anybody is told of it. What was made for one container is as durable as its record, which follows.
        let durability = match record.labels.contains_key(ANONYMOUS) {
            true => Durability::Normal,
            false => Durability::Full,
        };
        self.database.put(durability, record.clone()).await?;
        self.records().insert(record.name.clone(), record.clone());
        Ok(record)
    }

    /// Removes record and data; a missing one is fine.
    pub(crate) async fn discard(&self, name: &VolumeName, driver: &str) -> Result<()> {
        let _turn = self.changing.lock().await;
        let driver = self.drivers.named(driver);
        // ORDER: the data first, or nobody would know of them any more should we die in between.
        driver.remove(name).await?;
        self.database.remove::<VolumeRecord>(Durability::Full, name.as_str()).await?;
        self.records().remove(name);
        driver.forget(name).await;
        Ok(())
    }

    /// Removes record and data of a volume that may be there.
    pub(crate) async fn discard_known(&self, name: &VolumeName) -> Result<()> {
        match self.find(name) {
            Some(record) => self.discard(name, &record.driver).await,
            // Made, but its record was not written: nobody but us keeps such.
            None => self.discard(name, LOCAL).await,
        }
    }

    /// Forgets a volume whose driver is not there to remove it.
    pub(crate) async fn forget(&self, name: &VolumeName) -> Result<()> {
        let _turn = self.changing.lock().await;
        self.database.remove::<VolumeRecord>(Durability::Full, name.as_str()).await?;
        self.records().remove(name);
        Ok(())
    }

    /// Makes a volume's data available to a container and returns where they are.
    pub(crate) async fn mount(&self, name: &VolumeName, user: ContainerId) -> Result<PathBuf> {
        match self.find(name) {
            Some(record) => {
                let driver = self.drivers.named(&record.driver);
                Ok(driver.mount(name, &record.options, user).await?)
            }
            None => Err(Error::NoSuchVolume(name.to_string())),
        }
    }

    /// Gives a volume back to its driver.
    pub(crate) async fn unmount(
        &self,
        name: &VolumeName,
        user: ContainerId,
    ) -> Result<(), rorqual_volume::Error> {
        self.driver_of(name).unmount(name, user).await
    }

    /// Gives a container's volumes back to their drivers; what cannot be unmounted is told.
    pub(crate) async fn unmount_all(&self, container: &Container) {
        let definition = container.definition();
        let names: BTreeSet<_> =
            definition.mounts.iter().filter_map(|mount| mount.name.as_ref()).collect();
        for name in names {
            if let Err(error) = self.unmount(name, container.id).await {
                tracing::warn!(volume = %name, error = full_message(&error), "cannot unmount");
            }
        }
    }

    /// Lets the drivers know who uses what, after a restart.
    pub(crate) async fn recover(&self, running: &[Arc<Container>]) {
        let with_mounts =
            |record: &VolumeRecord| record.driver != LOCAL || !record.options.is_empty();
        let mut known: BTreeMap<String, Vec<VolumeName>> = BTreeMap::new();
        for record in self.all().into_iter().filter(with_mounts) {
            known.entry(record.driver).or_default().push(record.name);
        }
        let used: Vec<(VolumeName, ContainerId)> = running
            .iter()
            .flat_map(|container| {
                let mounts = container.definition().mounts.clone();
                mounts.into_iter().filter_map(|mount| Some((mount.name?, container.id)))
            })
            .collect();
        for (driver, names) in known {
            let users = used.iter().filter(|(name, _)| names.contains(name)).cloned().collect();
            self.drivers.named(&driver).recover(names, users).await;
        }
        self.drivers.settle();
    }

    /// Sums the sizes of a volume's files; `None` where only somebody else could.
    pub(crate) async fn size(&self, name: &VolumeName) -> Option<u64> {
        self.driver_of(name).size(name).await
    }

    /// Shows a volume that is kept here.
    pub(crate) fn view(&self, record: &VolumeRecord) -> VolumeView {
        let local = record.driver == LOCAL;
        let mountpoint = local.then(|| self.drivers.local().mountpoint(&record.name));
        let mut status = BTreeMap::new();
        if let Some(origin) = &record.snapshot_of {
            status.insert("SnapshotOf".to_owned(), origin.to_string().into());
        }
        VolumeView {
            name: record.name.clone(),
            driver: record.driver.clone(),
            scope: LOCAL.to_owned(),
            mountpoint: mountpoint.unwrap_or_default(),
            created: Some(super::shown(record.created)),
            labels: record.labels.clone(),
            options: record.options.clone(),
            status,
            usage: None,
        }
    }

    /// Adds what its driver tells to what is known of a volume.
    pub(crate) fn described(mut view: VolumeView, described: Described) -> VolumeView {
        view.mountpoint = described.mountpoint;
        view.created = described.created;
        view.status.extend(described.status);
        view
    }
}

/// COMPAT: dockerd puts the volume's name in front.
pub(super) fn creating(name: &VolumeName) -> impl FnOnce(rorqual_volume::Error) -> Error {
    move |source| Error::Volume(rorqual_volume::Error::Creating(name.clone(), Box::new(source)))
}

//! Volumes: their records, and who may have them. Where their data live is their driver's business.

mod data;
mod table;

use std::sync::Arc;

use rorqual_core::{ContainerId, Filters, Timestamp, VolumeName, full_message};
use rorqual_volume::{Described, LOCAL};

use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::records::VolumeRecord;
use crate::request::{Pruned, VolumeSpec};
use crate::view::VolumeView;
use crate::world::World;

pub use data::{Copied, CopyRequest, ExportRequest, ImportRequest};
pub(crate) use table::VolumeTable;

/// Label that Docker gives to volumes without a name of the user's.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Makes a record; checks driver and options, and finds volumes that a plugin has already.
pub(crate) async fn record(world: &World, spec: VolumeSpec) -> Result<VolumeRecord> {
    let table = &world.volumes;
    let asked = spec.driver.filter(|driver| !driver.is_empty());
    let mut labels = spec.labels;
    let anonymous = spec.name.is_none();
    let name = if let Some(name) = spec.name {
        name
    } else {
        labels.insert(ANONYMOUS.to_owned(), String::new());
        ContainerId::from_random(World::random_bits()?).to_string().parse()?
    };
    let known = match table.find(&name) {
        Some(known) => Some(known),
        // COMPAT: without a driver, one that has a volume of that name is meant.
        None if !anonymous && asked.is_none() => elsewhere(world, &name).await,
        None => None,
    };
    if let Some(known) = known {
        if let Some(driver) = asked.filter(|driver| *driver != known.driver) {
            // COMPAT: a driver that is not there is told first.
            table.drivers.find(&driver).await.map_err(table::creating(&name))?;
            // COMPAT: dockerd's text.
            return Err(Error::Conflict(format!(
                "create {name}: conflict: volume name must be unique"
            )));
        }
        return Ok(known);
    }
    let driver = asked.as_deref().unwrap_or(LOCAL);
    let driver = table.drivers.find(driver).await.map_err(table::creating(&name))?;
    driver.check(&spec.options).map_err(table::creating(&name))?;
    Ok(VolumeRecord {
        name,
        created: world.options.clock.now(),
        labels,
        options: spec.options,
        anonymous,
        driver: driver.name().to_owned(),
        staged: None,
        snapshot_of: None,
    })
}

/// Finds a volume that is no record of ours but known to a plugin.
async fn elsewhere(world: &World, name: &VolumeName) -> Option<VolumeRecord> {
    for driver in world.volumes.drivers.plugins().await {
        match driver.describe(name).await {
            Ok(Some(_)) => return Some(foreign(name.clone(), driver.name(), world)),
            Ok(None) => {}
            Err(error) => {
                let error = full_message(&error);
                tracing::warn!(driver = driver.name(), error, "cannot ask for a volume");
            }
        }
    }
    None
}

fn foreign(name: VolumeName, driver: &str, world: &World) -> VolumeRecord {
    VolumeRecord {
        name,
        created: world.options.clock.now(),
        labels: std::collections::BTreeMap::new(),
        options: std::collections::BTreeMap::new(),
        anonymous: false,
        driver: driver.to_owned(),
        staged: None,
        snapshot_of: None,
    }
}

/// Writes a time as `inspect` shows it. COMPAT: whole seconds.
pub(crate) fn shown(created: Timestamp) -> String {
    Timestamp::from_nanos(created.secs() * 1_000_000_000).to_string()
}

/// The volumes of one daemon.
#[derive(Clone)]
pub struct Volumes {
    pub(crate) world: Arc<World>,
}

impl Volumes {
    /// Makes a volume, or returns the one that is there.
    pub async fn create(&self, spec: VolumeSpec) -> Result<VolumeView> {
        let world = Arc::clone(&self.world);
        let making = async move {
            let record = record(&world, spec).await?;
            let (record, made) = world.volumes.ensure(record).await?;
            if made {
                announce(&world, "create", &record);
            }
            view(&world, &record).await
        };
        self.world.to_its_end(making).await
    }

    /// Names the volume drivers that are known to be there.
    pub fn drivers(&self) -> Vec<String> {
        self.world.volumes.drivers.names()
    }

    /// Finds a volume of ours, or one that a plugin knows.
    async fn find(&self, name: &str) -> Result<VolumeRecord> {
        let missing = || Error::NoSuchVolume(name.to_owned());
        let parsed = name.parse::<VolumeName>().map_err(|_| missing())?;
        match self.world.volumes.find(&parsed) {
            Some(record) => Ok(record),
            None => elsewhere(&self.world, &parsed).await.ok_or_else(missing),
        }
    }

    /// Shows a volume.
    pub async fn inspect(&self, name: &str) -> Result<VolumeView> {
        let record = self.find(name).await?;
        view(&self.world, &record).await
    }

    /// Lists volumes by name (filters `dangling`, `driver`, `label`, `name`), and tells which drivers did not answer.
    pub async fn list(&self, filters: Filters) -> Result<(Vec<VolumeView>, Vec<String>)> {
        filters.check_keys(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.bool("dangling")?;
        let index = &self.world.index;
        let (all, warnings) = self.all().await;
        let matches = |view: &VolumeView| {
            let unused = || index.users_of_volume(&view.name).is_empty();
            dangling.is_none_or(|wanted| wanted == unused())
                && filters.any("driver", |wanted| *wanted == view.driver)
                && filters.any("name", |wanted| view.name.as_str().contains(wanted.as_str()))
                && filters.labels_match("label", |key| view.labels.get(key).map(String::as_str))
        };
        Ok((all.into_iter().filter(matches).collect(), warnings))
    }

    async fn all(&self) -> (Vec<VolumeView>, Vec<String>) {
        let (world, table) = (&self.world, &self.world.volumes);
        let records = table.all();
        let ours = records.iter().filter(|record| record.driver == LOCAL);
        let mut views: Vec<VolumeView> = ours.map(|record| table.view(record)).collect();
        let mut warnings = Vec::new();
        let mut asked = vec![LOCAL.to_owned()];
        for driver in table.drivers.plugins().await {
            asked.push(driver.name().to_owned());
            match driver.list().await {
                Ok(volumes) => {
                    let scope = driver.scope().await;
                    views.extend(volumes.into_iter().map(|(name, described)| {
                        let known = records.iter().find(|record| record.name == name).cloned();
                        let known = known.unwrap_or_else(|| foreign(name, driver.name(), world));
                        let view = VolumeView { scope: scope.clone(), ..table.view(&known) };
                        VolumeTable::described(view, described)
                    }));
                }
                Err(error) => {
                    warnings.push(format!("list {}: {}", driver.name(), full_message(&error)));
                    asked.pop();
                }
            }
        }
        // Volumes whose plugin did not answer are told from their records.
        let unasked = records.iter().filter(|record| !asked.contains(&record.driver));
        views.extend(unasked.map(|record| table.view(record)));
        views.sort_by(|a, b| a.name.cmp(&b.name));
        (views, warnings)
    }

    /// Removes a volume; with `force` a missing one is fine, and a driver that fails is not waited for.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        let record = match self.find(name).await {
            Ok(record) => record,
            Err(_) if force => return Ok(()),
            Err(error) => return Err(error),
        };
        let world = Arc::clone(&self.world);
        let removing = async move {
            match remove(&world, &record).await {
                Err(error @ Error::Volume(_)) if force => {
                    tracing::warn!(volume = %record.name, error = full_message(&error), "forgotten, not removed");
                    world.volumes.forget(&record.name).await
                }
                other => other,
            }
        };
        self.world.to_its_end(removing).await
    }

    /// Removes unused volumes (filters `all`, `label`, `label!`); only anonymous ones unless `all`.
    pub async fn prune(&self, filters: Filters) -> Result<Pruned> {
        filters.check_keys(&["all", "label", "label!"])?;
        let all = filters.bool("all")?.unwrap_or(false);
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { prune(&world, &filters, all).await }).await
    }
}

/// Shows a volume with all that its driver tells.
async fn view(world: &World, record: &VolumeRecord) -> Result<VolumeView> {
    let view = world.volumes.view(record);
    if record.driver == LOCAL {
        return Ok(view);
    }
    let driver = world.volumes.drivers.named(&record.driver);
    let described = driver.describe(&record.name).await?;
    let described: Described =
        described.ok_or_else(|| Error::NoSuchVolume(record.name.to_string()))?;
    let view = VolumeView { scope: driver.scope().await, ..view };
    Ok(VolumeTable::described(view, described))
}

/// Tells everybody what became of a volume.
pub(crate) fn announce(world: &World, action: &str, record: &VolumeRecord) {
    let driver = [("driver", record.driver.clone())];
    world.event(EventKind::Volume, action, record.name.as_str(), driver);
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
    world.volumes.discard(&record.name, &record.driver).await?;
    announce(world, "destroy", record);
    Ok(())
}

async fn prune(world: &World, filters: &Filters, all: bool) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    for record in world.volumes.all() {
        let label = |key: &str| record.labels.get(key).map(String::as_str);
        let wanted = (all || record.anonymous)
            // COMPAT: what is mounted over a volume, or kept by a plugin, is not the daemon's to give up.
            && record.driver == LOCAL
            && record.options.is_empty()
            && filters.labels_match("label", label)
            && !(filters.has("label!") && filters.labels_match("label!", label));
        if !wanted || !world.index.users_of_volume(&record.name).is_empty() {
            continue;
        }
        let size = world.volumes.size(&record.name).await.unwrap_or_default();
        if remove(world, &record).await.is_ok() {
            pruned.reclaimed += size;
            pruned.deleted.push(record.name.to_string());
        }
    }
    let reclaimed = [("reclaimed", pruned.reclaimed.to_string())];
    world.event(EventKind::Volume, "prune", "", reclaimed);
    Ok(pruned)
}

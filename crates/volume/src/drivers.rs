//! The drivers of a host by name: `local`, and plugins that are found when they are asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_plugin::Plugins;

use crate::contract::{Error, VolumeDriver};
use crate::local::Local;
use crate::remote::Remote;

/// What plugins that keep volumes implement.
pub(crate) const SUBSYSTEM: &str = "VolumeDriver";

/// The name of our own driver.
pub const LOCAL: &str = "local";

/// All volume drivers.
pub struct Drivers {
    local: Arc<Local>,
    plugins: Option<Arc<Plugins>>,
    /// Those that were asked for. Each counts who uses its volumes, so there is one per name.
    remote: Mutex<BTreeMap<String, Arc<Remote>>>,
    /// What an earlier life left was taken over or taken back.
    settled: Arc<AtomicBool>,
}

impl Drivers {
    /// Makes a table of `local` and whatever plugins there are.
    pub fn new(local: Arc<Local>, plugins: Option<Arc<Plugins>>) -> Self {
        Self { local, plugins, remote: Mutex::default(), settled: Arc::default() }
    }

    /// Returns the driver `local`.
    pub const fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Returns a driver by name, without asking whether its plugin is there: its calls tell.
    pub fn named(&self, name: &str) -> Arc<dyn VolumeDriver> {
        match &self.plugins {
            Some(plugins) if name != LOCAL => self.remote(name, plugins),
            _ => Arc::clone(&self.local) as _,
        }
    }

    fn remote(&self, name: &str, plugins: &Arc<Plugins>) -> Arc<Remote> {
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = || Arc::clone(&self.settled);
        let make = || Arc::new(Remote::new(name.to_owned(), Arc::clone(plugins), settled()));
        Arc::clone(remote.entry(name.to_owned()).or_insert_with(make))
    }

    /// Finds a driver for a new volume.
    ///
    /// # Errors
    /// `NoDriver` when there is no plugin of that name, or it keeps no volumes.
    pub async fn find(&self, name: &str) -> Result<Arc<dyn VolumeDriver>, Error> {
        if matches!(name, "" | LOCAL) {
            return Ok(Arc::clone(&self.local) as _);
        }
        let failed = |source| Error::NoDriver { name: name.to_owned(), source };
        let Some(plugins) = &self.plugins else {
            return Err(failed(rorqual_plugin::Error::NotFound(name.to_owned())));
        };
        plugins.get(name, SUBSYSTEM).await.map_err(failed)?;
        Ok(self.remote(name, plugins))
    }

    /// Returns the drivers of all plugins of this host that keep volumes; those that do not answer are left out.
    pub async fn plugins(&self) -> Vec<Arc<dyn VolumeDriver>> {
        let Some(plugins) = &self.plugins else { return Vec::new() };
        let found = plugins.all(SUBSYSTEM).await;
        found.iter().map(|plugin| self.remote(plugin.name(), plugins) as _).collect()
    }

    /// Tells that recovery is over: what no driver knows to be mounted is not mounted.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// Names the drivers that are known to be there, `local` among them, sorted.
    pub fn names(&self) -> Vec<String> {
        let active = self.plugins.iter().flat_map(|plugins| plugins.active(SUBSYSTEM));
        let mut names: Vec<String> = active.map(|plugin| plugin.name().to_owned()).collect();
        names.push(LOCAL.to_owned());
        names.sort();
        names
    }
}

//! The plugins of a host by name: found and activated when they are first needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::discovery::Places;
use crate::plugin::Plugin;
use crate::{Error, Result};

/// How long a plugin that nobody answers for is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// First pause between two attempts to connect; each next one is twice as long.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// All attempts of one call together.
    pub total: Duration,
}

impl Default for Patience {
    /// LIMIT: dockerd gives up after 15 s, too, but sees a restarted plugin up to 8 s later.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            longest: Duration::from_secs(1),
            total: Duration::from_secs(15),
        }
    }
}

// LIMIT: the handshake is answered from memory.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// What a plugin answers to the handshake.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    #[serde(default)]
    implements: Option<Vec<String>>,
}

/// The plugins of a host.
#[derive(Debug)]
pub struct Plugins {
    places: Places,
    patience: Patience,
    active: Mutex<BTreeMap<String, Arc<Plugin>>>,
    /// Held while one is activated, so that nobody is greeted twice at once.
    activating: tokio::sync::Mutex<()>,
}

impl Plugins {
    /// Makes an empty table over `places`; nothing is looked at yet.
    pub fn new(places: Places) -> Self {
        Self::with_patience(places, Patience::default())
    }

    /// Like [`Self::new`], with other waiting times.
    pub fn with_patience(places: Places, patience: Patience) -> Self {
        Self {
            places,
            patience,
            active: Mutex::default(),
            activating: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the plugin of this name that implements a subsystem, activated if it was not.
    ///
    /// # Errors
    /// `NotFound` at once when no place has it; `NotImplemented` when it is for something else.
    pub async fn get(&self, name: &str, subsystem: &str) -> Result<Arc<Plugin>> {
        let plugin = match self.known(name) {
            Some(plugin) => plugin,
            None => self.activate(name).await?,
        };
        if plugin.implements.iter().any(|implemented| implemented == subsystem) {
            return Ok(plugin);
        }
        Err(Error::NotImplemented { name: name.to_owned(), wanted: subsystem.to_owned() })
    }

    /// Returns all plugins that implement a subsystem; those that cannot be asked are logged and left out.
    pub async fn all(&self, subsystem: &str) -> Vec<Arc<Plugin>> {
        let places = self.places.clone();
        let names = tokio::task::spawn_blocking(move || places.names()).await.unwrap_or_default();
        let mut found = Vec::new();
        for name in names {
            match self.get(&name, subsystem).await {
                Ok(plugin) => found.push(plugin),
                Err(Error::NotImplemented { .. } | Error::NotFound(_)) => {}
                Err(error) => {
                    let error = rorqual_core::full_message(&error);
                    tracing::warn!(plugin = name, error, "cannot activate plugin");
                }
            }
        }
        found
    }

    /// Returns those activated so far that implement a subsystem, without talking to anybody.
    pub fn active(&self, subsystem: &str) -> Vec<Arc<Plugin>> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let implements = |plugin: &&Arc<Plugin>| plugin.implements.iter().any(|s| s == subsystem);
        active.values().filter(implements).cloned().collect()
    }

    /// Returns an active plugin, unless it was lost: then it may have another address by now.
    fn known(&self, name: &str) -> Option<Arc<Plugin>> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.get(name).filter(|plugin| !plugin.is_lost()).cloned()
    }

    async fn activate(&self, name: &str) -> Result<Arc<Plugin>> {
        let _turn = self.activating.lock().await;
        if let Some(plugin) = self.known(name) {
            return Ok(plugin);
        }
        let (places, wanted) = (self.places.clone(), name.to_owned());
        let address = tokio::task::spawn_blocking(move || places.find(&wanted)).await;
        let address = address.unwrap_or_else(|_| Err(Error::NotFound(name.to_owned())))?;
        let mut plugin = Plugin::new(name.to_owned(), address, self.patience);
        let answer = plugin.exchange("Plugin.Activate", Bytes::new(), HANDSHAKE).await?;
        let manifest: Manifest =
            serde_json::from_slice(&answer).map_err(|error| Error::Protocol {
                name: name.to_owned(),
                method: "Plugin.Activate".to_owned(),
                source: error.into(),
            })?;
        plugin.implements = manifest.implements.unwrap_or_default();
        tracing::info!(plugin = name, implements = plugin.implements.join(","), "plugin activated");
        let plugin = Arc::new(plugin);
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.insert(name.to_owned(), Arc::clone(&plugin));
        Ok(plugin)
    }
}

#[cfg(test)]
mod tests;

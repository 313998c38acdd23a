//! A volume driver that is a plugin: its methods over the wire, and who uses what.
//!
//! INVARIANT: the plugin sees one `Mount` and one `Unmount` per volume and container, however often a container mounts it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rorqual_core::{ContainerId, VolumeName};
use rorqual_plugin::{Plugin, Plugins};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::contract::{Described, Error, VolumeDriver, VolumeOptions};
use crate::drivers::{LOCAL, SUBSYSTEM};

// LIMIT: what dockerd gives a plugin for making and mounting, and for everything else.
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(60);

type Users = BTreeMap<(VolumeName, ContainerId), PathBuf>;

/// The volumes of a plugin.
pub(crate) struct Remote {
    name: String,
    plugins: Arc<Plugins>,
    scope: OnceLock<String>,
    users: Mutex<Users>,
    /// Held per use while it is mounted or unmounted.
    turns: rorqual_store::KeyedLocks<(VolumeName, ContainerId)>,
    /// Until then, a mount that is not known may be one of an earlier life.
    settled: Arc<AtomicBool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mounted {
    #[serde(default)]
    mountpoint: String,
}

/// A volume in a plugin's words; some leave out what they do not know, some say null.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    name: String,
    #[serde(default)]
    mountpoint: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    status: Option<BTreeMap<String, Value>>,
}

impl Known {
    fn described(self) -> Described {
        Described {
            mountpoint: self.mountpoint.unwrap_or_default().into(),
            created: self.created_at.filter(|text| !text.is_empty()),
            status: self.status.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Got {
    #[serde(default)]
    volume: Option<Known>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    volumes: Option<Vec<Known>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Capabilities {
    capabilities: Capability,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Capability {
    scope: String,
}

impl Remote {
    pub(crate) fn new(name: String, plugins: Arc<Plugins>, settled: Arc<AtomicBool>) -> Self {
        Self {
            name,
            plugins,
            scope: OnceLock::new(),
            users: Mutex::default(),
            turns: rorqual_store::KeyedLocks::default(),
            settled,
        }
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn plugin(&self) -> Result<Arc<Plugin>, Error> {
        let found = self.plugins.get(&self.name, SUBSYSTEM).await;
        found.map_err(|source| Error::NoDriver { name: self.name.clone(), source })
    }

    async fn call<A: DeserializeOwned>(
        &self,
        method: &str,
        question: &Value,
        deadline: Duration,
    ) -> Result<A, Error> {
        Ok(self.plugin().await?.call(method, question, deadline).await?)
    }

    async fn tell(&self, method: &str, question: &Value, deadline: Duration) -> Result<(), Error> {
        self.call::<Value>(method, question, deadline).await.map(drop)
    }

    async fn path(&self, name: &VolumeName) -> Result<PathBuf, Error> {
        let question = json!({ "Name": name.as_str() });
        let answer: Mounted = self.call("VolumeDriver.Path", &question, SHORT).await?;
        Ok(answer.mountpoint.into())
    }
}

#[async_trait]
impl VolumeDriver for Remote {
    fn name(&self) -> &str {
        &self.name
    }

    async fn scope(&self) -> String {
        if let Some(scope) = self.scope.get() {
            return scope.clone();
        }
        let question = json!({});
        let answer = self.call::<Capabilities>("VolumeDriver.Capabilities", &question, SHORT);
        let scope = match answer.await {
            Ok(answer) => answer.capabilities.scope.to_ascii_lowercase(),
            // COMPAT: plugins older than this method are local ones.
            Err(Error::Plugin(error)) if error.is_unknown_method() => String::new(),
            // Asked again the next time.
            Err(_) => return LOCAL.to_owned(),
        };
        // COMPAT: what is neither is local.
        let scope = if scope == "global" { scope } else { LOCAL.to_owned() };
        self.scope.get_or_init(|| scope).clone()
    }

    fn check(&self, _options: &VolumeOptions) -> Result<(), Error> {
        Ok(())
    }

    async fn create(&self, name: &VolumeName, options: &VolumeOptions) -> Result<(), Error> {
        let question = json!({ "Name": name.as_str(), "Opts": options });
        self.tell("VolumeDriver.Create", &question, LONG).await
    }

    async fn remove(&self, name: &VolumeName) -> Result<(), Error> {
        self.tell("VolumeDriver.Remove", &json!({ "Name": name.as_str() }), SHORT).await
    }

    async fn mount(
        &self,
        name: &VolumeName,
        _options: &VolumeOptions,
        user: ContainerId,
    ) -> Result<PathBuf, Error> {
        let key = (name.clone(), user);
        let _turn = self.turns.lock(key.clone()).await;
        let known = self.users().get(&key).cloned();
        match known {
            // Taken over from an earlier life.
            Some(path) if path.as_os_str().is_empty() => {
                let path = self.path(name).await?;
                self.users().insert(key, path.clone());
                return Ok(path);
            }
            Some(path) => return Ok(path),
            None => {}
        }
        // Noted before it is asked: whoever is dropped meanwhile leaves a mount that `unmount` takes back.
        self.users().insert(key.clone(), PathBuf::new());
        let question = json!({ "Name": name.as_str(), "ID": user.to_string() });
        let mounted = self.call::<Mounted>("VolumeDriver.Mount", &question, LONG).await;
        let path = match mounted {
            Ok(mounted) if mounted.mountpoint.is_empty() => self.path(name).await,
            other => other.map(|mounted| mounted.mountpoint.into()),
        };
        match path {
            Ok(path) if path.is_absolute() => {
                self.users().insert(key, path.clone());
                Ok(path)
            }
            Ok(path) => Err(Error::Unsupported(format!(
                "volume plugin {} mounts {name} at {}, which is no absolute path of this host",
                self.name,
                path.display()
            ))),
            Err(error) => {
                self.users().remove(&key);
                Err(error)
            }
        }
    }

    async fn unmount(&self, name: &VolumeName, user: ContainerId) -> Result<(), Error> {
        let key = (name.clone(), user);
        let _turn = self.turns.lock(key.clone()).await;
        let known = self.users().remove(&key).is_some();
        if !known && self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let question = json!({ "Name": name.as_str(), "ID": user.to_string() });
        self.tell("VolumeDriver.Unmount", &question, SHORT).await
    }

    async fn describe(&self, name: &VolumeName) -> Result<Option<Described>, Error> {
        let question = json!({ "Name": name.as_str() });
        match self.call::<Got>("VolumeDriver.Get", &question, SHORT).await {
            Ok(answer) => Ok(answer.volume.map(Known::described)),
            // It says that it has no such volume, in words of its own.
            Err(Error::Plugin(rorqual_plugin::Error::Refused { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self) -> Result<Vec<(VolumeName, Described)>, Error> {
        let answer: Listed = self.call("VolumeDriver.List", &json!({}), SHORT).await?;
        let volumes = answer.volumes.unwrap_or_default().into_iter().filter_map(|known| {
            let name = known.name.parse::<VolumeName>();
            if name.is_err() {
                tracing::debug!(driver = self.name, volume = known.name, "not a name of a volume");
            }
            Some((name.ok()?, known.described()))
        });
        Ok(volumes.collect())
    }

    async fn size(&self, _name: &VolumeName) -> Option<u64> {
        None
    }

    async fn recover(&self, _known: Vec<VolumeName>, users: Vec<(VolumeName, ContainerId)>) {
        // Where it is mounted is asked when somebody mounts it again; the plugin is not waited for now.
        self.users().extend(users.into_iter().map(|key| (key, PathBuf::new())));
    }
}

#[cfg(test)]
mod tests;

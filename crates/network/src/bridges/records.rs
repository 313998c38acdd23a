//! What the daemon writes down: the identities of its networks, which outlive a reboot, and who is attached, which does
//! not. One small file each, replaced whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rorqual_core::{ContainerId, NetworkId, Timestamp};
use rorqual_store::atomic;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::book::{Attached, bridge_record, plain_record};
use crate::bridge::{Bridge, BridgeOptions};
use crate::files::write_file;
use crate::names::random;
use crate::{Error, NetworkRecord};

/// LIMIT: a container's record with every port of the host published is smaller.
const MAX_RECORD: u64 = 32 * 1024 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Identity {
    id: NetworkId,
    created: Timestamp,
}

/// Files of attachments and of the networks' identities.
#[derive(Debug)]
pub(super) struct Records {
    endpoints: PathBuf,
    identities: PathBuf,
    networks: PathBuf,
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let action = format!("{action} {}", path.display());
    |source| Error::Os { action, source: source.into() }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut text = String::new();
    file.take(MAX_RECORD).read_to_string(&mut text).map_err(failed("read", path))?;
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|error| failed("understand", path)(error.into()))
}

/// Removes what a daemon was writing when it was killed.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl Records {
    pub(super) fn open(run_dir: &Path, state: &Path) -> Result<Self, Error> {
        let endpoints = run_dir.join("endpoints");
        let networks = state.join("networks");
        for directory in [&endpoints, &networks, &state.to_owned()] {
            fs::create_dir_all(directory).map_err(failed("create", directory))?;
            remove_unfinished(directory).map_err(failed("sweep", directory))?;
        }
        Ok(Self { endpoints, networks, identities: state.join("predefined-networks.json") })
    }

    /// Makes the records of the predefined networks, with the identities they had before.
    pub(super) fn predefined(
        &self,
        bridge: Option<&Bridge>,
        options: &BridgeOptions,
    ) -> Result<Vec<NetworkRecord>, Error> {
        let stored = read::<BTreeMap<String, Identity>>(&self.identities)?;
        let new = stored.is_none();
        let mut identities = stored.unwrap_or_default();
        let mut identity = |name: &str| {
            let fresh = || Identity { id: NetworkId::from_random(random()), created: now() };
            identities.entry(name.to_owned()).or_insert_with(fresh).clone()
        };
        let (on_bridge, on_host, none) = (identity("bridge"), identity("host"), identity("none"));
        if new {
            let text = serde_json::to_string(&identities)
                .map_err(|error| failed("write", &self.identities)(error.into()))?;
            write_file(&self.identities, &text)?;
        }
        let bridge = bridge.map(|bridge| {
            let own = bridge.own.unwrap_or(crate::Cidr4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));
            let subnet = (own.subnet().to_string(), own.address);
            bridge_record(on_bridge.id, on_bridge.created, subnet, shown_options(bridge, options))
        });
        let others = [
            plain_record(on_host.id, on_host.created, "host", "host"),
            plain_record(none.id, none.created, "none", "null"),
        ];
        Ok(bridge.into_iter().chain(others).collect())
    }

    fn network_path(&self, network: &NetworkId) -> PathBuf {
        self.networks.join(format!("{network}.json"))
    }

    /// Writes a network down; when this returns, it outlives a power cut.
    pub(super) fn save_network(&self, record: &NetworkRecord) -> Result<(), Error> {
        let path = self.network_path(&record.id);
        let text =
            serde_json::to_vec(record).map_err(|error| failed("write", &path)(error.into()))?;
        atomic::write(&path, &text, 0o600).map_err(|error| Error::Os {
            action: format!("write {}", path.display()),
            source: error.into(),
        })
    }

    /// Forgets a network.
    pub(super) fn remove_network(&self, network: &NetworkId) -> Result<(), Error> {
        let path = self.network_path(network);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads the networks that users made.
    pub(super) fn networks(&self) -> Result<Vec<NetworkRecord>, Error> {
        let mut all = Vec::new();
        let listing = fs::read_dir(&self.networks).map_err(failed("list", &self.networks))?;
        for entry in listing {
            let path = entry.map_err(failed("list", &self.networks))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read::<NetworkRecord>(&path) {
                Ok(record) => all.extend(record),
                Err(error) => {
                    let error = rorqual_core::full_message(&error);
                    tracing::error!(error, "a network's record is passed over");
                }
            }
        }
        all.sort_by_key(|record| record.created);
        Ok(all)
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        self.endpoints.join(format!("{container}.json"))
    }

    pub(super) fn save(&self, container: &ContainerId, attached: &Attached) -> Result<(), Error> {
        let path = self.path(container);
        let text = serde_json::to_string(attached)
            .map_err(|error| failed("write", &path)(error.into()))?;
        write_file(&path, &text)
    }

    pub(super) fn remove(&self, container: &ContainerId) -> Result<(), Error> {
        let path = self.path(container);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads all attachments; one that cannot be understood is left out, its container is adopted from the kernel.
    pub(super) fn load(&self) -> Result<BTreeMap<ContainerId, Attached>, Error> {
        let mut all = BTreeMap::new();
        let listing = fs::read_dir(&self.endpoints).map_err(failed("list", &self.endpoints))?;
        for entry in listing {
            let path = entry.map_err(failed("list", &self.endpoints))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let json = path.extension().is_some_and(|extension| extension == "json");
            let Some(id) = stem.filter(|_| json).and_then(|stem| stem.parse().ok()) else {
                continue;
            };
            match read(&path) {
                Ok(Some(attached)) => drop(all.insert(id, attached)),
                Ok(None) => {}
                Err(error) => {
                    let error = rorqual_core::full_message(&error);
                    tracing::warn!(error, "a record of an endpoint is passed over");
                }
            }
        }
        Ok(all)
    }
}

// COMPAT: what `network inspect bridge` shows.
fn shown_options(bridge: &Bridge, options: &BridgeOptions) -> BTreeMap<String, String> {
    let address = options.publish_on.map_or("0.0.0.0".to_owned(), |address| address.to_string());
    let traffic = options.traffic;
    [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", traffic.icc.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", traffic.ip_masq.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", address),
        ("com.docker.network.bridge.name", bridge.name.clone()),
        ("com.docker.network.driver.mtu", options.mtu.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

//! What is known: networks and who is attached to them. In memory only, and the same for real and fake networks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rorqual_core::{ContainerId, NetworkId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Attach, Endpoint, EndpointRequest, Error, NetworkRecord, PublishedPort, SandboxKind};

/// A container's share of the networks; written to disk so that the next daemon can take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// Name in DNS and events.
    pub(crate) name: String,
    /// Which namespace it uses.
    pub(crate) kind: SandboxKind,
    /// Places in networks.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Ports, each with a single host port.
    pub(crate) ports: Vec<PublishedPort>,
    /// Where its files are.
    pub(crate) directory: PathBuf,
    /// The host's ends of its links.
    pub(crate) links: Vec<String>,
}

/// Networks and attachments.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) networks: Vec<NetworkRecord>,
    pub(crate) attached: BTreeMap<ContainerId, Attached>,
}

impl Book {
    /// Finds by exact name, else exact id, else a prefix of exactly one id.
    pub(crate) fn find(&self, text: &str) -> Result<&NetworkRecord, Error> {
        // COMPAT: "default" is what clients send when the user named no network.
        let text = if text == "default" { "bridge" } else { text };
        let missing = || Error::NoSuchNetwork(text.to_owned());
        let networks = &self.networks;
        if let Some(network) = networks.iter().find(|network| network.name == text) {
            return Ok(network);
        }
        if text.is_empty() {
            return Err(missing());
        }
        let mut matches =
            networks.iter().filter(|network| network.id.to_string().starts_with(text));
        let first = matches.next().ok_or_else(missing)?;
        if matches.next().is_some() {
            // COMPAT: dockerd's words.
            return Err(Error::InvalidArgument(format!(
                "network {text} is ambiguous ({} matches found based on ID prefix)",
                2 + matches.count()
            )));
        }
        Ok(first)
    }

    /// Lists who is attached to `network`.
    pub(crate) fn endpoints(
        &self,
        network: &NetworkId,
    ) -> Result<Vec<(ContainerId, String, Endpoint)>, Error> {
        if !self.networks.iter().any(|known| known.id == *network) {
            return Err(Error::NoSuchNetwork(network.to_string()));
        }
        let all = self.attached.iter().flat_map(|(id, attached)| {
            attached.endpoints.iter().map(|endpoint| (*id, attached.name.clone(), endpoint.clone()))
        });
        Ok(all.filter(|(_, _, endpoint)| endpoint.network == *network).collect())
    }

    /// Checks an attachment and finds the bridge network it asks for, if any.
    ///
    /// # Errors
    /// `Conflict` when the container is attached already, else what is wrong with the request.
    pub(crate) fn plan<'a>(
        &self,
        attach: &'a Attach,
    ) -> Result<Option<(NetworkRecord, &'a EndpointRequest)>, Error> {
        if self.attached.contains_key(&attach.container) {
            return Err(Error::Conflict(format!(
                "container {} is attached to its networks already",
                attach.container.short()
            )));
        }
        let SandboxKind::Own(requests) = &attach.kind else { return Ok(None) };
        let mut found = None;
        for request in requests {
            let network = self.find(&request.network)?;
            match network.driver.as_str() {
                "null" if requests.len() == 1 => {}
                "bridge" if found.is_none() => found = Some((network.clone(), request)),
                "bridge" => {
                    return Err(Error::Unsupported(
                        "a container on several networks is not supported yet".to_owned(),
                    ));
                }
                // COMPAT: dockerd's words.
                _ => {
                    return Err(Error::InvalidArgument(
                        "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                            .to_owned(),
                    ));
                }
            }
        }
        if let Some((network, request)) = &found {
            check_request(network, request)?;
        }
        Ok(found)
    }
}

fn check_request(network: &NetworkRecord, request: &EndpointRequest) -> Result<(), Error> {
    if network.name == "bridge" && (request.ipv4.is_some() || request.ipv6.is_some()) {
        // COMPAT: dockerd's words.
        return Err(Error::InvalidArgument(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .to_owned(),
        ));
    }
    if network.name == "bridge" && !request.aliases.is_empty() {
        // COMPAT: dockerd's words.
        return Err(Error::InvalidArgument(
            "network-scoped aliases are only supported for user-defined networks".to_owned(),
        ));
    }
    Ok(())
}

/// Makes the record of the `bridge` network.
pub(crate) fn bridge_record(
    id: NetworkId,
    created: Timestamp,
    subnet: (String, Ipv4Addr),
    options: BTreeMap<String, String>,
) -> NetworkRecord {
    NetworkRecord {
        id,
        name: "bridge".to_owned(),
        driver: "bridge".to_owned(),
        created,
        subnets: vec![(subnet.0, IpAddr::V4(subnet.1))],
        options,
        labels: BTreeMap::new(),
        ipv6: false,
        internal: false,
    }
}

/// Makes the record of `host` or `none`.
pub(crate) fn plain_record(
    id: NetworkId,
    created: Timestamp,
    name: &str,
    driver: &str,
) -> NetworkRecord {
    NetworkRecord {
        id,
        name: name.to_owned(),
        driver: driver.to_owned(),
        created,
        subnets: Vec::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        ipv6: false,
        internal: false,
    }
}

//! What is known: networks and who is attached to them. In memory only, and the same for real and fake networks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rorqual_core::{ContainerId, NetworkId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::design::EndpointOptions;
use crate::{
    AddressDriver, Attach, Endpoint, EndpointRequest, Error, NetworkRecord, NetworkRequest,
    PublishedPort, SandboxKind, Subnet, SubnetRequest,
};

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
    #[serde(with = "crate::ports::attached")]
    pub(crate) ports: Vec<PublishedPort>,
    /// Its own ports that are open to those who address it: protocol, first, last.
    #[serde(default)]
    pub(crate) opened: Vec<crate::firewall::Opened>,
    /// Where its files are.
    pub(crate) directory: PathBuf,
    /// The host's ends of its links, in the order of the endpoints.
    pub(crate) links: Vec<String>,
    /// What its files are made from; unknown when it was learnt from the kernel.
    #[serde(default)]
    pub(crate) request: Option<Attach>,
    /// The resolver serves it.
    #[serde(default)]
    pub(crate) resolver: bool,
    /// Links that plugins made, by network.
    #[serde(default)]
    pub(crate) remote: BTreeMap<NetworkId, RemoteLink>,
}

/// A link that a plugin made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteLink {
    /// Its name on the host.
    pub(crate) source: String,
    /// The plugin knows of ports.
    pub(crate) programmed: bool,
}

/// Finds the endpoint that has the default gateway of a family: the highest priority, then the first name.
// COMPAT: dockerd chooses so.
pub(crate) fn gateway_endpoint(
    endpoints: &[Endpoint],
    has_gateway: impl Fn(&Endpoint) -> bool,
) -> Option<&Endpoint> {
    let candidates = endpoints.iter().filter(|endpoint| has_gateway(endpoint));
    candidates.min_by(|a, b| {
        let by_name = || a.network_name.cmp(&b.network_name);
        b.gateway_priority.cmp(&a.gateway_priority).then_with(by_name)
    })
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

    /// Checks an attachment and finds the networks it asks for, in the order asked for.
    ///
    /// # Errors
    /// `Conflict` when the container is attached already, else what is wrong with the request.
    pub(crate) fn plan<'a>(
        &self,
        attach: &'a Attach,
    ) -> Result<Vec<(NetworkRecord, &'a EndpointRequest)>, Error> {
        if self.attached.contains_key(&attach.container) {
            return Err(Error::Conflict(format!(
                "container {} is attached to its networks already",
                attach.container.short()
            )));
        }
        let SandboxKind::Own(requests) = &attach.kind else { return Ok(Vec::new()) };
        let mut found = Vec::<(NetworkRecord, &EndpointRequest)>::new();
        for request in requests {
            let network = self.find(&request.network)?;
            check_joinable(network)?;
            match network.driver.as_str() {
                "null" if requests.len() == 1 => {}
                "null" | "host" => return Err(cannot_mix()),
                _ if found.iter().any(|(other, _)| other.id == network.id) => {
                    return Err(Error::InvalidArgument(format!(
                        "network {} is asked for more than once",
                        network.name
                    )));
                }
                _ => {
                    check_request(network, request)?;
                    found.push((network.clone(), request));
                }
            }
        }
        Ok(found)
    }

    /// Checks whether an attached container can join one more network, and finds that.
    pub(crate) fn plan_connection(
        &self,
        container: &ContainerId,
        request: &EndpointRequest,
    ) -> Result<NetworkRecord, Error> {
        let network = self.find(&request.network)?;
        check_joinable(network)?;
        // COMPAT: dockerd does not say of which network it is.
        settings(network, request).map_err(|wrong| Error::InvalidArgument(invalid(&wrong)))?;
        check_request(network, request)?;
        let attached = self.attached(container)?;
        match &attached.kind {
            // COMPAT: dockerd's words.
            SandboxKind::Host | SandboxKind::Container(..) => {
                return Err(Error::Forbidden(
                    "container sharing network namespace with another container or host cannot be connected to any \
                     other network"
                        .to_owned(),
                ));
            }
            SandboxKind::Own(requests) => {
                let lonely = requests.iter().any(|request| request.network == "none");
                if lonely || matches!(network.driver.as_str(), "null" | "host") {
                    return Err(Error::Forbidden(
                        "container cannot be connected to multiple networks with one of the networks in private \
                         (none) mode"
                            .to_owned(),
                    ));
                }
            }
        }
        if attached.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            // COMPAT: dockerd's words.
            return Err(Error::Forbidden(format!(
                "endpoint with name {} already exists in network {}",
                attached.name, network.name
            )));
        }
        Ok(network.clone())
    }

    /// Finds an attached container.
    pub(crate) fn attached(&self, container: &ContainerId) -> Result<&Attached, Error> {
        self.attached.get(container).ok_or_else(|| {
            Error::Conflict(format!("container {} is not attached to networks", container.short()))
        })
    }

    /// Checks whether a network may go.
    pub(crate) fn check_removal(&self, network: &NetworkId) -> Result<&NetworkRecord, Error> {
        let found = self.networks.iter().find(|known| known.id == *network);
        let record = found.ok_or_else(|| Error::NoSuchNetwork(network.to_string()))?;
        if record.is_predefined() {
            // COMPAT: dockerd's words.
            return Err(Error::Forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                record.name
            )));
        }
        if record.config_only && self.networks.iter().any(|one| one.config_from == record.name) {
            // COMPAT: dockerd's words.
            return Err(Error::Forbidden(format!(
                "error while removing network: configuration network {:?} is in use",
                record.name
            )));
        }
        let users = self.endpoints(network)?;
        if !users.is_empty() {
            let users =
                users.iter().map(|(id, name, _)| format!("name:{name:?} id:{:?}", id.short()));
            // COMPAT: dockerd's words.
            return Err(Error::Forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                record.name,
                users.collect::<Vec<_>>().join(", ")
            )));
        }
        Ok(record)
    }

    /// Checks whether the name of a network is free.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Error> {
        let users = self.networks.iter().filter(|network| !network.is_predefined());
        if users.into_iter().any(|network| network.name == name) {
            // COMPAT: clients look for this text.
            return Err(Error::Conflict(format!("network with name {name} already exists")));
        }
        Ok(())
    }

    /// Fills in what a request takes from another network's configuration.
    pub(crate) fn configured(&self, mut request: NetworkRequest) -> Result<NetworkRequest, Error> {
        if request.config_from.is_empty() {
            return Ok(request);
        }
        // COMPAT: dockerd's words.
        let refused = |text: String| Err(Error::Forbidden(text));
        if request.config_only {
            return refused(
                "a configuration network cannot depend on another configuration network".to_owned(),
            );
        }
        let wanted = &request.config_from;
        let found = self.networks.iter().find(|one| one.config_only && one.name == *wanted);
        let Some(config) = found else {
            return Err(Error::NoSuchConfiguration(wanted.clone()));
        };
        if !request.subnets.is_empty() || !request.options.is_empty() || !request.labels.is_empty()
        {
            return refused(
                "user specified configurations are not supported if the network depends on a configuration network"
                    .to_owned(),
            );
        }
        let text = |address: &IpAddr| address.to_string();
        let subnets = config.subnets.iter().map(|subnet| SubnetRequest {
            subnet: subnet.subnet.clone(),
            range: subnet.range.clone(),
            gateway: subnet.gateway.as_ref().map(text).unwrap_or_default(),
            auxiliary: subnet.auxiliary.iter().map(|(name, ip)| (name.clone(), text(ip))).collect(),
            pool: String::new(),
        });
        request.subnets = subnets.collect();
        request.ipam.clone_from(&config.ipam);
        request.options.clone_from(&config.options);
        request.labels.clone_from(&config.labels);
        (request.ipv4, request.ipv6) = (config.ipv4, config.ipv6);
        request.internal |= config.internal;
        Ok(request)
    }

    /// Lists the subnets of all networks.
    pub(crate) fn subnets(&self) -> Vec<Cidr> {
        let real = self.networks.iter().filter(|network| !network.config_only);
        let all = real.flat_map(|network| &network.subnets);
        all.filter_map(|subnet| subnet.cidr().ok()).collect()
    }
}

fn check_joinable(network: &NetworkRecord) -> Result<(), Error> {
    if network.config_only {
        // COMPAT: dockerd's words.
        return Err(Error::Forbidden(
            "cannot create endpoint on configuration-only network".to_owned(),
        ));
    }
    Ok(())
}

fn cannot_mix() -> Error {
    // COMPAT: dockerd's words.
    Error::InvalidArgument(
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            .to_owned(),
    )
}

/// Says what is wrong with the settings of an endpoint.
// COMPAT: dockerd's words.
fn invalid(wrong: &[String]) -> String {
    let wrong = match wrong {
        [one] => one.clone(),
        several => several.iter().map(|one| format!("* {one}")).collect::<Vec<_>>().join("\n"),
    };
    format!("invalid endpoint settings:\n{wrong}")
}

/// Checks what is asked of one network.
pub(crate) fn check_request(
    network: &NetworkRecord,
    request: &EndpointRequest,
) -> Result<(), Error> {
    settings(network, request).map_err(|wrong| {
        let (name, wrong) = (&network.name, invalid(&wrong));
        // COMPAT: dockerd's words.
        Error::InvalidArgument(format!("invalid config for network {name}: {wrong}"))
    })?;
    EndpointOptions::read(&request.options)?;
    let links = request.links.iter().map(|(_, alias)| alias);
    request.aliases.iter().chain(links).try_for_each(|alias| check_alias(alias))
}

/// Lists all that is wrong with the addresses and names that are asked of a network.
fn settings(network: &NetworkRecord, request: &EndpointRequest) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    // COMPAT: dockerd's words and order.
    let addressed = request.ipv4.is_some() || request.ipv6.is_some();
    if network.name == "bridge" && addressed {
        wrong.push("user specified IP address is supported on user defined networks only".into());
    }
    if network.name == "bridge" && !request.aliases.is_empty() {
        wrong.push("network-scoped aliases are only supported for user-defined networks".into());
    }
    let wanted = [request.ipv4.map(IpAddr::V4), request.ipv6.map(IpAddr::V6)];
    for address in wanted.into_iter().flatten() {
        let of_family = |cidr: Cidr| matches!(cidr, Cidr::V4(_)) == address.is_ipv4();
        let subnets =
            network.subnets.iter().filter_map(|subnet| Some((subnet, subnet.cidr().ok()?)));
        let theirs = subnets.into_iter().filter(|(_, cidr)| of_family(*cidr)).collect::<Vec<_>>();
        let holds = |(_, cidr): &&(&Subnet, Cidr)| cidr.contains(address);
        match theirs.iter().find(holds).or(theirs.first()) {
            Some((subnet, _)) if !subnet.configured => wrong.push(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            ),
            Some((_, cidr)) if cidr.contains(address) => {}
            _ => wrong.push(format!(
                "no configured subnet or ip-range contain the IP address {address}"
            )),
        }
    }
    let on_the_link = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let others = request.link_local.iter().filter(|address| !on_the_link(address));
    wrong.extend(others.map(|address| format!("{address} is not a link-local IP address")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// LIMIT: as long as a DNS name may be.
const LONGEST_ALIAS: usize = 253;

fn check_alias(alias: &str) -> Result<(), Error> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '#';
    if alias.is_empty() || alias.len() > LONGEST_ALIAS || alias.contains(bad) {
        return Err(Error::InvalidArgument(format!("invalid network alias {alias:?}")));
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
        subnets: vec![Subnet {
            subnet: subnet.0,
            range: String::new(),
            gateway: Some(IpAddr::V4(subnet.1)),
            auxiliary: BTreeMap::new(),
            configured: false,
            pool: String::new(),
            implied: false,
        }],
        unused: Vec::new(),
        ipam: AddressDriver::default(),
        options,
        labels: BTreeMap::new(),
        ipv4: true,
        ipv6: false,
        internal: false,
        attachable: false,
        config_only: false,
        config_from: String::new(),
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
        unused: Vec::new(),
        ipam: AddressDriver::default(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        ipv4: true,
        ipv6: false,
        internal: false,
        attachable: false,
        config_only: false,
        config_from: String::new(),
    }
}

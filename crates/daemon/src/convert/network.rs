//! Networks, endpoints and ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rorqual_api::host_config::{PortBinding, PortMap};
use rorqual_api::network::{
    self as wire, EndpointIpamConfig, EndpointResource, EndpointSettings, Ipam, IpamConfig,
    NetworkingConfig,
};
use rorqual_engine::NetworkView;
use rorqual_engine::spec::NetworkMode;
use rorqual_network::{
    AddressDriver, Endpoint, EndpointRequest, NetworkRequest, PortProtocol, PublishedPort, Subnet,
    SubnetRequest,
};

use crate::convert::non_empty;
use crate::error::{BadRequest, invalid, unsupported};

fn protocol(word: &str) -> Option<PortProtocol> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Some(PortProtocol::Tcp),
        "udp" => Some(PortProtocol::Udp),
        "sctp" => Some(PortProtocol::Sctp),
        _ => None,
    }
}

/// Returns Docker's word for a protocol.
pub(crate) const fn protocol_word(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
        PortProtocol::Sctp => "sctp",
    }
}

/// Reads `80`, `80/tcp` or `80-90/udp`.
fn port_range(text: &str) -> Result<(u16, u16, PortProtocol), BadRequest> {
    let (ports, word) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol(word)
        .ok_or_else(|| invalid(format!("invalid port {text:?}: unknown protocol")))?;
    let (first, last) =
        range(ports).ok_or_else(|| invalid(format!("invalid port specification: {text:?}")))?;
    if first == 0 {
        return Err(invalid(format!("invalid port specification: {text:?}")));
    }
    Ok((first, last, protocol))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Reads the keys of `ExposedPorts`.
pub(crate) fn exposed(
    ports: impl Iterator<Item = String>,
) -> Result<Vec<(u16, PortProtocol)>, BadRequest> {
    let mut exposed = Vec::new();
    for text in ports {
        let (first, last, protocol) = port_range(&text)?;
        exposed.extend((first..=last).map(|port| (port, protocol)));
    }
    Ok(exposed)
}

/// Reads `PortBindings`.
pub(crate) fn published(bindings: &PortMap) -> Result<Vec<PublishedPort>, BadRequest> {
    let mut published = Vec::new();
    for (text, bindings) in bindings {
        let (first, last, protocol) = port_range(text)?;
        if first != last {
            return Err(invalid(format!("invalid port specification: {text:?}")));
        }
        for PortBinding { host_ip, host_port } in bindings.iter().flatten() {
            let host_ip = match host_ip.as_str() {
                "" => None,
                ip => Some(ip.parse().map_err(|_| invalid(format!("invalid IP address: {ip}")))?),
            };
            let host = match host_port.as_str() {
                "" => (0, 0),
                ports => range(ports)
                    .ok_or_else(|| invalid(format!("invalid port specification: {ports:?}")))?,
            };
            published.push(PublishedPort { container: first, protocol, host_ip, host });
        }
    }
    Ok(published)
}

/// Writes `PortBindings` of what [`published`] read of them.
pub(crate) fn bindings(published: &[PublishedPort]) -> PortMap {
    let mut map = PortMap::new();
    for PublishedPort { container, protocol, host_ip, host } in published {
        let host_port = match host {
            (0, 0) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host_ip = host_ip.map_or_else(String::new, |ip| ip.to_string());
        let key = format!("{container}/{}", protocol_word(*protocol));
        let all = map.entry(key).or_default().get_or_insert_default();
        all.push(PortBinding { host_ip, host_port });
    }
    map
}

/// Reads addresses of name servers.
pub(crate) fn addresses(texts: Vec<String>) -> Result<Vec<IpAddr>, BadRequest> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| invalid(format!("bad nameserver address {text}: not an IP address")))
    };
    texts.into_iter().map(parse).collect()
}

/// Checks `name:address` lines.
pub(crate) fn extra_hosts(lines: Vec<String>) -> Result<Vec<String>, BadRequest> {
    for line in &lines {
        // COMPAT: dockerd's texts.
        let Some((name, address)) = line.split_once(':') else {
            return Err(invalid(format!("bad format for add-host: {line:?}")));
        };
        let bare =
            address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if name.is_empty() {
            return Err(invalid(format!("bad format for add-host: {line:?}")));
        }
        if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
            return Err(invalid(format!("invalid IP address in add-host: {address:?}")));
        }
    }
    Ok(lines)
}

/// Reads `container[:alias]` of a legacy link.
pub(crate) fn link(text: &str) -> (String, String) {
    let bare = |name: &str| name.trim_start_matches('/').to_owned();
    match text.split_once(':') {
        // `inspect` writes `/container:/owner/alias`.
        Some((name, alias)) => {
            (bare(name), alias.rsplit('/').next().unwrap_or_default().to_owned())
        }
        None => (bare(text), bare(text)),
    }
}

/// Reads the settings per network; `mac` is the container-wide one of old clients.
pub(crate) fn endpoints(
    config: Option<NetworkingConfig>,
    mode: &NetworkMode,
    mac: String,
) -> Result<Vec<EndpointRequest>, BadRequest> {
    let NetworkingConfig { endpoints_config } = config.unwrap_or_default();
    let main = match mode {
        NetworkMode::Default => "bridge",
        NetworkMode::Network(name) => name.as_str(),
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => "",
    };
    let mut endpoints = endpoints_config
        .into_iter()
        .map(|(name, settings)| endpoint(name, settings.unwrap_or_default()))
        .collect::<Result<Vec<_>, _>>()?;
    // Settings for shared or missing networks say nothing that could be done; clients send them all the same.
    endpoints.retain(|endpoint| {
        let network = endpoint.network.as_str();
        !matches!(network, "none" | "host") && !network.starts_with("container:")
    });
    if main.is_empty() && !endpoints.is_empty() {
        return Err(invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    if let Some(mac) = non_empty(mac) {
        check_mac(main, &mac)?;
        match endpoints.iter_mut().find(|endpoint| endpoint.network == main) {
            Some(endpoint) if endpoint.mac.as_ref().is_some_and(|other| *other != mac) => {
                return Err(invalid(
                    "the container-wide MAC address must match the endpoint-specific MAC address for the main network, \
                     or be left empty",
                ));
            }
            Some(endpoint) => endpoint.mac = Some(mac),
            None if main.is_empty() => {
                return Err(invalid("conflicting options: mac-address and the network mode"));
            }
            None => endpoints.push(EndpointRequest {
                network: main.to_owned(),
                mac: Some(mac),
                ..EndpointRequest::default()
            }),
        }
    }
    Ok(endpoints)
}

/// Reads the settings of one network.
pub(crate) fn endpoint(
    name: String,
    settings: EndpointSettings,
) -> Result<EndpointRequest, BadRequest> {
    let EndpointSettings {
        ipam_config,
        links,
        aliases,
        mac_address,
        driver_opts,
        gw_priority,
        // What follows is an answer's, not a request's.
        network_id: _,
        endpoint_id: _,
        gateway: _,
        ip_address: _,
        ip_prefix_len: _,
        ipv6_gateway: _,
        global_ipv6_address: _,
        global_ipv6_prefix_len: _,
        dns_names: _,
    } = settings;
    let EndpointIpamConfig { ipv4_address, ipv6_address, link_local_ips } =
        ipam_config.unwrap_or_default();
    let bad = |text: &str| invalid(format!("invalid IP address: {text}"));
    let parse =
        |text: String| non_empty(text).map(|text| text.parse().map_err(|_| bad(&text))).transpose();
    let parse6 =
        |text: String| non_empty(text).map(|text| text.parse().map_err(|_| bad(&text))).transpose();
    let network = if name == "default" { "bridge".to_owned() } else { name };
    if !mac_address.is_empty() {
        check_mac(&network, &mac_address)?;
    }
    Ok(EndpointRequest {
        network,
        ipv4: parse(ipv4_address)?,
        ipv6: parse6(ipv6_address)?,
        mac: non_empty(mac_address),
        aliases: aliases.unwrap_or_default(),
        gateway_priority: gw_priority,
        options: driver_opts.unwrap_or_default(),
        link_local: addresses_of(link_local_ips)?,
        links: links.unwrap_or_default().iter().map(|text| link(text)).collect(),
    })
}

fn addresses_of(texts: Vec<String>) -> Result<Vec<IpAddr>, BadRequest> {
    let given = texts.into_iter().filter(|text| !text.is_empty());
    let parse =
        |text: String| text.parse().map_err(|_| invalid(format!("invalid IP address: {text}")));
    given.map(parse).collect()
}

/// Refuses what does not read as `02:42:ac:11:00:02`.
fn check_mac(network: &str, text: &str) -> Result<(), BadRequest> {
    let octet = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.split([':', '-']).count() == 6 && text.split([':', '-']).all(octet) {
        return Ok(());
    }
    // COMPAT: dockerd's text.
    Err(invalid(format!("invalid config for network {network}: invalid MAC address {text}")))
}

/// Reads what a network shall be.
pub(crate) fn network_request(request: wire::CreateRequest) -> Result<NetworkRequest, BadRequest> {
    let wire::CreateRequest {
        name,
        // COMPAT: names are always unique.
        check_duplicate: _,
        driver,
        scope,
        enable_ipv4,
        enable_ipv6,
        ipam,
        internal,
        attachable,
        ingress,
        config_only,
        config_from,
        options,
        labels,
    } = request;
    // COMPAT: dockerd's words, in this and the next.
    if ingress {
        return Err(BadRequest::Forbidden(
            "Ingress network can only be global scope network".to_owned(),
        ));
    }
    if scope == "swarm" {
        return Err(BadRequest::Forbidden(
            "cannot create a swarm scoped network when swarm is not active".to_owned(),
        ));
    }
    if driver == "overlay" {
        return Err(BadRequest::Unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
             swarm and try again."
                .to_owned(),
        ));
    }
    if !matches!(scope.as_str(), "" | "local") {
        return Err(unsupported(format!("networks of scope {scope} are not supported: use local")));
    }
    let Ipam { driver: ipam_driver, options: ipam_options, config } = ipam.unwrap_or_default();
    let subnet = |config: IpamConfig| {
        let IpamConfig { subnet, ip_range, gateway, aux_address } = config;
        let pool = String::new();
        SubnetRequest { subnet, range: ip_range, gateway, auxiliary: aux_address, pool }
    };
    let described = config.unwrap_or_default().into_iter().map(subnet).filter(|subnet| {
        // Clients send an empty one for "any".
        *subnet != SubnetRequest::default()
    });
    Ok(NetworkRequest {
        name,
        driver,
        ipv4: enable_ipv4.unwrap_or(true),
        ipv6: enable_ipv6.unwrap_or(false),
        internal,
        attachable,
        subnets: described.collect(),
        ipam: AddressDriver { name: ipam_driver, options: ipam_options.unwrap_or_default() },
        options: options.unwrap_or_default(),
        labels: labels.unwrap_or_default(),
        config_only,
        config_from: config_from.map(|from| from.network).unwrap_or_default(),
    })
}

/// Writes an endpoint.
pub(crate) fn endpoint_document(endpoint: &Endpoint) -> EndpointSettings {
    let Endpoint {
        network,
        network_name: _,
        id,
        interface: _,
        mac,
        ipv4,
        gateway,
        ipv6,
        gateway6,
        aliases: _,
        gateway_priority,
        direct: _,
        links: _,
    } = endpoint;
    EndpointSettings {
        mac_address: mac.clone(),
        network_id: network.to_string(),
        endpoint_id: id.clone(),
        gateway: gateway.map(|address| address.to_string()).unwrap_or_default(),
        ip_address: ipv4.map(|(address, _)| address.to_string()).unwrap_or_default(),
        ip_prefix_len: ipv4.map(|(_, length)| i64::from(length)).unwrap_or_default(),
        ipv6_gateway: gateway6.map(|address| address.to_string()).unwrap_or_default(),
        global_ipv6_address: ipv6.map(|(address, _)| address.to_string()).unwrap_or_default(),
        global_ipv6_prefix_len: ipv6.map(|(_, length)| i64::from(length)).unwrap_or_default(),
        gw_priority: *gateway_priority,
        ..EndpointSettings::default()
    }
}

/// Writes a network; lists leave the containers out.
pub(crate) fn network_document(view: &NetworkView, with_containers: bool) -> wire::Inspect {
    let NetworkView { record, containers } = view;
    let subnets = || record.subnets.iter().chain(&record.unused);
    let shown = |subnet: &Subnet| subnet.gateway.filter(|_| !subnet.implied);
    let config = subnets().map(|subnet| IpamConfig {
        subnet: subnet.subnet.clone(),
        ip_range: subnet.range.clone(),
        gateway: shown(subnet).map(|gateway| gateway.to_string()).unwrap_or_default(),
        aux_address: subnet
            .auxiliary
            .iter()
            .map(|(name, ip)| (name.clone(), ip.to_string()))
            .collect(),
    });
    let resource = |name: &String, endpoint: &Endpoint| EndpointResource {
        name: name.clone(),
        endpoint_id: endpoint.id.clone(),
        mac_address: endpoint.mac.clone(),
        ipv4_address: endpoint
            .ipv4
            .map(|(ip, length)| format!("{ip}/{length}"))
            .unwrap_or_default(),
        ipv6_address: endpoint
            .ipv6
            .map(|(ip, length)| format!("{ip}/{length}"))
            .unwrap_or_default(),
    };
    let containers = containers.iter().filter(|_| with_containers);
    wire::Inspect {
        name: record.name.clone(),
        id: record.id.to_string(),
        created: record.created.to_string(),
        scope: "local".to_owned(),
        driver: record.driver.clone(),
        enable_ipv4: record.ipv4,
        enable_ipv6: record.ipv6,
        ipam: Ipam {
            driver: match record.ipam.name.as_str() {
                "" => "default".to_owned(),
                name => name.to_owned(),
            },
            // COMPAT: an empty object for networks that users make.
            options: (!record.is_predefined()).then(|| record.ipam.options.clone()),
            config: subnets().next().is_some().then(|| config.collect()),
        },
        internal: record.internal,
        attachable: record.attachable,
        ingress: false,
        config_from: wire::ConfigReference { network: record.config_from.clone() },
        config_only: record.config_only,
        containers: Some(
            containers
                .map(|(id, name, endpoint)| (id.to_string(), resource(name, endpoint)))
                .collect(),
        ),
        options: Some(record.options.clone()),
        labels: Some(record.labels.clone()),
    }
}

/// Writes published and (with `exposed`) merely exposed ports.
pub(crate) fn port_map(ports: &[PublishedPort], exposed: &[(u16, PortProtocol)]) -> PortMap {
    let key = |port: u16, protocol| format!("{port}/{}", protocol_word(protocol));
    let mut map: PortMap = exposed
        .iter()
        .map(|(port, protocol)| (key(*port, *protocol), None))
        .collect::<BTreeMap<_, _>>();
    for port in ports {
        let bindings =
            map.entry(key(port.container, port.protocol)).or_default().get_or_insert_default();
        for ip in host_addresses(port) {
            bindings.push(PortBinding { host_ip: ip, host_port: port.host.0.to_string() });
        }
    }
    map
}

/// Returns the host addresses of a published port: all of them are two, one per family.
pub(crate) fn host_addresses(port: &PublishedPort) -> Vec<String> {
    match port.host_ip {
        Some(ip) => vec![ip.to_string()],
        None => vec!["0.0.0.0".to_owned(), "::".to_owned()],
    }
}

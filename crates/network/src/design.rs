//! From what a user asks of a new network to what it will be: every choice made, nothing done. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rorqual_core::{NetworkId, Timestamp};

use crate::cidr::{Cidr, Cidr4, Cidr6, InvalidCidr};
use crate::ipam::{Pools, SubnetPool, free_subnet, free_subnet6};
mod options;

pub(crate) use options::{
    BRIDGE_NAME, EndpointOptions, GatewayMode, ICC, INHIBIT_IPV4, INTERFACE_PREFIX, MASQUERADE,
    PARENT, Stacked, gateway_modes, leave_as, mtu, publish_on, switch, trusted,
};

use crate::{Error, NetworkRecord, NetworkRequest, Subnet, SubnetRequest};

/// What stands for the driver of a configuration.
// COMPAT: dockerd shows so.
const CONFIGURATION: &str = "null";
/// LIMIT: labels, options and reserved addresses are kept whole in the network's record.
const MOST_ENTRIES: usize = 1024;
/// LIMIT: subnets of each family.
const MOST_SUBNETS: usize = 128;
/// LIMIT: as long as a DNS name may be.
const LONGEST_NAME: usize = 255;

/// What the choice of a subnet depends on.
pub(crate) struct Surroundings<'a> {
    /// Where subnets are cut from.
    pub(crate) pools: &'a [SubnetPool],
    /// Subnets of networks that exist.
    pub(crate) networks: Vec<Cidr>,
    /// What the host has routes to.
    pub(crate) routes: Vec<Cidr>,
    /// Other drivers may be those of plugins.
    pub(crate) plugins: bool,
}

/// Makes the record of a network to come.
///
/// # Errors
/// What is wrong with the request.
pub(crate) fn network(
    request: NetworkRequest,
    id: NetworkId,
    created: Timestamp,
    around: &Surroundings<'_>,
    random: impl FnMut() -> [u8; 7],
) -> Result<NetworkRecord, Error> {
    let NetworkRequest {
        name,
        driver,
        ipv4,
        ipv6,
        internal,
        attachable,
        subnets,
        ipam,
        options,
        labels,
        config_only,
        config_from,
    } = request;
    check_name(&name)?;
    // A configuration is looked at when a network is made of it, as only then its driver is known.
    let driver = if config_only { CONFIGURATION } else { check_driver(&driver, around.plugins)? };
    if !config_only {
        options::check(driver, &options, internal)?;
    }
    let ipv4 = switch(&options, options::ENABLE_IPV4)?.unwrap_or(ipv4);
    let ipv6 = switch(&options, options::ENABLE_IPV6)?.unwrap_or(ipv6);
    let counts = [labels.len(), options.len(), ipam.options.len()];
    if counts.into_iter().any(|count| count > MOST_ENTRIES) {
        return Err(Error::InvalidArgument(format!(
            "a network has at most {MOST_ENTRIES} labels and as many options"
        )));
    }
    if !ipv4 && !ipv6 {
        return Err(Error::InvalidArgument("IPv4 or IPv6 must be enabled".to_owned()));
    }
    let (mut subnets, unused) = if config_only {
        let kept = subnets.into_iter().map(kept);
        (kept.collect::<Result<_, _>>()?, Vec::new())
    } else {
        choose_subnets(driver, subnets, (ipv4, ipv6), around, random)?
    };
    leave_out_gateways(&mut subnets, &options)?;
    let record = NetworkRecord {
        id,
        name,
        driver: driver.to_owned(),
        created,
        subnets,
        unused,
        ipam,
        options,
        labels,
        ipv4,
        ipv6,
        internal,
        attachable,
        config_only,
        config_from,
    };
    // Whatever is wrong with ranges shows here.
    Pools::of(&record)?;
    Ok(record)
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.trim().is_empty() {
        return Err(Error::InvalidArgument("invalid name: name is empty".to_owned()));
    }
    // COMPAT: dockerd's words.
    match name {
        "bridge" | "host" | "none" | "default" => {
            return Err(Error::Forbidden(format!(
                "operation is not permitted on predefined {name} network"
            )));
        }
        _ => {}
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() > LONGEST_NAME || !starts || !name.chars().all(fine) {
        return Err(Error::InvalidArgument(format!(
            "invalid network name {name:?}: need a letter or digit, then letters, digits, '_', '.' or '-', \
             {LONGEST_NAME} at most"
        )));
    }
    Ok(())
}

fn check_driver(driver: &str, plugins: bool) -> Result<&str, Error> {
    match driver {
        "" | "default" | "bridge" => Ok("bridge"),
        "macvlan" => Ok("macvlan"),
        "ipvlan" => Ok("ipvlan"),
        // COMPAT: dockerd's words.
        "host" | "null" => {
            Err(Error::Forbidden(format!("only one instance of {driver:?} network is allowed")))
        }
        // COMPAT: dockerd's words outside a swarm.
        "overlay" => Err(Error::Forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
             to swarm and try again."
                .to_owned(),
        )),
        plugin if plugins => Ok(plugin),
        _ => Err(Error::NoSuchDriver(driver.to_owned())),
    }
}

/// A host that stays out of a network has no address in it, so that one more is free.
fn leave_out_gateways(
    subnets: &mut [Subnet],
    options: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let (mode4, mode6) = gateway_modes(options)?;
    for subnet in subnets {
        let mode = if matches!(subnet.cidr()?, Cidr::V4(_)) { mode4 } else { mode6 };
        if mode == GatewayMode::Isolated {
            subnet.gateway = None;
        }
    }
    Ok(())
}

fn config_error(what: std::fmt::Arguments<'_>) -> Error {
    // COMPAT: dockerd begins so.
    Error::InvalidArgument(format!("invalid network config:\n{what}"))
}

fn overlapping() -> Error {
    // COMPAT: dockerd's words.
    Error::Forbidden(
        "invalid pool request: Pool overlaps with other one on this address space".to_owned(),
    )
}

fn choose_subnets(
    driver: &str,
    requests: Vec<SubnetRequest>,
    (ipv4, ipv6): (bool, bool),
    around: &Surroundings<'_>,
    random: impl FnMut() -> [u8; 7],
) -> Result<(Vec<Subnet>, Vec<Subnet>), Error> {
    let (mut v4, mut v6, mut unused) = (Vec::<Subnet>::new(), Vec::<Subnet>::new(), Vec::new());
    for request in requests {
        let subnet = described(request, around)?;
        let cidr = subnet.cidr()?;
        let (place, on, family) = match cidr {
            Cidr::V4(_) => (&mut v4, ipv4, "IPv4"),
            Cidr::V6(_) => (&mut v6, ipv6, "IPv6"),
        };
        if !on {
            // LIMIT: as many as are used at most.
            if unused.len() < MOST_SUBNETS {
                unused.push(subnet);
            }
            continue;
        }
        // COMPAT: dockerd's words, here and below.
        if driver == "bridge" && !place.is_empty() {
            return Err(Error::Forbidden(
                "bridge driver doesn't support multiple subnets".to_owned(),
            ));
        }
        // LIMIT: each is looked through for each container.
        if place.len() >= MOST_SUBNETS {
            return Err(config_error(format_args!("more than {MOST_SUBNETS} {family} subnets")));
        }
        for other in place.iter() {
            if other.cidr()?.overlaps(cidr) {
                return Err(overlapping());
            }
        }
        place.push(subnet);
    }
    let taken = || around.networks.iter().chain(&around.routes).copied();
    if ipv4 && v4.is_empty() {
        let taken = taken().filter_map(only4).collect::<Vec<_>>();
        v4.push(chosen(Cidr::V4(free_subnet(around.pools, &taken)?)));
    }
    if ipv6 && v6.is_empty() {
        let taken = taken().filter_map(only6).collect::<Vec<_>>();
        v6.push(chosen(Cidr::V6(free_subnet6(&taken, random))));
    }
    Ok((v4.into_iter().chain(v6).collect(), unused))
}

const fn only4(cidr: Cidr) -> Option<Cidr4> {
    match cidr {
        Cidr::V4(cidr) => Some(cidr),
        Cidr::V6(_) => None,
    }
}

const fn only6(cidr: Cidr) -> Option<Cidr6> {
    match cidr {
        Cidr::V6(cidr) => Some(cidr),
        Cidr::V4(_) => None,
    }
}

fn chosen(subnet: Cidr) -> Subnet {
    Subnet {
        subnet: subnet.to_string(),
        range: String::new(),
        gateway: Some(subnet.second()),
        auxiliary: BTreeMap::new(),
        configured: false,
        pool: String::new(),
        implied: false,
    }
}

/// Keeps a subnet of a configuration as it is described.
fn kept(request: SubnetRequest) -> Result<Subnet, Error> {
    let SubnetRequest { subnet, range, gateway, auxiliary, pool: _ } = request;
    let invalid = |what: &str| config_error(format_args!("invalid address {what}"));
    subnet
        .parse::<Cidr>()
        .map_err(|error| config_error(format_args!("invalid subnet: {error}")))?;
    let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| invalid(text));
    let gateway = if gateway.is_empty() { None } else { Some(parse(&gateway)?) };
    let auxiliary = auxiliary.into_iter().map(|(name, text)| Ok((name, parse(&text)?)));
    let auxiliary = auxiliary.collect::<Result<_, Error>>()?;
    let pool = String::new();
    Ok(Subnet { subnet, range, gateway, auxiliary, configured: true, pool, implied: false })
}

fn described(request: SubnetRequest, around: &Surroundings<'_>) -> Result<Subnet, Error> {
    let SubnetRequest { subnet: text, range, gateway, auxiliary, pool } = request;
    if text.is_empty() {
        return Err(config_error(format_args!(
            "a range, a gateway or a reserved address needs a subnet"
        )));
    }
    // COMPAT: dockerd's words, here and below.
    let read = |what: &str, text: &str| -> Result<Cidr, Error> {
        text.parse().map_err(|_: InvalidCidr| {
            config_error(format_args!("invalid {what} {text}: invalid CIDR block notation"))
        })
    };
    let subnet = read("subnet", &text)?;
    if subnet.subnet() != subnet {
        let right = subnet.subnet();
        return Err(config_error(format_args!("invalid subnet {subnet}: it should be {right}")));
    }
    if matches!(subnet, Cidr::V4(four) if four.prefix > 30) || subnet.prefix() > 126 {
        return Err(config_error(format_args!(
            "invalid subnet {subnet}: no room for a gateway and a container"
        )));
    }
    if around.networks.iter().any(|other| other.overlaps(subnet)) {
        return Err(overlapping());
    }
    let inside = |what: &str, text: &str| -> Result<IpAddr, Error> {
        let address = text.parse::<IpAddr>().ok().filter(|address| subnet.contains(*address));
        address.ok_or_else(|| {
            config_error(format_args!("invalid {what} {text}: parent subnet is {subnet}"))
        })
    };
    if !range.is_empty() {
        let parsed = read("ip-range", &range)?;
        if parsed.prefix() < subnet.prefix() && parsed.overlaps(subnet) {
            return Err(config_error(format_args!(
                "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
            )));
        }
        if parsed.subnet() != parsed
            || parsed.prefix() < subnet.prefix()
            || !subnet.overlaps(parsed)
        {
            return Err(config_error(format_args!(
                "invalid ip-range {range}: parent subnet is {subnet}"
            )));
        }
    }
    let implied = gateway.is_empty();
    let gateway = match gateway.as_str() {
        "" => subnet.second(),
        // Clients may write the gateway with the subnet's prefix.
        text => inside("gateway", text.split('/').next().unwrap_or(text))?,
    };
    if auxiliary.len() > MOST_ENTRIES {
        return Err(config_error(format_args!("more than {MOST_ENTRIES} auxiliary addresses")));
    }
    let auxiliary = auxiliary
        .into_iter()
        .map(|(name, text)| Ok((name, inside("auxiliary address", &text)?)))
        .collect::<Result<_, Error>>()?;
    let gateway = Some(gateway);
    Ok(Subnet { subnet: text, range, gateway, auxiliary, configured: true, pool, implied })
}

#[cfg(test)]
mod tests;

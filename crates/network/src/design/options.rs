//! The options of networks and endpoints: read, and refused where they say nothing that could be done.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, NetworkRecord};

/// Largest packet.
pub(crate) const MTU: &str = "com.docker.network.driver.mtu";
/// Name of the bridge's interface.
pub(crate) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Containers reach each other.
pub(crate) const ICC: &str = "com.docker.network.bridge.enable_icc";
/// Outgoing connections get the host's address.
pub(crate) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Address that ports are published on.
pub(crate) const PUBLISH_ON: &str = "com.docker.network.bridge.host_binding_ipv4";
/// How the interfaces inside are called, without their number.
pub(crate) const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
/// The bridge gets no IPv4 address; somebody else in the network is the gateway.
pub(crate) const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
/// Interfaces, with colons between, by which containers may be addressed directly.
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
/// Address that outgoing connections get.
const HOST_IPV4: &str = "com.docker.network.host_ipv4";
const HOST_IPV6: &str = "com.docker.network.host_ipv6";
/// How containers are reached from outside.
const GATEWAY_MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// Say the same as the switches of the request.
pub(super) const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
pub(super) const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
/// Interface of the host that a network is on.
pub(crate) const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
const OPTION_SPACE: &str = "com.docker.network.";

/// Name of the interface inside.
const ENDPOINT_INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// Kernel settings of the interface, with commas between.
const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const ENDPOINT_SPACE: &str = "com.docker.network.endpoint.";
/// Stands for the interface in a setting's name.
const INTERFACE_PLACE: &str = "IFNAME";
/// LIMIT: settings of one interface; there are fewer than a hundred in the kernel.
const MOST_SYSCTLS: usize = 256;

/// LIMIT: the smallest packet IPv4 promises to carry, and the largest there is.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65535;

type Options = BTreeMap<String, String>;

/// How the containers of a network are reached from outside, in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GatewayMode {
    /// By published ports of the host.
    #[default]
    Nat,
    /// By published ports, and directly.
    NatUnprotected,
    /// Directly, but only at published ports; nothing is translated.
    Routed,
    /// Not at all: the host has no address in the network.
    Isolated,
}

/// Kinds of links on an interface of the host, without a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stacked {
    /// With a hardware address of its own; the kernel's number of the mode.
    Macvlan(u32),
    /// With that of the interface; the kernel's numbers of mode and flags.
    Ipvlan(u16, u16),
}

impl Stacked {
    /// Reads what kind of link a network is made of; `None` for a bridge.
    pub(crate) fn of(record: &NetworkRecord) -> Result<Option<Self>, Error> {
        let option = |key| record.options.get(key).map_or("", String::as_str);
        match record.driver.as_str() {
            "macvlan" => macvlan_mode(option(MACVLAN_MODE)).map(Self::Macvlan).map(Some),
            "ipvlan" => {
                let mode = ipvlan_mode(option(IPVLAN_MODE))?;
                Ok(Some(Self::Ipvlan(mode, ipvlan_flag(option(IPVLAN_FLAG))?)))
            }
            _ => Ok(None),
        }
    }

    /// The kernel's and Docker's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }

    /// Tells whether it routes, so that there are neither neighbours nor a gateway.
    pub(crate) const fn routes(self) -> bool {
        matches!(self, Self::Ipvlan(1.., _))
    }

    /// Tells whether one link takes the whole interface.
    pub(crate) const fn takes_all(self) -> bool {
        matches!(self, Self::Macvlan(PASSTHRU))
    }
}

/// `MACVLAN_MODE_PASSTHRU`
const PASSTHRU: u32 = 8;

// COMPAT: dockerd's words, in this function and the next two.
fn macvlan_mode(word: &str) -> Result<u32, Error> {
    Ok(match word {
        "" | "bridge" => 4,
        "private" => 1,
        "vepa" => 2,
        "passthru" => PASSTHRU,
        _ => {
            return Err(Error::InvalidArgument(format!(
                "requested macvlan mode '{word}' is not valid, 'bridge' mode is the macvlan driver default"
            )));
        }
    })
}

fn ipvlan_mode(word: &str) -> Result<u16, Error> {
    Ok(match word {
        "" | "l2" => 0,
        "l3" => 1,
        "l3s" => 2,
        _ => {
            return Err(Error::InvalidArgument(format!(
                "requested ipvlan mode '{word}' is not valid, 'l2' mode is the ipvlan driver default"
            )));
        }
    })
}

fn ipvlan_flag(word: &str) -> Result<u16, Error> {
    Ok(match word {
        "" | "bridge" => 0,
        "private" => 1,
        "vepa" => 2,
        _ => {
            return Err(Error::InvalidArgument(format!(
                "requested ipvlan flag '{word}' is not valid, 'bridge' is the ipvlan driver default"
            )));
        }
    })
}

fn invalid(key: &str, value: &str) -> Error {
    Error::InvalidArgument(format!("invalid value {value:?} of option {key}"))
}

// COMPAT: dockerd's words, with those of Go's library.
fn unread(key: &str, value: &str, why: &str) -> Error {
    Error::InvalidArgument(format!("failed to parse {key} value: {value} ({why})"))
}

/// Reads a switch as the driver's options spell it.
pub(crate) fn switch(options: &Options, key: &str) -> Result<Option<bool>, Error> {
    let Some(value) = options.get(key) else { return Ok(None) };
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
        _ => Err(unread(
            key,
            value,
            &format!("strconv.ParseBool: parsing {value:?}: invalid syntax"),
        )),
    }
}

/// Reads the size of the largest packet.
pub(crate) fn mtu(options: &Options) -> Result<Option<u32>, Error> {
    let Some(value) = options.get(MTU) else { return Ok(None) };
    // COMPAT: one that is no number is told in Go's words.
    let number = value.parse::<u32>().map_err(|_| {
        unread(MTU, value, &format!("strconv.Atoi: parsing {value:?}: invalid syntax"))
    })?;
    match Some(number).filter(|mtu| *mtu == 0 || MTUS.contains(mtu)) {
        Some(0) => Ok(None),
        Some(mtu) => Ok(Some(mtu)),
        None => Err(invalid(MTU, value)),
    }
}

/// Reads the address that ports are published on.
pub(crate) fn publish_on(options: &Options) -> Result<Option<IpAddr>, Error> {
    let address = address::<Ipv4Addr>(options, PUBLISH_ON)?;
    Ok(address.filter(|address| !address.is_unspecified()).map(IpAddr::V4))
}

fn address<T: std::str::FromStr>(options: &Options, key: &str) -> Result<Option<T>, Error> {
    let Some(value) = options.get(key).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| unread(key, value, "nil ip"))
}

/// Reads the addresses that outgoing connections get, one of each family.
pub(crate) fn leave_as(options: &Options) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Error> {
    Ok((address(options, HOST_IPV4)?, address(options, HOST_IPV6)?))
}

/// Reads the interfaces by which containers may be addressed directly.
pub(crate) fn trusted(options: &Options) -> Result<Vec<String>, Error> {
    let Some(value) = options.get(TRUSTED) else { return Ok(Vec::new()) };
    let names = value.split(':').filter(|name| !name.is_empty());
    names.map(|name| crate::bridge::check_name(name).map(|()| name.to_owned())).collect()
}

/// Reads the gateway modes of IPv4 and IPv6.
pub(crate) fn gateway_modes(options: &Options) -> Result<(GatewayMode, GatewayMode), Error> {
    let mode = |key| {
        let word = options.get(key).map_or("", String::as_str);
        Ok(match word {
            "" | "nat" => GatewayMode::Nat,
            "nat-unprotected" => GatewayMode::NatUnprotected,
            "routed" => GatewayMode::Routed,
            "isolated" => GatewayMode::Isolated,
            _ => return Err(unread(key, word, &format!("unknown gateway mode {word}"))),
        })
    };
    Ok((mode(GATEWAY_MODE4)?, mode(GATEWAY_MODE6)?))
}

/// Checks all options of a network.
pub(super) fn check(driver: &str, options: &Options, internal: bool) -> Result<(), Error> {
    for (key, value) in options {
        match key.as_str() {
            MTU => drop(mtu(options)?),
            ENABLE_IPV4 | ENABLE_IPV6 => drop(switch(options, key)?),
            INTERFACE_PREFIX => check_prefix(value)?,
            // What a plugin takes is its own business.
            _ if !matches!(driver, "bridge" | "macvlan" | "ipvlan") => {}
            PARENT | MACVLAN_MODE | IPVLAN_MODE | IPVLAN_FLAG if driver != "bridge" => {
                check_stacked(driver, key, value)?;
            }
            _ if driver == "bridge" => check_of_bridge(options, key, value)?,
            // Taking it without doing it would be a lie.
            key if key.starts_with(OPTION_SPACE) => return Err(no_such(key)),
            _ => {}
        }
    }
    if driver != "bridge" {
        return Ok(());
    }
    let (mode4, mode6) = gateway_modes(options)?;
    if !internal && [mode4, mode6].contains(&GatewayMode::Isolated) {
        // COMPAT: dockerd's words.
        return Err(Error::InvalidArgument(
            "gateway mode 'isolated' can only be used for an internal network".to_owned(),
        ));
    }
    Ok(())
}

fn no_such(key: &str) -> Error {
    Error::Unsupported(format!("option {key} is not supported"))
}

fn check_prefix(value: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // LIMIT: an interface's name has 15 characters, of which the number may take four.
    if value.is_empty() || value.len() > 11 || !value.chars().all(fine) || value == "lo" {
        return Err(invalid(INTERFACE_PREFIX, value));
    }
    Ok(())
}

fn check_of_bridge(options: &Options, key: &str, value: &str) -> Result<(), Error> {
    match key {
        ICC | MASQUERADE | INHIBIT_IPV4 => drop(switch(options, key)?),
        PUBLISH_ON => drop(publish_on(options)?),
        HOST_IPV4 | HOST_IPV6 => drop(leave_as(options)?),
        TRUSTED => drop(trusted(options)?),
        BRIDGE_NAME => crate::bridge::check_name(value)?,
        GATEWAY_MODE4 | GATEWAY_MODE6 => drop(gateway_modes(options)?),
        key if key.starts_with(OPTION_SPACE) => return Err(no_such(key)),
        _ => {}
    }
    Ok(())
}

fn check_stacked(driver: &str, key: &str, value: &str) -> Result<(), Error> {
    match (driver, key) {
        (_, PARENT) => check_parent(driver, value),
        ("macvlan", MACVLAN_MODE) => macvlan_mode(value).map(drop),
        ("ipvlan", IPVLAN_MODE) => ipvlan_mode(value).map(drop),
        ("ipvlan", IPVLAN_FLAG) => ipvlan_flag(value).map(drop),
        _ => Err(no_such(key)),
    }
}

fn check_parent(driver: &str, value: &str) -> Result<(), Error> {
    if value == "lo" {
        // COMPAT: dockerd's words.
        return Err(Error::InvalidArgument(format!(
            "loopback interface is not a valid {driver} parent link"
        )));
    }
    if value.is_empty() { Ok(()) } else { crate::bridge::check_name(value) }
}

/// What a user asks of a single interface inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointOptions {
    /// Its name; else the first free one.
    pub(crate) interface: Option<String>,
    /// Settings: the name behind `net.` with `IFNAME` in it, and the value.
    sysctls: Vec<(Vec<String>, String)>,
}

impl EndpointOptions {
    /// Reads the options of an endpoint.
    pub(crate) fn read(options: &Options) -> Result<Self, Error> {
        let mut read = Self::default();
        for (key, value) in options {
            match key.as_str() {
                ENDPOINT_INTERFACE => {
                    crate::bridge::check_name(value)
                        .and_then(
                            |()| if value == "lo" { Err(invalid(key, value)) } else { Ok(()) },
                        )
                        .map_err(|_| invalid(key, value))?;
                    read.interface = Some(value.clone());
                }
                ENDPOINT_SYSCTLS => read.sysctls = sysctls(value)?,
                key if key.starts_with(ENDPOINT_SPACE) => return Err(no_such(key)),
                _ => {}
            }
        }
        Ok(read)
    }

    /// Tells whether there is nothing to be done.
    pub(crate) const fn is_plain(&self) -> bool {
        self.interface.is_none() && self.sysctls.is_empty()
    }

    /// Lists the settings of an interface of this name.
    pub(crate) fn settings(&self, interface: &str) -> Vec<(Vec<String>, String)> {
        let of = |part: &String| {
            if is_place(part) { interface.to_owned() } else { part.clone() }
        };
        let each = self.sysctls.iter();
        each.map(|(key, value)| (key.iter().map(of).collect(), value.clone())).collect()
    }
}

/// Tells whether a part of a setting's name stands for the interface.
// COMPAT: the docker client may write options in small letters.
fn is_place(part: &str) -> bool {
    part.eq_ignore_ascii_case(INTERFACE_PLACE)
}

/// Reads `net.ipv4.conf.IFNAME.log_martians=1,…`.
fn sysctls(text: &str) -> Result<Vec<(Vec<String>, String)>, Error> {
    let wrong = |one: &str, why: &str| {
        Error::InvalidArgument(format!("invalid {ENDPOINT_SYSCTLS} {one:?}: {why}"))
    };
    let all = text.split(',').filter(|one| !one.is_empty()).collect::<Vec<_>>();
    if all.len() > MOST_SYSCTLS {
        return Err(wrong("", &format!("more than {MOST_SYSCTLS} settings")));
    }
    let read = |one: &&str| {
        let (name, value) = one.split_once('=').ok_or_else(|| wrong(one, "need name=value"))?;
        let mut parts = name.split('.').map(str::to_owned).collect::<Vec<_>>();
        // Only what concerns this interface: everything else is the container's own --sysctl.
        let fine = parts.len() == 5
            && parts[0] == "net"
            && matches!(parts[1].as_str(), "ipv4" | "ipv6" | "mpls")
            && matches!(parts[2].as_str(), "conf" | "neigh")
            && is_place(&parts[3])
            && parts[4].chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fine {
            return Err(wrong(one, "need net.ipv4.conf.IFNAME.setting=value or the like"));
        }
        Ok((parts.split_off(1), value.to_owned()))
    };
    all.iter().map(read).collect()
}

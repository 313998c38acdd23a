//! The methods of network plugins, one function each. Blocks; decides nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rorqual_core::NetworkId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::Caller;
use crate::bridge::{BridgeOptions, check_name};
use crate::ipam::parse_mac;
use crate::link::StaticRoute;
use crate::ports::protocol_number;
use crate::{Cidr, Endpoint, Error, NetworkRecord, PublishedPort};

const SUBSYSTEM: &str = "NetworkDriver";
/// LIMIT: routes of one link.
const MOST_ROUTES: usize = 1024;
const GENERIC: &str = "com.docker.network.generic";

/// A plugin as the driver of networks.
#[derive(Clone, Debug)]
pub(in crate::bridges) struct Driver(Caller);

/// What is asked of a new endpoint beside its addresses.
pub(super) struct Wanted<'a> {
    pub(super) mac: Option<String>,
    pub(super) options: &'a BTreeMap<String, String>,
}

/// What a plugin says of a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// Its name on the host.
    pub(super) source: String,
    /// How it is to be called inside, without its number.
    pub(super) prefix: Option<String>,
    /// How it is to be called inside.
    pub(super) name: Option<String>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) gateway6: Option<Ipv6Addr>,
    pub(super) routes: Vec<StaticRoute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Capabilities {
    scope: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Made {
    interface: Option<Interface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Interface {
    address: String,
    #[serde(rename = "AddressIPv6")]
    address6: String,
    mac_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct JoinAnswer {
    interface_name: InterfaceName,
    gateway: String,
    #[serde(rename = "GatewayIPv6")]
    gateway6: String,
    static_routes: Option<Vec<RouteAnswer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct InterfaceName {
    src_name: String,
    dst_name: String,
    dst_prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct RouteAnswer {
    destination: String,
    /// 0: by way of the next hop; 1: on the link.
    route_type: u8,
    next_hop: String,
}

impl Driver {
    /// Names a plugin, without asking whether it is there.
    pub(super) fn new(options: &BridgeOptions, name: &str) -> Result<Self, Error> {
        Caller::new(options, name, SUBSYSTEM).map(Self)
    }

    /// Finds out whether the plugin is there, and whether it makes networks of one host.
    pub(super) fn check(&self) -> Result<(), Error> {
        let capabilities: Capabilities = self.0.call("GetCapabilities", &json!({}))?;
        match capabilities.scope.to_ascii_lowercase().as_str() {
            "" | "local" => Ok(()),
            "global" => Err(Error::Forbidden(format!(
                "networks of the plugin {:?} span a cluster, which this daemon is not part of",
                self.0.name()
            ))),
            other => Err(self.0.wrong(&format!("has the unknown scope {other:?}"))),
        }
    }

    pub(super) fn create_network(&self, record: &NetworkRecord) -> Result<(), Error> {
        let mut pools = [Vec::new(), Vec::new()];
        for subnet in &record.subnets {
            let whole = subnet.cidr()?;
            let with_prefix = |address: &IpAddr| format!("{address}/{}", whole.prefix());
            let auxiliary = subnet.auxiliary.iter();
            let auxiliary = auxiliary.map(|(name, ip)| (name.clone(), with_prefix(ip).into()));
            pools[usize::from(matches!(whole, Cidr::V6(_)))].push(json!({
                "AddressSpace": "LocalDefault",
                "Pool": subnet.subnet,
                "Gateway": subnet.gateway.as_ref().map(with_prefix).unwrap_or_default(),
                "AuxAddresses": auxiliary.collect::<Map<String, Value>>(),
            }));
        }
        let mut options = json!({
            GENERIC: record.options,
            "com.docker.network.enable_ipv4": record.ipv4,
            "com.docker.network.enable_ipv6": record.ipv6,
        });
        if record.internal {
            options["com.docker.network.internal"] = true.into();
        }
        let [v4, v6] = pools;
        let question = json!({
            "NetworkID": record.id.to_string(),
            "Options": options,
            "IPv4Data": v4,
            "IPv6Data": v6,
        });
        self.0.tell("CreateNetwork", &question)
    }

    pub(super) fn delete_network(&self, network: &NetworkId) -> Result<(), Error> {
        self.0.tell("DeleteNetwork", &json!({ "NetworkID": network.to_string() }))
    }

    /// Makes an endpoint; returns the hardware address, if the plugin has chosen one.
    pub(super) fn create_endpoint(
        &self,
        endpoint: &Endpoint,
        wanted: &Wanted<'_>,
    ) -> Result<Option<[u8; 6]>, Error> {
        let text4 = endpoint.ipv4.map(|(ip, prefix)| format!("{ip}/{prefix}")).unwrap_or_default();
        let text6 = endpoint.ipv6.map(|(ip, prefix)| format!("{ip}/{prefix}")).unwrap_or_default();
        let mac = wanted.mac.clone().unwrap_or_default();
        let mut question = about(endpoint);
        question["Options"] = generic(wanted.options);
        question["Interface"] =
            json!({ "Address": text4, "AddressIPv6": text6, "MacAddress": mac });
        let made: Made = self.0.call("CreateEndpoint", &question)?;
        let Interface { address, address6, mac_address } = made.interface.unwrap_or_default();
        // Only what was left open is the plugin's to say; addresses are never.
        let refused = !address.is_empty() || !address6.is_empty();
        let refused = refused || (!mac.is_empty() && !mac_address.is_empty());
        let chosen = if mac_address.is_empty() { None } else { Some(parse_mac(&mac_address)) };
        match (refused, chosen.transpose()) {
            (false, Ok(chosen)) => Ok(chosen),
            (true, _) => {
                self.delete_endpoint(&endpoint.network, &endpoint.id).ok();
                Err(self.0.wrong("chose an address that was not its to choose"))
            }
            (_, Err(error)) => {
                self.delete_endpoint(&endpoint.network, &endpoint.id).ok();
                Err(error)
            }
        }
    }

    /// Joins an endpoint with the namespace at `place`.
    pub(super) fn join(
        &self,
        endpoint: &Endpoint,
        place: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<Joined, Error> {
        let mut question = about(endpoint);
        question["SandboxKey"] = place.into();
        question["Options"] = generic(options);
        let JoinAnswer { interface_name, gateway, gateway6, static_routes } =
            self.0.call("Join", &question)?;
        let InterfaceName { src_name, dst_name, dst_prefix } = interface_name;
        let given = |text: String| (!text.is_empty()).then_some(text);
        let routes = static_routes.unwrap_or_default();
        if routes.len() > MOST_ROUTES {
            return Err(self.0.wrong(&format!("wants more than {MOST_ROUTES} routes")));
        }
        for name in [&src_name, &dst_name, &dst_prefix] {
            // A prefix is followed by a number.
            if !name.is_empty() && (name == "lo" || name.len() > 15 || check_name(name).is_err()) {
                return Err(self.0.wrong(&format!("names an interface {name:?}")));
            }
        }
        let source = given(src_name).ok_or_else(|| self.0.wrong("made no link"))?;
        let routes = routes.into_iter().map(|route| self.route(&route));
        Ok(Joined {
            source,
            prefix: given(dst_prefix),
            name: given(dst_name),
            gateway: self.address(&gateway)?,
            gateway6: self.address(&gateway6)?,
            routes: routes.collect::<Result<_, _>>()?,
        })
    }

    fn address<T: std::str::FromStr>(&self, text: &str) -> Result<Option<T>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        let read = text.parse().map(Some);
        read.map_err(|_| self.0.wrong(&format!("says {text:?} where an address is due")))
    }

    fn route(&self, route: &RouteAnswer) -> Result<StaticRoute, Error> {
        let RouteAnswer { destination, route_type, next_hop } = route;
        let cidr = destination.parse::<Cidr>();
        let cidr = cidr.map_err(|_| self.0.wrong(&format!("wants a route to {destination:?}")))?;
        let by = match route_type {
            0 => self.address(next_hop)?,
            1 => None,
            other => return Err(self.0.wrong(&format!("wants a route of the kind {other}"))),
        };
        if *route_type == 0 && by.is_none() {
            return Err(self
                .0
                .wrong(&format!("wants a route to {destination} without a next hop")));
        }
        let destination = match cidr.subnet() {
            Cidr::V4(cidr) => (IpAddr::V4(cidr.address), cidr.prefix),
            Cidr::V6(cidr) => (IpAddr::V6(cidr.address), cidr.prefix),
        };
        Ok(StaticRoute { destination, by })
    }

    pub(super) fn program(
        &self,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) -> Result<(), Error> {
        let exposed = ports
            .iter()
            .map(|port| json!({ "Proto": protocol_number(port.protocol), "Port": port.container }));
        let bindings = ports.iter().map(|port| {
            json!({
                "Proto": protocol_number(port.protocol),
                "IP": "",
                "Port": port.container,
                "HostIP": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
                "HostPort": port.host.0,
                "HostPortEnd": port.host.1,
            })
        });
        let mut question = about(endpoint);
        question["Options"] = json!({
            "com.docker.network.endpoint.exposedports": exposed.collect::<Vec<_>>(),
            "com.docker.network.portmap": bindings.collect::<Vec<_>>(),
        });
        self.0.optional::<Value>("ProgramExternalConnectivity", &question).map(drop)
    }

    pub(super) fn revoke(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.0.optional::<Value>("RevokeExternalConnectivity", &about(endpoint)).map(drop)
    }

    /// Takes an endpoint back, joined or not.
    pub(super) fn leave(&self, network: &NetworkId, endpoint: &str) -> Result<(), Error> {
        let question = json!({ "NetworkID": network.to_string(), "EndpointID": endpoint });
        let left = self.0.tell("Leave", &question);
        // ORDER: deleted in any case, or the plugin would keep it for ever.
        self.delete_endpoint(network, endpoint).and(left)
    }

    fn delete_endpoint(&self, network: &NetworkId, endpoint: &str) -> Result<(), Error> {
        let question = json!({ "NetworkID": network.to_string(), "EndpointID": endpoint });
        self.0.tell("DeleteEndpoint", &question)
    }
}

fn about(endpoint: &Endpoint) -> Value {
    json!({ "NetworkID": endpoint.network.to_string(), "EndpointID": endpoint.id })
}

/// Writes a user's options as plugins expect them.
fn generic(options: &BTreeMap<String, String>) -> Value {
    if options.is_empty() { json!({}) } else { json!({ GENERIC: options }) }
}

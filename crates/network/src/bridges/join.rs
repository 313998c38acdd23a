//! A container's place in one network, while it starts and while it runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rorqual_core::{ContainerId, NetworkId};
use rorqual_sys::net;

use super::holding::Families;
use super::relays::Relaying;
use super::remote::Given;
use super::{BridgeNetwork, Inner, lock};
use crate::book::{Attached, gateway_endpoint};
use crate::design::{EndpointOptions, Stacked};
use crate::files;
use crate::firewall::{Published, Target};
use crate::ipam::{mac_of, mac_text, parse_mac};
use crate::link::{self, Family, LinkKind, Slot};
use crate::names::random;
use crate::ports::runs;
use crate::{Endpoint, EndpointRequest, Error, NetworkRecord};

/// The networks of endpoints.
pub(super) type Networks = BTreeMap<NetworkId, Arc<BridgeNetwork>>;

/// Finds where published ports of a container lead: to its place in the network of its default gateway.
pub(super) fn target(networks: &Networks, endpoints: &[Endpoint]) -> Target {
    let of4 = gateway_endpoint(endpoints, |endpoint| endpoint.gateway.is_some());
    let of6 = gateway_endpoint(endpoints, |endpoint| endpoint.gateway6.is_some());
    let policy = |endpoint: &Endpoint| {
        networks.get(&endpoint.network).and_then(|network| network.policy.as_ref())
    };
    let (mut target, address4) = (Target::default(), |one: &Endpoint| one.ipv4.map(|(ip, _)| ip));
    if let Some((endpoint, policy)) = of4.and_then(|one| Some((one, policy(one)?))) {
        target.ipv4 = address4(endpoint).filter(|_| policy.translates().0);
        target.open4 = address4(endpoint).filter(|_| policy.opens().0);
    }
    if let Some((endpoint, policy)) = of6.and_then(|one| Some((one, policy(one)?))) {
        let address = endpoint.ipv6.map(|(ip, _)| ip);
        target.ipv6 = address.filter(|_| policy.translates().1);
        target.open6 = address.filter(|_| policy.opens().1);
    }
    target
}

/// Tells who leads clients of published ports to a container: `(IPv4, IPv6)` of the host's ports, and whether it has IPv6.
pub(super) fn led(relay: Relaying, (v4, v6): (bool, bool), has6: bool) -> Families {
    // A container that has IPv6, but not behind the host's ports, is not to be had by them.
    let over6 = v6 || (v4 && !has6);
    match relay {
        Relaying::Off => Families { v4, v6, ..Families::default() },
        Relaying::WhereNeeded => Families { v4, v6, relay4: false, relay6: over6 },
        Relaying::All { ipv6 } => {
            Families { v4: false, v6: false, relay4: v4, relay6: over6 && ipv6 }
        }
    }
}

/// Tells who leads clients of published ports to a container with these endpoints.
pub(super) fn families(networks: &Networks, endpoints: &[Endpoint], relay: Relaying) -> Families {
    let to = target(networks, endpoints);
    let has6 = endpoints.iter().any(|endpoint| endpoint.gateway6.is_some());
    led(relay, (to.ipv4.is_some(), to.ipv6.is_some()), has6)
}

/// Says what the firewall does for the ports of a container.
pub(super) fn published(networks: &Networks, attached: &Attached, relay: Relaying) -> Published {
    let led = !matches!(relay, Relaying::All { .. });
    Published {
        runs: if led { runs(attached.ports.iter()) } else { Vec::new() },
        opened: attached.opened.clone(),
        to: target(networks, &attached.endpoints),
    }
}

/// Lists the default routes that a container should have, as `(interface, gateway, family)`.
fn default_routes(endpoints: &[Endpoint]) -> Vec<(String, Option<IpAddr>, Family)> {
    let direct = |endpoint: &Endpoint, has: bool| endpoint.direct && has;
    let of4 =
        gateway_endpoint(endpoints, |one| one.gateway.is_some() || direct(one, one.ipv4.is_some()));
    let of6 = gateway_endpoint(endpoints, |one| {
        one.gateway6.is_some() || direct(one, one.ipv6.is_some())
    });
    let v4 = of4.map(|one| (one.interface.clone(), one.gateway.map(IpAddr::V4), Family::V4));
    let v6 = of6.map(|one| (one.interface.clone(), one.gateway6.map(IpAddr::V6), Family::V6));
    v4.into_iter().chain(v6).collect()
}

/// Makes the default routes what the endpoints say.
pub(super) fn route(namespace: BorrowedFd<'_>, endpoints: &[Endpoint]) -> Result<(), Error> {
    link::set_default_routes(namespace, &default_routes(endpoints))
}

/// Picks the first free name for an interface.
pub(super) fn free_interface(prefix: &str, endpoints: &[Endpoint]) -> String {
    let taken = |name: &String| endpoints.iter().any(|endpoint| endpoint.interface == *name);
    let mut number = 0_u32;
    loop {
        let name = format!("{prefix}{number}");
        if !taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// Addresses with the lengths of their subnets' prefixes, and the gateways of those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) ipv4: Option<(Ipv4Addr, u8)>,
    pub(super) ipv6: Option<(Ipv6Addr, u8)>,
    gateway: Option<Ipv4Addr>,
    gateway6: Option<Ipv6Addr>,
}

/// Finds the subnets of a network that addresses belong to.
pub(super) fn placed(
    network: &NetworkRecord,
    (ipv4, ipv6): (Option<Ipv4Addr>, Option<Ipv6Addr>),
) -> Result<Placed, Error> {
    let mut placed = Placed::default();
    for subnet in &network.subnets {
        let cidr = subnet.cidr()?;
        if let Some(address) = ipv4.filter(|address| cidr.contains(IpAddr::V4(*address))) {
            placed.ipv4 = Some((address, cidr.prefix()));
            placed.gateway = match subnet.gateway {
                Some(IpAddr::V4(gateway)) => Some(gateway),
                _ => None,
            };
        }
        if let Some(address) = ipv6.filter(|address| cidr.contains(IpAddr::V6(*address))) {
            placed.ipv6 = Some((address, cidr.prefix()));
            placed.gateway6 = match subnet.gateway {
                Some(IpAddr::V6(gateway)) => Some(gateway),
                _ => None,
            };
        }
    }
    Ok(placed)
}

/// Says what an interface is to be.
fn slot(
    bridge: &BridgeNetwork,
    request: &EndpointRequest,
    present: &[Endpoint],
    Placed { ipv4, ipv6, .. }: Placed,
) -> Result<Slot, Error> {
    let options = EndpointOptions::read(&request.options)?;
    let interface = match &options.interface {
        Some(name) if present.iter().any(|one| one.interface == *name) => {
            return Err(Error::Conflict(format!(
                "the container has an interface of the name {name} already"
            )));
        }
        Some(name) => name.clone(),
        None => free_interface(&bridge.prefix, present),
    };
    let made_up = || {
        let [a, b, c, d] = random();
        [0x02, 0x42, a, b, c, d]
    };
    let wanted = request.mac.as_deref().map(parse_mac).transpose()?;
    let mac = match bridge.plan.kind {
        LinkKind::Stacked(Stacked::Ipvlan(..), _) if wanted.is_some() => {
            // COMPAT: dockerd's words.
            return Err(Error::Unsupported(
                "ipvlan interfaces do not support custom mac address assignment".to_owned(),
            ));
        }
        LinkKind::Stacked(kind, _) if matches!(kind, Stacked::Ipvlan(..)) || kind.takes_all() => {
            wanted
        }
        _ => Some(wanted.or(ipv4.map(|(ip, _)| mac_of(ip))).unwrap_or_else(made_up)),
    };
    let settings = options.settings(&interface);
    let link_local = request.link_local.clone();
    Ok(Slot { interface, mac, ipv4, ipv6, link_local, settings })
}

impl Inner {
    /// Finds the bridge of a network.
    pub(super) fn bridge_of(&self, network: &NetworkRecord) -> Result<Arc<BridgeNetwork>, Error> {
        lock(&self.state).bridges.get(&network.id).cloned().ok_or_else(|| {
            Error::Conflict(format!(
                "network {} could not be set up when the daemon started; see its log",
                network.name
            ))
        })
    }

    /// Gives a namespace, which may be in use, a link to one more network, and notes whose it is.
    pub(super) fn join(
        &self,
        container: &ContainerId,
        namespace: BorrowedFd<'_>,
        network: &NetworkRecord,
        request: &EndpointRequest,
    ) -> Result<(), Error> {
        let bridge = self.bridge_of(network)?;
        if let Some(driver) = &bridge.remote {
            let which = (network, request);
            return self.join_remote(container, namespace, which, (&bridge, driver));
        }
        let Given { ipv4, ipv6, mac } = bridge.take_addresses(network, request, &self.janitor)?;
        let give_back = || bridge.source().give_back(ipv4, ipv6);
        let request = &EndpointRequest {
            mac: mac.map(mac_text).or_else(|| request.mac.clone()),
            ..request.clone()
        };
        let placed = placed(network, (ipv4, ipv6)).inspect_err(|_| give_back())?;
        let known = lock(&self.state).book.attached(container).map(|known| known.endpoints.clone());
        let slot = known.and_then(|known| slot(&bridge, request, &known, placed));
        let slot = slot.inspect_err(|_| give_back())?;
        let wire = || link::join(&bridge.plan, &self.route, namespace, &slot);
        let wired = self.janitor.with_room(wire).inspect_err(|_| give_back())?;
        let endpoint = Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id: random::<32>().map(|byte| format!("{byte:02x}")).concat(),
            interface: slot.interface,
            mac: mac_text(wired.mac),
            ipv4: placed.ipv4,
            gateway: bridge.gateway.and(placed.gateway),
            ipv6: placed.ipv6,
            gateway6: bridge.gateway6.and(placed.gateway6),
            aliases: request.aliases.clone(),
            gateway_priority: request.gateway_priority,
            direct: bridge.direct,
            links: request.links.clone(),
        };
        self.note(container, namespace, (endpoint, wired.link), &bridge)
    }

    /// Notes a link; one of a container that has ended meanwhile goes at once.
    pub(super) fn note(
        &self,
        container: &ContainerId,
        namespace: BorrowedFd<'_>,
        (endpoint, link): (Endpoint, String),
        bridge: &BridgeNetwork,
    ) -> Result<(), Error> {
        let mut state = lock(&self.state);
        if let Some(known) = state.book.attached.get_mut(container) {
            known.endpoints.push(endpoint);
            known.links.push(link);
            return Ok(());
        }
        drop(state);
        let source = bridge.source();
        if link.is_empty() {
            link::unplug(namespace, &endpoint.interface)?;
            source.free(&endpoint);
        } else {
            self.janitor.remove(link, move || source.free(&endpoint));
        }
        Err(Error::Conflict(format!("container {} was detached", container.short())))
    }

    /// Makes ports, routes, records and files what the endpoints of a running container say.
    pub(super) fn follow(
        &self,
        container: &ContainerId,
        namespace: BorrowedFd<'_>,
        before: &[Endpoint],
    ) -> Result<Vec<Endpoint>, Error> {
        let attached = lock(&self.state).book.attached(container)?.clone();
        route(namespace, &attached.endpoints)?;
        if attached.resolver {
            self.tell_names(container)?;
        } else if attached.endpoints.iter().any(|endpoint| endpoint.network_name != "bridge") {
            self.serve(container, namespace)?;
        }
        let attached = lock(&self.state).book.attached(container)?.clone();
        self.records.save(container, &attached)?;
        if let Some(request) = &attached.request {
            files::update(request, before, &attached.endpoints, &self.host_side())?;
        }
        let networks = lock(&self.state).bridges.clone();
        let published = published(&networks, &attached, self.relays);
        if let Some(firewall) = &self.firewall
            && target(&networks, before) != published.to
        {
            let mut firewall = lock(firewall);
            firewall.unpublish(container)?;
            firewall.publish(*container, published)?;
            drop(firewall);
            self.relay_elsewhere(container)?;
        }
        Ok(attached.endpoints)
    }

    fn running_namespace(container: &ContainerId, pid: i32) -> Result<OwnedFd, Error> {
        net::process_namespace(pid).map_err(|source| Error::Os {
            action: format!("open the network of container {}", container.short()),
            source: source.into(),
        })
    }

    /// Connects a running container to one more network.
    pub(super) fn connect_running(
        &self,
        container: &ContainerId,
        pid: i32,
        request: &EndpointRequest,
    ) -> Result<Vec<Endpoint>, Error> {
        let (network, before, _steady) = {
            let mut state = lock(&self.state);
            let network = state.book.plan_connection(container, request)?;
            let before = state.book.attached(container)?.endpoints.clone();
            let steady = self.keep(&mut state, [network.id].into_iter());
            (network, before, steady)
        };
        let namespace = Self::running_namespace(container, pid)?;
        self.join(container, namespace.as_fd(), &network, request)?;
        self.follow(container, namespace.as_fd(), &before)
            .inspect_err(|_| {
                if let Err(error) = self.leave(container, namespace.as_fd(), &network.id) {
                    let error = rorqual_core::full_message(&error);
                    tracing::warn!(error, container = container.short(), "not taken back whole");
                }
            })
            .inspect(|_| self.keep_firewall_soon())
    }

    /// Takes a running container off a network.
    pub(super) fn disconnect_running(
        &self,
        container: &ContainerId,
        pid: i32,
        network: &NetworkId,
    ) -> Result<Vec<Endpoint>, Error> {
        let _steady = {
            let mut state = lock(&self.state);
            let known = state.book.networks.iter().find(|known| known.id == *network);
            let name = known.map(|known| known.name.clone());
            let name = name.ok_or_else(|| Error::NoSuchNetwork(network.to_string()))?;
            let attached = state.book.attached(container)?;
            if !attached.endpoints.iter().any(|endpoint| endpoint.network == *network) {
                // COMPAT: dockerd's words.
                return Err(Error::Forbidden(format!(
                    "container {container} is not connected to network {name}"
                )));
            }
            self.keep(&mut state, [*network].into_iter())
        };
        let namespace = Self::running_namespace(container, pid)?;
        self.leave(container, namespace.as_fd(), network)
    }

    fn leave(
        &self,
        container: &ContainerId,
        namespace: BorrowedFd<'_>,
        network: &NetworkId,
    ) -> Result<Vec<Endpoint>, Error> {
        let (before, endpoint, link, remote, bridge) = {
            let mut state = lock(&self.state);
            let bridge = state.bridges.get(network).cloned();
            let Some(attached) = state.book.attached.get_mut(container) else {
                return Ok(Vec::new());
            };
            let before = attached.endpoints.clone();
            let at = before.iter().position(|endpoint| endpoint.network == *network);
            let Some(at) = at else { return Ok(before) };
            let endpoint = attached.endpoints.remove(at);
            let link = (at < attached.links.len()).then(|| attached.links.remove(at));
            let remote = attached.remote.remove(network);
            (before, endpoint, link, remote, bridge)
        };
        if let Some(remote) = &remote {
            self.leave_remote(Some(namespace), &endpoint, remote);
        }
        let source = bridge.map(|bridge| bridge.source());
        let interface = endpoint.interface.clone();
        let then = move || source.iter().for_each(|source| source.free(&endpoint));
        match link {
            // ORDER: gone before anybody is told so.
            Some(link) if !link.is_empty() => {
                self.janitor.remove(link, then);
                self.janitor.flush();
            }
            Some(_) if remote.is_none() => {
                link::unplug(namespace, &interface)?;
                then();
            }
            _ => then(),
        }
        self.follow(container, namespace, &before)
    }

    /// Gives back what an attachment has of addresses and links.
    pub(super) fn give_back(&self, attached: Attached) {
        self.leave_remotes(&attached);
        let bridges = lock(&self.state).bridges.clone();
        let mut links = attached.links.into_iter();
        for endpoint in attached.endpoints {
            let bridge = bridges.get(&endpoint.network);
            let source = bridge.map(|bridge| bridge.source());
            let then = move || source.iter().for_each(|source| source.free(&endpoint));
            match links.next() {
                Some(link) if !link.is_empty() => self.janitor.remove(link, then),
                // Without an end on the host, the link goes with its namespace.
                _ => then(),
            }
        }
        links.filter(|link| !link.is_empty()).for_each(|link| self.janitor.remove(link, || ()));
    }
}

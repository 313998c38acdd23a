//! Networks of plugins: a plugin makes each container's link, its addresses come from here, and what it says of routes is done.
//!
//! COMPAT: Docker's protocol for network drivers of one host. There is no cluster, so nothing is discovered.

mod call;
mod driver;
mod ipam;

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::{Arc, Mutex};

use rorqual_core::{ContainerId, NetworkId};
use rorqual_sys::net;

use super::{BridgeNetwork, Inner, lock};
use crate::book::{Attached, RemoteLink, gateway_endpoint};
use crate::bridge::BridgeOptions;
use crate::design::{EndpointOptions, INTERFACE_PREFIX};
use crate::ipam::{Pools, mac_text, parse_mac};
use crate::link::{self, LinkKind, Plan, Slot};
use crate::names::{Tag, random};
use crate::{Attach, Endpoint, EndpointRequest, Error, NetworkRecord};

pub use call::NetworkPlugins;
pub(super) use driver::Driver;
pub(super) use ipam::{Addresses, Given, Lease};

use driver::{Joined, Wanted};

/// Tells whether a driver is a plugin's.
pub(super) fn is_remote(driver: &str) -> bool {
    !matches!(
        driver,
        "" | "default" | "bridge" | "macvlan" | "ipvlan" | "host" | "null" | "overlay"
    )
}

/// Finds out whether there is such a plugin, and whether it makes networks of one host.
pub(super) fn check(options: &BridgeOptions, driver: &str) -> Result<(), Error> {
    Driver::new(options, driver)?.check()
}

/// Describes a network of a plugin, which need not be there at the moment.
pub(super) fn start_network(
    record: &NetworkRecord,
    options: &BridgeOptions,
    tag: &Tag,
) -> Result<BridgeNetwork, Error> {
    let (subnet, _) = crate::bridge::subnets(record)?;
    let plan = Plan {
        kind: LinkKind::Plugin,
        mtu: None,
        tag: tag.clone(),
        prefix: subnet.map_or(0, |subnet| subnet.prefix),
        gateway: std::net::Ipv4Addr::UNSPECIFIED,
        addresses: Arc::new(Mutex::new(Pools::of(record)?)),
    };
    let prefix = record.options.get(INTERFACE_PREFIX).filter(|prefix| !prefix.is_empty());
    Ok(BridgeNetwork {
        plan,
        policy: None,
        direct: false,
        gateway: None,
        gateway6: None,
        prefix: prefix.cloned().unwrap_or_else(|| "eth".to_owned()),
        publish_on: None,
        pool: None,
        remote: Some(Driver::new(options, &record.driver)?),
        ipam: None,
    })
}

/// Tells plugins that keep nothing themselves what they gave away; on a thread, as they may not be there yet.
pub(super) fn replay(inner: &Arc<Inner>) -> Result<(), Error> {
    let all = {
        let state = lock(&inner.state);
        let with = |record: &NetworkRecord| {
            let ipam = Arc::clone(state.bridges.get(&record.id)?.ipam.as_ref()?);
            let endpoints = state.book.endpoints(&record.id).unwrap_or_default();
            let endpoints = endpoints.into_iter().map(|(_, _, endpoint)| endpoint);
            Some((record.clone(), ipam, endpoints.collect::<Vec<_>>()))
        };
        state.book.networks.iter().filter_map(with).collect::<Vec<_>>()
    };
    if all.is_empty() {
        return Ok(());
    }
    let work = move || {
        for (record, ipam, endpoints) in all {
            ipam.replay(&record, &endpoints);
        }
    };
    let started = std::thread::Builder::new().name("net-replay".to_owned()).spawn(work);
    started.map(drop).map_err(|source| Error::Os {
        action: "start talking to address plugins".to_owned(),
        source: source.into(),
    })
}

/// Whoever handles a failure that changes nothing any more logs it.
fn told(what: &str, network: &NetworkId, result: Result<(), Error>) {
    if let Err(error) = result {
        let error = rorqual_core::full_message(&error);
        tracing::warn!(network = network.short(), error, "a network plugin did not {what}");
    }
}

impl Inner {
    /// Has a plugin make a network that is recorded already. Waits for the plugin, and holds no lock meanwhile.
    pub(super) fn make_remote(&self, record: &NetworkRecord) -> Result<(), Error> {
        let (network, _) =
            super::manage::start_network(record, &self.options, &self.tag, &mut lock(&self.route))?;
        if let Some(driver) = &network.remote {
            driver.create_network(record)?;
        }
        lock(&self.state).bridges.insert(record.id, Arc::new(network));
        Ok(())
    }

    /// Has a plugin take a network away.
    pub(super) fn unmake_remote(&self, record: &NetworkRecord) -> Result<(), Error> {
        Driver::new(&self.options, &record.driver)?.delete_network(&record.id)
    }

    /// Gives a namespace a link that a plugin makes.
    pub(super) fn join_remote(
        &self,
        container: &ContainerId,
        namespace: BorrowedFd<'_>,
        (network, request): (&NetworkRecord, &EndpointRequest),
        (bridge, driver): (&BridgeNetwork, &Driver),
    ) -> Result<(), Error> {
        let Given { ipv4, ipv6, mac } = bridge.take_addresses(network, request, &self.janitor)?;
        let placed = super::join::placed(network, (ipv4, ipv6));
        let super::join::Placed { ipv4, ipv6, .. } =
            placed.inspect_err(|_| bridge.source().give_back(ipv4, ipv6))?;
        let request = &EndpointRequest {
            mac: mac.map(mac_text).or_else(|| request.mac.clone()),
            ..request.clone()
        };
        let id = random::<32>().map(|byte| format!("{byte:02x}")).concat();
        let mut endpoint = Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id,
            interface: String::new(),
            mac: String::new(),
            ipv4,
            gateway: None,
            ipv6,
            gateway6: None,
            aliases: request.aliases.clone(),
            gateway_priority: request.gateway_priority,
            direct: false,
            links: request.links.clone(),
        };
        let place = (container, namespace);
        let wired = self.wire_remote(place, request, (bridge, driver), &mut endpoint);
        let source = wired.inspect_err(|_| bridge.source().free(&endpoint))?;
        let (network, id) = (endpoint.network, endpoint.id.clone());
        // Nothing is noted of a container that has ended meanwhile.
        self.note(container, namespace, (endpoint, String::new()), bridge)
            .inspect_err(|_| told("let a container go", &network, driver.leave(&network, &id)))?;
        if let Some(known) = lock(&self.state).book.attached.get_mut(container) {
            known.remote.insert(network, RemoteLink { source, programmed: false });
        }
        Ok(())
    }

    /// Makes the link; returns the name it had on the host.
    fn wire_remote(
        &self,
        (container, namespace): (&ContainerId, BorrowedFd<'_>),
        request: &EndpointRequest,
        (bridge, driver): (&BridgeNetwork, &Driver),
        endpoint: &mut Endpoint,
    ) -> Result<String, Error> {
        let options = EndpointOptions::read(&request.options)?;
        let mac = request.mac.as_deref().map(parse_mac).transpose()?;
        let wanted = Wanted { mac: mac.map(mac_text), options: &request.options };
        let network = endpoint.network;
        let made = driver.create_endpoint(endpoint, &wanted)?;
        let taken_back = |_: &Error| {
            told("let a container go", &network, driver.leave(&network, &endpoint.id));
        };
        // The namespace is reachable by this name as long as the call lasts.
        let place = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let joined = driver.join(endpoint, &place, &request.options).inspect_err(taken_back)?;
        let Joined { source, prefix, name, gateway, gateway6, routes } = joined;
        let known = lock(&self.state).book.attached(container).map(|one| one.endpoints.clone());
        let prefix = prefix.unwrap_or_else(|| bridge.prefix.clone());
        let interface = known.map(|known| match options.interface.clone().or(name) {
            Some(name) => name,
            None => super::join::free_interface(&prefix, &known),
        });
        let interface = interface.inspect_err(taken_back)?;
        let slot = Slot {
            settings: options.settings(&interface),
            interface,
            mac: made.map_or(mac, Some),
            ipv4: endpoint.ipv4,
            ipv6: endpoint.ipv6,
            link_local: request.link_local.clone(),
        };
        let wired = link::take_in(&self.route, namespace, (&source, &routes), &slot);
        let wired = wired.inspect_err(taken_back)?;
        endpoint.interface = slot.interface;
        endpoint.mac = mac_text(wired.mac);
        (endpoint.gateway, endpoint.gateway6) = (gateway, gateway6);
        Ok(source)
    }

    /// Tells the plugin of the container's way out which ports are asked for.
    pub(super) fn program_remote(&self, attach: &Attach) -> Result<(), Error> {
        if attach.ports.is_empty() {
            return Ok(());
        }
        let (endpoint, bridge) = {
            let state = lock(&self.state);
            let attached = state.book.attached(&attach.container)?;
            let out = gateway_endpoint(&attached.endpoints, |one| {
                one.gateway.is_some() || one.gateway6.is_some()
            });
            let bridge = out.and_then(|out| state.bridges.get(&out.network)).cloned();
            (out.cloned(), bridge)
        };
        let Some((endpoint, bridge)) = endpoint.zip(bridge) else { return Ok(()) };
        let Some(driver) = &bridge.remote else { return Ok(()) };
        driver.program(&endpoint, &attach.ports)?;
        let mut state = lock(&self.state);
        let known = state.book.attached.get_mut(&attach.container);
        if let Some(link) = known.and_then(|known| known.remote.get_mut(&endpoint.network)) {
            link.programmed = true;
        }
        Ok(())
    }

    /// Gives the plugin its link back, and lets go of the endpoint.
    pub(super) fn leave_remote(
        &self,
        namespace: Option<BorrowedFd<'_>>,
        endpoint: &Endpoint,
        link: &RemoteLink,
    ) {
        let network = &endpoint.network;
        let Some(bridge) = lock(&self.state).bridges.get(network).cloned() else { return };
        let Some(driver) = &bridge.remote else { return };
        if link.programmed {
            told("forget ports", network, driver.revoke(endpoint));
        }
        if let Some(namespace) = namespace {
            // A namespace that ends takes such links along.
            let back = net::own_namespace().map_err(|source| Error::Os {
                action: "open the host's network".to_owned(),
                source: source.into(),
            });
            let back = back.and_then(|own| {
                link::give_out(namespace, own.as_fd(), (&endpoint.interface, &link.source))
            });
            told("get its link back", network, back);
        }
        told("let a container go", network, driver.leave(network, &endpoint.id));
    }

    /// Lets go of all that plugins made for a container that has ended.
    pub(super) fn leave_remotes(&self, attached: &Attached) {
        for (network, link) in &attached.remote {
            let theirs = attached.endpoints.iter().find(|endpoint| endpoint.network == *network);
            if let Some(endpoint) = theirs {
                self.leave_remote(None, endpoint, link);
            }
        }
    }
}

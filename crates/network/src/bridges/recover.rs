//! Taking over from an earlier daemon, and clearing away what belongs to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::sync::Mutex;

use rorqual_core::{ContainerId, NetworkId};
use rorqual_sys::net::{self, Batch, Link, LinkRef, Protocol, Socket};

use super::holding;
use super::relays::Relaying;
use super::{Inner, State, join, lock};
use crate::book::{Attached, Book};
use crate::bridge::failed;
use crate::firewall::Published;
use crate::ipam::{Pools, mac_text};
use crate::link;
use crate::names::{Tag, random};
use crate::ports::Run;
use crate::{Endpoint, Error, SandboxKind};

/// LIMIT: deletions of one batch; each takes the kernel some milliseconds.
const AT_ONCE: usize = 64;

/// Deletes links that an earlier daemon prepared and gave to no container; returns the names of those that are left.
pub(super) fn delete_unclaimed(
    socket: &mut Socket,
    tag: &Tag,
    recorded: &BTreeMap<ContainerId, Attached>,
) -> Result<BTreeSet<String>, Error> {
    let ours = links(socket, tag)?;
    let claimed = recorded.values().flat_map(|attached| &attached.links).collect::<BTreeSet<_>>();
    let unclaimed = ours
        .iter()
        .filter(|link| !claimed.contains(&link.name) && tag.container_of(&link.alias).is_none());
    delete(socket, unclaimed)?;
    Ok(ours.into_iter().map(|link| link.name).collect())
}

fn links(socket: &mut Socket, tag: &Tag) -> Result<Vec<Link>, Error> {
    let mut all = net::links(socket).map_err(failed("list links"))?;
    let prefix = tag.link_prefix();
    all.retain(|link| link.kind == "veth" && link.name.starts_with(&prefix));
    Ok(all)
}

fn delete<'a>(socket: &mut Socket, links: impl Iterator<Item = &'a Link>) -> Result<(), Error> {
    let names = links.map(|link| link.name.as_str()).collect::<Vec<_>>();
    for chunk in names.chunks(AT_ONCE) {
        let mut batch = Batch::new();
        for name in chunk {
            net::delete_link(&mut batch, LinkRef::Name(name));
        }
        match socket.transact(&batch) {
            // It went by itself in between.
            Err(error) if error.is(rustix::io::Errno::NODEV) => {}
            other => other.map_err(failed("delete links"))?,
        }
    }
    Ok(())
}

/// Takes the addresses of recorded attachments to a network again.
pub(super) fn retake_addresses(book: &Book, network: &NetworkId, addresses: &Mutex<Pools>) {
    let mut addresses = lock(addresses);
    for (id, attached) in &book.attached {
        for endpoint in attached.endpoints.iter().filter(|one| one.network == *network) {
            let (ipv4, ipv6) = (endpoint.ipv4, endpoint.ipv6);
            let taken = addresses.retake(ipv4.map(|(ip, _)| ip), ipv6.map(|(ip, _)| ip));
            if let Err(error) = taken {
                tracing::warn!(container = id.short(), %error, "addresses not retaken");
            }
        }
    }
}

/// Takes the ports of recorded attachments again.
pub(super) fn retake_ports(state: &mut State, relays: Relaying) {
    for (id, attached) in &state.book.attached {
        // The firewall still leads them to the container, so they are held with or without a socket.
        let families = join::families(&state.bridges, &attached.endpoints, relays);
        let hold = |run: &Run| Ok(holding::hold_again(run, families));
        if let Err(error) = state.ports.acquire(*id, &attached.ports, hold) {
            tracing::warn!(container = id.short(), %error, "published ports not retaken");
        }
    }
}

/// Lists recorded ports with the addresses they lead to.
pub(super) fn published(state: &State, relays: Relaying) -> Vec<(ContainerId, Published)> {
    let all = state.book.attached.iter();
    let with_ports = all.filter(|(_, one)| !one.ports.is_empty() || !one.opened.is_empty());
    with_ports.map(|(id, one)| (*id, join::published(&state.bridges, one, relays))).collect()
}

impl Inner {
    /// Takes over a running container: from the record, else from what its namespace shows.
    pub(super) fn adopt(&self, container: &ContainerId, pid: i32) -> Result<Vec<Endpoint>, Error> {
        let known = lock(&self.state).book.attached.get(container).cloned();
        if let Some(attached) = known {
            if attached.resolver
                && let Err(error) = self.serve_again(container, pid)
            {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(container = container.short(), error, "no names for it");
            }
            return self.forget_unlinked(container, pid, attached);
        }
        let attached = self.examine(container, pid)?;
        if let Some(pool) = self.bridge.as_ref().and_then(|bridge| bridge.pool.as_ref()) {
            for (address, _) in attached.endpoints.iter().filter_map(|endpoint| endpoint.ipv4) {
                pool.claim(address)?;
            }
        }
        lock(&self.state).book.attached.insert(*container, attached.clone());
        self.records.save(container, &attached)?;
        Ok(attached.endpoints)
    }

    /// Forgets endpoints whose links are gone: an earlier daemon was killed while it took them back.
    fn forget_unlinked(
        &self,
        container: &ContainerId,
        pid: i32,
        attached: Attached,
    ) -> Result<Vec<Endpoint>, Error> {
        let before = attached.endpoints;
        let links = attached.links;
        // One that is adopted late has been looked after by its shim, and nothing is known of its links.
        let Some(found) = lock(&self.found_links).clone() else { return Ok(before) };
        let gone = |(place, link): (usize, &String)| {
            let is_gone = !link.is_empty() && !found.contains(link);
            is_gone.then(|| before.get(place).cloned()).flatten()
        };
        let gone = links.iter().enumerate().filter_map(gone).collect::<Vec<_>>();
        if gone.is_empty() {
            return Ok(before);
        }
        {
            let mut state = lock(&self.state);
            let bridges = state.bridges.clone();
            for endpoint in &gone {
                if let Some(bridge) = bridges.get(&endpoint.network) {
                    bridge.source().free(endpoint);
                }
            }
            if let Some(known) = state.book.attached.get_mut(container) {
                known.endpoints.retain(|endpoint| !gone.contains(endpoint));
                known.links.retain(|link| link.is_empty() || found.contains(link));
            }
        }
        let failed = |source: io::Error| Error::Os {
            action: format!("open the network of container {}", container.short()),
            source: source.into(),
        };
        let namespace = net::process_namespace(pid).map_err(failed)?;
        self.follow(container, namespace.as_fd(), &before)
    }

    fn examine(&self, container: &ContainerId, pid: i32) -> Result<Attached, Error> {
        let action = || format!("examine the network of container {}", container.short());
        let failed_io = |source: io::Error| Error::Os { action: action(), source: source.into() };
        let namespace = net::process_namespace(pid).map_err(failed_io)?;
        let seen = net::run_in_namespace(namespace.as_fd(), || {
            let mut socket = Socket::open(Protocol::Route)?;
            let inside = net::find_link(&mut socket, link::INSIDE).map_err(io::Error::other)?;
            let addresses = net::addresses(&mut socket).map_err(io::Error::other)?;
            Ok(inside.map(|inside| (inside, addresses)))
        });
        let mut found = links(&mut lock(&self.route), &self.tag)?;
        found.retain(|link| self.tag.container_of(&link.alias) == Some(*container));
        let seen = seen.map_err(failed_io)?.filter(|_| !found.is_empty());
        let endpoint = seen.and_then(|(inside, addresses)| {
            let own = addresses.iter().filter(|address| address.link == inside.index);
            let (address, prefix) = own.clone().find_map(|address| match address.address {
                IpAddr::V4(v4) => Some((v4, address.prefix)),
                IpAddr::V6(_) => None,
            })?;
            self.recognise(&inside, address, prefix)
        });
        Ok(Attached {
            name: String::new(),
            kind: SandboxKind::Own(Vec::new()),
            endpoints: endpoint.into_iter().collect(),
            ports: Vec::new(),
            opened: Vec::new(),
            directory: std::path::PathBuf::new(),
            links: found.into_iter().map(|link| link.name).collect(),
            request: None,
            resolver: false,
            remote: BTreeMap::new(),
        })
    }

    fn recognise(&self, inside: &Link, address: Ipv4Addr, prefix: u8) -> Option<Endpoint> {
        let of_default = |bridge: &&std::sync::Arc<super::BridgeNetwork>| {
            let subnet = bridge.policy.as_ref().and_then(|policy| policy.subnet);
            subnet.is_some_and(|subnet| subnet.contains(address))
        };
        let bridge = self.bridge.as_ref().filter(of_default)?;
        let network = lock(&self.state).book.find("bridge").ok()?.clone();
        Some(Endpoint {
            network: network.id,
            network_name: network.name,
            id: random::<32>().map(|byte| format!("{byte:02x}")).concat(),
            interface: link::INSIDE.to_owned(),
            mac: mac_text(inside.mac.as_slice().try_into().unwrap_or_default()),
            ipv4: Some((address, prefix)),
            gateway: bridge.gateway,
            ipv6: None,
            gateway6: None,
            aliases: Vec::new(),
            gateway_priority: 0,
            direct: false,
            links: Vec::new(),
        })
    }

    /// Removes what belongs to containers that nobody knows.
    pub(super) fn sweep(&self, known: &BTreeSet<ContainerId>) -> Result<(), Error> {
        let unknown = |id: &ContainerId| !known.contains(id);
        if let Some(pool) = self.bridge.as_ref().and_then(|bridge| bridge.pool.as_ref()) {
            // ORDER: only now, since all running containers have been adopted, with their addresses.
            pool.open();
        }
        let recorded = lock(&self.state).book.attached.keys().copied().collect::<Vec<_>>();
        recorded.iter().filter(|id| unknown(id)).try_for_each(|id| self.detach(id))?;
        self.keep_served()?;
        self.keep_relayed()?;
        // ORDER: all containers that can be adopted at once have been.
        *lock(&self.found_links) = None;
        let mut route = lock(&self.route);
        let all = links(&mut route, &self.tag)?;
        let theirs = all.iter().filter(|link| {
            let owner = self.tag.container_of(&link.alias);
            owner.is_some_and(|id| unknown(&id) && !recorded.contains(&id))
        });
        delete(&mut route, theirs)
    }
}

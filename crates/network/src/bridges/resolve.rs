//! What the resolver is told of containers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rorqual_core::ContainerId;
use rorqual_sys::net;

use super::{Inner, State, lock};
use crate::book::Attached;
use crate::dns::{self, Client, Guest, Place};
use crate::files;
use crate::relay::Relayed;
use crate::{Endpoint, Error};

/// The resolver as the daemon sees it.
#[derive(Debug)]
pub(super) struct Resolver {
    client: Client,
    /// Namespaces of those it serves, so that another one can take its place if it dies.
    served: BTreeMap<ContainerId, OwnedFd>,
    /// The one that keeps the firewall's socket.
    holder: Option<u64>,
}

impl Resolver {
    pub(super) fn new(run_dir: &Path, bell: Arc<OwnedFd>) -> Self {
        Self {
            client: Client::new(run_dir.to_owned(), bell),
            served: BTreeMap::new(),
            holder: None,
        }
    }

    /// Returns the connection to the resolver.
    pub(super) fn connection(&self) -> Option<OwnedFd> {
        self.client.connection()
    }

    /// Has the firewall's socket kept by the resolver that is there.
    pub(super) fn hold_firewall(&mut self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.holder = Some(self.client.hold_firewall(socket)?);
        Ok(())
    }

    /// Has it let go of the firewall's socket.
    pub(super) fn let_go_firewall(&mut self) -> Result<(), Error> {
        self.holder = None;
        self.client.let_go_firewall()
    }

    /// Tells whether the firewall's socket is kept.
    pub(super) fn holds_firewall(&self) -> bool {
        self.holder.is_some_and(|holder| self.client.is(holder))
    }

    /// Has ports relayed, or tells where they lead.
    pub(super) fn relay(
        &mut self,
        relayed: Relayed,
        sockets: &[BorrowedFd<'_>],
    ) -> Result<bool, Error> {
        self.client.relay(relayed, sockets)
    }

    /// Has nothing relayed to a container any more.
    pub(super) fn end_relay(&mut self, container: &ContainerId) -> Result<(), Error> {
        self.client.end_relay(container.to_string())
    }

    /// Has ports relayed to these containers only.
    pub(super) fn keep_relays(&mut self, containers: Vec<String>) -> Result<(), Error> {
        self.client.keep_relays(containers)
    }

    /// Has a container served with new sockets.
    fn serve(&mut self, guest: Guest, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        let [udp, tcp] = dns::open_sockets(namespace)?;
        self.client.put(guest, &[namespace, udp.as_fd(), tcp.as_fd()]).map(drop)
    }
}

/// What a container is called in a network: its name first, and every name once.
fn names(container: &ContainerId, attached: &Attached, endpoint: &Endpoint) -> Vec<String> {
    let hostname = attached.request.as_ref().map(|request| request.hostname.clone());
    let name = [attached.name.clone()].into_iter();
    let others = endpoint.aliases.iter().cloned().chain([container.short()]).chain(hostname);
    let mut seen = std::collections::BTreeSet::new();
    name.chain(others).filter(|name| !name.is_empty() && seen.insert(name.clone())).collect()
}

impl Inner {
    fn guest(&self, state: &State, container: &ContainerId, attached: &Attached) -> Guest {
        let users = attached.endpoints.iter().filter(|one| one.network_name != "bridge");
        let place = |endpoint: &Endpoint| {
            let record = state.book.networks.iter().find(|record| record.id == endpoint.network);
            let subnets = record.iter().flat_map(|record| &record.subnets);
            let v4 = endpoint.ipv4.map(|(address, _)| IpAddr::V4(address));
            let v6 = endpoint.ipv6.map(|(address, _)| IpAddr::V6(address));
            Place {
                network: endpoint.network.to_string(),
                network_name: endpoint.network_name.clone(),
                names: names(container, attached, endpoint),
                addresses: v4.into_iter().chain(v6).collect(),
                links: endpoint
                    .links
                    .iter()
                    .map(|(of, alias)| (alias.clone(), of.clone()))
                    .collect(),
                subnets: subnets.map(|subnet| subnet.subnet.clone()).collect(),
            }
        };
        let way_out = attached
            .endpoints
            .iter()
            .any(|endpoint| endpoint.gateway.is_some() || endpoint.gateway6.is_some());
        let request = attached.request.as_ref();
        let upstream = request.map(|request| files::upstream(request, &self.host_side(), way_out));
        Guest {
            container: container.to_string(),
            places: users.map(place).collect(),
            upstream: upstream.unwrap_or_default(),
        }
    }

    fn guest_of(&self, container: &ContainerId) -> Result<Guest, Error> {
        let state = lock(&self.state);
        let attached = state.book.attached(container)?;
        Ok(self.guest(&state, container, attached))
    }

    /// Has the resolver serve a container.
    pub(super) fn serve(
        &self,
        container: &ContainerId,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        // ORDER: noted first, so that `detach` takes it back whatever fails.
        if let Some(attached) = lock(&self.state).book.attached.get_mut(container) {
            attached.resolver = true;
        }
        let guest = self.guest_of(container)?;
        let kept = namespace.try_clone_to_owned().map_err(|source| Error::Os {
            action: "keep a container's network for the resolver".to_owned(),
            source: source.into(),
        })?;
        let mut resolver = lock(&self.resolver);
        self.replace_lost(&mut resolver);
        resolver.serve(guest, namespace)?;
        resolver.served.insert(*container, kept);
        Ok(())
    }

    /// Serves everybody anew when the resolver has died.
    pub(super) fn replace_lost(&self, resolver: &mut Resolver) {
        if !resolver.client.is_lost() {
            return;
        }
        resolver.client.let_go();
        let relayed = self.relayed_ports();
        if resolver.served.is_empty() && relayed.is_empty() {
            return;
        }
        tracing::warn!("the resolver has ended; another one takes its place");
        for (ports, sockets) in relayed {
            let container = ports.container.clone();
            let sockets = sockets.iter().map(OwnedFd::as_fd).collect::<Vec<_>>();
            if let Err(error) = resolver.relay(ports, &sockets) {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(container, error, "its ports are not relayed");
            }
        }
        for (container, namespace) in std::mem::take(&mut resolver.served) {
            let served = self
                .guest_of(&container)
                .and_then(|guest| resolver.serve(guest, namespace.as_fd()));
            match served {
                Ok(()) => drop(resolver.served.insert(container, namespace)),
                Err(error) => {
                    let error = rorqual_core::full_message(&error);
                    tracing::warn!(container = container.short(), error, "no names for it");
                }
            }
        }
    }

    /// Tells the resolver what has changed about a container that it serves.
    pub(super) fn tell_names(&self, container: &ContainerId) -> Result<(), Error> {
        let guest = self.guest_of(container)?;
        let mut resolver = lock(&self.resolver);
        self.replace_lost(&mut resolver);
        resolver.client.put(guest, &[]).map(drop)
    }

    /// Calls a container by another name.
    pub(super) fn rename(&self, container: &ContainerId, name: String) -> Result<(), Error> {
        let renamed = {
            let mut state = lock(&self.state);
            let Some(attached) = state.book.attached.get_mut(container) else { return Ok(()) };
            attached.name = name;
            attached.clone()
        };
        self.records.save(container, &renamed)?;
        if renamed.resolver { self.tell_names(container) } else { Ok(()) }
    }

    /// Finds the resolver of an earlier daemon, or serves a running container anew.
    pub(super) fn serve_again(&self, container: &ContainerId, pid: i32) -> Result<(), Error> {
        let namespace = net::process_namespace(pid).map_err(|source| Error::Os {
            action: format!("open the network of container {}", container.short()),
            source: source.into(),
        })?;
        let guest = self.guest_of(container)?;
        let mut resolver = lock(&self.resolver);
        if !resolver.client.put(guest.clone(), &[])? {
            resolver.serve(guest, namespace.as_fd())?;
        }
        resolver.served.insert(*container, namespace);
        Ok(())
    }

    /// Has the resolver forget a container.
    pub(super) fn serve_no_more(&self, container: &ContainerId) {
        let mut resolver = lock(&self.resolver);
        resolver.served.remove(container);
        if let Err(error) = resolver.client.remove(container.to_string()) {
            let error = rorqual_core::full_message(&error);
            tracing::warn!(container = container.short(), error, "the resolver may still serve it");
        }
    }

    /// Has the resolver forget all that no record owns.
    pub(super) fn keep_served(&self) -> Result<(), Error> {
        let served = lock(&self.state);
        let with = served.book.attached.iter().filter(|(_, attached)| attached.resolver);
        let known = with.map(|(id, _)| id.to_string()).collect();
        drop(served);
        lock(&self.resolver).client.keep(known)
    }
}

//! Attaching and detaching.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rorqual_core::ContainerId;
use rorqual_sys::net::{self, Address, Batch, Change, LinkRef, Route, Transport};

use super::{BridgeNetwork, Inner, State, lock};
use crate::book::Attached;
use crate::bridge::failed;
use crate::files;
use crate::ipam::{mac_of, mac_text, parse_mac};
use crate::names::random;
use crate::ports::Refusal;
use crate::warm::{self, Prepared};
use crate::{
    Attach, Endpoint, EndpointRequest, Error, HostFiles, NetworkRecord, PortProtocol,
    PublishedPort, Sandbox, SandboxKind,
};

impl Inner {
    /// Attaches a container, or leaves everything as it was.
    pub(super) fn attach(&self, attach: &Attach) -> Result<Sandbox, Error> {
        let reserved = match self.reserve(attach) {
            // The last addresses may only wait for the links of ended containers to go.
            Err(Error::Conflict(_)) if self.janitor.flush() => self.reserve(attach)?,
            other => other?,
        };
        self.realise(attach, reserved).inspect_err(|_| {
            if let Err(error) = self.detach(&attach.container) {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(error, container = attach.container.short(), "not taken back whole");
            }
        })
    }

    /// Decides on addresses and ports and takes them, all or none.
    fn reserve(&self, attach: &Attach) -> Result<Attached, Error> {
        let mut state = lock(&self.state);
        let plan = state.book.plan(attach)?;
        let endpoint = match (&self.bridge, plan) {
            (Some(bridge), Some((network, request))) => {
                Some(state.endpoint(bridge, &network, request)?)
            }
            _ => None,
        };
        let endpoints = endpoint.into_iter().collect::<Vec<_>>();
        let wanted = if endpoints.is_empty() { &[][..] } else { &attach.ports };
        let ports =
            self.reserve_ports(&mut state, wanted).inspect_err(|_| state.free(&endpoints))?;
        let attached = Attached {
            name: attach.name.clone(),
            kind: attach.kind.clone(),
            endpoints,
            ports,
            directory: attach.directory.clone(),
            links: Vec::new(),
        };
        state.book.attached.insert(attach.container, attached.clone());
        Ok(attached)
    }

    fn reserve_ports(
        &self,
        state: &mut State,
        wanted: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>, Error> {
        if !wanted.is_empty() && self.firewall.is_none() {
            return Err(Error::Unsupported(
                "ports cannot be published while the firewall is switched off".to_owned(),
            ));
        }
        let mut ports = Vec::new();
        for port in wanted {
            let host_ip = port.host_ip.or(self.options.publish_on);
            let port = PublishedPort { host_ip, ..port.clone() };
            match check_port(&port).and_then(|()| state.ports.acquire(&port, hold)) {
                Ok(port) => ports.push(port),
                Err(error) => {
                    state.ports.release(&ports);
                    return Err(error);
                }
            }
        }
        Ok(ports)
    }

    /// Tells disk and kernel what was decided.
    fn realise(&self, attach: &Attach, mut attached: Attached) -> Result<Sandbox, Error> {
        let files = self.write_files(attach, &attached.endpoints)?;
        let namespace = match (&attach.kind, &self.bridge, attached.endpoints.first()) {
            (SandboxKind::Host, ..) => None,
            (SandboxKind::Container(owner, pid), ..) => self.namespace_of(owner, *pid)?,
            (SandboxKind::Own(_), Some(bridge), Some(endpoint)) => {
                let prepared = bridge.pool.take()?;
                attached.links.push(prepared.link.clone());
                self.note(&attach.container, &attached)?;
                Some(self.connect(&attach.container, prepared, endpoint)?)
            }
            (SandboxKind::Own(_), ..) => Some(warm::lonely()?),
        };
        if attached.links.is_empty() {
            self.note(&attach.container, &attached)?;
        }
        let address = attached.endpoints.first().and_then(|endpoint| endpoint.ipv4);
        if let (Some(firewall), Some((address, _))) = (&self.firewall, address) {
            // ORDER: last, so that nobody from outside meets a half-made container.
            lock(firewall).publish(&attached.ports, address)?;
        }
        let (endpoints, ports) = (attached.endpoints, attached.ports);
        Ok(Sandbox { namespace, endpoints, ports, files, warnings: Vec::new() })
    }

    /// ORDER: the link's name is on disk before the link belongs to the container.
    fn note(&self, container: &ContainerId, attached: &Attached) -> Result<(), Error> {
        if let Some(known) = lock(&self.state).book.attached.get_mut(container) {
            known.links.clone_from(&attached.links);
        }
        self.records.save(container, attached)
    }

    fn write_files(&self, attach: &Attach, endpoints: &[Endpoint]) -> Result<HostFiles, Error> {
        if let SandboxKind::Container(owner, _) = &attach.kind
            && let Some(owner) = lock(&self.state).book.attached.get(owner)
        {
            return Ok(files::paths(&owner.directory));
        }
        let mut host = self.options.host.clone();
        let gateway = self.bridge.as_ref().map(|bridge| IpAddr::V4(bridge.gateway));
        host.gateway = host.gateway.or(gateway);
        files::write(attach, endpoints, &host)
    }

    fn namespace_of(&self, owner: &ContainerId, pid: i32) -> Result<Option<OwnedFd>, Error> {
        let on_host = lock(&self.state)
            .book
            .attached
            .get(owner)
            .is_some_and(|attached| attached.kind == SandboxKind::Host);
        if on_host {
            return Ok(None);
        }
        net::process_namespace(pid).map(Some).map_err(|source| Error::Os {
            action: format!("join the network of container {}", owner.short()),
            source: source.into(),
        })
    }

    /// Gives a prepared namespace its address and its owner.
    fn connect(
        &self,
        container: &ContainerId,
        mut prepared: Prepared,
        endpoint: &Endpoint,
    ) -> Result<OwnedFd, Error> {
        let mut batch = Batch::new();
        let alias = self.tag.alias(container);
        let change = Change { alias: Some(&alias), ..Change::default() };
        net::change_link(&mut batch, LinkRef::Name(&prepared.link), &change);
        let action = || format!("connect container {}", container.short());
        lock(&self.route).transact(&batch).map_err(failed(action()))?;

        let mut batch = Batch::new();
        let mac = Some(parse_mac(&endpoint.mac)?);
        net::change_link(
            &mut batch,
            LinkRef::Index(prepared.inner),
            &Change { mac, ..Change::default() },
        );
        if let Some((address, prefix)) = endpoint.ipv4 {
            let address = IpAddr::V4(address);
            net::add_address(&mut batch, &Address { link: prepared.inner, address, prefix });
        }
        if let Some(gateway) = endpoint.gateway {
            let gateway = Some(IpAddr::V4(gateway));
            net::add_route(&mut batch, &Route { destination: None, gateway, link: prepared.inner });
        }
        prepared.socket.transact(&batch).map_err(failed(action()))?;
        Ok(prepared.namespace)
    }

    /// Takes back what a container has of the networks.
    pub(super) fn detach(&self, container: &ContainerId) -> Result<(), Error> {
        let Some(attached) = lock(&self.state).book.attached.remove(container) else {
            return self.records.remove(container);
        };
        // ORDER: traffic stops before the ports are free for others, and the record goes last: until then, the next daemon
        // would sweep what is left.
        let unpublished = match &self.firewall {
            Some(firewall) => lock(firewall).unpublish(&attached.ports),
            None => Ok(()),
        };
        lock(&self.state).ports.release(&attached.ports);
        let state = Arc::clone(&self.state);
        let endpoints = attached.endpoints;
        let free = move || lock(&state).free(&endpoints);
        match attached.links.into_iter().next() {
            Some(link) => self.janitor.remove(link, free),
            None => free(),
        }
        self.records.remove(container).and(unpublished)
    }
}

impl State {
    fn endpoint(
        &mut self,
        bridge: &BridgeNetwork,
        network: &NetworkRecord,
        request: &EndpointRequest,
    ) -> Result<Endpoint, Error> {
        let wanted = request.mac.as_deref().map(parse_mac).transpose()?;
        let addresses =
            self.addresses.as_mut().ok_or_else(|| Error::NoSuchNetwork(network.name.clone()))?;
        let address = match request.ipv4 {
            Some(address) => addresses.claim(address).map(|()| address)?,
            None => addresses.allocate()?,
        };
        Ok(Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id: random::<32>().map(|byte| format!("{byte:02x}")).concat(),
            interface: warm::INSIDE.to_owned(),
            mac: mac_text(wanted.unwrap_or_else(|| mac_of(address))),
            ipv4: Some((address, bridge.subnet.prefix)),
            gateway: Some(bridge.gateway),
            ipv6: None,
            gateway6: None,
        })
    }

    /// Gives addresses back.
    pub(super) fn free(&mut self, endpoints: &[Endpoint]) {
        if let Some(addresses) = &mut self.addresses {
            let all = endpoints.iter().filter_map(|endpoint| endpoint.ipv4);
            all.for_each(|(address, _)| addresses.release(address));
        }
    }
}

fn check_port(port: &PublishedPort) -> Result<(), Error> {
    if matches!(port.host_ip, Some(IpAddr::V6(address)) if !address.is_unspecified()) {
        return Err(Error::Unsupported(
            "publishing a port on an IPv6 address is not supported yet".to_owned(),
        ));
    }
    Ok(())
}

/// Keeps other programs of the host away from a port.
pub(super) fn hold(port: &PublishedPort) -> Result<Option<OwnedFd>, Refusal> {
    let transport = match port.protocol {
        PortProtocol::Tcp => Transport::Tcp,
        PortProtocol::Udp => Transport::Udp,
        PortProtocol::Sctp => Transport::Sctp,
    };
    let address = match port.host_ip {
        Some(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    let address = SocketAddr::from((address, port.host.0));
    match net::reserve_port(transport, address) {
        Ok(socket) => Ok(Some(socket)),
        // Where the kernel has no such sockets, nobody else can have the port either.
        Err(error)
            if transport == Transport::Sctp
                && error.raw_os_error()
                    == Some(rustix::io::Errno::PROTONOSUPPORT.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(Refusal::Busy(error)),
    }
}

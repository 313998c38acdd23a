//! Attaching and detaching.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rorqual_core::ContainerId;
use rorqual_sys::net::{self, Transport};

use super::{BridgeNetwork, Inner, State, lock};
use crate::book::Attached;
use crate::files;
use crate::ipam::{AddressPool, mac_of, mac_text, parse_mac};
use crate::names::random;
use crate::ports::Refusal;
use crate::warm;
use crate::{
    Attach, Endpoint, EndpointRequest, Error, HostFiles, NetworkRecord, PortProtocol,
    PublishedPort, Sandbox, SandboxKind,
};

impl Inner {
    /// Attaches a container, or leaves everything as it was.
    pub(super) fn attach(&self, attach: &Attach) -> Result<Sandbox, Error> {
        let plan = self.reserve(attach)?;
        self.realise(attach, plan).inspect_err(|_| {
            if let Err(error) = self.detach(&attach.container) {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(error, container = attach.container.short(), "not taken back whole");
            }
        })
    }

    /// Checks the request and takes its ports, all or none.
    fn reserve<'a>(
        &self,
        attach: &'a Attach,
    ) -> Result<Option<(NetworkRecord, &'a EndpointRequest)>, Error> {
        let mut state = lock(&self.state);
        let plan = state.book.plan(attach)?;
        let wanted = if plan.is_some() { &attach.ports } else { &[][..] };
        let ports = self.reserve_ports(&mut state, wanted)?;
        let attached = Attached {
            name: attach.name.clone(),
            kind: attach.kind.clone(),
            endpoints: Vec::new(),
            ports,
            directory: attach.directory.clone(),
            links: Vec::new(),
        };
        state.book.attached.insert(attach.container, attached);
        Ok(plan)
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

    /// Makes what was decided real.
    fn realise(
        &self,
        attach: &Attach,
        plan: Option<(NetworkRecord, &EndpointRequest)>,
    ) -> Result<Sandbox, Error> {
        let namespace = match (&attach.kind, &self.bridge, plan) {
            (SandboxKind::Host, ..) => None,
            (SandboxKind::Container(owner, pid), ..) => self.namespace_of(owner, *pid)?,
            (SandboxKind::Own(_), Some(bridge), Some((network, request))) => {
                Some(self.connect(&attach.container, bridge, &network, request)?)
            }
            (SandboxKind::Own(_), ..) => Some(warm::lonely()?),
        };
        let attached = lock(&self.state).book.attached.get(&attach.container).cloned();
        let attached = attached.ok_or_else(|| {
            Error::Conflict(format!("container {} was detached", attach.container.short()))
        })?;
        let files = self.write_files(attach, &attached.endpoints)?;
        // ORDER: on disk before the container can run, so that a new daemon knows whose link this is.
        self.records.save(&attach.container, &attached)?;
        if let Some(link) = attached.links.first() {
            self.janitor.label(link.clone(), self.tag.alias(&attach.container));
        }
        let address = attached.endpoints.first().and_then(|endpoint| endpoint.ipv4);
        if let (Some(firewall), Some((address, _))) = (&self.firewall, address) {
            // ORDER: last, so that nobody from outside meets a half-made container.
            lock(firewall).publish(&attached.ports, address)?;
        }
        let (endpoints, ports) = (attached.endpoints, attached.ports);
        Ok(Sandbox { namespace, endpoints, ports, files, warnings: Vec::new() })
    }

    /// Takes a connected namespace for a container and notes whose it is.
    fn connect(
        &self,
        container: &ContainerId,
        bridge: &BridgeNetwork,
        network: &NetworkRecord,
        request: &EndpointRequest,
    ) -> Result<OwnedFd, Error> {
        let mac = request.mac.as_deref().map(parse_mac).transpose()?;
        let mut prepared = match bridge.pool.take(request.ipv4) {
            // The last addresses may only wait for the links of ended containers to go.
            Err(Error::Conflict(_)) if self.janitor.flush() => bridge.pool.take(request.ipv4)?,
            other => other?,
        };
        let endpoint = Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id: random::<32>().map(|byte| format!("{byte:02x}")).concat(),
            interface: warm::INSIDE.to_owned(),
            mac: mac_text(mac.unwrap_or_else(|| mac_of(prepared.address))),
            ipv4: Some((prepared.address, bridge.subnet.prefix)),
            gateway: Some(bridge.gateway),
            ipv6: None,
            gateway6: None,
        };
        // ORDER: noted before anything can fail, so that `detach` takes it back.
        if let Some(known) = lock(&self.state).book.attached.get_mut(container) {
            known.endpoints.push(endpoint);
            known.links.push(prepared.link.clone());
        }
        if let Some(mac) = mac {
            prepared.set_mac(mac)?;
        }
        Ok(prepared.namespace)
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
        let endpoints = attached.endpoints;
        let addresses = self.bridge.as_ref().map(|bridge| Arc::clone(&bridge.addresses));
        let then = move || addresses.iter().for_each(|addresses| free(addresses, &endpoints));
        match attached.links.into_iter().next() {
            Some(link) => self.janitor.remove(link, then),
            None => then(),
        }
        self.records.remove(container).and(unpublished)
    }
}

/// Gives addresses back.
fn free(addresses: &Mutex<AddressPool>, endpoints: &[Endpoint]) {
    let mut addresses = lock(addresses);
    let all = endpoints.iter().filter_map(|endpoint| endpoint.ipv4);
    all.for_each(|(address, _)| addresses.release(address));
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

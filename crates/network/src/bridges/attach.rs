//! Attaching and detaching.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::PoisonError;

use rorqual_core::ContainerId;
use rorqual_sys::net;

use super::{BridgeNetwork, Inner, State, holding, join, lock};
use crate::book::Attached;
use crate::files::{self, HostSide};
use crate::ipam::{mac_of, mac_text, parse_mac};
use crate::names::random;
use crate::warm::{self, WarmPool};
use crate::{
    Attach, Endpoint, EndpointRequest, Error, HostFiles, NetworkRecord, PublishedPort, Sandbox,
    SandboxKind,
};

impl Inner {
    /// Attaches a container, or leaves everything as it was.
    pub(super) fn attach(&self, attach: &Attach) -> Result<Sandbox, Error> {
        let _steady = self.shape.read().unwrap_or_else(PoisonError::into_inner);
        let plan = self.reserve(attach)?;
        self.realise(attach, &plan).inspect_err(|_| {
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
    ) -> Result<Vec<(NetworkRecord, &'a EndpointRequest)>, Error> {
        let mut state = lock(&self.state);
        let plan = state.book.plan(attach)?;
        // COMPAT: nothing is published without a way out.
        let way_out = way_out(&plan);
        let wanted = if way_out.is_some() { &attach.ports } else { &[][..] };
        let bridge = way_out.and_then(|network| state.bridges.get(&network.id));
        let publish_on = bridge.and_then(|bridge| bridge.publish_on);
        let ipv6 = plan.iter().any(|(network, _)| network.ipv6 && !network.internal);
        let owner = attach.container;
        let ports = self.reserve_ports(&mut state, (owner, wanted), publish_on, ipv6)?;
        let attached = Attached {
            name: attach.name.clone(),
            kind: attach.kind.clone(),
            endpoints: Vec::new(),
            ports,
            directory: attach.directory.clone(),
            links: Vec::new(),
            // The ports are kept as they were published, and once.
            request: Some(Attach { ports: Vec::new(), ..attach.clone() }),
            resolver: false,
        };
        state.book.attached.insert(attach.container, attached);
        Ok(plan)
    }

    fn reserve_ports(
        &self,
        state: &mut State,
        (owner, wanted): (ContainerId, &[PublishedPort]),
        publish_on: Option<IpAddr>,
        ipv6: bool,
    ) -> Result<Vec<PublishedPort>, Error> {
        if !wanted.is_empty() && self.firewall.is_none() {
            return Err(Error::Unsupported(
                "ports cannot be published while the firewall is switched off".to_owned(),
            ));
        }
        let placed = wanted.iter().map(|port| {
            let host_ip = port.host_ip.or(publish_on);
            PublishedPort { host_ip, ..port.clone() }
        });
        let placed = placed.collect::<Vec<_>>();
        placed.iter().try_for_each(|port| check_port(port, ipv6))?;
        state.ports.acquire(owner, &placed, |run| holding::hold(run, ipv6))
    }

    /// Makes what was decided real.
    fn realise(
        &self,
        attach: &Attach,
        plan: &[(NetworkRecord, &EndpointRequest)],
    ) -> Result<Sandbox, Error> {
        let namespace = match &attach.kind {
            SandboxKind::Host => None,
            SandboxKind::Container(owner, pid) => self.namespace_of(owner, *pid)?,
            SandboxKind::Own(_) => Some(self.build(&attach.container, plan)?),
        };
        if let Some(namespace) = &namespace
            && plan.iter().any(|(network, _)| !network.is_predefined())
        {
            // ORDER: served before the container can ask.
            self.serve(&attach.container, namespace.as_fd())?;
        }
        let attached = lock(&self.state).book.attached.get(&attach.container).cloned();
        let attached = attached.ok_or_else(|| {
            Error::Conflict(format!("container {} was detached", attach.container.short()))
        })?;
        let files = self.write_files(attach, &attached.endpoints)?;
        // ORDER: on disk before the container can run, so that a new daemon knows whose link this is.
        self.records.save(&attach.container, &attached)?;
        for link in &attached.links {
            self.janitor.label(link.clone(), self.tag.alias(&attach.container));
        }
        if let Some(firewall) = &self.firewall {
            // ORDER: last, so that nobody from outside meets a half-made container.
            let target = join::target(&attached.endpoints);
            lock(firewall).publish(attach.container, &attached.ports, target)?;
        }
        let (endpoints, ports) = (attached.endpoints, attached.ports);
        Ok(Sandbox { namespace, endpoints, ports, files, warnings: Vec::new() })
    }

    /// Makes a namespace with all its links and routes.
    fn build(
        &self,
        container: &ContainerId,
        plan: &[(NetworkRecord, &EndpointRequest)],
    ) -> Result<OwnedFd, Error> {
        let [first, others @ ..] = plan else { return warm::lonely() };
        let bridge = self.bridge_of(&first.0)?;
        let (namespace, others) = match &bridge.pool {
            Some(pool) => {
                let namespace = self.take_warm(container, &bridge, pool, first)?;
                if others.is_empty() {
                    return Ok(namespace);
                }
                (namespace, others)
            }
            None => (warm::lonely()?, plan),
        };
        for (network, request) in others {
            self.join(container, namespace.as_fd(), network, request)?;
        }
        let endpoints = lock(&self.state).book.attached(container)?.endpoints.clone();
        join::route(namespace.as_fd(), &endpoints)?;
        Ok(namespace)
    }

    /// Takes a connected namespace for a container and notes whose it is.
    fn take_warm(
        &self,
        container: &ContainerId,
        bridge: &BridgeNetwork,
        pool: &WarmPool,
        (network, request): &(NetworkRecord, &EndpointRequest),
    ) -> Result<OwnedFd, Error> {
        let mac = request.mac.as_deref().map(parse_mac).transpose()?;
        let mut prepared = match pool.take() {
            // The last addresses may only wait for the links of ended containers to go.
            Err(Error::Conflict(_)) if self.janitor.flush() => pool.take()?,
            other => other?,
        };
        let endpoint = Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id: random::<32>().map(|byte| format!("{byte:02x}")).concat(),
            interface: warm::INSIDE.to_owned(),
            mac: mac_text(mac.unwrap_or_else(|| mac_of(prepared.address))),
            ipv4: Some((prepared.address, bridge.plan.prefix)),
            gateway: bridge.gateway,
            ipv6: None,
            gateway6: None,
            aliases: Vec::new(),
            gateway_priority: request.gateway_priority,
        };
        // ORDER: noted before anything can fail, so that `detach` takes it back.
        self.note(container, endpoint, prepared.link.clone(), bridge)?;
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
        files::write(attach, endpoints, &self.host_side())
    }

    /// Returns what of the host goes into containers' files.
    pub(super) fn host_side(&self) -> HostSide {
        let mut host = self.options.host.clone();
        let gateway = self.bridge.as_ref().and_then(|bridge| bridge.gateway).map(IpAddr::V4);
        host.gateway = host.gateway.or(gateway);
        host
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
            Some(firewall) => lock(firewall).unpublish(container),
            None => Ok(()),
        };
        lock(&self.state).ports.release(container);
        if attached.resolver {
            self.serve_no_more(container);
        }
        self.give_back(attached);
        self.records.remove(container).and(unpublished)
    }
}

/// Finds the network that a container of this plan reaches others by.
fn way_out<'a>(plan: &'a [(NetworkRecord, &EndpointRequest)]) -> Option<&'a NetworkRecord> {
    let outward = plan.iter().filter(|(network, _)| !network.internal);
    let best = outward.min_by(|(a, of_a), (b, of_b)| {
        of_b.gateway_priority.cmp(&of_a.gateway_priority).then_with(|| a.name.cmp(&b.name))
    });
    best.map(|(network, _)| network)
}

fn check_port(port: &PublishedPort, ipv6: bool) -> Result<(), Error> {
    if matches!(port.host_ip, Some(IpAddr::V6(_))) && !ipv6 {
        return Err(Error::Unsupported(
            "a port is published on an IPv6 address only for containers with one: use a network with --ipv6"
                .to_owned(),
        ));
    }
    Ok(())
}

//! Attaching and detaching.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use rorqual_core::ContainerId;
use rorqual_sys::net;

use super::holding::{self, Families};
use super::steady::Steady;
use super::{BridgeNetwork, Inner, State, join, lock};
use crate::book::Attached;
use crate::design::EndpointOptions;
use crate::files::{self, HostSide};
use crate::firewall::{BridgePolicy, Opened};
use crate::ipam::{mac_of, mac_text, parse_mac};
use crate::link;
use crate::names::random;
use crate::owned::Owned;
use crate::ports::{HELD_BY_SOCKETS, Run, runs};
use crate::warm::{self, WarmPool};
use crate::{
    Attach, Endpoint, EndpointRequest, Error, HostFiles, NetworkRecord, PublishedPort, Sandbox,
    SandboxKind,
};

/// The networks that a container joins, with what is asked of each.
type Planned<'a> = Vec<(NetworkRecord, &'a EndpointRequest)>;

impl Inner {
    /// Attaches a container, or leaves everything as it was.
    pub(super) fn attach(&self, attach: &Attach) -> Result<Sandbox, Error> {
        let (plan, _steady) = self.reserve(attach)?;
        self.realise(attach, &plan).inspect_err(|_| {
            if let Err(error) = self.detach(&attach.container) {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(error, container = attach.container.short(), "not taken back whole");
            }
        })
    }

    /// Checks the request and takes its ports, all or none.
    fn reserve<'a>(&self, attach: &'a Attach) -> Result<(Planned<'a>, Steady<'_>), Error> {
        let mut state = lock(&self.state);
        let plan = state.book.plan(attach)?;
        // COMPAT: nothing is published without a way out, nor without a bridge.
        let way_out = way_out(&plan);
        let network = way_out.and_then(|network| state.bridges.get(&network.id)).cloned();
        let bridge = network.as_ref().and_then(|network| Some((network.policy.as_ref()?, network)));
        let mut taken = Taken::default();
        if let Some(((policy, network), record)) = bridge.zip(way_out) {
            let families = (record.ipv4, record.ipv6);
            taken = self.reserve_ports(&mut state, attach, (policy, network), families)?;
        }
        let Taken { ports, opened } = taken;
        let attached = Attached {
            name: attach.name.clone(),
            kind: attach.kind.clone(),
            endpoints: Vec::new(),
            ports,
            opened,
            directory: attach.directory.clone(),
            links: Vec::new(),
            // The ports are kept as they were published, and once.
            request: Some(Attach { ports: Vec::new(), ..attach.clone() }),
            resolver: false,
            remote: BTreeMap::new(),
        };
        state.book.attached.insert(attach.container, attached);
        let steady = self.keep(&mut state, plan.iter().map(|(network, _)| network.id));
        Ok((plan, steady))
    }

    fn reserve_ports(
        &self,
        state: &mut State,
        Attach { container: owner, name, ports: wanted, .. }: &Attach,
        (policy, network): (&BridgePolicy, &BridgeNetwork),
        (ipv4, ipv6): (bool, bool),
    ) -> Result<Taken, Error> {
        if !wanted.is_empty() && self.firewall.is_none() {
            return Err(Error::Unsupported(
                "ports cannot be published while the firewall is switched off".to_owned(),
            ));
        }
        let placed = wanted.iter().map(|port| {
            let host_ip = port.host_ip.or(network.publish_on);
            PublishedPort { host_ip, ..port.clone() }
        });
        let placed = placed.collect::<Vec<_>>();
        let (translates4, translates6) = policy.translates();
        let translated = (ipv4 && translates4, ipv6 && translates6);
        let families = join::led(self.relays, translated, ipv6);
        check_ports(&placed, translated, families)?;
        let open = policy.opens();
        let opened = if open == (false, false) { Vec::new() } else { opened(&placed) };
        // Where nothing is translated, no port of the host is asked for.
        let leads = |port: &&PublishedPort| !families.leave_out(&Run::single(port, port.host.0));
        let led = placed.iter().filter(leads).cloned().collect::<Vec<_>>();
        let ports = state.ports.acquire(*owner, &led, |run| holding::hold(run, families));
        let ports = ports.map_err(|error| of_endpoint(error, name))?;
        Ok(Taken { ports, opened })
    }

    /// Makes what was decided real.
    fn realise(
        &self,
        attach: &Attach,
        plan: &[(NetworkRecord, &EndpointRequest)],
    ) -> Result<Sandbox, Error> {
        let (namespace, user) = match &attach.kind {
            SandboxKind::Host => (None, attach.owner.user()?),
            SandboxKind::Container(owner, pid) => {
                (self.namespace_of(owner, *pid)?, attach.owner.user()?)
            }
            SandboxKind::Own(_) => {
                let Owned { user, network } = self.build(attach, plan)?;
                (Some(network), user)
            }
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
        for link in attached.links.iter().filter(|link| !link.is_empty()) {
            self.janitor.label(link.clone(), self.tag.alias(&attach.container));
        }
        self.relay(&attach.container)?;
        self.program_remote(attach)?;
        if let Some(firewall) = &self.firewall {
            // ORDER: last, so that nobody from outside meets a half-made container.
            let published = join::published(&lock(&self.state).bridges, &attached, self.relays);
            lock(firewall).publish(attach.container, published)?;
        }
        self.keep_firewall_soon();
        let ports = self.shown_ports(&attached);
        let warnings = unpublished(attach, plan, &attached);
        Ok(Sandbox { namespace, user, endpoints: attached.endpoints, ports, files, warnings })
    }

    /// Lists published ports with the addresses that they are reached at.
    fn shown_ports(&self, attached: &Attached) -> Vec<PublishedPort> {
        let families = self.families(&lock(&self.state).bridges, &attached.endpoints);
        // A port alone could be relayed where it cannot within a long run.
        let runs = runs(attached.ports.iter());
        let long = runs.iter().filter(|run| !run.may_be_relayed()).collect::<Vec<_>>();
        let each = attached.ports.iter().flat_map(|port| {
            let alone = Run::single(port, port.host.0);
            let run = long.iter().find(|run| run.has(&alone)).map_or(&alone, |run| *run);
            let on = families.addresses(run);
            on.into_iter().map(|address| PublishedPort { host_ip: Some(address), ..port.clone() })
        });
        each.collect()
    }

    /// Makes a namespace with all its links and routes.
    fn build(
        &self,
        attach: &Attach,
        plan: &[(NetworkRecord, &EndpointRequest)],
    ) -> Result<Owned, Error> {
        let Attach { container, owner, .. } = attach;
        let [first, others @ ..] = plan else { return warm::lonely(owner) };
        let bridge = self.bridge_of(&first.0)?;
        let plain = EndpointOptions::read(&first.1.options)?.is_plain();
        let (namespace, others) = match &bridge.pool {
            Some(pool) if plain && first.1.link_local.is_empty() => {
                let namespace = self.take_warm(attach, &bridge, pool, first)?;
                if others.is_empty() {
                    return Ok(namespace);
                }
                (namespace, others)
            }
            _ => (warm::lonely(owner)?, plan),
        };
        for (network, request) in others {
            self.join(container, namespace.network.as_fd(), network, request)?;
        }
        let endpoints = lock(&self.state).book.attached(container)?.endpoints.clone();
        join::route(namespace.network.as_fd(), &endpoints)?;
        Ok(namespace)
    }

    /// Takes a connected namespace for a container and notes whose it is.
    fn take_warm(
        &self,
        Attach { container, owner, .. }: &Attach,
        bridge: &BridgeNetwork,
        pool: &WarmPool,
        (network, request): &(NetworkRecord, &EndpointRequest),
    ) -> Result<Owned, Error> {
        let mac = request.mac.as_deref().map(parse_mac).transpose()?;
        let mut prepared = self.janitor.with_room(|| pool.take(owner))?;
        let endpoint = Endpoint {
            network: network.id,
            network_name: network.name.clone(),
            id: random::<32>().map(|byte| format!("{byte:02x}")).concat(),
            interface: link::INSIDE.to_owned(),
            mac: mac_text(mac.unwrap_or_else(|| mac_of(prepared.address))),
            ipv4: Some((prepared.address, bridge.plan.prefix)),
            gateway: bridge.gateway,
            ipv6: None,
            gateway6: None,
            aliases: Vec::new(),
            gateway_priority: request.gateway_priority,
            direct: false,
            links: request.links.clone(),
        };
        // ORDER: noted before anything can fail, so that `detach` takes it back.
        let namespace = prepared.namespace.network.as_fd();
        self.note(container, namespace, (endpoint, prepared.link.clone()), bridge)?;
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
        // ORDER: the relay has copies of the sockets.
        self.relay_no_more(container, &attached);
        lock(&self.state).ports.release(container);
        if attached.resolver {
            self.serve_no_more(container);
        }
        self.give_back(attached);
        self.keep_firewall_no_more();
        self.records.remove(container).and(unpublished)
    }
}

/// Says whose ports cannot be had.
// COMPAT: dockerd's words, which name the endpoint; ours is not made before its ports are there, so this is the only place that
// its id is ever told.
fn of_endpoint(error: Error, name: &str) -> Error {
    let Error::PortTaken(why) = error else { return error };
    let id = random::<32>().map(|byte| format!("{byte:02x}")).concat();
    Error::PortTaken(format!(
        "driver failed programming external connectivity on endpoint {name} ({id}): {why}"
    ))
}

/// Finds the network that a container of this plan reaches others by.
fn way_out<'a>(plan: &'a [(NetworkRecord, &EndpointRequest)]) -> Option<&'a NetworkRecord> {
    let outward = plan.iter().filter(|(network, _)| !network.internal);
    let best = outward.min_by(|(a, of_a), (b, of_b)| {
        of_b.gateway_priority.cmp(&of_a.gateway_priority).then_with(|| a.name.cmp(&b.name))
    });
    best.map(|(network, _)| network)
}

/// What an attachment has of ports.
#[derive(Default)]
struct Taken {
    /// Of the host, each with a single port.
    ports: Vec<PublishedPort>,
    /// Of the container, open to who addresses it.
    opened: Vec<Opened>,
}

/// Puts the ports inside together that are open to all. One that is for the host alone is not.
fn opened(ports: &[PublishedPort]) -> Vec<Opened> {
    let outward = ports.iter().filter(|port| !port.host_ip.is_some_and(|ip| ip.is_loopback()));
    let inside = outward.map(|port| PublishedPort {
        host_ip: None,
        host: (port.container, port.container),
        ..port.clone()
    });
    let mut inside = inside.collect::<Vec<_>>();
    inside.sort();
    inside.dedup();
    runs(inside.iter()).iter().map(|run| (run.protocol, run.host, run.last)).collect()
}

/// Says so when ports that were asked for are not published.
fn unpublished(
    attach: &Attach,
    plan: &[(NetworkRecord, &EndpointRequest)],
    attached: &Attached,
) -> Vec<String> {
    let nothing = attached.ports.is_empty() && attached.opened.is_empty();
    match way_out(plan) {
        Some(network)
            if nothing
                && !attach.ports.is_empty()
                && matches!(network.driver.as_str(), "macvlan" | "ipvlan") =>
        {
            vec![format!(
                "no port is published: network {} is reached directly, as its driver is {}",
                network.name, network.driver
            )]
        }
        _ => Vec::new(),
    }
}

/// Refuses ports that nobody is led by, although the network has ports of the host.
fn check_ports(
    ports: &[PublishedPort],
    (translated4, translated6): (bool, bool),
    families: Families,
) -> Result<(), Error> {
    let alone = ports.iter().map(|port| Run::single(port, port.host.0));
    let mut all = runs(ports.iter()).into_iter().chain(alone);
    let relayed_only = |run: &Run| match run.host_ip {
        None => (translated4 || translated6) && !families.v4 && !families.v6,
        Some(IpAddr::V4(_)) => translated4 && !families.v4,
        Some(IpAddr::V6(_)) => (translated4 || translated6) && !families.v6,
    };
    let Some(run) = all.find(|run| relayed_only(run) && !families.relays(run)) else {
        return Ok(());
    };
    let what = if run.may_be_relayed() {
        "a port is".to_owned()
    } else {
        format!("SCTP, and more than {HELD_BY_SOCKETS} ports side by side, are")
    };
    Err(Error::Unsupported(if families.relay4 {
        format!("{what} not published while the host's own input policy is respected")
    } else {
        format!(
            "{what} published on an IPv6 address only for containers with one: use a network with --ipv6"
        )
    }))
}

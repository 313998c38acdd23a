//! The firewall: one nf_tables table of this daemon, with sets and maps.
//!
//! A network is a chain or two and one element in each of a few maps; a published port is one element. No packet ever passes
//! a list of containers. Other tables are never touched. What the table should hold is kept here, so that it can be put
//! back whole when somebody else has flushed it.

mod rules;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};

use rorqual_core::ContainerId;
use rorqual_sys::net::{NetlinkError, Protocol, Socket};
use rorqual_sys::nft::{Element, ElementData, Transaction, Watch};

use crate::cidr::{Cidr4, Cidr6};
use crate::design::GatewayMode;
use crate::ports::{Run, protocol_number};
use crate::{Error, PortProtocol};

/// What the firewall does for a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgePolicy {
    /// Interface.
    pub(crate) name: String,
    /// Its containers' addresses.
    pub(crate) subnet: Option<Cidr4>,
    /// Its containers' IPv6 addresses.
    pub(crate) subnet6: Option<Cidr6>,
    /// Nothing leaves it, and nothing of elsewhere enters.
    pub(crate) internal: bool,
    /// Outgoing connections get the host's address.
    pub(crate) masquerade: bool,
    /// They get this one instead.
    pub(crate) leave_as: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Containers may talk to each other.
    pub(crate) icc: bool,
    /// How containers are reached from outside.
    pub(crate) mode4: GatewayMode,
    /// The same for IPv6.
    pub(crate) mode6: GatewayMode,
    /// Interfaces by which published ports may be addressed at the container itself.
    pub(crate) trusted: Vec<String>,
}

impl BridgePolicy {
    /// Tells whether ports of the host lead to containers, in IPv4 and in IPv6.
    pub(crate) const fn translates(&self) -> (bool, bool) {
        const fn translates(mode: GatewayMode) -> bool {
            matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected)
        }
        (translates(self.mode4), translates(self.mode6))
    }

    /// Tells whether published ports are open at the containers themselves, in IPv4 and in IPv6.
    pub(crate) fn opens(&self) -> (bool, bool) {
        let opens = |mode| mode == GatewayMode::Routed || !self.trusted.is_empty();
        (opens(self.mode4), opens(self.mode6))
    }
}

/// Where published ports of a container lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its IPv4 address.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// Its addresses whose ports are open to those who address them directly.
    pub(crate) open4: Option<Ipv4Addr>,
    pub(crate) open6: Option<Ipv6Addr>,
}

/// Ports of a container: protocol, first and last.
pub(crate) type Opened = (PortProtocol, u16, u16);

/// The published ports of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Which of the host.
    pub(crate) runs: Vec<Run>,
    /// Which of the container itself.
    pub(crate) opened: Vec<Opened>,
    /// Where they lead.
    pub(crate) to: Target,
}

/// Rules that concern the whole host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Router {
    /// The host was a router before.
    AsItWas,
    /// This daemon switched forwarding on, and only for bridges.
    OnlyBridges,
}

/// How well the table is kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guarded {
    /// Owned by the socket: nobody else can change it while the daemon runs, and a flush passes it over.
    Owned,
    /// Not known yet whether the kernel can do so, or what an earlier daemon left.
    Unknown,
    /// Anybody may change it, which is noticed.
    Watched,
}

/// The table, as it should be, and the socket that makes it so.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    socket: Socket,
    guarded: Guarded,
    router: Router,
    /// Short runs of ports are relayed at the host's own `::1`.
    relays: bool,
    bridges: Vec<BridgePolicy>,
    published: BTreeMap<ContainerId, Published>,
}

fn failed(action: &str) -> impl FnOnce(NetlinkError) -> Error + use<'_> {
    move |error| Error::Os { action: format!("{action} the firewall"), source: error.into() }
}

impl Firewall {
    /// Opens the firewall without changing anything yet.
    pub(crate) fn open(table: String, router: Router, relays: bool) -> Result<Self, Error> {
        let socket = Socket::open(Protocol::Netfilter)
            .map_err(|error| failed("open")(NetlinkError::from(error)))?;
        let (bridges, published) = (Vec::new(), BTreeMap::new());
        Ok(Self { table, socket, guarded: Guarded::Unknown, router, relays, bridges, published })
    }

    /// Returns another descriptor of the socket that owns the table, where the kernel lets a socket own one for good: the table
    /// stays owned while one of them is open.
    pub(crate) fn owner(&self) -> Option<std::io::Result<OwnedFd>> {
        let owned = self.guarded == Guarded::Owned;
        owned.then(|| self.socket.as_fd().try_clone_to_owned())
    }

    /// Starts to watch for damage by others.
    pub(crate) fn watch(&self) -> Result<Watch, Error> {
        Watch::new(&self.table, &self.socket).map_err(|error| failed("watch")(error.into()))
    }

    /// Sets what the table is to hold, without making it so: see [`Firewall::restore`].
    pub(crate) fn expect(
        &mut self,
        bridges: Vec<BridgePolicy>,
        published: impl IntoIterator<Item = (ContainerId, Published)>,
    ) {
        self.bridges = bridges;
        self.published = published.into_iter().collect();
    }

    /// Puts the whole table in place, atomically: a packet meets the old rules or the new ones, never none.
    pub(crate) fn restore(&mut self) -> Result<(), Error> {
        // ORDER: the best protection first; a kernel that lacks it, or a table that was made without, refuses.
        let ways = match self.guarded {
            Guarded::Owned => &[(true, true)][..],
            Guarded::Unknown => &[(true, true), (false, true), (false, false)],
            Guarded::Watched => &[(false, false)],
        };
        let mut result = Ok(());
        for (was_owned, owned) in ways {
            result = self.replace(*was_owned, *owned);
            if result.is_ok() {
                self.guarded = if *owned { Guarded::Owned } else { Guarded::Watched };
                break;
            }
        }
        result.map_err(failed("set up"))
    }

    fn replace(&mut self, was_owned: bool, owned: bool) -> Result<(), NetlinkError> {
        let mut all = Transaction::new();
        self.put_table(&mut all, was_owned);
        all.delete_present_table(&self.table);
        self.put_table(&mut all, owned);
        rules::put_skeleton(&mut all, &self.table, &self.bridges, self.router);
        for (map, elements) in elements(self.published.values(), self.relays) {
            all.add_elements(&self.table, map, &elements);
        }
        all.commit(&mut self.socket)
    }

    fn put_table(&self, all: &mut Transaction, owned: bool) {
        if owned {
            all.add_owned_table(&self.table);
        } else {
            all.add_table(&self.table);
        }
    }

    /// Removes the table.
    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        let mut all = Transaction::new();
        self.put_table(&mut all, self.guarded == Guarded::Owned);
        all.delete_present_table(&self.table);
        all.commit(&mut self.socket).map_err(failed("remove"))
    }

    /// Leads ports of the host to a container.
    pub(crate) fn publish(
        &mut self,
        container: ContainerId,
        published: Published,
    ) -> Result<(), Error> {
        if published.runs.is_empty() && published.opened.is_empty() {
            return Ok(());
        }
        let elements = elements([&published].into_iter(), self.relays);
        self.published.insert(container, published);
        self.change(elements, Transaction::add_elements)
    }

    /// Lists all published ports.
    pub(crate) fn runs(&self) -> Vec<(ContainerId, Run)> {
        let each = self.published.iter();
        each.flat_map(|(id, published)| published.runs.iter().map(|run| (*id, run.clone())))
            .collect()
    }

    /// Takes a container's published ports back, if it has any.
    pub(crate) fn unpublish(&mut self, container: &ContainerId) -> Result<(), Error> {
        let Some(gone) = self.published.remove(container) else { return Ok(()) };
        self.change(elements([&gone].into_iter(), self.relays), Transaction::delete_elements)
    }

    /// Sets which bridges there are, and notes if forwarding was switched on for them.
    pub(crate) fn set_bridges(
        &mut self,
        bridges: Vec<BridgePolicy>,
        router: Router,
    ) -> Result<(), Error> {
        self.bridges = bridges;
        if router == Router::OnlyBridges {
            self.router = router;
        }
        self.restore()
    }

    fn change(
        &mut self,
        elements: Elements,
        how: impl Fn(&mut Transaction, &str, &str, &[Element]),
    ) -> Result<(), Error> {
        let mut change = Transaction::new();
        for (map, elements) in &elements {
            how(&mut change, &self.table, map, elements);
        }
        // A table that lost something does not take the change; what was wanted is part of a restored one.
        change.commit(&mut self.socket).or_else(|_| self.restore())
    }
}

type Elements = BTreeMap<&'static str, Vec<Element>>;

/// Makes the elements of each map: per family those for all addresses and those for a single one, and for ports that keep
/// their number, whole runs.
fn elements<'a>(all: impl Iterator<Item = &'a Published>, relays: bool) -> Elements {
    let mut elements = Elements::new();
    for Published { runs, opened, to } in all {
        if let Some(to) = to.open4 {
            put_open(&mut elements, rules::OPEN.name, opened, &to.octets());
        }
        if let Some(to) = to.open6 {
            put_open(&mut elements, rules::OPEN6.name, opened, &to.octets());
        }
        for run in runs {
            let on = run.host_ip.filter(|address| !address.is_unspecified());
            if let Some(to) = to.ipv4.filter(|_| !matches!(run.host_ip, Some(IpAddr::V6(_)))) {
                let on = on.and_then(v4).map(|on| on.octets().to_vec());
                put(&mut elements, &rules::MAPS4, run, on, &to.octets());
            }
            if let Some(to) = to.ipv6.filter(|_| !matches!(run.host_ip, Some(IpAddr::V4(_)))) {
                let on = on.and_then(v6).map(|on| on.octets().to_vec());
                let at_loopback =
                    run.host_ip.is_none_or(|on| on.is_unspecified() || on.is_loopback());
                if at_loopback && !(relays && run.may_be_relayed()) {
                    let refused = elements.entry(rules::REFUSED6.name).or_default();
                    let (first, last) = (port_key(run, run.host), port_key(run, run.last));
                    refused.push(Element { key: first, last: Some(last), data: ElementData::None });
                }
                put(&mut elements, &rules::MAPS6, run, on, &to.octets());
            }
        }
    }
    elements
}

/// Writes protocol and port as keys have them.
fn port_key(run: &Run, port: u16) -> Vec<u8> {
    let protocol = [protocol_number(run.protocol), 0, 0, 0];
    [&protocol[..], &port.to_be_bytes(), &[0; 2]].concat()
}

fn put(elements: &mut Elements, maps: &rules::Maps, run: &Run, on: Option<Vec<u8>>, to: &[u8]) {
    let key = |port: u16| [on.as_deref().unwrap_or_default(), &port_key(run, port)].concat();
    let whole = run.len() > 1 && run.keeps_numbers();
    let map = match (on.is_some(), whole) {
        (false, false) => maps.all.name,
        (true, false) => maps.one.name,
        (false, true) => maps.all_ranges.name,
        (true, true) => maps.one_ranges.name,
    };
    let into = elements.entry(map).or_default();
    if whole {
        let data = ElementData::Value(to.to_vec());
        into.push(Element { key: key(run.host), last: Some(key(run.last)), data });
        return;
    }
    into.extend(run.ports().map(|port| {
        let value = [to, &port.container.to_be_bytes(), &[0; 2]].concat();
        Element::new(key(port.host.0), ElementData::Value(value))
    }));
}

fn put_open(elements: &mut Elements, set: &'static str, opened: &[Opened], at: &[u8]) {
    let each = opened.iter().map(|(protocol, first, last)| {
        let protocol = [protocol_number(*protocol), 0, 0, 0];
        let key = |port: &u16| [at, &protocol, &port.to_be_bytes(), &[0; 2]].concat();
        Element { key: key(first), last: Some(key(last)), data: ElementData::None }
    });
    elements.entry(set).or_default().extend(each);
}

const fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

const fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

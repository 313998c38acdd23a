//! The firewall: one nf_tables table of this daemon, with sets and maps.
//!
//! A network is a chain or two and one element in each of a few maps; a published port is one element. No packet ever passes
//! a list of containers. Other tables are never touched. What the table should hold is kept here, so that it can be put
//! back whole when somebody else has flushed it.

mod rules;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rorqual_sys::net::{NetlinkError, Protocol, Socket};
use rorqual_sys::nft::{Element, ElementData, Transaction, Watch};

use crate::cidr::{Cidr4, Cidr6};
use crate::ports::protocol_number;
use crate::{Error, PublishedPort};

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
    /// Containers may talk to each other.
    pub(crate) icc: bool,
}

/// Where published ports of a container lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its IPv4 address.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// Rules that concern the whole host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Router {
    /// The host was a router before.
    AsItWas,
    /// This daemon switched forwarding on, and only for bridges.
    OnlyBridges,
}

/// The table, as it should be, and the socket that makes it so.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    socket: Socket,
    router: Router,
    bridges: Vec<BridgePolicy>,
    published: BTreeMap<PublishedPort, Target>,
}

fn failed(action: &str) -> impl FnOnce(NetlinkError) -> Error + use<'_> {
    move |error| Error::Os { action: format!("{action} the firewall"), source: error.into() }
}

impl Firewall {
    /// Opens the firewall without changing anything yet.
    pub(crate) fn open(table: String, router: Router) -> Result<Self, Error> {
        let socket = Socket::open(Protocol::Netfilter)
            .map_err(|error| failed("open")(NetlinkError::from(error)))?;
        Ok(Self { table, socket, router, bridges: Vec::new(), published: BTreeMap::new() })
    }

    /// Starts to watch for damage by others.
    pub(crate) fn watch(&self) -> Result<Watch, Error> {
        Watch::new(&self.table, &self.socket).map_err(|error| failed("watch")(error.into()))
    }

    /// Sets what the table is to hold, without making it so: see [`Firewall::restore`].
    pub(crate) fn expect(
        &mut self,
        bridges: Vec<BridgePolicy>,
        published: impl IntoIterator<Item = (PublishedPort, Target)>,
    ) {
        self.bridges = bridges;
        self.published = published.into_iter().collect();
    }

    /// Puts the whole table in place, atomically: a packet meets the old rules or the new ones, never none.
    pub(crate) fn restore(&mut self) -> Result<(), Error> {
        let mut all = Transaction::new();
        all.delete_table(&self.table);
        rules::put_skeleton(&mut all, &self.table, &self.bridges, self.router);
        for (map, elements) in elements(self.published.iter()) {
            all.add_elements(&self.table, map, &elements);
        }
        all.commit(&mut self.socket).map_err(failed("set up"))
    }

    /// Removes the table.
    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        let mut all = Transaction::new();
        all.delete_table(&self.table);
        all.commit(&mut self.socket).map_err(failed("remove"))
    }

    /// Leads ports of the host to a container.
    pub(crate) fn publish(&mut self, ports: &[PublishedPort], to: Target) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        self.published.extend(ports.iter().map(|port| (port.clone(), to)));
        self.change(elements(ports.iter().map(|port| (port, &to))), Transaction::add_elements)
    }

    /// Takes published ports back; those that are not published are left alone.
    pub(crate) fn unpublish(&mut self, ports: &[PublishedPort]) -> Result<(), Error> {
        let gone = ports.iter().filter_map(|port| self.published.remove_entry(port));
        let gone = gone.collect::<Vec<_>>();
        if gone.is_empty() {
            return Ok(());
        }
        let gone = gone.iter().map(|(port, to)| (port, to));
        self.change(elements(gone), Transaction::delete_elements)
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
        elements: [(&'static str, Vec<Element>); 4],
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

/// Makes the elements of each map: per family, those for all addresses and those for a single one.
fn elements<'a>(
    ports: impl Iterator<Item = (&'a PublishedPort, &'a Target)>,
) -> [(&'static str, Vec<Element>); 4] {
    let (mut any, mut one, mut any6, mut one6) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (port, to) in ports {
        let value = |address: &[u8]| {
            let port = port.container.to_be_bytes();
            ElementData::Value([address, &port, &[0; 2]].concat())
        };
        let key = |on: &[u8]| {
            let protocol = [protocol_number(port.protocol), 0, 0, 0];
            [on, &protocol, &port.host.0.to_be_bytes(), &[0; 2]].concat()
        };
        let on = port.host_ip.filter(|address| !address.is_unspecified());
        let v4 = !matches!(port.host_ip, Some(IpAddr::V6(_)));
        let v6 = !matches!(port.host_ip, Some(IpAddr::V4(_)));
        if let Some(to) = to.ipv4.filter(|_| v4) {
            let data = value(&to.octets());
            match on {
                Some(IpAddr::V4(on)) => one.push(Element { key: key(&on.octets()), data }),
                _ => any.push(Element { key: key(&[]), data }),
            }
        }
        if let Some(to) = to.ipv6.filter(|_| v6) {
            let data = value(&to.octets());
            match on {
                Some(IpAddr::V6(on)) => one6.push(Element { key: key(&on.octets()), data }),
                _ => any6.push(Element { key: key(&[]), data }),
            }
        }
    }
    [
        (rules::PUBLISHED.name, any),
        (rules::PUBLISHED_ON.name, one),
        (rules::PUBLISHED6.name, any6),
        (rules::PUBLISHED6_ON.name, one6),
    ]
}

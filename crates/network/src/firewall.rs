//! The firewall: one nf_tables table of this daemon, with sets and maps.
//!
//! A network is a chain or two and one element in each of a few maps; a published port is one element. No packet ever passes
//! a list of containers. Other tables are never touched. What the table should hold is kept here, so that it can be put
//! back whole when somebody else has flushed it.

mod rules;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rorqual_sys::net::{NetlinkError, Protocol, Socket};
use rorqual_sys::nft::{Element, ElementData, Transaction, Watch};

use crate::cidr::Cidr4;
use crate::ports::protocol_number;
use crate::{Error, PublishedPort};

/// What the firewall does for a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgePolicy {
    /// Interface.
    pub(crate) name: String,
    /// Its containers' addresses.
    pub(crate) subnet: Cidr4,
    /// Outgoing connections get the host's address.
    pub(crate) masquerade: bool,
    /// Containers may talk to each other.
    pub(crate) icc: bool,
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
    published: BTreeMap<PublishedPort, Ipv4Addr>,
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
        published: impl IntoIterator<Item = (PublishedPort, Ipv4Addr)>,
    ) {
        self.bridges = bridges;
        self.published = published.into_iter().collect();
    }

    /// Puts the whole table in place, atomically: a packet meets the old rules or the new ones, never none.
    pub(crate) fn restore(&mut self) -> Result<(), Error> {
        let mut all = Transaction::new();
        all.delete_table(&self.table);
        rules::put_skeleton(&mut all, &self.table, &self.bridges, self.router);
        let (any, one) = elements(self.published.iter());
        all.add_elements(&self.table, rules::PUBLISHED.name, &any);
        all.add_elements(&self.table, rules::PUBLISHED_ON.name, &one);
        all.commit(&mut self.socket).map_err(failed("set up"))
    }

    /// Removes the table.
    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        let mut all = Transaction::new();
        all.delete_table(&self.table);
        all.commit(&mut self.socket).map_err(failed("remove"))
    }

    /// Leads ports of the host to a container.
    pub(crate) fn publish(&mut self, ports: &[PublishedPort], to: Ipv4Addr) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        self.published.extend(ports.iter().map(|port| (port.clone(), to)));
        self.change(ports, to, Transaction::add_elements)
    }

    /// Takes published ports back; those that are not published are left alone.
    pub(crate) fn unpublish(&mut self, ports: &[PublishedPort]) -> Result<(), Error> {
        let mut gone = BTreeMap::<Ipv4Addr, Vec<PublishedPort>>::new();
        for port in ports {
            if let Some(to) = self.published.remove(port) {
                gone.entry(to).or_default().push(port.clone());
            }
        }
        gone.into_iter()
            .try_for_each(|(to, ports)| self.change(&ports, to, Transaction::delete_elements))
    }

    fn change(
        &mut self,
        ports: &[PublishedPort],
        to: Ipv4Addr,
        how: impl Fn(&mut Transaction, &str, &str, &[Element]),
    ) -> Result<(), Error> {
        let (any, one) = elements(ports.iter().map(|port| (port, &to)));
        let mut change = Transaction::new();
        how(&mut change, &self.table, rules::PUBLISHED.name, &any);
        how(&mut change, &self.table, rules::PUBLISHED_ON.name, &one);
        // A table that lost something does not take the change; what was wanted is part of a restored one.
        change.commit(&mut self.socket).or_else(|_| self.restore())
    }
}

/// Makes the elements for all addresses and those for a single one.
fn elements<'a>(
    ports: impl Iterator<Item = (&'a PublishedPort, &'a Ipv4Addr)>,
) -> (Vec<Element>, Vec<Element>) {
    let (mut any, mut one) = (Vec::new(), Vec::new());
    for (port, to) in ports {
        let mut value = to.octets().to_vec();
        value.extend(port.container.to_be_bytes());
        value.extend([0; 2]);
        let mut key = vec![protocol_number(port.protocol), 0, 0, 0];
        key.extend(port.host.0.to_be_bytes());
        key.extend([0; 2]);
        match port.host_ip {
            Some(IpAddr::V4(address)) if !address.is_unspecified() => {
                let key = [&address.octets()[..], &key].concat();
                one.push(Element { key, data: ElementData::Value(value) });
            }
            _ => any.push(Element { key, data: ElementData::Value(value) }),
        }
    }
    (any, one)
}

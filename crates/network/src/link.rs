//! Links of containers: made, set up inside, routed, taken out. Decides nothing about addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rorqual_sys::net::{
    self, Address, Batch, Change, LinkRef, NetlinkError, Protocol, Route, Socket, StackedLink, Veth,
};
use rustix::io::Errno;

use crate::Error;
use crate::design::Stacked;
use crate::ipam::Pools;
use crate::names::{Tag, random};

/// LIMIT: a bridge with spanning tree takes half a minute to let frames pass; its containers wait no longer than this.
const BRIDGE_PATIENCE: Duration = Duration::from_millis(250);
/// LIMIT: how long the link of an ended container may be in the way of another one on the same interface.
const LINK_PATIENCE: Duration = Duration::from_secs(2);
const DEFAULT_MTU: u32 = 1500;

/// The first interface inside.
pub(crate) const INSIDE: &str = "eth0";

/// How containers are linked to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// By a pair of links, one of them a port of the bridge of this number.
    Bridge {
        /// Its number.
        index: u32,
        /// Its ports do not talk to each other.
        isolated: bool,
    },
    /// By a link on the interface of this number.
    Stacked(Stacked, u32),
    /// By a link that a plugin makes.
    Plugin,
}

/// What all namespaces of a network have in common.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What links are made of.
    pub(crate) kind: LinkKind,
    /// Largest packet; `None`: that of what the link is on.
    pub(crate) mtu: Option<u32>,
    /// Whose they are.
    pub(crate) tag: Tag,
    /// Length of the IPv4 subnet's prefix.
    pub(crate) prefix: u8,
    /// The bridge's address, by which containers of the pool reach everything else.
    pub(crate) gateway: Ipv4Addr,
    /// Where addresses come from.
    pub(crate) addresses: Arc<Mutex<Pools>>,
}

/// An interface to be, inside.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Its name.
    pub(crate) interface: String,
    /// Its hardware address; `None`: the one it has.
    pub(crate) mac: Option<[u8; 6]>,
    /// Its addresses, with the lengths of their subnets' prefixes.
    pub(crate) ipv4: Option<(Ipv4Addr, u8)>,
    pub(crate) ipv6: Option<(Ipv6Addr, u8)>,
    /// Further ones, known on the link only.
    pub(crate) link_local: Vec<IpAddr>,
    /// Kernel settings, without `net.`, and their values.
    pub(crate) settings: Vec<(Vec<String>, String)>,
}

/// A link that is there.
#[derive(Clone, Debug)]
pub(crate) struct Wired {
    /// The host's end; empty where there is none.
    pub(crate) link: String,
    /// Number of the inner end.
    pub(crate) inner: u32,
    /// Its hardware address.
    pub(crate) mac: [u8; 6],
}

/// Wraps a refusal of the kernel, its kind kept.
pub(crate) fn io_error(error: NetlinkError) -> io::Error {
    io::Error::new(error.source.kind(), error)
}

/// Finds out why the kernel refused.
pub(crate) fn refusal(error: &io::Error) -> Option<Errno> {
    let by_kernel = error.get_ref().and_then(|inner| inner.downcast_ref::<NetlinkError>());
    let code = by_kernel.map_or(error.raw_os_error(), |refused| refused.source.raw_os_error());
    code.map(Errno::from_raw_os_error)
}

/// Says why a bridge takes no more containers.
pub(crate) fn bridge_is_full() -> Error {
    Error::Conflict(
        "the network is full: a Linux bridge has 1023 ports, and each running container takes one; stop containers or \
         use a second network"
            .to_owned(),
    )
}

/// Adds a request to bring a link up.
pub(crate) fn put_up(batch: &mut Batch, link: LinkRef<'_>) {
    net::change_link(batch, link, &Change { up: Some(true), ..Change::default() });
}

/// Adds a link to a namespace that exists; the container in it may run already.
pub(crate) fn join(
    plan: &Plan,
    host: &Mutex<Socket>,
    namespace: BorrowedFd<'_>,
    slot: &Slot,
) -> Result<Wired, Error> {
    let joined = net::run_in_namespace(namespace, || {
        let mut socket = Socket::open(Protocol::Route)?;
        let wired = wire(plan, host, namespace, &mut socket, slot)?;
        if !wired.link.is_empty() {
            wait_for_bridge(host, &wired.link)?;
        }
        Ok(wired)
    });
    joined.map_err(|source| match (refusal(&source), plan.kind) {
        (Some(Errno::OPNOTSUPP), LinkKind::Stacked(kind, _)) => {
            Error::Unsupported(format!("the kernel has no {} links", kind.name()))
        }
        (Some(Errno::XFULL), _) => bridge_is_full(),
        _ => Error::Os {
            action: format!("add interface {} to a container", slot.interface),
            source: source.into(),
        },
    })
}

/// Takes an interface without an end on the host out of a namespace.
pub(crate) fn unplug(namespace: BorrowedFd<'_>, interface: &str) -> Result<(), Error> {
    let gone = net::run_in_namespace(namespace, || {
        let mut batch = Batch::new();
        net::delete_link(&mut batch, LinkRef::Name(interface));
        match Socket::open(Protocol::Route)?.transact(&batch) {
            Err(error) if error.is(Errno::NODEV) => Ok(()),
            other => other.map_err(io_error),
        }
    });
    gone.map_err(|source| Error::Os {
        action: format!("take interface {interface} out of a container"),
        source: source.into(),
    })
}

/// A route beside the default ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StaticRoute {
    /// Where to.
    pub(crate) destination: (IpAddr, u8),
    /// By way of; `None`: it is on the link.
    pub(crate) by: Option<IpAddr>,
}

/// Takes a link that somebody made on the host into a namespace, and sets it up there.
pub(crate) fn take_in(
    host: &Mutex<Socket>,
    namespace: BorrowedFd<'_>,
    (source, routes): (&str, &[StaticRoute]),
    slot: &Slot,
) -> Result<Wired, Error> {
    let taken = || {
        let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
        let found = net::find_link(&mut host, source).map_err(io_error)?;
        let index = found.ok_or(io::ErrorKind::NotFound)?.index;
        let mut batch = Batch::new();
        let name = Some(slot.interface.as_str());
        let change = Change { name, namespace: Some(namespace), ..Change::default() };
        net::change_link(&mut batch, LinkRef::Index(index), &change);
        host.transact(&batch).map_err(io_error)
    };
    let set_up = || {
        let mut socket = Socket::open(Protocol::Route)?;
        let (inner, mac) = set_up_inside(&mut socket, slot)?;
        let mut batch = Batch::new();
        for StaticRoute { destination, by } in routes {
            let route = Route { destination: Some(*destination), gateway: *by, link: inner };
            net::add_route(&mut batch, &route);
        }
        if !batch.is_empty() {
            socket.transact(&batch).map_err(io_error)?;
        }
        Ok(Wired { link: String::new(), inner, mac })
    };
    let wired = taken().and_then(|()| net::run_in_namespace(namespace, set_up));
    wired.map_err(|source_of_it| Error::Os {
        action: format!("take interface {source} of a plugin into a container"),
        source: source_of_it.into(),
    })
}

/// Gives a link that was taken in back to the host, under the name it had there.
pub(crate) fn give_out(
    namespace: BorrowedFd<'_>,
    host: BorrowedFd<'_>,
    (interface, name): (&str, &str),
) -> Result<(), Error> {
    let given = net::run_in_namespace(namespace, || {
        let mut batch = Batch::new();
        let change = Change { name: Some(name), namespace: Some(host), ..Change::default() };
        let mut socket = Socket::open(Protocol::Route)?;
        let found = net::find_link(&mut socket, interface).map_err(io_error)?;
        let index = found.ok_or(io::ErrorKind::NotFound)?.index;
        net::change_link(&mut batch, LinkRef::Index(index), &change);
        socket.transact(&batch).map_err(io_error)
    });
    given.map_err(|source| Error::Os {
        action: format!("give interface {interface} back to the host"),
        source: source.into(),
    })
}

/// Makes a link with all but its routes; the calling thread is in the namespace. Leaves nothing behind on failure.
pub(crate) fn wire(
    plan: &Plan,
    host: &Mutex<Socket>,
    namespace: BorrowedFd<'_>,
    socket: &mut Socket,
    slot: &Slot,
) -> io::Result<Wired> {
    let (index, isolated) = match plan.kind {
        LinkKind::Bridge { index, isolated } => (index, isolated),
        // Those are taken in instead.
        LinkKind::Plugin => return Err(io::ErrorKind::Unsupported.into()),
        LinkKind::Stacked(kind, parent) => {
            return stack(plan, host, (kind, parent), (namespace, socket), slot);
        }
    };
    let link = plan.tag.link(u64::from_ne_bytes(random()));
    let mut batch = Batch::new();
    let veth = Veth {
        name: &link,
        master: index,
        mtu: plan.mtu.unwrap_or(DEFAULT_MTU),
        peer_name: &slot.interface,
        peer_namespace: namespace,
    };
    net::add_veth(&mut batch, &veth);
    // Where bridged frames pass the firewall too, a container that asks for its own published port is answered
    // through the port it came by.
    let change = Change { isolated: Some(isolated), hairpin: Some(true), ..Change::default() };
    net::change_link(&mut batch, LinkRef::Name(&link), &change);
    let on_host = || host.lock().unwrap_or_else(PoisonError::into_inner);
    let made = {
        let mut host = on_host();
        host.transact(&batch).and_then(|()| spare_link_local(&mut host, &link))
    };
    made.map_err(io_error)
        .and_then(|()| set_up_inside(socket, slot))
        .map(|(inner, mac)| Wired { link: link.clone(), inner, mac })
        .inspect_err(|_| {
            let mut batch = Batch::new();
            net::delete_link(&mut batch, LinkRef::Name(&link));
            // Mostly it was never made; one that stays is swept at the next start.
            if let Err(error) = on_host().transact(&batch) {
                tracing::debug!(%error, link, "a half-made link is not there to be deleted");
            }
        })
}

/// Spares a bridge's port an IPv6 address of its own. Nobody would speak to it, but each costs the host three routes,
/// through all of which the kernel looks whenever a link changes.
fn spare_link_local(host: &mut Socket, link: &str) -> Result<(), NetlinkError> {
    // ORDER: before the inner end is up, as the address comes with the carrier.
    let mut batch = Batch::new();
    let change = Change { without_link_local: true, ..Change::default() };
    net::change_link(&mut batch, LinkRef::Name(link), &change);
    match host.transact(&batch) {
        Err(error) if error.is(Errno::AFNOSUPPORT) => Ok(()),
        other => other,
    }
}

/// Makes a link on an interface of the host, with all but its routes.
fn stack(
    plan: &Plan,
    host: &Mutex<Socket>,
    on: (Stacked, u32),
    (namespace, socket): (BorrowedFd<'_>, &mut Socket),
    slot: &Slot,
) -> io::Result<Wired> {
    let start = Instant::now();
    loop {
        match stack_once(plan, host, on, (namespace, socket), slot) {
            // The link of a container that has ended keeps its hardware address until the kernel has taken the namespace apart.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < LINK_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn stack_once(
    plan: &Plan,
    host: &Mutex<Socket>,
    (kind, parent): (Stacked, u32),
    (namespace, socket): (BorrowedFd<'_>, &mut Socket),
    slot: &Slot,
) -> io::Result<Wired> {
    let kind = match kind {
        Stacked::Macvlan(mode) => net::Stacked::Macvlan(mode),
        Stacked::Ipvlan(mode, flags) => net::Stacked::Ipvlan(mode, flags),
    };
    let (name, namespace) = (slot.interface.as_str(), Some(namespace));
    let mut batch = Batch::new();
    let link = StackedLink { name, parent, mtu: plan.mtu, namespace, kind };
    net::add_stacked(&mut batch, &link);
    host.lock().unwrap_or_else(PoisonError::into_inner).transact(&batch).map_err(io_error)?;
    let made = set_up_inside(socket, slot).inspect_err(|_| {
        let mut batch = Batch::new();
        net::delete_link(&mut batch, LinkRef::Name(name));
        if let Err(error) = socket.transact(&batch) {
            tracing::debug!(%error, name, "a half-made link is not there to be deleted");
        }
    });
    made.map(|(inner, mac)| Wired { link: String::new(), inner, mac })
}

fn set_up_inside(socket: &mut Socket, slot: &Slot) -> io::Result<(u32, [u8; 6])> {
    // ORDER: before the link is up, or it would get a link-local address at once.
    // COMPAT: only the links of networks without IPv6 lose it, the loopback keeps ::1.
    let six = slot.ipv6.is_some() || slot.link_local.iter().any(IpAddr::is_ipv6);
    let disabled = if six { "0" } else { "1" };
    match net::set_sysctl(&["ipv6", "conf", &slot.interface, "disable_ipv6"], disabled) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !six => {}
        other => other?,
    }
    let inner = net::find_link(socket, &slot.interface).map_err(io_error)?;
    let inner = inner.ok_or(io::ErrorKind::NotFound)?;
    let mac = slot.mac.or(inner.mac.as_slice().try_into().ok()).unwrap_or_default();
    let inner = inner.index;
    for (key, value) in &slot.settings {
        let parts = key.iter().map(String::as_str).collect::<Vec<_>>();
        // ORDER: before the link is up, as settings for how it comes up mean it.
        net::set_sysctl(&parts, value).map_err(|error| {
            io::Error::new(error.kind(), format!("net.{}={value}: {error}", key.join(".")))
        })?;
    }
    let mut batch = Batch::new();
    let change = Change { up: Some(true), mac: slot.mac, ..Change::default() };
    net::change_link(&mut batch, LinkRef::Index(inner), &change);
    let v4 = slot.ipv4.map(|(address, prefix)| (IpAddr::V4(address), prefix));
    let v6 = slot.ipv6.map(|(address, prefix)| (IpAddr::V6(address), prefix));
    let further = slot.link_local.iter().map(|address| {
        // The prefixes of link-local addresses.
        (*address, if address.is_ipv4() { 16 } else { 64 })
    });
    for (address, prefix) in v4.into_iter().chain(v6).chain(further) {
        net::add_address(&mut batch, &Address { link: inner, address, prefix });
    }
    socket.transact(&batch).map_err(io_error)?;
    Ok((inner, mac))
}

/// Of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Makes these the default routes of a namespace, one per family, as `(interface, gateway, family)`; the others go.
pub(crate) fn set_default_routes(
    namespace: BorrowedFd<'_>,
    wanted: &[(String, Option<IpAddr>, Family)],
) -> Result<(), Error> {
    let changed = net::run_in_namespace(namespace, || {
        let mut socket = Socket::open(Protocol::Route)?;
        let present = net::routes(&mut socket).map_err(io_error)?;
        let mut batch = Batch::new();
        let everywhere = |route: &&Route| route.destination.is_none_or(|(_, prefix)| prefix == 0);
        present.iter().filter(everywhere).for_each(|route| net::delete_route(&mut batch, route));
        for (interface, gateway, family) in wanted {
            let link = net::find_link(&mut socket, interface).map_err(io_error)?;
            let link = link.ok_or(io::ErrorKind::NotFound)?.index;
            let everywhere = match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            // Without a gateway, what is meant is written out, since nothing else says which family it is.
            let destination = gateway.is_none().then_some((everywhere, 0));
            let route = Route { destination, gateway: *gateway, link };
            net::add_route(&mut batch, &route);
        }
        if batch.is_empty() { Ok(()) } else { socket.transact(&batch).map_err(io_error) }
    });
    changed.map_err(|source| Error::Os {
        action: "set the default route of a container".to_owned(),
        source: source.into(),
    })
}

/// Waits until frames pass, which the kernel arranges on a thread of its own; a packet sent before would be lost, and sent
/// again a second later.
pub(crate) fn wait_for_bridge(host: &Mutex<Socket>, link: &str) -> io::Result<()> {
    let start = Instant::now();
    while start.elapsed() < BRIDGE_PATIENCE {
        let found = net::find_link(&mut host.lock().unwrap_or_else(PoisonError::into_inner), link);
        if found.map_err(io_error)?.is_some_and(|link| link.forwarding) {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

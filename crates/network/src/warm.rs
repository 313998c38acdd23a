//! Namespaces made in advance.
//!
//! Making a namespace with a pair of links takes a few milliseconds, most of them waiting for locks of the kernel, which
//! the end of another container may hold for long. A member of the pool has all of that behind it, also its address:
//! handing it out asks nothing of the kernel. Members belong to nobody: they live by the descriptor held here and are
//! gone when the daemon is, however it ends.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rorqual_sys::net::{
    self, Address, Batch, Change, LinkRef, NetlinkError, Protocol, Route, Socket, StackedLink, Veth,
};
use rustix::io::Errno;

use crate::Error;
use crate::bridge::failed;
use crate::design::Stacked;
use crate::ipam::{Pools, mac_of};
use crate::names::{Tag, random};

const DEFAULT_MTU: u32 = 1500;
/// Interface inside.
pub(crate) const INSIDE: &str = "eth0";
/// After this long without an attachment, a pool gives back all but one of its members.
const IDLE: Duration = Duration::from_secs(300);

/// A pool is filled up when nothing was taken from it for so long: making members holds the kernel's lock of all links,
/// which the container that is just starting needs. An empty pool does not wait.
const QUIET: Duration = Duration::from_millis(10);

/// LIMIT: a bridge with spanning tree takes half a minute to let frames pass; its containers wait no longer than this.
const BRIDGE_PATIENCE: Duration = Duration::from_millis(250);

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
    /// Length of the IPv6 subnet's prefix.
    pub(crate) prefix6: u8,
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
    /// Its addresses.
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
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

/// A namespace with a link to the bridge, ready for use. Its address is the holder's to give back.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The namespace.
    pub(crate) namespace: OwnedFd,
    /// Talks to it.
    socket: Socket,
    /// The host's end.
    pub(crate) link: String,
    /// Number of the inner end.
    inner: u32,
    /// Its address, from which the hardware address is derived.
    pub(crate) address: Ipv4Addr,
}

impl Prepared {
    /// Gives the inner end another hardware address.
    pub(crate) fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), Error> {
        let mut batch = Batch::new();
        let change = Change { mac: Some(mac), ..Change::default() };
        net::change_link(&mut batch, LinkRef::Index(self.inner), &change);
        self.socket.transact(&batch).map_err(failed("set a hardware address"))
    }
}

fn io_error(error: NetlinkError) -> io::Error {
    io::Error::new(error.source.kind(), error)
}

/// Makes a namespace with only a loopback.
pub(crate) fn lonely() -> Result<OwnedFd, Error> {
    let made = net::new_namespace(|_| {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        put_up(&mut batch, LinkRef::Name("lo"));
        socket.transact(&batch).map_err(io_error)
    });
    made.map(|(namespace, ())| namespace).map_err(cannot_make)
}

fn put_up(batch: &mut Batch, link: LinkRef<'_>) {
    net::change_link(batch, link, &Change { up: Some(true), ..Change::default() });
}

fn cannot_make(source: io::Error) -> Error {
    Error::Os { action: "make a network namespace".to_owned(), source: source.into() }
}

/// Makes a namespace with a link; `host` talks to the namespace of the bridge.
fn prepare(plan: &Plan, host: &Mutex<Socket>) -> Result<Prepared, Error> {
    let addresses = || plan.addresses.lock().unwrap_or_else(PoisonError::into_inner);
    let (address, _) = addresses().take(None, None)?;
    let Some(address) = address else {
        return Err(Error::InvalidArgument("the default bridge has no IPv4 subnet".to_owned()));
    };
    connect(plan, host, address).inspect_err(|_| addresses().give_back(Some(address), None))
}

fn connect(plan: &Plan, host: &Mutex<Socket>, address: Ipv4Addr) -> Result<Prepared, Error> {
    let slot = Slot {
        interface: INSIDE.to_owned(),
        mac: Some(mac_of(address)),
        ipv4: Some(address),
        ipv6: None,
        link_local: Vec::new(),
        settings: Vec::new(),
    };
    let made = net::new_namespace(|namespace| {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        put_up(&mut batch, LinkRef::Name("lo"));
        socket.transact(&batch).map_err(io_error)?;
        let wired = wire(plan, host, namespace, &mut socket, &slot)?;
        let mut batch = Batch::new();
        let gateway = Some(IpAddr::V4(plan.gateway));
        net::add_route(&mut batch, &Route { destination: None, gateway, link: wired.inner });
        socket.transact(&batch).map_err(io_error)?;
        wait_for_bridge(host, &wired.link)?;
        Ok((socket, wired))
    });
    let (namespace, (socket, wired)) = made.map_err(cannot_make)?;
    Ok(Prepared { namespace, socket, link: wired.link, inner: wired.inner, address })
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
    joined.map_err(|source| match (source.raw_os_error(), plan.kind) {
        (Some(code), LinkKind::Stacked(kind, _)) if code == Errno::OPNOTSUPP.raw_os_error() => {
            Error::Unsupported(format!("the kernel has no {} links", kind.name()))
        }
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

/// Makes a link with all but its routes; the calling thread is in the namespace. Leaves nothing behind on failure.
fn wire(
    plan: &Plan,
    host: &Mutex<Socket>,
    namespace: BorrowedFd<'_>,
    socket: &mut Socket,
    slot: &Slot,
) -> io::Result<Wired> {
    let (index, isolated) = match plan.kind {
        LinkKind::Bridge { index, isolated } => (index, isolated),
        LinkKind::Stacked(kind, parent) => {
            return stack(plan, host, (kind, parent), namespace, socket, slot);
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
    let made = on_host().transact(&batch).map_err(io_error);
    made.and_then(|()| set_up_inside(plan, socket, slot))
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

/// Makes a link on an interface of the host, with all but its routes.
fn stack(
    plan: &Plan,
    host: &Mutex<Socket>,
    (kind, parent): (Stacked, u32),
    namespace: BorrowedFd<'_>,
    socket: &mut Socket,
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
    let made = set_up_inside(plan, socket, slot).inspect_err(|_| {
        let mut batch = Batch::new();
        net::delete_link(&mut batch, LinkRef::Name(name));
        if let Err(error) = socket.transact(&batch) {
            tracing::debug!(%error, name, "a half-made link is not there to be deleted");
        }
    });
    made.map(|(inner, mac)| Wired { link: String::new(), inner, mac })
}

fn set_up_inside(plan: &Plan, socket: &mut Socket, slot: &Slot) -> io::Result<(u32, [u8; 6])> {
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
    let v4 = slot.ipv4.map(|address| (IpAddr::V4(address), plan.prefix));
    let v6 = slot.ipv6.map(|address| (IpAddr::V6(address), plan.prefix6));
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
fn wait_for_bridge(host: &Mutex<Socket>, link: &str) -> io::Result<()> {
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

#[derive(Debug)]
struct Stock {
    members: VecDeque<Prepared>,
    last_use: Instant,
    /// The thread is making a member.
    making: bool,
    /// Somebody waits for that member.
    awaited: bool,
    /// Filling may begin: addresses of earlier containers are known.
    opened: bool,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    size: usize,
    host: Mutex<Socket>,
    stock: Mutex<Stock>,
    changed: Condvar,
}

/// A pool of prepared namespaces, filled by a thread of its own.
#[derive(Debug)]
pub(crate) struct WarmPool {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WarmPool {
    /// Starts a pool of `size` members; 0 makes each namespace when it is asked for.
    pub(crate) fn start(plan: Plan, size: usize) -> Result<Self, Error> {
        let host = Socket::open(Protocol::Route).map_err(cannot_make)?;
        let stock = Stock {
            members: VecDeque::new(),
            last_use: Instant::now(),
            making: false,
            awaited: false,
            opened: false,
            closed: false,
        };
        let shared = Arc::new(Shared {
            plan,
            size,
            host: Mutex::new(host),
            stock: Mutex::new(stock),
            changed: Condvar::new(),
        });
        let thread = (size > 0).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("net-pool".to_owned()).spawn(move || shared.fill())
        });
        let thread = thread.transpose().map_err(cannot_make)?;
        Ok(Self { shared, thread })
    }

    /// Hands out a prepared namespace, or makes one.
    pub(crate) fn take(&self) -> Result<Prepared, Error> {
        let mut stock = self.shared.lock();
        stock.last_use = Instant::now();
        // The member that is being made comes sooner than one that would only be begun now.
        if stock.members.is_empty() && stock.making && !stock.awaited {
            stock.awaited = true;
            let made = self.shared.changed.wait_while(stock, |stock| stock.making);
            stock = made.unwrap_or_else(PoisonError::into_inner);
            stock.awaited = false;
        }
        let member = stock.members.pop_front();
        drop(stock);
        let taken = member.map_or_else(|| prepare(&self.shared.plan, &self.shared.host), Ok);
        // ORDER: filling up must not be in the way of the one who waits, nor take the lower address.
        self.open();
        taken
    }

    /// Lets filling begin.
    pub(crate) fn open(&self) {
        self.shared.lock().opened = true;
        self.shared.changed.notify_all();
    }

    /// Takes a certain address, if need be from a member that nobody has yet.
    pub(crate) fn claim(&self, address: Ipv4Addr) -> Result<(), Error> {
        let mut stock = self.shared.lock();
        let holder = stock.members.iter().position(|member| member.address == address);
        if holder.and_then(|position| stock.members.remove(position)).is_some() {
            // The member's link goes with its namespace; its address now belongs to the caller.
            return Ok(());
        }
        drop(stock);
        let addresses = &self.shared.plan.addresses;
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.retake(Some(address), None)
    }

    /// Returns how many members are ready.
    #[cfg(test)]
    pub(crate) fn ready(&self) -> usize {
        self.shared.lock().members.len()
    }
}

impl Drop for WarmPool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to stop.
            let _stopped = thread.join();
        }
    }
}

impl Shared {
    fn give_back(&self, members: VecDeque<Prepared>) {
        let mut addresses = self.plan.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members {
            addresses.give_back(Some(member.address), None);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self) {
        let mut stock = self.lock();
        let mut failed = false;
        while !stock.closed {
            let idle = stock.last_use.elapsed() >= IDLE;
            let target = if idle { 1 } else { self.size };
            if stock.members.len() > target {
                let surplus = stock.members.split_off(target);
                drop(stock);
                self.give_back(surplus);
                stock = self.lock();
                continue;
            }
            if !stock.opened || stock.members.len() == target || failed {
                // A failure is tried again at the next use or after a while; until then, namespaces are made on demand,
                // which tells the user why it fails.
                let (woken, _) =
                    self.changed.wait_timeout(stock, IDLE).unwrap_or_else(PoisonError::into_inner);
                stock = woken;
                failed = false;
                continue;
            }
            let quiet = stock.last_use.elapsed();
            if !stock.members.is_empty() && quiet < QUIET {
                let waited = self.changed.wait_timeout(stock, QUIET.saturating_sub(quiet));
                stock = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            stock.making = true;
            drop(stock);
            let made = prepare(&self.plan, &self.host);
            stock = self.lock();
            stock.making = false;
            match made {
                Ok(member) => stock.members.push_back(member),
                Err(error) => {
                    failed = true;
                    tracing::debug!(
                        error = rorqual_core::full_message(&error),
                        "no warm namespace"
                    );
                }
            }
            self.changed.notify_all();
        }
    }
}

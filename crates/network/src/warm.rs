//! Namespaces made in advance.
//!
//! Making a namespace with a pair of links takes a few milliseconds, most of them waiting for locks of the kernel, which
//! the end of another container may hold for long. A member of the pool has all of that behind it, also its address:
//! handing it out asks nothing of the kernel. Members belong to nobody: they live by the descriptor held here and are
//! gone when the daemon is, however it ends.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rorqual_sys::net::{self, Batch, Change, LinkRef, Protocol, Route, Socket};
use rustix::io::Errno;

use crate::bridge::failed;
use crate::ipam::mac_of;
use crate::link::{
    INSIDE, Plan, Slot, bridge_is_full, io_error, put_up, refusal, wait_for_bridge, wire,
};
use crate::owned::Owned;
use crate::{Error, NamespaceOwner};

/// After this long without an attachment, a pool gives back all but one of its members.
const IDLE: Duration = Duration::from_secs(300);

/// A pool is filled up when nothing was taken from it for so long: making members holds the kernel's lock of all links,
/// which the container that is just starting needs. An empty pool does not wait.
const QUIET: Duration = Duration::from_millis(10);

/// A namespace with a link to the bridge, ready for use. Its address is the holder's to give back.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The namespace.
    pub(crate) namespace: Owned,
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

/// Makes a namespace with only a loopback.
pub(crate) fn lonely(owner: &NamespaceOwner) -> Result<Owned, Error> {
    let made = owner.new_network(|_| {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        put_up(&mut batch, LinkRef::Name("lo"));
        socket.transact(&batch).map_err(io_error)
    });
    made.map(|(namespace, ())| namespace)
}

pub(crate) fn cannot_make(source: io::Error) -> Error {
    if refusal(&source) == Some(Errno::XFULL) {
        return bridge_is_full();
    }
    Error::Os { action: "make a network namespace".to_owned(), source: source.into() }
}

/// Makes a namespace with a link; `host` talks to the namespace of the bridge.
fn prepare(plan: &Plan, host: &Mutex<Socket>, owner: &NamespaceOwner) -> Result<Prepared, Error> {
    let addresses = || plan.addresses.lock().unwrap_or_else(PoisonError::into_inner);
    let (address, _) = addresses().take(None, None)?;
    let Some(address) = address else {
        return Err(Error::InvalidArgument("the default bridge has no IPv4 subnet".to_owned()));
    };
    connect(plan, host, address, owner).inspect_err(|_| addresses().give_back(Some(address), None))
}

fn connect(
    plan: &Plan,
    host: &Mutex<Socket>,
    address: Ipv4Addr,
    owner: &NamespaceOwner,
) -> Result<Prepared, Error> {
    let slot = Slot {
        interface: INSIDE.to_owned(),
        mac: Some(mac_of(address)),
        ipv4: Some((address, plan.prefix)),
        ipv6: None,
        link_local: Vec::new(),
        settings: Vec::new(),
    };
    let made = owner.new_network(|namespace| {
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
    let (namespace, (socket, wired)) = made?;
    Ok(Prepared { namespace, socket, link: wired.link, inner: wired.inner, address })
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
    owner: NamespaceOwner,
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
    pub(crate) fn start(plan: Plan, size: usize, owner: NamespaceOwner) -> Result<Self, Error> {
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
            owner,
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

    /// Hands out a prepared namespace of this owner, or makes one.
    pub(crate) fn take(&self, owner: &NamespaceOwner) -> Result<Prepared, Error> {
        if *owner != self.shared.owner {
            return prepare(&self.shared.plan, &self.shared.host, owner);
        }
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
        let taken = member.map_or_else(|| prepare(&self.shared.plan, &self.shared.host, owner), Ok);
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
            let made = prepare(&self.plan, &self.host, &self.owner);
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

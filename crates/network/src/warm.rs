//! Namespaces made in advance.
//!
//! Making a namespace with a pair of links takes a few milliseconds, most of them waiting for locks of the kernel. A member
//! of the pool has all of that behind it; giving it an address takes a fraction of one. Members belong to nobody: they
//! live by the descriptor held here and are gone when the daemon is, however it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rorqual_sys::net::{self, Batch, Change, LinkRef, NetlinkError, Protocol, Socket, Veth};

use crate::Error;
use crate::names::{Tag, random};

/// Interface inside.
pub(crate) const INSIDE: &str = "eth0";
/// After this long without an attachment, a pool gives back all but one of its members.
const IDLE: Duration = Duration::from_secs(300);

/// What all namespaces of a bridge have in common.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Number of the bridge.
    pub(crate) bridge: u32,
    /// Largest packet.
    pub(crate) mtu: u32,
    /// Ports of the bridge do not talk to each other.
    pub(crate) isolated: bool,
    /// Whose they are.
    pub(crate) tag: Tag,
}

/// A namespace with a link to the bridge, without an address.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The namespace.
    pub(crate) namespace: OwnedFd,
    /// Talks to it.
    pub(crate) socket: Socket,
    /// The host's end.
    pub(crate) link: String,
    /// Number of the inner end.
    pub(crate) inner: u32,
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
pub(crate) fn prepare(plan: &Plan, host: &Mutex<Socket>) -> Result<Prepared, Error> {
    let link = plan.tag.link(u64::from_ne_bytes(random()));
    let made = net::new_namespace(|namespace| {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        let veth = Veth {
            name: &link,
            master: plan.bridge,
            mtu: plan.mtu,
            peer_name: INSIDE,
            peer_namespace: namespace,
        };
        net::add_veth(&mut batch, &veth);
        if plan.isolated {
            let change = Change { isolated: Some(true), ..Change::default() };
            net::change_link(&mut batch, LinkRef::Name(&link), &change);
        }
        host.lock().unwrap_or_else(PoisonError::into_inner).transact(&batch).map_err(io_error)?;
        // ORDER: before the link is up, or it would get a link-local address at once.
        // COMPAT: only the links of networks without IPv6 lose it, the loopback keeps ::1.
        match net::set_sysctl(&["ipv6", "conf", INSIDE, "disable_ipv6"], "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let inner = net::find_link(&mut socket, INSIDE).map_err(io_error)?;
        let inner = inner.ok_or(io::ErrorKind::NotFound)?.index;
        let mut batch = Batch::new();
        put_up(&mut batch, LinkRef::Name("lo"));
        put_up(&mut batch, LinkRef::Index(inner));
        socket.transact(&batch).map_err(io_error)?;
        Ok((socket, inner))
    });
    let (namespace, (socket, inner)) = made.map_err(cannot_make)?;
    Ok(Prepared { namespace, socket, link, inner })
}

#[derive(Debug)]
struct Stock {
    members: Vec<Prepared>,
    last_use: Instant,
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
        let stock = Stock { members: Vec::new(), last_use: Instant::now(), closed: false };
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
        let member = stock.members.pop();
        drop(stock);
        self.shared.changed.notify_all();
        member.map_or_else(|| prepare(&self.shared.plan, &self.shared.host), Ok)
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
                drop(surplus);
                stock = self.lock();
                continue;
            }
            if stock.members.len() == target || failed {
                // A failure is tried again at the next use or after a while; until then, namespaces are made on demand,
                // which tells the user why it fails.
                let (woken, _) =
                    self.changed.wait_timeout(stock, IDLE).unwrap_or_else(PoisonError::into_inner);
                stock = woken;
                failed = false;
                continue;
            }
            drop(stock);
            let made = prepare(&self.plan, &self.host);
            stock = self.lock();
            match made {
                Ok(member) => stock.members.push(member),
                Err(error) => {
                    failed = true;
                    tracing::debug!(
                        error = rorqual_core::full_message(&error),
                        "no warm namespace"
                    );
                }
            }
        }
    }
}

//! Carrying bytes where the firewall cannot lead: to containers without IPv6 for clients that come over IPv6, and to all
//! containers from the host's own `::1`, for which the kernel takes no answer from a bridge.
//!
//! A thread of the resolver's process, so that connections outlive the daemon, and one for all ports of all containers.
//! The daemon opens the ports and hands them over. Containers see the host's address in their network as the client, never
//! one of another host. Does not decide what is relayed.

mod flow;
mod pair;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rorqual_sys::capability::{self, Capabilities};
use rorqual_sys::net;
use rorqual_sys::poll::{Interest, Poller, Ready};
use rorqual_sys::rlimit;
use rustix::event::EventfdFlags;
use rustix::net::{AddressFamily, getsockname};
use serde::{Deserialize, Serialize};

use crate::PortProtocol;
use flow::{Flow, Flows};
use pair::Pair;

/// LIMIT: bytes carried at once; both directions of all connections share the space.
const BUFFER: usize = 128 * 1024;
/// LIMIT: connections accepted, or packets read, of one port before others get their turn.
const BURST: usize = 64;
/// LIMIT: descriptors that are not connections: listeners, and what the resolver needs for names.
const OTHER_DESCRIPTORS: u64 = 16 * 1024;
/// LIMIT: connections of all containers, of which one container gets no more than half; also where there are descriptors for
/// more.
const MOST_PAIRS: usize = 64 * 1024;
/// How often forgotten flows are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// The token of the order to stop; others are even and larger, so that the odd one above each is free for a second socket.
const STOP: u64 = 0;

/// Ports of the host that are relayed to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relayed {
    /// Its id.
    pub(crate) container: String,
    /// Its addresses.
    pub(crate) to: Destination,
    /// The protocol, and the port inside, of each socket that comes along, in the same order.
    pub(crate) ports: Vec<(PortProtocol, u16)>,
}

/// Where clients are led: those that come over IPv6 to the container's IPv6 address, if it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Destination {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

impl Destination {
    /// Tells whether there is none.
    pub(crate) const fn is_none(self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    fn of(self, over_ipv6: bool) -> Option<IpAddr> {
        let ipv6 = self.ipv6.filter(|_| over_ipv6).map(IpAddr::V6);
        ipv6.or(self.ipv4.map(IpAddr::V4))
    }
}

/// A port of the host.
#[derive(Debug)]
struct Door {
    container: String,
    /// Port of the container.
    inside: u16,
    /// Clients come over IPv6.
    over_ipv6: bool,
    socket: Listening,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

#[derive(Debug)]
enum Entry {
    Door(Door),
    Pair(Box<Pair>),
    Flow(Flow),
}

impl Entry {
    fn container(&self) -> &str {
        match self {
            Self::Door(door) => &door.container,
            Self::Pair(pair) => pair.container(),
            Self::Flow(flow) => &flow.container,
        }
    }

    /// Takes its sockets off the poller, as the daemon may have copies of them.
    fn leave(&self, poller: &Poller) {
        match self {
            Self::Door(Door { socket: Listening::Tcp(socket), .. }) => {
                poller.remove(socket.as_fd()).ok();
            }
            Self::Door(Door { socket: Listening::Udp(socket), .. })
            | Self::Flow(Flow { socket, .. }) => {
                poller.remove(socket.as_fd()).ok();
            }
            // Nobody has copies of them: closing is enough.
            Self::Pair(_) => {}
        }
    }
}

#[derive(Debug)]
struct State {
    /// Where connections to each container go.
    targets: HashMap<String, Destination>,
    entries: HashMap<u64, Entry>,
    /// Connections of each container.
    pairs: HashMap<String, usize>,
    flows: Flows,
    next: u64,
}

#[derive(Debug)]
struct Shared {
    poller: Poller,
    state: Mutex<State>,
    stop: OwnedFd,
    most_pairs: usize,
}

/// All relayed ports of a daemon's containers. Costs nothing before there is one.
#[derive(Debug, Default)]
pub(crate) struct Relay(Option<Arc<Shared>>);

impl Relay {
    /// Tells whether nothing is relayed.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| shared.lock().targets.is_empty())
    }

    /// Relays ports from now on; without sockets, says where connections go that come from now on. Tells whether anything is
    /// relayed to the container.
    ///
    /// # Errors
    /// When a thread cannot be started or a socket cannot be used; then none of these sockets is.
    pub(crate) fn put(&mut self, relayed: Relayed, sockets: Vec<OwnedFd>) -> io::Result<bool> {
        let Relayed { container, to, ports } = relayed;
        if ports.len() != sockets.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if sockets.is_empty() && self.0.is_none() {
            return Ok(false);
        }
        let shared = match &self.0 {
            Some(shared) => Arc::clone(shared),
            None => Arc::clone(self.0.insert(Shared::start()?)),
        };
        let mut state = shared.lock();
        if sockets.is_empty() {
            let target = state.targets.get_mut(&container);
            return Ok(target.map(|target| *target = to).is_some());
        }
        let mut added = Vec::new();
        for ((protocol, inside), socket) in ports.into_iter().zip(sockets) {
            let over_ipv6 = getsockname(&socket)?.address_family() == AddressFamily::INET6;
            let socket = match protocol {
                PortProtocol::Tcp => Listening::Tcp(socket.into()),
                PortProtocol::Udp => Listening::Udp(socket.into()),
                PortProtocol::Sctp => return Err(io::ErrorKind::InvalidInput.into()),
            };
            let token = state.token();
            let fd = match &socket {
                Listening::Tcp(socket) => socket.as_fd(),
                Listening::Udp(socket) => socket.as_fd(),
            };
            if let Err(error) = shared.poller.add(fd, token, Interest::READ) {
                for token in added {
                    state.drop_entry(&shared.poller, token);
                }
                return Err(error);
            }
            let door = Door { container: container.clone(), inside, over_ipv6, socket };
            state.entries.insert(token, Entry::Door(door));
            added.push(token);
        }
        state.targets.insert(container, to);
        Ok(true)
    }

    /// Relays nothing to a container any more. Its ports are free when this returns.
    pub(crate) fn remove(&self, container: &str) {
        if let Some(shared) = &self.0 {
            shared.lock().remove(&shared.poller, container);
        }
    }

    /// Relays to these containers only.
    pub(crate) fn keep(&self, containers: &[String]) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.lock();
        let gone = state.targets.keys().filter(|id| !containers.contains(id)).cloned();
        for container in gone.collect::<Vec<_>>() {
            state.remove(&shared.poller, &container);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            // A counter that is full has been rung already.
            rustix::io::write(&shared.stop, &1_u64.to_ne_bytes()).ok();
        }
    }
}

impl Shared {
    fn start() -> io::Result<Arc<Self>> {
        let poller = Poller::new()?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        poller.add(stop.as_fd(), STOP, Interest::READ)?;
        let state = State {
            targets: HashMap::new(),
            entries: HashMap::new(),
            pairs: HashMap::new(),
            flows: Flows::default(),
            next: STOP + 2,
        };
        let shared =
            Arc::new(Self { poller, state: Mutex::new(state), stop, most_pairs: most_pairs() });
        let worker = Arc::clone(&shared);
        std::thread::Builder::new().name("rq-relay".to_owned()).spawn(move || worker.work())?;
        Ok(shared)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        // Neither ports nor containers need a right of any kind.
        capability::set(&Capabilities::default()).ok();
        let mut buffer = vec![0; BUFFER];
        let mut ready = Vec::new();
        let mut swept = Instant::now();
        loop {
            let timeout = (!self.lock().flows.is_empty()).then_some(SWEEP);
            if self.poller.wait(&mut ready, timeout).is_err() {
                return;
            }
            for event in std::mem::take(&mut ready) {
                if event.token == STOP {
                    return;
                }
                // The lock is free between two of them, so that the daemon does not wait for all.
                self.lock().serve(self, &mut buffer, event);
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.lock().sweep(&self.poller, swept);
            }
        }
    }
}

/// Returns how many connections there are descriptors for.
fn most_pairs() -> usize {
    let limit = rlimit::number("NOFILE").and_then(|number| rlimit::get(number).ok());
    let descriptors = limit.map_or(1024, |limit| limit.soft);
    let free = descriptors.saturating_sub(OTHER_DESCRIPTORS.min(descriptors / 2));
    usize::try_from(free / 2).map_or(MOST_PAIRS, |pairs| pairs.min(MOST_PAIRS))
}

impl State {
    fn token(&mut self) -> u64 {
        let token = self.next;
        self.next += 2;
        token
    }

    fn serve(&mut self, shared: &Shared, buffer: &mut [u8], event: Ready) {
        let key = event.token & !1;
        match self.entries.get_mut(&key) {
            Some(Entry::Door(Door { socket: Listening::Tcp(_), .. })) => self.accept(shared, key),
            Some(Entry::Door(_)) => self.read_door(shared, buffer, key),
            Some(Entry::Pair(pair)) => {
                let goes_on = pair.carry(&shared.poller, buffer, key, event);
                if !goes_on {
                    self.drop_entry(&shared.poller, key);
                }
            }
            Some(Entry::Flow(_)) => self.read_flow(buffer, key),
            // It was closed by an event before this one.
            None => {}
        }
    }

    fn accept(&mut self, shared: &Shared, key: u64) {
        for _ in 0..BURST {
            let Some(Entry::Door(door)) = self.entries.get(&key) else { return };
            let Listening::Tcp(listener) = &door.socket else { return };
            let client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                // No descriptor is left; some connection ends sooner or later.
                Err(_) => return std::thread::sleep(Duration::from_millis(1)),
            };
            let (container, inside, over_ipv6) =
                (door.container.clone(), door.inside, door.over_ipv6);
            let own = self.pairs.get(&container).copied().unwrap_or(0);
            let all = self.pairs.values().sum::<usize>();
            let full = own >= shared.most_pairs / 2 || all >= shared.most_pairs;
            let to = self.targets.get(&container).filter(|_| !full);
            let made = to.and_then(|to| to.of(over_ipv6)).and_then(|to| {
                let inner = net::connect_later(SocketAddr::new(to, inside)).ok()?;
                Pair::new(container.clone(), [client, inner]).ok()
            });
            let Some(mut pair) = made else { continue };
            let token = self.token();
            if pair.watch(&shared.poller, token).is_ok() {
                *self.pairs.entry(container).or_default() += 1;
                self.entries.insert(token, Entry::Pair(Box::new(pair)));
            }
        }
    }

    fn drop_entry(&mut self, poller: &Poller, key: u64) {
        let Some(entry) = self.entries.remove(&key) else { return };
        entry.leave(poller);
        match &entry {
            Entry::Pair(pair) => {
                if let Some(count) = self.pairs.get_mut(pair.container()) {
                    *count = count.saturating_sub(1);
                }
            }
            Entry::Flow(flow) => self.flows.remove(flow),
            Entry::Door(_) => {}
        }
    }

    fn remove(&mut self, poller: &Poller, container: &str) {
        self.targets.remove(container);
        let theirs = self.entries.iter().filter(|(_, entry)| entry.container() == container);
        for key in theirs.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.drop_entry(poller, key);
        }
        self.pairs.remove(container);
    }

    /// Passes packets of clients on, each client by a socket of its own.
    fn read_door(&mut self, shared: &Shared, buffer: &mut [u8], key: u64) {
        for _ in 0..BURST {
            let Some(Entry::Door(door)) = self.entries.get(&key) else { return };
            let Listening::Udp(socket) = &door.socket else { return };
            let Ok((size, client)) = socket.recv_from(buffer) else { return };
            let known = self.flows.find(key, client);
            let token = match known {
                Some(token) => token,
                None => match self.begin_flow(shared, key, client) {
                    Ok(token) => token,
                    Err(_) => continue,
                },
            };
            if let Some(Entry::Flow(flow)) = self.entries.get_mut(&token) {
                flow.until = Instant::now() + flow::IDLE;
                // A full queue loses packets, as anywhere on the way.
                flow.socket.send(&buffer[..size]).ok();
            }
        }
    }

    fn begin_flow(&mut self, shared: &Shared, door: u64, client: SocketAddr) -> io::Result<u64> {
        let Some(Entry::Door(Door { container, inside, over_ipv6, .. })) = self.entries.get(&door)
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let to = self.targets.get(container).and_then(|to| to.of(*over_ipv6));
        let to = SocketAddr::new(to.ok_or(io::ErrorKind::NotFound)?, *inside);
        let flow = Flow::open(container.clone(), (door, client), to)?;
        if let Some(oldest) = self.oldest_flow(&flow.container) {
            self.drop_entry(&shared.poller, oldest);
        }
        let token = self.token();
        shared.poller.add(flow.socket.as_fd(), token, Interest::READ)?;
        self.flows.insert(&flow, token);
        self.entries.insert(token, Entry::Flow(flow));
        Ok(token)
    }

    /// Finds the flow that has to make room for another.
    fn oldest_flow(&self, container: &str) -> Option<u64> {
        if !self.flows.is_full(container) {
            return None;
        }
        let flows = self.entries.iter().filter_map(|(token, entry)| match entry {
            Entry::Flow(flow) if flow.container == container => Some((flow.until, *token)),
            _ => None,
        });
        flows.min().map(|(_, token)| token)
    }

    fn read_flow(&mut self, buffer: &mut [u8], key: u64) {
        for _ in 0..BURST {
            let Some(Entry::Flow(flow)) = self.entries.get_mut(&key) else { return };
            // A container that does not listen refuses, which ends nothing: it may listen later.
            let Ok(size) = flow.socket.recv(buffer) else { return };
            flow.until = Instant::now() + flow::IDLE;
            let (door, client) = (flow.door, flow.client);
            if let Some(Entry::Door(Door { socket: Listening::Udp(socket), .. })) =
                self.entries.get(&door)
            {
                socket.send_to(&buffer[..size], client).ok();
            }
        }
    }

    fn sweep(&mut self, poller: &Poller, now: Instant) {
        let over = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Flow(flow) if flow.until <= now));
        for key in over.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.drop_entry(poller, key);
        }
    }
}

#[cfg(test)]
mod tests;

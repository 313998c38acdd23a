//! One client of a relayed UDP port, for as long as packets pass.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long a client that says nothing is remembered.
// COMPAT: as long as Docker's proxy does.
pub(super) const IDLE: Duration = Duration::from_secs(90);
/// LIMIT: clients of one container that are remembered; each has a socket.
const MOST_EACH: usize = 1024;

/// A client, and the socket by which the container sees it.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) container: String,
    /// The port that the client came by.
    pub(super) door: u64,
    pub(super) client: SocketAddr,
    pub(super) socket: UdpSocket,
    pub(super) until: Instant,
}

impl Flow {
    pub(super) fn open(
        container: String,
        (door, client): (u64, SocketAddr),
        to: SocketAddr,
    ) -> io::Result<Self> {
        let any = match to.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        Ok(Self { container, door, client, socket, until: Instant::now() + IDLE })
    }
}

/// Finds flows by their clients.
#[derive(Debug, Default)]
pub(super) struct Flows {
    by_client: HashMap<(u64, SocketAddr), u64>,
    each: HashMap<String, usize>,
}

impl Flows {
    pub(super) fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    pub(super) fn find(&self, door: u64, client: SocketAddr) -> Option<u64> {
        self.by_client.get(&(door, client)).copied()
    }

    pub(super) fn is_full(&self, container: &str) -> bool {
        self.each.get(container).is_some_and(|count| *count >= MOST_EACH)
    }

    pub(super) fn insert(&mut self, flow: &Flow, token: u64) {
        self.by_client.insert((flow.door, flow.client), token);
        *self.each.entry(flow.container.clone()).or_default() += 1;
    }

    pub(super) fn remove(&mut self, flow: &Flow) {
        self.by_client.remove(&(flow.door, flow.client));
        if let Some(count) = self.each.get_mut(&flow.container) {
            *count -= 1;
            if *count == 0 {
                self.each.remove(&flow.container);
            }
        }
    }
}

//! Keeping other programs of the host away from published ports.
//!
//! A few ports side by side are held by a socket each. Many are looked up once, by one question to the kernel, and not
//! held: ten thousand sockets would take some forty megabytes. A program that takes such a port later has it, but the
//! firewall leads to the container before it; [`shadowed`] finds it, so that somebody is told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rorqual_sys::net::{self, Transport};
use rustix::io::Errno;

use crate::PortProtocol;
use crate::ports::{Refusal, Run};

/// LIMIT: ports of one run that are held by sockets, some 4 KiB of the kernel's memory each.
const HELD_BY_SOCKETS: usize = 16;

/// The families that ports of the host lead to a container in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Families {
    /// Those that a port on this address is reached in.
    pub(super) const fn of(self, address: Option<IpAddr>) -> Self {
        match address {
            None => self,
            Some(IpAddr::V4(_)) => Self { v6: false, ..self },
            Some(IpAddr::V6(_)) => Self { v4: false, ..self },
        }
    }

    pub(super) const fn is_none(self) -> bool {
        !self.v4 && !self.v6
    }

    /// All addresses of each.
    pub(super) fn addresses(self) -> Vec<IpAddr> {
        let v4 = self.v4.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let v6 = self.v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        v4.into_iter().chain(v6).collect()
    }
}

/// Where a run is published: in each family, all addresses or a single one.
fn addresses(run: &Run, families: Families) -> Vec<IpAddr> {
    run.host_ip.map_or_else(|| families.addresses(), |address| vec![address])
}

/// Tells whether ports are only looked up.
pub(super) fn is_long(run: &Run) -> bool {
    run.len() > HELD_BY_SOCKETS
}

/// Keeps other programs of the host away from ports, in each family that they are published in.
pub(super) fn hold(run: &Run, families: Families) -> Result<Vec<OwnedFd>, Refusal> {
    let addresses = addresses(run, families);
    // Of a long run the first port is held all the same, which also shows whether the address is the host's.
    let held = if is_long(run) { run.host } else { run.last };
    if is_long(run) {
        look_up(run, &addresses)?;
    }
    let mut sockets = Vec::new();
    for port in run.host..=held {
        for address in &addresses {
            let socket = hold_on(run.protocol, SocketAddr::new(*address, port));
            sockets.extend(socket.map_err(|error| Refusal::Busy(port, error))?);
        }
    }
    Ok(sockets)
}

fn look_up(run: &Run, addresses: &[IpAddr]) -> Result<(), Refusal> {
    match taken(run, addresses) {
        Ok(None) => Ok(()),
        Ok(Some(port)) => Err(Refusal::Busy(port, Errno::ADDRINUSE.into())),
        // A kernel that cannot tell is asked port by port.
        Err(_) => (run.host..=run.last).try_for_each(|port| {
            let each = addresses.iter().map(|address| SocketAddr::new(*address, port));
            let tried = each.map(|address| hold_on(run.protocol, address)).try_for_each(|held| {
                drop(held?);
                Ok(())
            });
            tried.map_err(|error| Refusal::Busy(port, error))
        }),
    }
}

/// Finds the first port of a run that some program has.
fn taken(run: &Run, addresses: &[IpAddr]) -> io::Result<Option<u16>> {
    let bound = match net::bound_ports(transport(run.protocol)) {
        Err(error) if run.protocol == PortProtocol::Sctp && error.is(Errno::NOENT) => Vec::new(),
        other => other.map_err(io::Error::other)?,
    };
    let within = bound.iter().filter(|bound| (run.host..=run.last).contains(&bound.port));
    let in_the_way = within.filter(|bound| addresses.iter().any(|at| bound.excludes(*at)));
    Ok(in_the_way.map(|bound| bound.port).min())
}

/// Finds a port of a long run that some program took after it was published, and that the program is not reached at.
pub(super) fn shadowed(run: &Run) -> Option<u16> {
    // The first one is ours.
    let rest = Run { host: run.host + 1, container: run.container + 1, ..run.clone() };
    let all = Families { v4: true, v6: false };
    taken(&rest, &addresses(run, all)).ok().flatten()
}

const fn transport(protocol: PortProtocol) -> Transport {
    match protocol {
        PortProtocol::Tcp => Transport::Tcp,
        PortProtocol::Udp => Transport::Udp,
        PortProtocol::Sctp => Transport::Sctp,
    }
}

fn hold_on(protocol: PortProtocol, address: SocketAddr) -> io::Result<Option<OwnedFd>> {
    match net::reserve_port(transport(protocol), address) {
        Ok(socket) => Ok(Some(socket)),
        // Where the kernel has no such sockets, nobody else can have the port either.
        Err(error)
            if protocol == PortProtocol::Sctp
                && error.raw_os_error() == Some(Errno::PROTONOSUPPORT.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

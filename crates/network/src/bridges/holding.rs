//! Keeping other programs of the host away from published ports.
//!
//! A few ports side by side are held by a socket each; those that are relayed, by the very sockets that clients come by. Many are looked up once, by one question to the kernel, and not
//! held: ten thousand sockets would take some forty megabytes. A program that takes such a port later has it, but the
//! firewall leads to the container before it; [`shadowed`] finds it, so that somebody is told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rorqual_sys::net::{self, Transport};
use rustix::io::Errno;

use crate::ports::{HELD_BY_SOCKETS, Refusal, Run};
use crate::{PortProtocol, PublishedPort};

/// Who leads clients of published ports to a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    /// The firewall, those that come over IPv4.
    pub(super) v4: bool,
    /// The firewall, those that come over IPv6.
    pub(super) v6: bool,
    /// The relay, those that come over IPv4.
    pub(super) relay4: bool,
    /// The relay, those that come over IPv6 and that the firewall does not lead.
    pub(super) relay6: bool,
}

impl Families {
    /// Tells whether nobody is led to a container by these ports.
    pub(super) fn leave_out(self, run: &Run) -> bool {
        let Reach { v4, v6 } = self.of(run);
        !v4 && !v6
    }

    /// Tells whether clients of these ports are relayed, in IPv4 or in IPv6.
    pub(super) fn relays(self, run: &Run) -> bool {
        let Reach { v4, v6 } = self.relayed(run);
        v4 || v6
    }

    /// Lists the addresses of the host that a run is published at: in each family, all or a single one.
    pub(super) fn addresses(self, run: &Run) -> Vec<IpAddr> {
        run.host_ip.map_or_else(|| self.of(run).all(), |address| vec![address])
    }

    fn relayed(self, run: &Run) -> Reach {
        if !run.may_be_relayed() {
            return Reach::default();
        }
        match run.host_ip {
            None => Reach { v4: self.relay4, v6: self.relay6 },
            Some(IpAddr::V4(_)) => Reach { v4: self.relay4, v6: false },
            // All that come for another address are led by the firewall, where it leads anybody.
            Some(IpAddr::V6(on)) => {
                let needed = !self.v6 || on.is_loopback() || on.is_unspecified();
                Reach { v4: false, v6: self.relay6 && needed }
            }
        }
    }

    fn of(self, run: &Run) -> Reach {
        let relayed = self.relayed(run);
        let all = Reach { v4: self.v4 || relayed.v4, v6: self.v6 || relayed.v6 };
        match run.host_ip {
            None => all,
            Some(IpAddr::V4(_)) => Reach { v6: false, ..all },
            Some(IpAddr::V6(_)) => Reach { v4: false, ..all },
        }
    }
}

/// Families in which something is so.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    v4: bool,
    v6: bool,
}

impl Reach {
    fn all(self) -> Vec<IpAddr> {
        let v4 = self.v4.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let v6 = self.v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        v4.into_iter().chain(v6).collect()
    }
}

/// A port that clients come by.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) protocol: PortProtocol,
    /// Port inside.
    pub(super) container: u16,
    pub(super) socket: OwnedFd,
}

/// What keeps other programs away from the ports of a run.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Answer nothing.
    _silent: Vec<OwnedFd>,
    /// Open, for the relay.
    pub(super) doors: Vec<Door>,
}

/// Tells whether ports are only looked up.
pub(super) fn is_long(run: &Run) -> bool {
    run.len() > HELD_BY_SOCKETS
}

/// Keeps other programs of the host away from ports, in each family that they are published in.
pub(super) fn hold(run: &Run, families: Families) -> Result<Held, Refusal> {
    if is_long(run) {
        look_up(run, &families.addresses(run))?;
    }
    let (for_relay, silent) = relayed_and_silent(run, families);
    Ok(Held { _silent: hold_on_all(run, &silent)?, doors: open(run, &for_relay)? })
}

/// Holds ports again, as far as they can be had: the relay may have its own still.
pub(super) fn hold_again(run: &Run, families: Families) -> Held {
    let (for_relay, silent) = relayed_and_silent(run, families);
    Held {
        _silent: hold_on_all(run, &silent).unwrap_or_default(),
        doors: open(run, &for_relay).unwrap_or_default(),
    }
}

/// Opens the ports of a run that are relayed, if nobody has them.
pub(super) fn open_again(run: &Run, families: Families) -> Vec<Door> {
    open(run, &relayed_and_silent(run, families).0).unwrap_or_default()
}

/// Tells the addresses that clients are relayed from, from those where nobody is answered.
fn relayed_and_silent(run: &Run, families: Families) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let Reach { v4, v6 } = families.relayed(run);
    let relayed = |address: &IpAddr| if address.is_ipv4() { v4 } else { v6 };
    families.addresses(run).into_iter().partition(relayed)
}

fn hold_on_all(run: &Run, addresses: &[IpAddr]) -> Result<Vec<OwnedFd>, Refusal> {
    // Of a long run the first port is held all the same, which also shows whether the address is the host's.
    let held = if is_long(run) { run.host } else { run.last };
    let mut sockets = Vec::new();
    for port in run.host..=held {
        for address in addresses {
            let socket = hold_on(run.protocol, SocketAddr::new(*address, port));
            sockets.extend(socket.map_err(|error| Refusal::Busy(port, error))?);
        }
    }
    Ok(sockets)
}

fn open(run: &Run, addresses: &[IpAddr]) -> Result<Vec<Door>, Refusal> {
    let mut doors = Vec::new();
    for address in addresses {
        for PublishedPort { container, protocol, host: (port, _), .. } in run.ports() {
            let at = SocketAddr::new(*address, port);
            let socket = net::open_port(transport(protocol), at)
                .map_err(|error| Refusal::Busy(port, error))?;
            doors.push(Door { protocol, container, socket });
        }
    }
    Ok(doors)
}

/// Tells whether this host has IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    net::open_port(Transport::Udp, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).is_ok()
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
    let all = Families { v4: true, ..Families::default() };
    taken(&rest, &all.addresses(run)).ok().flatten()
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

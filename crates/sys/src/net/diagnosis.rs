//! Which ports of a namespace are in use, by `sock_diag(7)`: one question, however many ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Batch, attributes};
use super::reserve::Transport;
use super::socket::{Dumped, NetlinkError, Protocol, Socket};

const BY_FAMILY: u16 = 20;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
/// TCP sockets that keep others from a port: those that listen, and those that are bound and may yet.
const HOLDING: u32 = 1 << 10 | 1 << 13;
const ALL_STATES: u32 = u32::MAX;
const IPV6_ONLY: u16 = 11;

/// A socket that has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its address; unspecified: all of the family.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// An IPv6 socket that serves IPv4 as well.
    pub both: bool,
}

impl Bound {
    /// Tells whether it keeps others from its port at `address`; an unspecified one stands for all of its family.
    pub fn excludes(&self, address: IpAddr) -> bool {
        let covers =
            |own: IpAddr| own.is_unspecified() || address.is_unspecified() || own == address;
        match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => covers(self.address),
            (IpAddr::V6(own), IpAddr::V4(_)) => match own.to_ipv4_mapped() {
                Some(mapped) => covers(IpAddr::V4(mapped)),
                None => self.both && own.is_unspecified(),
            },
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// Lists the sockets of the calling thread's network namespace that have a port.
///
/// # Errors
/// What the kernel says; a protocol that it lacks has no sockets, and is `ENOENT`.
pub fn bound_ports(transport: Transport) -> Result<Vec<Bound>, NetlinkError> {
    let (protocol, states) = match transport {
        Transport::Tcp => (6, HOLDING),
        Transport::Udp => (17, ALL_STATES),
        Transport::Sctp => (132, HOLDING),
    };
    let mut socket = Socket::open(Protocol::Diagnosis)?;
    let mut all = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        // Family, protocol, no extensions, states, and an identity that leaves everything open.
        let mut question = [0; 56];
        question[0] = family;
        question[1] = protocol;
        question[4..8].copy_from_slice(&states.to_ne_bytes());
        let mut request = Batch::new();
        request.message(BY_FAMILY, DUMP, &question, |_| {});
        let mut found = Vec::new();
        socket.dump(&request, |dumped| match dumped {
            Dumped::Start => found.clear(),
            Dumped::Object(payload) => found.extend(parse(payload)),
        })?;
        all.append(&mut found);
    }
    all.retain(|bound| bound.port != 0);
    Ok(all)
}

fn parse(payload: &[u8]) -> Option<Bound> {
    let port = u16::from_be_bytes(payload.get(4..6)?.try_into().ok()?);
    let address = match i32::from(*payload.first()?) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(payload.get(8..12)?).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(payload.get(8..24)?).ok()?)),
    };
    let only = attributes(payload.get(72..)?).find(|(kind, _)| *kind == IPV6_ONLY);
    let both = address.is_ipv6() && only.is_none_or(|(_, value)| value.first() == Some(&0));
    Some(Bound { address, port, both })
}

#[cfg(test)]
mod tests;

//! The resolver's sockets in a container's namespace.
//!
//! Containers ask 127.0.0.11 on port 53, but may run a name server of their own on that port of all their addresses. So
//! the sockets are on other ports, and the firewall of the namespace writes one port over the other, without tracking
//! connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};

use rorqual_sys::net::{self, Protocol, Socket};
use rorqual_sys::nft::{Base, Compare, Expression, Hook, Meta, PayloadBase, Transaction};

use crate::Error;

/// Where containers find their resolver.
// COMPAT: Docker's address.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
const TABLE: &str = "resolver";
/// Source and destination address of an IPv4 header, source and destination port.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// Opens the sockets, UDP and TCP, in place of those of an earlier resolver.
pub(crate) fn open_sockets(namespace: BorrowedFd<'_>) -> Result<[OwnedFd; 2], Error> {
    let opened = net::run_in_namespace(namespace, || {
        let udp = UdpSocket::bind(SocketAddr::from((ADDRESS, 0)))?;
        let tcp = TcpListener::bind(SocketAddr::from((ADDRESS, 0)))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        redirect(udp.local_addr()?.port(), tcp.local_addr()?.port())?;
        Ok([OwnedFd::from(udp), OwnedFd::from(tcp)])
    });
    opened.map_err(|source| Error::Os {
        action: "open the resolver's sockets in a container".to_owned(),
        source: source.into(),
    })
}

fn redirect(udp: u16, tcp: u16) -> io::Result<()> {
    let mut all = Transaction::new();
    all.delete_table(TABLE);
    all.add_table(TABLE);
    // ORDER: a query is rewritten before connections are tracked and an answer after, so that whoever tracks them sees
    // one connection.
    let base = |hook, priority| Some(Base { kind: "filter", hook, priority });
    all.add_chain(TABLE, "queries", base(Hook::Output, -300));
    all.add_chain(TABLE, "answers", base(Hook::Input, 100));
    for (protocol, port, is_udp) in [(17, udp, true), (6, tcp, false)] {
        let query = rewrite(protocol, (DESTINATION, DESTINATION_PORT), (PORT, port), is_udp);
        all.add_rule(TABLE, "queries", &query);
        let answer = rewrite(protocol, (SOURCE, SOURCE_PORT), (port, PORT), is_udp);
        all.add_rule(TABLE, "answers", &answer);
    }
    all.commit(&mut Socket::open(Protocol::Netfilter)?).map_err(io::Error::other)
}

fn rewrite<'a>(
    protocol: u8,
    (address, at): (u32, u32),
    (from, to): (u16, u16),
    udp: bool,
) -> Vec<Expression<'a>> {
    vec![
        Expression::Meta(Meta::NetworkProtocol, 1),
        Expression::Compare(1, Compare::Equal, vec![2]),
        Expression::Payload(PayloadBase::Network, address, 4, 1),
        Expression::Compare(1, Compare::Equal, ADDRESS.octets().to_vec()),
        Expression::Meta(Meta::TransportProtocol, 1),
        Expression::Compare(1, Compare::Equal, vec![protocol]),
        Expression::Payload(PayloadBase::Transport, at, 2, 1),
        Expression::Compare(1, Compare::Equal, from.to_be_bytes().to_vec()),
        Expression::Load(1, to.to_be_bytes().to_vec()),
        Expression::SetTransport(1, at, udp),
    ]
}

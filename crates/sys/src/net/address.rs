//! Addresses, routes and neighbours (`rtnetlink(7)`, `RTM_*ADDR`, `RTM_*ROUTE`, `RTM_*NEIGH`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Batch, attributes, u32_at};
use super::socket::{Dumped, NetlinkError, Socket};

const CREATE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Number of the link.
    pub link: u32,
    /// Address.
    pub address: IpAddr,
    /// Length of the network's prefix.
    pub prefix: u8,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; `None` for everywhere else by way of a gateway.
    pub destination: Option<(IpAddr, u8)>,
    /// By way of.
    pub gateway: Option<IpAddr>,
    /// Through the link of this number; 0 if the kernel picks it.
    pub link: u32,
}

/// A known hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Whose.
    pub address: IpAddr,
    /// Which.
    pub mac: [u8; 6],
    /// On the link of this number.
    pub link: u32,
}

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn put(batch: &mut Batch, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => batch.attr(kind, &address.octets()),
        IpAddr::V6(address) => batch.attr(kind, &address.octets()),
    }
}

fn address_header(address: &Address) -> [u8; 8] {
    /// `IFA_F_NODAD`: whoever gives addresses out knows that nobody else has this one, so nobody is asked for a second.
    const NOT_PROBED: u8 = 2;
    let flags = if address.address.is_ipv6() { NOT_PROBED } else { 0 };
    let mut header = [family(address.address), address.prefix, flags, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&address.link.to_ne_bytes());
    header
}

/// Adds a request to give a link an address.
pub fn add_address(batch: &mut Batch, address: &Address) {
    batch.message(libc::RTM_NEWADDR, CREATE, &address_header(address), |batch| {
        put(batch, libc::IFA_LOCAL, address.address);
        put(batch, libc::IFA_ADDRESS, address.address);
        if let IpAddr::V4(v4) = address.address
            && address.prefix < 31
        {
            let hosts = u32::MAX >> address.prefix;
            batch.attr(libc::IFA_BROADCAST, &(v4.to_bits() | hosts).to_be_bytes());
        }
    });
}

/// Adds a request to take an address from a link.
pub fn delete_address(batch: &mut Batch, address: &Address) {
    batch.message(libc::RTM_DELADDR, REQUEST, &address_header(address), |batch| {
        put(batch, libc::IFA_LOCAL, address.address);
    });
}

/// Adds a request for a route.
pub fn add_route(batch: &mut Batch, route: &Route) {
    put_route(batch, route, libc::RTM_NEWROUTE, CREATE);
}

/// Adds a request to take a route away.
pub fn delete_route(batch: &mut Batch, route: &Route) {
    put_route(batch, route, libc::RTM_DELROUTE, REQUEST);
}

fn put_route(batch: &mut Batch, route: &Route, kind: u16, flags: u16) {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let sample = route.destination.map_or(route.gateway.unwrap_or(any), |(address, _)| address);
    let prefix = route.destination.map_or(0, |(_, prefix)| prefix);
    let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let header = [
        family(sample),
        prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        scope,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    batch.message(kind, flags, &header, |batch| {
        if let Some((destination, _)) = route.destination {
            put(batch, libc::RTA_DST, destination);
        }
        if let Some(gateway) = route.gateway {
            put(batch, libc::RTA_GATEWAY, gateway);
        }
        if route.link != 0 {
            batch.attr_u32(libc::RTA_OIF, route.link);
        }
    });
}

/// Adds a request to note a hardware address for good, in place of what is known.
pub fn add_neighbour(batch: &mut Batch, neighbour: &Neighbour) {
    const LLADDR: u16 = 2;
    const DST: u16 = 1;
    const PERMANENT: u16 = 0x80;
    let mut header = [0; 12];
    header[0] = family(neighbour.address);
    header[4..8].copy_from_slice(&neighbour.link.to_ne_bytes());
    header[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    batch.message(libc::RTM_NEWNEIGH, REPLACE, &header, |batch| {
        put(batch, DST, neighbour.address);
        batch.attr(LLADDR, &neighbour.mac);
    });
}

fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
}

/// Lists all addresses of the socket's namespace.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let mut request = Batch::new();
    request.message(libc::RTM_GETADDR, DUMP, &[0; 8], |_| {});
    let mut found = Vec::new();
    socket.dump(&request, |dumped| match dumped {
        Dumped::Start => found.clear(),
        Dumped::Object(payload) => found.extend(parse_address(payload)),
    })?;
    Ok(found)
}

/// Lists the addresses of a link that are for good and for everywhere: neither given for a while nor of one network only.
pub fn lasting_addresses(socket: &mut Socket, link: u32) -> Result<Vec<Address>, NetlinkError> {
    let mut request = Batch::new();
    request.message(libc::RTM_GETADDR, DUMP, &[0; 8], |_| {});
    let mut found = Vec::new();
    socket.dump(&request, |dumped| match dumped {
        Dumped::Start => found.clear(),
        Dumped::Object(payload) if is_lasting(payload) => found.extend(parse_address(payload)),
        Dumped::Object(_) => {}
    })?;
    found.retain(|address: &Address| address.link == link);
    Ok(found)
}

fn is_lasting(payload: &[u8]) -> bool {
    let Some(&[_, _, flags, scope]) = payload.first_chunk::<4>() else { return false };
    let permanent = u32::from(flags) & libc::IFA_F_PERMANENT != 0;
    permanent && scope == libc::RT_SCOPE_UNIVERSE
}

fn parse_address(payload: &[u8]) -> Option<Address> {
    let attribute = |wanted| {
        let mut all = attributes(payload.get(8..)?);
        all.find(|(kind, _)| *kind == wanted).and_then(|(_, value)| parse_ip(value))
    };
    let address = attribute(libc::IFA_LOCAL).or_else(|| attribute(libc::IFA_ADDRESS))?;
    Some(Address { link: u32_at(payload, 4), address, prefix: *payload.get(1)? })
}

/// Lists the routes of the main table.
pub fn routes(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut request = Batch::new();
    request.message(libc::RTM_GETROUTE, DUMP, &[0; 12], |_| {});
    let mut found = Vec::new();
    socket.dump(&request, |dumped| match dumped {
        Dumped::Start => found.clear(),
        Dumped::Object(payload) => found.extend(parse_route(payload)),
    })?;
    Ok(found)
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    if *payload.get(4)? != libc::RT_TABLE_MAIN {
        return None;
    }
    let mut route = Route { destination: None, gateway: None, link: 0 };
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            libc::RTA_DST => route.destination = parse_ip(value).zip(payload.get(1).copied()),
            libc::RTA_GATEWAY => route.gateway = parse_ip(value),
            libc::RTA_OIF => route.link = u32_at(value, 0),
            _ => {}
        }
    }
    if route.destination.is_none() && route.gateway.is_none() {
        // Nothing else would say which family it is.
        route.destination = Some(match i32::from(*payload.first()?) {
            libc::AF_INET6 => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            _ => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        });
    }
    Some(route)
}

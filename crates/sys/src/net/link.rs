//! Links: making, changing, deleting, listing them (`rtnetlink(7)`, `RTM_*LINK`).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::message::{Batch, attributes, text, u32_at};
use super::socket::{Dumped, NetlinkError, Socket};

const CREATE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;

const VETH_INFO_PEER: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFF_UP: u32 = libc::IFF_UP as u32;

/// Names a link in the socket's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRef<'a> {
    /// By number.
    Index(u32),
    /// By name.
    Name(&'a str),
}

/// A link as listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Alias; empty if none.
    pub alias: String,
    /// `bridge`, `veth`, …; empty for devices without a kind.
    pub kind: String,
    /// Number of the bridge it is a port of, else 0.
    pub master: u32,
    /// Administratively up.
    pub up: bool,
    /// Hardware address.
    pub mac: Vec<u8>,
    /// Largest packet.
    pub mtu: u32,
    /// A port of a bridge that lets frames pass.
    pub forwarding: bool,
}

/// A pair of virtual Ethernet links to be made.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end in the socket's namespace, which is up and a port of `master` at once.
    pub name: &'a str,
    /// Bridge that the near end becomes a port of.
    pub master: u32,
    /// Largest packet of both ends.
    pub mtu: u32,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
}

/// Kinds of links that share the interface they are made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacked {
    /// With hardware addresses of their own; the kernel's number of the mode.
    Macvlan(u32),
    /// With that of the interface; the kernel's numbers of mode and flags.
    Ipvlan(u16, u16),
    /// With the frames of one VLAN.
    Vlan(u16),
}

/// A link to be made on an interface of the socket's namespace.
#[derive(Clone, Copy, Debug)]
pub struct StackedLink<'a> {
    /// Its name.
    pub name: &'a str,
    /// Number of the interface below.
    pub parent: u32,
    /// Largest packet; `None`: that of the interface.
    pub mtu: Option<u32>,
    /// Namespace it is made in; `None`: the socket's.
    pub namespace: Option<BorrowedFd<'a>>,
    /// What it is.
    pub kind: Stacked,
}

/// What to change on a link; `None` leaves as is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Up or down.
    pub up: Option<bool>,
    /// New name.
    pub name: Option<&'a str>,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Bridge to be a port of; 0: none.
    pub master: Option<u32>,
    /// Alias.
    pub alias: Option<&'a str>,
    /// Namespace to move to.
    pub namespace: Option<BorrowedFd<'a>>,
    /// Bridge port that talks to no other isolated port.
    pub isolated: Option<bool>,
    /// Bridge port that may send a frame back where it came from.
    pub hairpin: Option<bool>,
    /// It gets no link-local IPv6 address when it comes up. Kernels without IPv6 refuse this with `EAFNOSUPPORT`.
    pub without_link_local: bool,
}

fn header(link: LinkRef<'_>, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    if let LinkRef::Index(index) = link {
        header[4..8].copy_from_slice(&index.to_ne_bytes());
    }
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn put_ref(batch: &mut Batch, link: LinkRef<'_>) {
    if let LinkRef::Name(name) = link {
        batch.attr_str(libc::IFLA_IFNAME, name);
    }
}

fn put_fd(batch: &mut Batch, namespace: BorrowedFd<'_>) {
    batch.attr_u32(libc::IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
}

fn add_simple(batch: &mut Batch, name: &str, kind: &str, mac: Option<[u8; 6]>) {
    let fixed = header(LinkRef::Name(name), 0, 0);
    batch.message(libc::RTM_NEWLINK, CREATE, &fixed, |batch| {
        batch.attr_str(libc::IFLA_IFNAME, name);
        if let Some(mac) = mac {
            batch.attr(libc::IFLA_ADDRESS, &mac);
        }
        batch.nest(libc::IFLA_LINKINFO, |batch| batch.attr_str(libc::IFLA_INFO_KIND, kind));
    });
}

/// Adds a request to make a bridge, which is down at first.
///
/// With a hardware address of its own it keeps that when ports come and go.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: [u8; 6]) {
    add_simple(batch, name, "bridge", Some(mac));
}

/// Adds a request to make a link that swallows what it is given, down at first.
pub fn add_dummy(batch: &mut Batch, name: &str) {
    add_simple(batch, name, "dummy", None);
}

/// Adds a request to make a pair of virtual Ethernet links.
pub fn add_veth(batch: &mut Batch, veth: &Veth<'_>) {
    let fixed = header(LinkRef::Name(veth.name), IFF_UP, IFF_UP);
    batch.message(libc::RTM_NEWLINK, CREATE, &fixed, |batch| {
        batch.attr_str(libc::IFLA_IFNAME, veth.name);
        batch.attr_u32(libc::IFLA_MTU, veth.mtu);
        batch.attr_u32(libc::IFLA_MASTER, veth.master);
        put_single_queue(batch);
        batch.nest(libc::IFLA_LINKINFO, |batch| {
            batch.attr_str(libc::IFLA_INFO_KIND, "veth");
            batch.nest(libc::IFLA_INFO_DATA, |batch| {
                batch.nest(VETH_INFO_PEER, |batch| {
                    batch.raw(&header(LinkRef::Name(veth.peer_name), 0, 0));
                    batch.attr_str(libc::IFLA_IFNAME, veth.peer_name);
                    batch.attr_u32(libc::IFLA_MTU, veth.mtu);
                    put_single_queue(batch);
                    put_fd(batch, veth.peer_namespace);
                });
            });
        });
    });
}

/// Asks for the one queue each way that a pair uses. Unless told, the kernel makes one per processor and takes all but one
/// back at once, for which it waits until every processor has passed a quiet state, twice, holding its lock of all links.
fn put_single_queue(batch: &mut Batch) {
    batch.attr_u32(libc::IFLA_NUM_TX_QUEUES, 1);
    batch.attr_u32(libc::IFLA_NUM_RX_QUEUES, 1);
}

/// Adds a request to make a link on an interface, down at first.
pub fn add_stacked(batch: &mut Batch, link: &StackedLink<'_>) {
    let fixed = header(LinkRef::Name(link.name), 0, 0);
    batch.message(libc::RTM_NEWLINK, CREATE, &fixed, |batch| {
        batch.attr_str(libc::IFLA_IFNAME, link.name);
        batch.attr_u32(libc::IFLA_LINK, link.parent);
        if let Some(mtu) = link.mtu {
            batch.attr_u32(libc::IFLA_MTU, mtu);
        }
        if let Some(namespace) = link.namespace {
            put_fd(batch, namespace);
        }
        batch.nest(libc::IFLA_LINKINFO, |batch| match link.kind {
            Stacked::Macvlan(mode) => {
                batch.attr_str(libc::IFLA_INFO_KIND, "macvlan");
                batch.nest(libc::IFLA_INFO_DATA, |batch| batch.attr_u32(1, mode));
            }
            Stacked::Ipvlan(mode, flags) => {
                batch.attr_str(libc::IFLA_INFO_KIND, "ipvlan");
                batch.nest(libc::IFLA_INFO_DATA, |batch| {
                    batch.attr(1, &mode.to_ne_bytes());
                    batch.attr(2, &flags.to_ne_bytes());
                });
            }
            Stacked::Vlan(id) => {
                batch.attr_str(libc::IFLA_INFO_KIND, "vlan");
                batch.nest(libc::IFLA_INFO_DATA, |batch| batch.attr(1, &id.to_ne_bytes()));
            }
        });
    });
}

/// Adds a request to change a link.
///
/// A link is renamed by its number, since the request has one place for a name.
pub fn change_link(batch: &mut Batch, link: LinkRef<'_>, change: &Change<'_>) {
    let (flags, mask) = match change.up {
        Some(true) => (IFF_UP, IFF_UP),
        Some(false) => (0, IFF_UP),
        None => (0, 0),
    };
    batch.message(libc::RTM_NEWLINK, REQUEST, &header(link, flags, mask), |batch| {
        put_ref(batch, link);
        if let Some(name) = change.name {
            batch.attr_str(libc::IFLA_IFNAME, name);
        }
        if let Some(mac) = change.mac {
            batch.attr(libc::IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = change.mtu {
            batch.attr_u32(libc::IFLA_MTU, mtu);
        }
        if let Some(master) = change.master {
            batch.attr_u32(libc::IFLA_MASTER, master);
        }
        if let Some(alias) = change.alias {
            batch.attr(libc::IFLA_IFALIAS, alias.as_bytes());
        }
        if let Some(namespace) = change.namespace {
            put_fd(batch, namespace);
        }
        put_port(batch, change);
        if change.without_link_local {
            batch.nest(libc::IFLA_AF_SPEC, |batch| {
                batch.nest(libc::AF_INET6 as u16, |batch| {
                    batch.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
                });
            });
        }
    });
}

fn put_port(batch: &mut Batch, change: &Change<'_>) {
    if change.isolated.is_none() && change.hairpin.is_none() {
        return;
    }
    batch.nest(libc::IFLA_LINKINFO, |batch| {
        batch.attr_str(IFLA_INFO_SLAVE_KIND, "bridge");
        batch.nest(IFLA_INFO_SLAVE_DATA, |batch| {
            if let Some(hairpin) = change.hairpin {
                batch.attr(IFLA_BRPORT_MODE, &[u8::from(hairpin)]);
            }
            if let Some(isolated) = change.isolated {
                batch.attr(IFLA_BRPORT_ISOLATED, &[u8::from(isolated)]);
            }
        });
    });
}

/// Adds a request to delete a link; the other end of a pair goes with it.
pub fn delete_link(batch: &mut Batch, link: LinkRef<'_>) {
    batch.message(libc::RTM_DELLINK, REQUEST, &header(link, 0, 0), |batch| put_ref(batch, link));
}

/// Lists the links of the socket's namespace.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    list(socket, DUMP, None)
}

/// Finds a link by name.
pub fn find_link(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    // A dump cannot be narrowed to a name, so this asks for one object; its only answer is that object.
    match list(socket, REQUEST | libc::NLM_F_ACK as u16, Some(name)) {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.is(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn list(socket: &mut Socket, flags: u16, name: Option<&str>) -> Result<Vec<Link>, NetlinkError> {
    let mut request = Batch::new();
    request.message(libc::RTM_GETLINK, flags, &header(LinkRef::Index(0), 0, 0), |batch| {
        if let Some(name) = name {
            batch.attr_str(libc::IFLA_IFNAME, name);
        }
    });
    let mut found = Vec::new();
    socket.dump(&request, |dumped| match dumped {
        Dumped::Start => found.clear(),
        Dumped::Object(payload) => found.push(parse(payload)),
    })?;
    Ok(found)
}

fn parse(payload: &[u8]) -> Link {
    let mut link =
        Link { index: u32_at(payload, 4), up: u32_at(payload, 8) & IFF_UP != 0, ..Link::default() };
    for (kind, value) in attributes(payload.get(16..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_IFALIAS => link.alias = text(value),
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0),
            libc::IFLA_ADDRESS => link.mac = value.to_vec(),
            libc::IFLA_LINKINFO => {
                let found = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = found.map(|(_, value)| text(value)).unwrap_or_default();
                link.forwarding = is_forwarding(value);
            }
            _ => {}
        }
    }
    link
}

fn is_forwarding(link_info: &[u8]) -> bool {
    const BRPORT_STATE: u16 = 1;
    const FORWARDING: u8 = 3;
    let port = attributes(link_info).find(|(kind, _)| *kind == IFLA_INFO_SLAVE_DATA);
    port.is_some_and(|(_, port)| {
        attributes(port).any(|(kind, value)| kind == BRPORT_STATE && value == [FORWARDING])
    })
}

//! Sets up bridges on the host: interface, addresses, kernel settings. Does not deal with containers.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rorqual_sys::net::{self, Address, Batch, Change, Link, LinkRef, NetlinkError, Socket};

use crate::cidr::{Cidr, Cidr4, Cidr6};
use crate::design;
use crate::files::HostSide;
use crate::firewall::Router;
use crate::ipam::{AddressPool, Pools, SubnetPool, default_pools, free_subnet};
use crate::names::{Tag, random};
use crate::{Error, NamespaceOwner, NetworkPlugins, NetworkRecord, Subnet};

/// Whether there is a default bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultBridge {
    /// An interface of this name, made if it does not exist.
    Named(String),
    /// None: containers that name no network get no interface.
    Off,
}

/// The configuration of a daemon's networks.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// The default bridge.
    pub bridge: DefaultBridge,
    /// Address and subnet of the default bridge; else that of the interface, else chosen from `pools`.
    pub bip: Option<Cidr4>,
    /// Part of the subnet that containers get addresses from.
    pub fixed_cidr: Option<Cidr4>,
    /// Where subnets are cut from.
    pub pools: Vec<SubnetPool>,
    /// Largest packet.
    pub mtu: u32,
    /// What this host does with packets.
    pub traffic: Traffic,
    /// Address that ports are published on unless the user says otherwise; `None`: all.
    pub publish_on: Option<IpAddr>,
    /// Namespaces kept ready; 0: none.
    pub warm: usize,
    /// Who owns those.
    pub owner: NamespaceOwner,
    /// Directory of what outlives a reboot; names the daemon among others on the host.
    pub state: PathBuf,
    /// Directory of what does not.
    pub run_dir: PathBuf,
    /// Where the host's own files are.
    pub host: HostSide,
    /// Drivers of others.
    pub plugins: Option<NetworkPlugins>,
}

/// What the host does with packets of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Containers of the default bridge reach each other.
    pub icc: bool,
    /// Outgoing connections get the host's address.
    pub ip_masq: bool,
    /// Forwarding may be switched on.
    pub ip_forward: bool,
    /// There is a firewall; without, no port can be published.
    pub firewall: bool,
    /// Which clients of published ports are relayed.
    pub relay: Relay,
}

/// Which clients of published ports are relayed, byte for byte, instead of being led by the firewall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relay {
    /// None.
    Off,
    /// Those that the firewall cannot lead: the host's own at `::1`, and those that come over IPv6 for containers without.
    #[default]
    WhereNeeded,
    /// All: ports are ordinary sockets of the host, so that the host's own rules for what comes in apply.
    All,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { icc: true, ip_masq: true, ip_forward: true, firewall: true, relay: Relay::default() }
    }
}

impl BridgeOptions {
    /// Docker's defaults.
    pub fn new(state: PathBuf, run_dir: PathBuf) -> Self {
        Self {
            bridge: DefaultBridge::Named("docker0".to_owned()),
            bip: None,
            fixed_cidr: None,
            pools: default_pools(),
            mtu: 1500,
            traffic: Traffic::default(),
            publish_on: None,
            warm: 4,
            owner: NamespaceOwner::Host,
            state,
            run_dir,
            host: HostSide::default(),
            plugins: None,
        }
    }
}

/// A bridge, ready.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// The address of the containers' gateway with the subnet's prefix; mostly the bridge's own.
    pub(crate) own: Option<Cidr4>,
    /// The same for IPv6.
    pub(crate) own6: Option<Cidr6>,
    /// The containers' subnets.
    pub(crate) subnet: Option<Cidr4>,
    pub(crate) subnet6: Option<Cidr6>,
    pub(crate) addresses: Pools,
}

pub(crate) fn failed(action: impl Into<String>) -> impl FnOnce(NetlinkError) -> Error {
    let action = action.into();
    |error| Error::Os { action, source: error.into() }
}

fn failed_io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    |error| Error::Os { action, source: error.into() }
}

/// Makes the bridge as configured, or takes the one that exists.
pub(crate) fn set_up(
    name: &str,
    options: &BridgeOptions,
    tag: &Tag,
    socket: &mut Socket,
) -> Result<Bridge, Error> {
    check_name(name)?;
    let link = ensure_link(name, options, tag, socket)?;
    let own = ensure_address(&link, options, socket)?;
    let subnet = own.subnet();
    let range = options.fixed_cidr.unwrap_or(subnet);
    let pool = AddressPool::new(subnet, range, &[own.address])?;
    let addresses = Pools { v4: vec![pool], v6: Vec::new() };
    Ok(Bridge {
        name: link.name,
        index: link.index,
        own: Some(own),
        own6: None,
        subnet: Some(subnet),
        subnet6: None,
        addresses,
    })
}

/// Makes the bridge of a user's network, or takes the one that an earlier daemon made.
pub(crate) fn set_up_network(
    record: &NetworkRecord,
    options: &BridgeOptions,
    tag: &Tag,
    socket: &mut Socket,
) -> Result<Bridge, Error> {
    let addresses = Pools::of(record)?;
    let name = interface_of(record);
    check_name(&name)?;
    let mtu = design::mtu(&record.options)?.unwrap_or(options.mtu);
    let (link, fresh) = match find_bridge(&name, socket)? {
        Some(link) => (link, false),
        None => (make_link(&name, mtu, tag, socket)?, true),
    };
    give_addresses(record, &link, socket).inspect_err(|_| {
        if fresh && let Err(error) = take_down(&name, tag, socket) {
            let error = rorqual_core::full_message(&error);
            tracing::warn!(error, bridge = name, "a half-made bridge stays");
        }
    })?;
    let (mut own, mut own6) = (None, None);
    for (address, prefix) in gateways(record)? {
        match Cidr::new(address, prefix) {
            Cidr::V4(cidr) => own = Some(cidr),
            Cidr::V6(cidr) => own6 = Some(cidr),
        }
    }
    let (subnet, subnet6) = subnets(record)?;
    Ok(Bridge { name: link.name, index: link.index, own, own6, subnet, subnet6, addresses })
}

/// Returns the name of a network's interface.
// COMPAT: `br-` and the short id, where the user wants no other.
pub(crate) fn interface_of(record: &NetworkRecord) -> String {
    let wanted = record.options.get(design::BRIDGE_NAME).filter(|name| !name.is_empty());
    wanted.cloned().unwrap_or_else(|| format!("br-{}", record.id.short()))
}

/// Returns a network's subnets, one of each family.
pub(crate) fn subnets(record: &NetworkRecord) -> Result<(Option<Cidr4>, Option<Cidr6>), Error> {
    let (mut v4, mut v6) = (None, None);
    for subnet in &record.subnets {
        match subnet.cidr()? {
            Cidr::V4(cidr) => v4 = Some(cidr.subnet()),
            Cidr::V6(cidr) => v6 = Some(cidr.subnet()),
        }
    }
    Ok((v4, v6))
}

/// Returns the addresses that the bridge itself has.
fn own_addresses(record: &NetworkRecord) -> Result<Vec<(IpAddr, u8)>, Error> {
    let inhibited = design::switch(&record.options, design::INHIBIT_IPV4)?.unwrap_or(false);
    let mut all = gateways(record)?;
    all.retain(|(address, _)| address.is_ipv6() || !inhibited);
    Ok(all)
}

/// Returns the containers' ways out, with their subnets' prefixes.
fn gateways(record: &NetworkRecord) -> Result<Vec<(IpAddr, u8)>, Error> {
    let own = |subnet: &Subnet| -> Result<_, Error> {
        let prefix = subnet.cidr()?.prefix();
        Ok(subnet.gateway.map(|gateway| (gateway, prefix)))
    };
    record.subnets.iter().filter_map(|subnet| own(subnet).transpose()).collect()
}

fn give_addresses(record: &NetworkRecord, link: &Link, socket: &mut Socket) -> Result<(), Error> {
    let ignored = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    if record.ipv6 {
        let set = |key: [&str; 4], value: &str| {
            net::set_sysctl(&key, value).map_err(failed_io(format!("set net.{}", key.join("."))))
        };
        set(["ipv6", "conf", &link.name, "disable_ipv6"], "0")?;
        // The network is ours to describe; nobody in it tells the host of routes.
        set(["ipv6", "conf", &link.name, "accept_ra"], "0")?;
    } else if let Err(error) = net::set_sysctl(&["ipv6", "conf", &link.name, "disable_ipv6"], "1")
        && !ignored(&error)
    {
        return Err(failed_io(format!("switch IPv6 off on bridge {}", link.name))(error));
    }
    let present = net::addresses(socket).map_err(failed("list addresses"))?;
    let mut batch = Batch::new();
    for (address, prefix) in own_addresses(record)? {
        let own = Address { link: link.index, address, prefix };
        if !present.contains(&own) {
            net::add_address(&mut batch, &own);
        }
    }
    // ORDER: addresses before the link is up, so that it never answers without them.
    let up = Change { up: Some(true), ..Change::default() };
    net::change_link(&mut batch, LinkRef::Index(link.index), &up);
    socket.transact(&batch).map_err(failed(format!("set up bridge {}", link.name)))
}

/// Deletes a bridge that this daemon made; one that was there before stays.
pub(crate) fn take_down(name: &str, tag: &Tag, socket: &mut Socket) -> Result<(), Error> {
    let Some(link) = find_bridge(name, socket)? else { return Ok(()) };
    if link.alias != tag.bridge_alias() {
        return Ok(());
    }
    let mut batch = Batch::new();
    net::delete_link(&mut batch, LinkRef::Index(link.index));
    match socket.transact(&batch) {
        Err(error) if error.is(rustix::io::Errno::NODEV) => Ok(()),
        other => other.map_err(failed(format!("delete bridge {name}"))),
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    if name.is_empty() || name.len() > 15 || matches!(name, "." | "..") || !name.chars().all(fine) {
        return Err(Error::InvalidArgument(format!("invalid name of a bridge: {name:?}")));
    }
    Ok(())
}

fn find_bridge(name: &str, socket: &mut Socket) -> Result<Option<Link>, Error> {
    let found = net::find_link(socket, name).map_err(failed(format!("look up bridge {name}")))?;
    if found.as_ref().is_some_and(|link| link.kind != "bridge") {
        return Err(Error::InvalidArgument(format!("interface {name:?} is not a bridge")));
    }
    Ok(found)
}

fn ensure_link(
    name: &str,
    options: &BridgeOptions,
    tag: &Tag,
    socket: &mut Socket,
) -> Result<Link, Error> {
    let link = match find_bridge(name, socket)? {
        Some(link) => link,
        None => make_link(name, options.mtu, tag, socket)?,
    };
    let mut batch = Batch::new();
    let up = Change { up: Some(true), ..Change::default() };
    net::change_link(&mut batch, LinkRef::Name(name), &up);
    socket.transact(&batch).map_err(failed(format!("bring up bridge {name}")))?;
    Ok(link)
}

/// Makes a bridge that is down.
fn make_link(name: &str, mtu: u32, tag: &Tag, socket: &mut Socket) -> Result<Link, Error> {
    let mut batch = Batch::new();
    let [a, b, c, d] = random();
    net::add_bridge(&mut batch, name, [0x02, 0x42, a, b, c, d]);
    let alias = tag.bridge_alias();
    let change = Change { mtu: Some(mtu), alias: Some(&alias), ..Change::default() };
    net::change_link(&mut batch, LinkRef::Name(name), &change);
    socket.transact(&batch).map_err(failed(format!("create bridge {name}")))?;
    find_bridge(name, socket)?.ok_or_else(|| Error::Conflict(format!("bridge {name} vanished")))
}

/// Gives the bridge its address: the one asked for, else the one it has, else one that is free.
fn ensure_address(
    link: &Link,
    options: &BridgeOptions,
    socket: &mut Socket,
) -> Result<Cidr4, Error> {
    let all = net::addresses(socket).map_err(failed("list addresses"))?;
    let present = all.iter().filter(|address| address.link == link.index).find_map(cidr_of);
    let wanted = match (options.bip, present) {
        (Some(bip), _) => bip,
        (None, Some(present)) => return Ok(present),
        (None, None) => {
            let routes = net::routes(socket).map_err(failed("list routes"))?;
            let destinations = destinations(&routes).filter_map(cidr);
            let in_use = destinations.chain(all.iter().filter_map(cidr_of)).collect::<Vec<_>>();
            let subnet = free_subnet(&options.pools, &in_use)?;
            Cidr4::new(Ipv4Addr::from_bits(subnet.first().to_bits() + 1), subnet.prefix)
        }
    };
    if wanted.prefix > 30 || wanted.address == wanted.first() || wanted.address == wanted.last() {
        return Err(Error::InvalidArgument(format!("invalid address of a bridge: {wanted}")));
    }
    if present == Some(wanted) {
        return Ok(wanted);
    }
    let mut batch = Batch::new();
    let mut address = |cidr: Cidr4, put: fn(&mut Batch, &Address)| {
        let (address, prefix) = (IpAddr::V4(cidr.address), cidr.prefix);
        put(&mut batch, &Address { link: link.index, address, prefix });
    };
    if let Some(present) = present {
        address(present, net::delete_address);
    }
    address(wanted, net::add_address);
    socket.transact(&batch).map_err(failed(format!("give {wanted} to bridge {}", link.name)))?;
    Ok(wanted)
}

/// Lists what the host reaches by routes of its own, the default route left out, and the addresses it has.
pub(crate) fn host_routes(socket: &mut Socket) -> Result<Vec<Cidr>, Error> {
    let routes = net::routes(socket).map_err(failed("list routes"))?;
    let addresses = net::addresses(socket).map_err(failed("list addresses"))?;
    let destinations = destinations(&routes);
    let own = addresses.iter().map(|address| (address.address, address.prefix));
    Ok(destinations.chain(own).map(|(address, prefix)| Cidr::new(address, prefix)).collect())
}

/// Lists where routes lead but the default ones.
fn destinations(routes: &[net::Route]) -> impl Iterator<Item = (IpAddr, u8)> {
    routes.iter().filter_map(|route| route.destination).filter(|(_, prefix)| *prefix > 0)
}

fn cidr_of(address: &Address) -> Option<Cidr4> {
    cidr((address.address, address.prefix))
}

fn cidr((address, prefix): (IpAddr, u8)) -> Option<Cidr4> {
    match address {
        IpAddr::V4(address) => Some(Cidr4::new(address, prefix)),
        IpAddr::V6(_) => None,
    }
}

/// Lets the host forward packets, and its loopback reach containers.
///
/// Both are settings of the namespace, so they are left as they are when the daemon ends.
pub(crate) fn tune(bridge: &Bridge, traffic: Traffic, run_dir: &Path) -> Result<Router, Error> {
    if traffic.firewall && bridge.own.is_some() {
        // ORDER: nothing is published yet, and the firewall drops loopback addresses from bridges before it is.
        let key = ["ipv4", "conf", &bridge.name, "route_localnet"];
        net::set_sysctl(&key, "1").map_err(failed_io(format!("set net.{}", key.join("."))))?;
    }
    if traffic.ip_forward && bridge.own6.is_some() {
        let key = ["ipv6", "conf", "all", "forwarding"];
        net::set_sysctl(&key, "1").map_err(failed_io("switch IPv6 forwarding on"))?;
    }
    if !traffic.ip_forward {
        return Ok(Router::AsItWas);
    }
    // The kernel forgets the setting and the run directory at the same moment: at a reboot.
    let mark = run_dir.join("forwarding-switched-on");
    let key = ["ipv4", "ip_forward"];
    let action = "switch forwarding on";
    if net::read_sysctl(&key).map_err(failed_io(action))? == "0" {
        std::fs::write(&mark, []).map_err(failed_io(format!("write {}", mark.display())))?;
        net::set_sysctl(&key, "1").map_err(failed_io(action))?;
    }
    Ok(if mark.exists() { Router::OnlyBridges } else { Router::AsItWas })
}

//! Networks on an interface of the host, without a bridge: `macvlan` and `ipvlan`.
//!
//! The interface is the host's own, or one that is made here: a VLAN of it by its name (`eth0.10`), or one that swallows
//! everything for a network that nothing leaves.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};

use rorqual_sys::net::{self, Batch, Change, Link, LinkRef, Socket, StackedLink, Veth};
use rustix::io::Errno;

use super::BridgeNetwork;
use crate::bridge::{failed, subnets};
use crate::design::{self, INTERFACE_PREFIX, PARENT, Stacked};
use crate::ipam::Pools;
use crate::link::{LinkKind, Plan};
use crate::names::Tag;
use crate::{Error, NetworkRecord};

/// LIMIT: numbers of VLANs that mean one.
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

fn option<'a>(record: &'a NetworkRecord, key: &str) -> Option<&'a str> {
    record.options.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// Returns the name of the interface that a network is on.
fn parent_of(record: &NetworkRecord) -> String {
    // COMPAT: Docker's name for the interface of a network without one.
    option(record, PARENT).map_or_else(|| format!("dm-{}", record.id.short()), str::to_owned)
}

/// Refuses an interface that another network has, or wants, for itself.
pub(super) fn check_parent(
    networks: &[NetworkRecord],
    record: &NetworkRecord,
    kind: Stacked,
) -> Result<(), Error> {
    let parent = parent_of(record);
    let name = kind.name();
    for other in networks.iter().filter(|other| other.id != record.id) {
        let Some(theirs) = Stacked::of(other)?.filter(|_| parent_of(other) == parent) else {
            continue;
        };
        // COMPAT: dockerd's words.
        let refused = if kind.takes_all() {
            format!(
                "cannot use mode passthru, {name} network {} is already using parent interface {parent}",
                other.name
            )
        } else if theirs.takes_all() || theirs.name() != name {
            format!(
                "{} network {} is already using parent interface {parent} for itself",
                theirs.name(),
                other.name
            )
        } else {
            continue;
        };
        return Err(Error::Forbidden(refused));
    }
    Ok(())
}

/// Finds or makes the interface, and says how containers are linked to it.
pub(super) fn start_network(
    record: &NetworkRecord,
    kind: Stacked,
    tag: &Tag,
    socket: &mut Socket,
) -> Result<BridgeNetwork, Error> {
    probe(kind)?;
    let addresses = Pools::of(record)?;
    let (subnet, _) = subnets(record)?;
    let parent = ensure_parent(record, tag, socket)?;
    // COMPAT: a network without an interface of the host is internal.
    let out = !record.internal && option(record, PARENT).is_some();
    let gateway_of = |ipv4: bool| {
        let gateways = record.subnets.iter().filter_map(|subnet| subnet.gateway);
        gateways.into_iter().find(|gateway| gateway.is_ipv4() == ipv4 && out && !kind.routes())
    };
    let (gateway, gateway6) = (gateway_of(true), gateway_of(false));
    let gateway = gateway.and_then(|gateway| gateway.to_string().parse().ok());
    let gateway6 = gateway6.and_then(|gateway| gateway.to_string().parse().ok());
    let plan = Plan {
        kind: LinkKind::Stacked(kind, parent.index),
        mtu: design::mtu(&record.options)?,
        tag: tag.clone(),
        prefix: subnet.map_or(0, |subnet| subnet.prefix),
        gateway: gateway.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
        addresses: Arc::new(Mutex::new(addresses)),
    };
    let prefix = option(record, INTERFACE_PREFIX).unwrap_or("eth").to_owned();
    let direct = kind.routes() && out;
    Ok(BridgeNetwork {
        plan,
        policy: None,
        direct,
        gateway,
        gateway6,
        prefix,
        publish_on: None,
        pool: None,
        remote: None,
        ipam: None,
    })
}

/// Asks the kernel whether it has such links, where nobody sees it.
fn probe(kind: Stacked) -> Result<(), Error> {
    let name = kind.name();
    let below = match kind {
        Stacked::Macvlan(mode) => net::Stacked::Macvlan(mode),
        Stacked::Ipvlan(mode, flags) => net::Stacked::Ipvlan(mode, flags),
    };
    let tried = net::new_namespace(|_| {
        let mut socket = Socket::open(net::Protocol::Route)?;
        let mut batch = Batch::new();
        net::add_bridge(&mut batch, "below", [2, 0, 0, 0, 0, 1]);
        socket.transact(&batch).map_err(std::io::Error::other)?;
        let parent = net::find_link(&mut socket, "below").map_err(std::io::Error::other)?;
        let parent = parent.map_or(0, |link| link.index);
        let mut batch = Batch::new();
        let link = StackedLink { name: "probe", parent, mtu: None, namespace: None, kind: below };
        net::add_stacked(&mut batch, &link);
        let made = socket.transact(&batch);
        Ok(!made.is_err_and(|error| error.is(Errno::OPNOTSUPP)))
    });
    match tried {
        Ok((_, false)) => Err(Error::Unsupported(format!(
            "networks of the driver {name} need a kernel with {name} links: load its module or use another kernel"
        ))),
        // Without an answer, the first container tells.
        Ok((_, true)) | Err(_) => Ok(()),
    }
}

fn find(name: &str, socket: &mut Socket) -> Result<Option<Link>, Error> {
    net::find_link(socket, name).map_err(failed(format!("look up interface {name}")))
}

fn ensure_parent(record: &NetworkRecord, tag: &Tag, socket: &mut Socket) -> Result<Link, Error> {
    let name = parent_of(record);
    if let Some(link) = find(&name, socket)? {
        return Ok(link);
    }
    let mut batch = Batch::new();
    if record.internal || option(record, PARENT).is_none() {
        make_nowhere(&name, socket)?;
    } else {
        let (below, id) = vlan(&name)?;
        let base = find(below, socket)?.ok_or_else(|| {
            Error::InvalidArgument(format!(
                "parent interface {below} of {name} is not on this host"
            ))
        })?;
        let kind = net::Stacked::Vlan(id);
        let link =
            StackedLink { name: &name, parent: base.index, mtu: None, namespace: None, kind };
        net::add_stacked(&mut batch, &link);
    }
    socket.transact(&batch).map_err(|error| {
        if error.is(Errno::OPNOTSUPP) {
            return Error::Unsupported(format!(
                "parent interface {name} needs a kernel with VLANs: load the module 8021q"
            ));
        }
        failed(format!("create parent interface {name}"))(error)
    })?;
    let mut batch = Batch::new();
    let alias = tag.bridge_alias();
    let change = Change { up: Some(true), alias: Some(&alias), ..Change::default() };
    net::change_link(&mut batch, LinkRef::Name(&name), &change);
    socket.transact(&batch).map_err(failed(format!("bring up parent interface {name}")))?;
    find(&name, socket)?.ok_or_else(|| Error::Conflict(format!("interface {name} vanished")))
}

/// Makes an interface that leads nowhere: a dummy, or where the kernel has none, one end of a pair whose other end nobody
/// listens at.
fn make_nowhere(name: &str, socket: &mut Socket) -> Result<(), Error> {
    let mut batch = Batch::new();
    net::add_dummy(&mut batch, name);
    let made = socket.transact(&batch).or_else(|error| {
        if !error.is(Errno::OPNOTSUPP) {
            return Err(error);
        }
        let own = net::own_namespace()?;
        // LIMIT: an interface's name has 15 characters.
        let other = name.trim_start_matches("dm-").chars().take(12).collect::<String>();
        let other = format!("dp-{other}");
        let mut batch = Batch::new();
        let pair =
            Veth { name, master: 0, mtu: 1500, peer_name: &other, peer_namespace: own.as_fd() };
        net::add_veth(&mut batch, &pair);
        let up = Change { up: Some(true), ..Change::default() };
        net::change_link(&mut batch, LinkRef::Name(&other), &up);
        socket.transact(&batch)
    });
    made.map_err(failed(format!("create parent interface {name}")))
}

/// Reads `eth0.10`.
fn vlan(name: &str) -> Result<(&str, u16), Error> {
    let parts = name.rsplit_once('.').filter(|(below, _)| !below.is_empty());
    let read = parts.and_then(|(below, id)| Some((below, id.parse().ok()?)));
    // COMPAT: dockerd's words.
    read.filter(|(_, id)| VLANS.contains(id)).ok_or_else(|| {
        Error::InvalidArgument(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        ))
    })
}

/// Deletes the interface if it was made here and no other network is on it.
pub(super) fn take_down(
    record: &NetworkRecord,
    others: &[NetworkRecord],
    tag: &Tag,
    socket: &mut Socket,
) -> Result<(), Error> {
    let name = parent_of(record);
    let shared = |other: &NetworkRecord| {
        other.id != record.id
            && matches!(Stacked::of(other), Ok(Some(_)))
            && parent_of(other) == name
    };
    let Some(link) = find(&name, socket)?.filter(|_| !others.iter().any(shared)) else {
        return Ok(());
    };
    if link.alias != tag.bridge_alias() {
        return Ok(());
    }
    let mut batch = Batch::new();
    net::delete_link(&mut batch, LinkRef::Index(link.index));
    match socket.transact(&batch) {
        Err(error) if error.is(Errno::NODEV) => Ok(()),
        other => other.map_err(failed(format!("delete interface {name}"))),
    }
}

#[cfg(test)]
mod tests;

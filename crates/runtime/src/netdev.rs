//! Moves network devices of the caller into a container's network namespace.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rorqual_sys::net::{
    self, Address, Batch, Change, Link, LinkRef, NetlinkError, Protocol, Socket,
};

use crate::plan::NetDevicePlan;

/// Moves devices to the network namespace of process `pid`, with their lasting addresses, and turns them on there.
///
/// Not taken back when a later one fails: who ends the namespace gets physical devices back from the kernel.
pub(crate) fn move_all(pid: i32, devices: &[NetDevicePlan]) -> io::Result<()> {
    let target = net::process_namespace(pid)?;
    let mut socket = Socket::open(Protocol::Route)?;
    for device in devices {
        move_one(&mut socket, target.as_fd(), device).map_err(|error| {
            let text = format!("network device {:?}: {error}", device.host);
            io::Error::new(error.kind(), text)
        })?;
    }
    Ok(())
}

fn move_one(socket: &mut Socket, target: BorrowedFd<'_>, device: &NetDevicePlan) -> io::Result<()> {
    let found = net::find_link(socket, &device.host).map_err(told)?;
    let link = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such device"))?;
    let addresses = net::lasting_addresses(socket, link.index).map_err(told)?;
    let before = net::run_in_namespace(target, list)?;
    if before.iter().any(|known| known.name == device.inside) {
        let text = format!("the container has a device {:?} already", device.inside);
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let mut batch = Batch::new();
    let change =
        Change { name: Some(device.inside.as_str()), namespace: Some(target), ..Change::default() };
    net::change_link(&mut batch, LinkRef::Index(link.index), &change);
    socket.transact(&batch).map_err(told)?;
    net::run_in_namespace(target, || furnish(&before, &addresses))
}

fn list() -> io::Result<Vec<Link>> {
    net::links(&mut Socket::open(Protocol::Route)?).map_err(told)
}

/// Gives the device that has just come its addresses, and turns it on.
fn furnish(before: &[Link], addresses: &[Address]) -> io::Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let now = net::links(&mut socket).map_err(told)?;
    // The kernel may have chosen another number and, of a template, the name.
    let is_new = |link: &&Link| !before.iter().any(|known| known.index == link.index);
    let link = now.iter().find(is_new).ok_or(io::ErrorKind::NotFound)?;
    let mut batch = Batch::new();
    for address in addresses {
        net::add_address(&mut batch, &Address { link: link.index, ..*address });
    }
    let up = Change { up: Some(true), ..Change::default() };
    net::change_link(&mut batch, LinkRef::Index(link.index), &up);
    socket.transact(&batch).map_err(told)
}

fn told(error: NetlinkError) -> io::Error {
    io::Error::new(error.source.kind(), rorqual_core::full_message(&error))
}

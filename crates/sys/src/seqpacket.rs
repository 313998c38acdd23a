//! Sequenced packets with descriptors over unix sockets, see `unix(7)`.
//!
//! Every descriptor is close-on-exec, sizes and counts are bounded, and a peer that went away is an error, never a
//! signal. What the packets mean is the caller's business.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// LIMIT: descriptors in one packet; the kernel's own limit is 253.
pub const MAX_DESCRIPTORS: usize = 64;

/// What one packet brought.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes, never empty.
    pub bytes: Vec<u8>,
    /// Its descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// Makes two connected sockets, both blocking.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Listens at `name` in `directory`; the listener does not block.
///
/// The name is reached through the directory's descriptor, because a socket's path holds 107 bytes only.
pub fn listen(directory: BorrowedFd<'_>, name: &str, backlog: i32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::bind(&socket, &address(directory, name)?)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Connects to the listener at `name` in `directory`; the new socket blocks.
///
/// # Errors
///
/// `ECONNREFUSED` when nobody listens there any more, `ENOENT` when nobody ever did.
pub fn connect(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &address(directory, name)?)?;
    Ok(socket)
}

/// Takes the next connection of a listener.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok(SocketAddrUnix::new(path)?)
}

/// Sends one packet.
///
/// # Errors
///
/// `EPIPE` when the peer is gone, `EMSGSIZE` when `bytes` do not fit into a packet, `EAGAIN` when the socket does not
/// block and its queue is full.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if bytes.is_empty() || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(bytes)];
    loop {
        match rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet of at most `limit` bytes; `None` when the peer is gone.
///
/// # Errors
///
/// `EAGAIN` when the socket does not block and nothing waits; `InvalidData` for a packet that is larger than `limit`
/// or brings more than [`MAX_DESCRIPTORS`]: it is lost, and what it brought is closed.
pub fn receive(socket: BorrowedFd<'_>, limit: usize) -> io::Result<Option<Packet>> {
    let Some(size) = next_size(socket)? else { return Ok(None) };
    let mut bytes = vec![0; size.min(limit)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?
    };
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet too large"));
    }
    bytes.truncate(message.bytes);
    Ok(Some(Packet { bytes, descriptors }))
}

/// Waits for a packet and tells its size; `None` at the end.
fn next_size(socket: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    loop {
        let mut probe = [0_u8; 1];
        match rustix::net::recv(socket.as_fd(), &mut probe[..], flags) {
            Ok((_, 0)) => return Ok(None),
            Ok((_, size)) => return Ok(Some(size)),
            Err(rustix::io::Errno::INTR) => {}
            // COMPAT: a peer that died with unread packets resets the connection.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;

//! Holding host ports, so that no other program takes what the firewall passes on to a container, and opening them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Protocols with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// Holds a port until the descriptor is closed. Nothing that reaches the socket is ever answered.
///
/// # Errors
/// `EADDRINUSE` when it is taken, `EADDRNOTAVAIL` when the address is not the host's.
pub fn reserve_port(transport: Transport, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SocketType::STREAM, ipproto::TCP),
        Transport::Udp => (SocketType::DGRAM, ipproto::UDP),
        Transport::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    // ORDER: the filter comes before the port, so that not even the first packet is answered.
    drop_all(&fd)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if transport == Transport::Udp {
        rustix::net::bind(&fd, &address)?;
        return Ok(fd);
    }
    // Connections of an earlier server on this port may still linger; a listener excludes all others even so.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, 1)?;
    Ok(fd)
}

/// Opens a port for clients: a TCP socket listens, a UDP socket receives; neither blocks. An IPv6 socket is for IPv6 alone.
///
/// # Errors
/// As [`reserve_port`]; `EPROTONOSUPPORT` for other protocols.
pub fn open_port(transport: Transport, address: SocketAddr) -> io::Result<OwnedFd> {
    // LIMIT: connections that nobody has accepted yet; the kernel's own bound is the same.
    const BACKLOG: i32 = 4096;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SocketType::STREAM, ipproto::TCP),
        Transport::Udp => (SocketType::DGRAM, ipproto::UDP),
        Transport::Sctp => return Err(rustix::io::Errno::PROTONOSUPPORT.into()),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, kind, flags, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if transport == Transport::Tcp {
        sockopt::set_socket_reuseaddr(&fd, true)?;
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, BACKLOG)?;
    } else {
        rustix::net::bind(&fd, &address)?;
    }
    Ok(fd)
}

/// Begins a TCP connection without waiting for it; what becomes of it shows when it is written to.
pub fn connect_later(to: SocketAddr) -> io::Result<std::net::TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&fd, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(fd.into()),
        Err(error) => Err(error.into()),
    }
}

/// Attaches a filter that keeps no byte of any packet.
fn drop_all(fd: &OwnedFd) -> io::Result<()> {
    const RETURN_CONSTANT: u16 = 0x06;
    let mut program = [libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the pointers describe `filter` and, through it, `program`; the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

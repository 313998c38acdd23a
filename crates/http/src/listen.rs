//! Where the server listens: Unix sockets, TCP, descriptors inherited from systemd.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Gid, Mode};
use tokio::net::{TcpListener, UnixListener};

/// An address as in `-H`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `unix:///run/x.sock`
    Unix(PathBuf),
    /// `tcp://host:port`; the port may be missing.
    Tcp {
        /// Host name or address; empty: all addresses.
        host: String,
        /// Port; `None`: 2375, or 2376 with TLS.
        port: Option<u16>,
    },
    /// `fd://` with nothing (or `*`), a number or a name behind it.
    Fd(String),
}

/// A text that is not an address to listen at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid address {0:?} to listen at: need unix://PATH, tcp://HOST:PORT or fd://")]
pub struct InvalidAddress(pub String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "fd" => Ok(Self::Fd(rest.to_owned())),
            "tcp" => {
                let rest = rest.strip_suffix('/').unwrap_or(rest);
                let (host, port) = match rest.rsplit_once(':') {
                    Some((host, port)) if !port.contains(']') => {
                        (host, Some(port.parse::<u16>().map_err(|_| invalid())?))
                    }
                    _ => (rest, None),
                };
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let host = bare.unwrap_or(host);
                if host.contains(['/', '[', ']']) {
                    return Err(invalid());
                }
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port: None } => write!(f, "tcp://{host}"),
            Self::Tcp { host, port: Some(port) } => write!(f, "tcp://{host}:{port}"),
            Self::Fd(which) => write!(f, "fd://{which}"),
        }
    }
}

/// Why a listener cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A call failed.
    #[error("cannot listen at {address}")]
    Os {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The path is longer than the kernel takes.
    #[error("cannot listen at unix://{}: the path is longer than 107 bytes", .0.display())]
    PathTooLong(PathBuf),
    /// Somebody answers there.
    #[error("cannot listen at unix://{}: another process listens there", .0.display())]
    InUse(PathBuf),
    /// Something else than a socket is there.
    #[error("cannot listen at unix://{}: it exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// No such descriptor was handed over.
    #[error(
        "no sockets found via socket activation for fd://{0}: make sure the service was started by systemd"
    )]
    NothingInherited(String),
}

/// Who may use a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixAccess {
    /// Group that owns it; `None` leaves the process's.
    pub group: Option<u32>,
    /// Its mode.
    pub mode: u32,
}

impl Default for UnixAccess {
    fn default() -> Self {
        Self { group: None, mode: 0o660 }
    }
}

/// A listener that is ready.
#[derive(Debug)]
pub struct Bound {
    pub(crate) socket: Socket,
    /// Where it listens.
    pub address: Address,
    unlink: Option<(PathBuf, u64)>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Bound {
    /// Returns the TCP address it got, port included.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Tells whether it is reachable only from this host.
    pub fn is_local(&self) -> bool {
        self.local_addr().is_none_or(|address| address.ip().is_loopback())
    }

    /// Tells whether it is a TCP listener.
    pub const fn is_tcp(&self) -> bool {
        matches!(self.socket, Socket::Tcp(_))
    }
}

impl Drop for Bound {
    /// Removes the socket file, unless somebody has put another one there.
    fn drop(&mut self) {
        let Some((path, inode)) = &self.unlink else { return };
        if std::fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode) {
            std::fs::remove_file(path).ok();
        }
    }
}

/// Listens at `address`; `default_port` where a TCP address has none. `fd://` is [`inherited`]'s business.
///
/// # Errors
///
/// See [`ListenError`].
pub async fn bind(
    address: &Address,
    access: UnixAccess,
    default_port: u16,
) -> Result<Bound, ListenError> {
    let failed = |source| ListenError::Os { address: address.to_string(), source };
    match address {
        Address::Unix(path) => bind_unix(path, access),
        Address::Tcp { host, port } => {
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            let port = port.unwrap_or(default_port);
            let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
            Ok(Bound { socket: Socket::Tcp(listener), address: address.clone(), unlink: None })
        }
        Address::Fd(which) => Err(ListenError::NothingInherited(which.clone())),
    }
}

fn bind_unix(path: &Path, access: UnixAccess) -> Result<Bound, ListenError> {
    // LIMIT: `sun_path` has 108 bytes, one for the final NUL.
    if path.as_os_str().len() > 107 {
        return Err(ListenError::PathTooLong(path.to_owned()));
    }
    let address = Address::Unix(path.to_owned());
    let failed = |source: io::Error| ListenError::Os { address: address.to_string(), source };
    remove_stale(path, &failed)?;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|error| failed(error.into()))?;
    // ORDER: the mode of the unbound socket becomes that of the file (less the umask), so it is never wider than asked.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(access.mode & 0o600))
        .map_err(|error| failed(error.into()))?;
    let name = rustix::net::SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    rustix::net::bind(&socket, &name).map_err(|error| failed(error.into()))?;
    let group = access.group.map(Gid::from_raw);
    rustix::fs::chown(path, None, group).map_err(|error| failed(error.into()))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(access.mode))
        .map_err(|error| failed(error.into()))?;
    rustix::net::listen(&socket, 1024).map_err(|error| failed(error.into()))?;
    let inode = std::fs::symlink_metadata(path).map_err(failed)?.ino();
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Bound {
        socket: Socket::Unix(listener),
        address: address.clone(),
        unlink: Some((path.to_owned(), inode)),
    })
}

/// Removes a socket file that nobody listens at any more.
fn remove_stale(path: &Path, failed: &dyn Fn(io::Error) -> ListenError) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            Err(ListenError::NotASocket(path.to_owned()))
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(ListenError::InUse(path.to_owned())),
            Err(_) => std::fs::remove_file(path).map_err(failed),
        },
    }
}

const FIRST_FD: RawFd = 3;

/// Takes over the listening descriptors that systemd handed to this process (`LISTEN_PID`, `LISTEN_FDS`,
/// `LISTEN_FDNAMES` as `variable` finds them). `which` is empty or `*` for all, a number or a name; `take` makes an
/// inherited number ours, once.
///
/// # Errors
///
/// [`ListenError::NothingInherited`] when there is none of that kind.
pub fn inherited(
    which: &str,
    variable: impl Fn(&str) -> Option<String>,
    mut take: impl FnMut(RawFd) -> io::Result<OwnedFd>,
) -> Result<Vec<Bound>, ListenError> {
    let nothing = || ListenError::NothingInherited(which.to_owned());
    let number = |name: &str| variable(name).and_then(|text| text.parse::<i32>().ok());
    let is_ours = number("LISTEN_PID") == i32::try_from(std::process::id()).ok();
    // LIMIT: nobody hands over more listeners than this.
    let count = number("LISTEN_FDS").filter(|count| is_ours && (1..=64).contains(count));
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut bound = Vec::new();
    for fd in FIRST_FD..FIRST_FD + count.ok_or_else(nothing)? {
        let name = names.next().unwrap_or_default();
        if matches!(which, "" | "*") || which == fd.to_string() || which == name {
            bound.push(adopt(take(fd), which)?);
        }
    }
    if bound.is_empty() { Err(nothing()) } else { Ok(bound) }
}

fn adopt(socket: io::Result<OwnedFd>, which: &str) -> Result<Bound, ListenError> {
    let address = Address::Fd(which.to_owned());
    let failed = |source: io::Error| ListenError::Os { address: address.to_string(), source };
    let socket = socket.map_err(failed)?;
    let domain =
        rustix::net::sockopt::socket_domain(&socket).map_err(|error| failed(error.into()))?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(|error| failed(error.into()))?;
    let socket = if domain == rustix::net::AddressFamily::UNIX {
        Socket::Unix(UnixListener::from_std(socket.into()).map_err(failed)?)
    } else {
        Socket::Tcp(TcpListener::from_std(socket.into()).map_err(failed)?)
    };
    Ok(Bound { socket, address: address.clone(), unlink: None })
}

#[cfg(test)]
mod tests;

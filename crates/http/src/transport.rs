//! One connection's bytes: Unix socket, TCP or TLS, with room for bytes that were read too early.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Who is at the other end of a connection, as the kernel knows it; an extension of each request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, plain or TLS.
    Network(SocketAddr),
    /// Over a Unix socket.
    Local {
        /// User.
        user: u32,
        /// Group.
        group: u32,
    },
}

impl Peer {
    /// Returns the address of a peer over TCP.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(address),
            Self::Local { .. } => None,
        }
    }

    /// Returns user and group of a peer on this host.
    pub const fn ids(self) -> Option<(u32, u32)> {
        match self {
            Self::Network(_) => None,
            Self::Local { user, group } => Some((user, group)),
        }
    }
}

/// The certificates that a client has shown, its own first, in DER; an extension of each request's head.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[Vec<u8>]>);

// LIMIT: sealed bytes that one look at the socket takes; rustls by itself asks for 4 KiB at a time, a fourth of a record.
const SEALED: usize = 64 << 10;

pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

/// Lets a TLS connection take what has come with few calls.
pub(crate) fn sealed(stream: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(SEALED, stream)
}

/// A connection as raw bytes in both directions. Shutting down writing leaves reading open (on TLS: `close_notify`).
pub struct RawStream {
    early: Bytes,
    transport: Transport,
}

impl RawStream {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { early: Bytes::new(), transport }
    }

    /// Returns who is at the other end, where the kernel knows it.
    pub(crate) fn peer(&self) -> Option<Peer> {
        match &self.transport {
            Transport::Unix(socket) => {
                let known = socket.peer_cred().ok()?;
                Some(Peer::Local { user: known.uid(), group: known.gid() })
            }
            Transport::Tcp(stream) => stream.peer_addr().ok().map(Peer::Network),
            Transport::Tls(stream) => {
                stream.get_ref().0.get_ref().peer_addr().ok().map(Peer::Network)
            }
        }
    }

    /// Returns the certificates that the client has shown.
    pub(crate) fn certificates(&self) -> Option<PeerCertificates> {
        let Transport::Tls(stream) = &self.transport else { return None };
        let chain = stream.get_ref().1.peer_certificates()?;
        Some(PeerCertificates(chain.iter().map(|one| one.to_vec()).collect()))
    }

    /// Returns the socket when bytes go over it as they are.
    pub(crate) fn plain_tcp(&self) -> Option<&TcpStream> {
        match &self.transport {
            Transport::Tcp(stream) => Some(stream),
            Transport::Unix(_) | Transport::Tls(_) => None,
        }
    }

    /// Puts bytes back in front of those that come.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if self.early.is_empty() {
            self.early = bytes;
        } else if !bytes.is_empty() {
            let mut joined = bytes.to_vec();
            joined.extend_from_slice(&self.early);
            self.early = joined.into();
        }
    }
}

macro_rules! each {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.transport {
            Transport::Unix(io) => {
                let $io = Pin::new(io);
                $call
            }
            Transport::Tcp(io) => {
                let $io = Pin::new(io);
                $call
            }
            Transport::Tls(io) => {
                let $io = Pin::new(&mut **io);
                $call
            }
        }
    };
}

impl AsyncRead for RawStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return each!(self, io => io.poll_read(cx, buf));
        }
        let count = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..count]);
        self.early.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self.transport, Transport::Tls(_))
    }
}

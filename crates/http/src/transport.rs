//! One connection's bytes: Unix socket, TCP or TLS, with room for bytes that were read too early.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Who is at the other end of a Unix socket, as the kernel knows it; an extension of each request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
}

pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
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
        let Transport::Unix(socket) = &self.transport else { return None };
        let known = socket.peer_cred().ok()?;
        Some(Peer { user: known.uid(), group: known.gid() })
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

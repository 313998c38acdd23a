//! One attached client: output waiting for it, and whether it still writes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rorqual_sys::poll::Interest;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::log::LogStream;
use crate::wire::Wanted;

/// LIMIT: bytes kept for a client that does not read.
// COMPAT: dockerd keeps so many, and then waits for the client, too.
const PATIENCE: usize = 1_000_000;

/// What came of reading a client's input.
pub(crate) enum Input {
    /// So many bytes.
    Bytes(usize),
    /// Nothing at present.
    Nothing,
    /// It will write no more.
    End,
}

/// The shim's end of an attachment.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    wants: Wanted,
    /// Bytes that the socket did not take yet. INVARIANT: while there are too many, the streams this client wants are not
    /// read, so more than that is one chunk, or a pipe's contents once the process has ended.
    pending: Vec<u8>,
    sent: usize,
    /// The peer is gone; only its last input may wait in the socket.
    gone: bool,
    /// What epoll was told last; `None`: not registered.
    pub(crate) registered: Option<Interest>,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd, wants: Wanted) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, wants, pending: Vec::new(), sent: 0, gone: false, registered: None })
    }

    pub(crate) fn wants(&self, stream: LogStream) -> bool {
        match stream {
            LogStream::Stdout => self.wants.stdout,
            LogStream::Stderr => self.wants.stderr,
        }
    }

    pub(crate) fn wants_stdin(&self) -> bool {
        self.wants.stdin
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Tells whether output waits for the socket.
    pub(crate) fn waits(&self) -> bool {
        self.sent < self.pending.len()
    }

    /// Tells whether so much output waits that no more shall come.
    pub(crate) fn stalls(&self) -> bool {
        self.pending.len() - self.sent >= PATIENCE
    }

    /// Keeps output for later, in the place of what was sent already.
    fn keep(&mut self, header: &[u8], bytes: &[u8]) {
        if self.sent >= self.pending.len() / 2 {
            self.pending.drain(..self.sent);
            self.sent = 0;
        }
        self.pending.extend_from_slice(header);
        self.pending.extend_from_slice(bytes);
    }

    /// Sends a chunk of output, or keeps what the socket does not take.
    pub(crate) fn offer(&mut self, header: &[u8], bytes: &[u8]) {
        if self.gone {
            return;
        }
        if self.waits() {
            return self.keep(header, bytes);
        }
        let parts = [io::IoSlice::new(header), io::IoSlice::new(bytes)];
        let mut control = rustix::net::SendAncillaryBuffer::default();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(&self.socket, &parts, &mut control, flags) {
            Ok(sent) if sent == header.len() + bytes.len() => {}
            Ok(sent) => {
                self.keep(header, bytes);
                self.sent = sent;
            }
            Err(Errno::AGAIN | Errno::INTR) => self.keep(header, bytes),
            Err(_) => self.leave(),
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        while self.waits() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.pending[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.leave(),
            }
        }
        self.pending = Vec::new();
        self.sent = 0;
    }

    /// Takes note that the peer is gone.
    pub(crate) fn leave(&mut self) {
        self.gone = true;
        self.pending = Vec::new();
        self.sent = 0;
        self.wants.stdout = false;
        self.wants.stderr = false;
    }

    /// Takes note that its input is at an end.
    pub(crate) fn stdin_ended(&mut self) {
        self.wants.stdin = false;
    }

    /// Reads input.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Input {
        loop {
            return match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => Input::End,
                Ok((count, _)) => Input::Bytes(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Input::Nothing,
                Err(_) => {
                    self.leave();
                    Input::End
                }
            };
        }
    }

    /// Tells what to wait for; `None`: for nothing, not even for its end.
    pub(crate) fn interest(&self, input_wanted: bool) -> Option<Interest> {
        if self.gone {
            // A closed socket would be reported again and again.
            return None;
        }
        Some(Interest { read: self.wants.stdin && input_wanted, write: self.waits() })
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

//! The shim's line to the daemon: requests in, answers and exits out, never blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rorqual_sys::poll::{Interest, Poller};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::token::Token;
use crate::wire::{self, Call, Incoming, Message, Outgoing};

/// LIMIT: messages held for a daemon that does not read; it is taken for dead beyond.
const HELD: usize = 1024;

/// A connection to a daemon.
pub(super) struct DaemonLine {
    socket: OwnedFd,
    held: VecDeque<(Outgoing, Option<OwnedFd>)>,
    broken: bool,
    registered: Interest,
}

impl DaemonLine {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, held: VecDeque::new(), broken: false, registered: Interest::READ })
    }

    /// Sends a message, now or once the daemon reads.
    pub(super) fn say(&mut self, message: &Message, descriptor: Option<OwnedFd>) {
        match Outgoing::new(message) {
            Ok(packet) if self.held.len() < HELD => self.held.push_back((packet, descriptor)),
            _ => self.broken = true,
        }
        self.flush();
    }

    /// Sends what is held.
    pub(super) fn flush(&mut self) {
        while let Some((packet, descriptor)) = self.held.front() {
            match packet.send(self.socket.as_fd(), descriptor.as_slice()) {
                Ok(()) => {
                    self.held.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// Takes the next request; `None` when there is none.
    pub(super) fn receive(&mut self) -> Option<Incoming<Call>> {
        match wire::receive(self.socket.as_fd()) {
            Ok(Some(incoming)) => Some(incoming),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // Also a request that makes no sense: whoever sent it is not a daemon to talk to.
            Ok(None) | Err(_) => {
                self.broken = true;
                None
            }
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Tells whether the other end is closed.
    pub(super) fn has_left(&self) -> bool {
        let mut line = [PollFd::new(&self.socket, PollFlags::empty())];
        let polled = rustix::event::poll(&mut line, Some(&Timespec::default()));
        polled.is_err() || line[0].revents().contains(PollFlags::HUP)
    }

    /// Tells whether everything was sent.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn interest(&self) -> Interest {
        Interest { read: true, write: !self.held.is_empty() }
    }

    /// Tells epoll whether there is something to write.
    pub(super) fn register(&mut self, poller: &Poller) -> io::Result<()> {
        let interest = self.interest();
        if interest != self.registered {
            poller.modify(self.socket.as_fd(), Token::Daemon.number(), interest)?;
            self.registered = interest;
        }
        Ok(())
    }
}

impl AsFd for DaemonLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

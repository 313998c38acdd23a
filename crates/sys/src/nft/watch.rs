//! Noticing that somebody else took something out of a table.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::net::{Protocol, Socket, attributes, text};

/// `1 << (group - 1)` of the group that hears of nf_tables.
const GROUP: u32 = 1 << 6;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Nothing of interest.
    Nothing,
    /// Something was taken out of the table by another socket than the one told of, or news were lost.
    Damaged,
}

/// Watches one table.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    table: String,
    own: u32,
}

impl Watch {
    /// Starts to watch `table`, passing over what `own` does to it.
    pub fn new(table: &str, own: &Socket) -> io::Result<Self> {
        let socket = Socket::open_listening(Protocol::Netfilter, GROUP)?;
        Ok(Self { socket, table: table.to_owned(), own: own.port()? })
    }

    /// Waits for news; readable when [`AsFd`] polls so.
    pub fn wait(&mut self) -> io::Result<WatchEvent> {
        let (table, own) = (self.table.as_str(), self.own);
        let mut event = WatchEvent::Nothing;
        let heard = self.socket.listen(|message| {
            // Deletions of tables, chains, rules, sets and elements all name their table in attribute 1.
            let deletion = matches!(message.kind & 0xff, 2 | 5 | 8 | 11 | 14);
            if message.port == own || message.kind >> 8 != 10 || !deletion {
                return;
            }
            let attributes_of = message.payload.get(4..).unwrap_or_default();
            let named = attributes(attributes_of).find(|(kind, _)| *kind == 1);
            if named.is_some_and(|(_, name)| text(name) == table) {
                event = WatchEvent::Damaged;
            }
        });
        match heard {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(WatchEvent::Damaged),
            Err(error) => Err(error),
            Ok(()) => Ok(event),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

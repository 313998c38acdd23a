//! A blocking netlink socket: requests out, acknowledgements and dumps in.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Batch, Received, attributes, messages, text, u32_at};

/// LIMIT: acknowledgements of one batch must fit the receive buffer (208 KiB by default, about 800 bytes each with the
/// kernel's bookkeeping).
const MAX_ACKNOWLEDGED: usize = 128;
/// LIMIT: the kernel's largest dump datagram is 32 KiB.
const RECEIVE: usize = 64 * 1024;
/// LIMIT: answers are ready when the request returns; waiting longer than this means they were lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// LIMIT: what a socket sends at once by default, 208 KiB, less the kernel's bookkeeping.
const SEND: usize = 128 * 1024;
/// LIMIT: news that wait to be read, some hundred thousand; taken only when they come.
const MOST_NEWS: usize = 16 * 1024 * 1024;
const DUMP_RETRIES: usize = 8;

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// Firewall.
    Netfilter,
    /// Who has which port.
    Diagnosis,
}

/// Which messages of a batch are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// All.
    Each,
    /// Refused ones, and the last one inside an opening and a closing message.
    Transaction,
}

/// The kernel refused a message, or the conversation broke.
#[derive(Debug, thiserror::Error)]
#[error("netlink request {index} was refused{}", hint(.text))]
pub struct NetlinkError {
    /// Which message of the batch, from 0.
    pub index: usize,
    /// What the kernel said besides its error number; may be empty.
    pub text: String,
    /// The error number.
    pub source: io::Error,
}

fn hint(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

impl NetlinkError {
    /// Tells whether the error number is `errno`.
    pub fn is(&self, errno: rustix::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }
}

impl From<io::Error> for NetlinkError {
    fn from(source: io::Error) -> Self {
        Self { index: 0, text: String::new(), source }
    }
}

impl From<rustix::io::Errno> for NetlinkError {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// A netlink socket of the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    next: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        Self::open_listening(protocol, 0)
    }

    /// Opens a socket that also hears what happens in the multicast groups whose bits are set.
    pub fn open_listening(protocol: Protocol, groups: u32) -> io::Result<Self> {
        let protocol = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
            Protocol::Diagnosis => Some(netlink::SOCK_DIAG),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        if groups == 0 {
            sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        } else {
            // Somebody who loads a large table must not make the news overflow.
            make_room(fd.as_fd(), libc::SO_RCVBUFFORCE, MOST_NEWS);
        }
        // Without these two, answers are only longer and less explicit.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            switch_on(fd.as_fd(), option);
        }
        Ok(Self { fd, next: 1, buffer: Vec::new() })
    }

    /// Sends rtnetlink messages and waits for each one's acknowledgement.
    ///
    /// The kernel tries every message, also behind one that failed.
    ///
    /// # Errors
    /// The first refusal, in the order of the messages.
    pub fn transact(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        debug_assert!(batch.len() <= MAX_ACKNOWLEDGED, "batch of {} messages", batch.len());
        self.exchange(batch, Answers::Each)
    }

    /// Sends messages and waits until the last one that asked for an answer has it.
    pub(crate) fn exchange(&mut self, batch: &Batch, answers: Answers) -> Result<(), NetlinkError> {
        let awaited = match answers {
            Answers::Each => batch.len().checked_sub(1),
            Answers::Transaction => batch.len().checked_sub(2).filter(|index| *index > 0),
        };
        let Some(awaited) = awaited else { return Ok(()) };
        let first = self.number(batch.len());
        let ack = |index| answers == Answers::Each || index == awaited;
        let bytes = batch.numbered(first, ack);
        if bytes.len() > SEND {
            // The kernel counts its own bookkeeping as well.
            make_room(self.fd.as_fd(), libc::SO_SNDBUFFORCE, bytes.len().saturating_mul(2));
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        let mut refused = None;
        let mut done = false;
        while !done {
            self.receive()?;
            for message in messages(&self.buffer) {
                let index = message.sequence.wrapping_sub(first) as usize;
                // Answers to an earlier request that was given up are passed over.
                if i32::from(message.kind) != libc::NLMSG_ERROR || index >= batch.len() {
                    continue;
                }
                if let Err(error) = acknowledgement(&message, index) {
                    // A refusal of a transaction's opening concerns it as a whole; nothing need follow.
                    done |= index == 0 && answers == Answers::Transaction;
                    refused.get_or_insert(error);
                }
                done |= index >= awaited;
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Asks for a list; calls `each` with every message's payload.
    ///
    /// When the list changed while it was read, it is read again: `each` may then see objects twice, after `restart`.
    pub(crate) fn dump(
        &mut self,
        request: &Batch,
        mut each: impl FnMut(Dumped<'_>),
    ) -> Result<(), NetlinkError> {
        for _ in 0..DUMP_RETRIES {
            each(Dumped::Start);
            let number = self.number(1);
            rustix::net::send(&self.fd, &request.numbered(number, |_| false), SendFlags::empty())?;
            if self.dump_once(number, &mut each)? {
                return Ok(());
            }
        }
        Err(io::Error::from(rustix::io::Errno::AGAIN).into())
    }

    fn dump_once(
        &mut self,
        number: u32,
        each: &mut impl FnMut(Dumped<'_>),
    ) -> Result<bool, NetlinkError> {
        let mut whole = true;
        loop {
            self.receive()?;
            for message in messages(&self.buffer).filter(|message| message.sequence == number) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(whole),
                    libc::NLMSG_ERROR => {
                        acknowledgement(&message, 0)?;
                        return Ok(whole);
                    }
                    _ => each(Dumped::Object(message.payload)),
                }
            }
        }
    }

    /// Waits for multicast messages; calls `each` with every message of one datagram.
    ///
    /// # Errors
    /// `ENOBUFS` when some were lost.
    pub(crate) fn listen(&mut self, each: impl FnMut(Received<'_>)) -> io::Result<()> {
        self.receive()?;
        messages(&self.buffer).for_each(each);
        Ok(())
    }

    /// Returns the number by which the kernel tells this socket's doings from those of others.
    pub(crate) fn port(&self) -> io::Result<u32> {
        let address = SocketAddrNetlink::try_from(rustix::net::getsockname(&self.fd)?)?;
        Ok(address.pid())
    }

    fn number(&mut self, count: usize) -> u32 {
        let first = self.next;
        self.next = self.next.wrapping_add(count as u32);
        first
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.resize(RECEIVE, 0);
        let received = loop {
            match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        self.buffer.truncate(received.0);
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What [`Socket::dump`] tells.
pub(crate) enum Dumped<'a> {
    /// The list starts; what was told before is void.
    Start,
    /// An object's fixed part and attributes.
    Object(&'a [u8]),
}

fn acknowledgement(message: &Received<'_>, index: usize) -> Result<(), NetlinkError> {
    let code = u32_at(message.payload, 0).cast_signed();
    if code == 0 {
        return Ok(());
    }
    // Behind the code comes the header of the refused message, with its body unless it was capped.
    let echoed = u32_at(message.payload, 4) as usize;
    let skip = 4 + if message.flags & NLM_F_CAPPED == 0 { echoed.next_multiple_of(4) } else { 16 };
    let details = message.payload.get(skip..).unwrap_or_default();
    let with_text = message.flags & NLM_F_ACK_TLVS != 0;
    let words = attributes(details).find(|(kind, _)| with_text && *kind == NLMSGERR_ATTR_MSG);
    Err(NetlinkError {
        index,
        text: words.map(|(_, value)| text(value)).unwrap_or_default(),
        source: io::Error::from_raw_os_error(-code),
    })
}

/// Enlarges a buffer beyond the common bound; where that is not allowed, what does not fit fails with its own error.
fn make_room(fd: BorrowedFd<'_>, option: i32, bytes: usize) {
    let size = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: the descriptor is open, and the pointer and length describe `size`.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const size).cast(),
            size_of::<i32>() as libc::socklen_t,
        );
    }
}

fn switch_on(fd: BorrowedFd<'_>, option: i32) {
    let on: i32 = 1;
    // SAFETY: the descriptor is open, and the pointer and length describe `on`.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        );
    }
}

//! A client's TCP connection and the one to the container that goes with it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rorqual_sys::poll::{Interest, Poller, Ready};
use rustix::net::sockopt;

/// LIMIT: bytes of one direction carried before others get their turn.
const BURST: usize = 256 * 1024;
/// The end at the container.
const INNER: usize = 1;

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// What was read and could not be written yet; nothing more is read before it is gone.
    rest: Vec<u8>,
    /// The sender has said that it sends no more, and the receiver was told.
    ended: bool,
}

/// Two connections, each of which gets what the other brings.
#[derive(Debug)]
pub(super) struct Pair {
    container: String,
    /// The client's, and the container's.
    ends: [TcpStream; 2],
    /// From the end of the same number to the other.
    ways: [Way; 2],
    watched: [Option<Interest>; 2],
    connecting: bool,
}

impl Pair {
    /// Joins a client to a container that is being connected to.
    pub(super) fn new(container: String, ends: [TcpStream; 2]) -> io::Result<Self> {
        for end in &ends {
            end.set_nonblocking(true)?;
            // COMPAT: as Docker's proxy: what comes is passed on at once, and a peer that vanished is noticed.
            end.set_nodelay(true)?;
            sockopt::set_socket_keepalive(end, true)?;
        }
        let (ways, watched) = (<[Way; 2]>::default(), [None, None]);
        Ok(Self { container, ends, ways, watched, connecting: true })
    }

    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// Carries what can be carried; tells whether there is more to come.
    pub(super) fn carry(
        &mut self,
        poller: &Poller,
        buffer: &mut [u8],
        key: u64,
        event: Ready,
    ) -> bool {
        let carried = self.step(buffer, usize::from(event.token & 1 == 1), event);
        match carried.and_then(|()| self.watch(poller, key)) {
            Ok(()) => !self.ways.iter().all(|way| way.ended),
            Err(_) => {
                // Whatever broke off breaks off at the other end too, and does not look like a proper end.
                for end in &self.ends {
                    sockopt::set_socket_linger(end, Some(Duration::ZERO)).ok();
                }
                false
            }
        }
    }

    fn step(&mut self, buffer: &mut [u8], side: usize, event: Ready) -> io::Result<()> {
        if self.connecting {
            if side == INNER && (event.writable || event.closed) {
                if let Some(error) = self.ends[INNER].take_error()? {
                    return Err(error);
                }
                self.connecting = false;
            }
            return Ok(());
        }
        if event.writable {
            self.pump(1 - side, buffer)?;
        }
        if event.readable { self.pump(side, buffer) } else { Ok(()) }
    }

    /// Carries from one end to the other.
    fn pump(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<()> {
        let way = &mut self.ways[from];
        let (source, sink) = (&self.ends[from], &self.ends[1 - from]);
        let mut carried = 0;
        if !way.rest.is_empty() {
            let written = write_some(sink, &way.rest)?;
            way.rest.drain(..written);
        }
        while way.rest.is_empty() && !way.ended && carried < BURST {
            let size = match (&mut &*source).read(buffer) {
                Ok(0) => {
                    way.ended = true;
                    // One that is gone already needs not be told.
                    sink.shutdown(Shutdown::Write).ok();
                    break;
                }
                Ok(size) => size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            carried += size;
            let written = write_some(sink, &buffer[..size])?;
            way.rest.extend(&buffer[written..size]);
            if size < buffer.len() {
                break;
            }
        }
        if way.rest.is_empty() && way.rest.capacity() > 0 {
            way.rest = Vec::new();
        }
        Ok(())
    }

    /// Waits for what is needed next, and for nothing else: an end that is told of again and again would take all the time.
    pub(super) fn watch(&mut self, poller: &Poller, key: u64) -> io::Result<()> {
        for side in 0..2 {
            let to_client = side != INNER;
            let read =
                !self.connecting && !self.ways[side].ended && self.ways[side].rest.is_empty();
            let write = (self.connecting && !to_client) || !self.ways[1 - side].rest.is_empty();
            let wanted = (read || write).then_some(Interest { read, write });
            let (fd, token) = (self.ends[side].as_fd(), key + side as u64);
            match (self.watched[side], wanted) {
                (None, Some(wanted)) => poller.add(fd, token, wanted)?,
                (Some(_), None) => poller.remove(fd)?,
                (Some(before), Some(wanted)) if before != wanted => {
                    poller.modify(fd, token, wanted)?;
                }
                _ => {}
            }
            self.watched[side] = wanted;
        }
        Ok(())
    }
}

/// Writes as much as there is room for.
fn write_some(sink: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match (&mut &*sink).write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

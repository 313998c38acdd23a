//! The standard streams of one process: pumps output to the log and to clients, and clients' input to the process.
//!
//! Back-pressure: a stream is not read while a client that wants it has too much output waiting, so a slow client stalls
//! the process as a slow pipe would. The log never stalls anybody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rorqual_sys::poll::{Interest, Poller, Ready};
use rustix::io::Errno;

use super::client::{Client, Input};
use super::token::{Place, Token};
use crate::log::LogStream;
use crate::log::sink::Sink;
use crate::wire::Wanted;

/// LIMIT: bytes moved at once; a pipe holds 64 KiB.
pub(crate) const CHUNK: usize = 16 * 1024;
/// LIMIT: clients of one process.
const CLIENTS: usize = 256;
/// LIMIT: bytes read from a stream after its process has ended, in case somebody else goes on writing.
const LAST_WORDS: usize = 2 * 1024 * 1024;

/// What happens when a client's input ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtInputEnd {
    /// The process's input ends too.
    CloseInput,
    /// The client is let go and the process's input stays open.
    // COMPAT: dockerd ends an attachment whose input ends when the container's input stays open.
    LetGo,
}

/// An output stream.
#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    registered: bool,
}

/// The process's input.
#[derive(Debug)]
struct Sluice {
    fd: OwnedFd,
    pending: Vec<u8>,
    sent: usize,
    registered: bool,
    /// Ends once everything is written.
    ending: bool,
}

/// The streams of one process.
pub(crate) struct Streams {
    slot: u16,
    raw: bool,
    sources: [Option<Source>; 2],
    input: Option<Sluice>,
    at_input_end: AtInputEnd,
    clients: Vec<Option<Client>>,
    log: Option<Sink>,
    /// Nobody listens any more: output is read and thrown away.
    deaf: bool,
}

/// Our ends of a process's streams.
pub(crate) struct Ends {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) raw: bool,
    pub(crate) at_input_end: AtInputEnd,
}

impl Streams {
    pub(crate) fn new(slot: u16, ends: Ends, log: Option<Sink>) -> io::Result<Self> {
        let source = |fd: OwnedFd| {
            rustix::io::ioctl_fionbio(&fd, true)?;
            io::Result::Ok(Source { fd, registered: false })
        };
        let input = match ends.stdin {
            None => None,
            Some(fd) => {
                rustix::io::ioctl_fionbio(&fd, true)?;
                let sluice =
                    Sluice { fd, pending: Vec::new(), sent: 0, registered: false, ending: false };
                Some(sluice)
            }
        };
        Ok(Self {
            slot,
            raw: ends.raw,
            sources: [Some(source(ends.stdout)?), ends.stderr.map(source).transpose()?],
            input,
            at_input_end: ends.at_input_end,
            clients: Vec::new(),
            log,
            deaf: false,
        })
    }

    /// Adds a client.
    pub(crate) fn attach(&mut self, socket: OwnedFd, wants: Wanted) -> io::Result<()> {
        // COMPAT: input offered to a process without one is ignored, as dockerd does.
        let wants = Wanted { stdin: wants.stdin && self.input.is_some(), ..wants };
        let client = Some(Client::new(socket, wants)?);
        match self.clients.iter().position(Option::is_none) {
            Some(at) => self.clients[at] = client,
            None if self.clients.len() < CLIENTS => self.clients.push(client),
            None => return Err(io::Error::other("too many clients are attached")),
        }
        Ok(())
    }

    /// Returns the terminal's master.
    pub(crate) fn terminal(&self) -> Option<&OwnedFd> {
        self.sources[0].as_ref().filter(|_| self.raw).map(|source| &source.fd)
    }

    /// Tells whether a log server did not take everything yet.
    pub(crate) fn log_waits(&self) -> bool {
        self.log.as_ref().is_some_and(Sink::waits)
    }

    /// Tries to send what a log server did not take; tells whether something still waits.
    pub(crate) fn retry_log(&mut self) -> bool {
        self.log.as_mut().is_some_and(Sink::retry)
    }

    /// Takes the number of lost log records.
    pub(crate) fn take_lost(&mut self) -> Option<(u64, String)> {
        self.log.as_mut().and_then(Sink::take_lost)
    }

    /// Deals with something that has happened to one of the descriptors.
    pub(crate) fn on_ready(&mut self, place: Place, ready: Ready, buffer: &mut [u8]) {
        match place {
            Place::Stdout => self.pump(0, buffer, 1),
            Place::Stderr => self.pump(1, buffer, 1),
            Place::Stdin => self.flush_input(buffer),
            Place::Client(at) => self.on_client(usize::from(at), ready, buffer),
        }
    }

    /// Moves up to `rounds` chunks of an output stream.
    fn pump(&mut self, at: usize, buffer: &mut [u8], rounds: usize) {
        for _ in 0..rounds {
            let Some(source) = &self.sources[at] else { return };
            match rustix::io::read(&source.fd, &mut *buffer) {
                Ok(count) if count > 0 => self.deliver(at, &buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // A terminal whose last user left answers EIO.
                Ok(_) | Err(_) => return self.source_ended(at),
            }
        }
    }

    fn deliver(&mut self, at: usize, bytes: &[u8]) {
        if self.deaf {
            return;
        }
        let (stream, kind) = if at == 0 { (LogStream::Stdout, 1) } else { (LogStream::Stderr, 2) };
        if let Some(log) = &mut self.log {
            log.write(stream, bytes, std::time::SystemTime::now().into());
        }
        let mut header = [kind, 0, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        let header = if self.raw { &[][..] } else { &header[..] };
        for client in self.clients.iter_mut().flatten() {
            if client.wants(stream) {
                client.offer(header, bytes);
            }
        }
    }

    fn source_ended(&mut self, at: usize) {
        self.sources[at] = None;
        if let Some(log) = &mut self.log {
            let stream = if at == 0 { LogStream::Stdout } else { LogStream::Stderr };
            log.finish(stream, std::time::SystemTime::now().into());
        }
    }

    fn on_client(&mut self, at: usize, ready: Ready, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_mut) else { return };
        if ready.writable {
            client.flush();
        }
        if ready.closed {
            client.leave();
        }
        if ready.readable {
            self.take_input(at, buffer);
        }
    }

    /// Takes one chunk of a client's input when there is room for it.
    fn take_input(&mut self, at: usize, buffer: &mut [u8]) {
        let room = self.input.as_ref().is_none_or(|input| input.pending.is_empty());
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_mut) else { return };
        if !client.wants_stdin() || !room {
            return;
        }
        match client.read(buffer) {
            Input::Nothing => {}
            Input::Bytes(count) => {
                if let Some(input) = &mut self.input {
                    input.pending.extend_from_slice(&buffer[..count]);
                }
                self.write_input();
            }
            Input::End => self.input_ended(at),
        }
    }

    fn input_ended(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_mut) else { return };
        client.stdin_ended();
        match self.at_input_end {
            AtInputEnd::CloseInput => {
                if let Some(input) = &mut self.input {
                    input.ending = true;
                }
                self.write_input();
            }
            AtInputEnd::LetGo => client.leave(),
        }
    }

    /// Writes waiting input, and goes on with clients that left some behind.
    fn flush_input(&mut self, buffer: &mut [u8]) {
        self.write_input();
        for at in 0..self.clients.len() {
            self.take_input(at, buffer);
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        while input.sent < input.pending.len() {
            match rustix::io::write(&input.fd, &input.pending[input.sent..]) {
                Ok(count) => input.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The process has closed its input: nobody will ever read this.
                Err(_) => {
                    self.input = None;
                    self.clients.iter_mut().flatten().for_each(Client::stdin_ended);
                    return;
                }
            }
        }
        // Input is mostly idle: hold no memory for it.
        input.pending = Vec::new();
        input.sent = 0;
        if input.ending {
            self.input = None;
        }
    }

    /// Brings epoll in line with what can be done, and drops clients that are through.
    pub(crate) fn settle(&mut self, poller: &Poller, buffer: &mut [u8]) -> io::Result<()> {
        self.take_left_behind(buffer);
        let ended = self.deaf || self.ended();
        for slot in &mut self.clients {
            let Some(client) = slot else { continue };
            let through = (client.is_gone() && !client.wants_stdin()) || (ended && !client.waits());
            if through {
                // Closing alone would not do while a forked copy of this process lives.
                if client.registered.is_some() {
                    poller.remove(client.as_fd())?;
                }
                *slot = None;
            }
        }
        while matches!(self.clients.last(), Some(None)) {
            self.clients.pop();
        }
        self.register_sources(poller)?;
        self.register_input(poller)?;
        self.register_clients(poller)
    }

    /// Reads what clients wrote before they left; epoll no longer reports them.
    fn take_left_behind(&mut self, buffer: &mut [u8]) {
        for at in 0..self.clients.len() {
            while self.clients[at].as_ref().is_some_and(|c| c.is_gone() && c.wants_stdin())
                && self.input.as_ref().is_none_or(|input| input.pending.is_empty())
            {
                self.take_input(at, buffer);
            }
        }
    }

    fn register_sources(&mut self, poller: &Poller) -> io::Result<()> {
        for (at, stream) in [LogStream::Stdout, LogStream::Stderr].into_iter().enumerate() {
            let Some(source) = &mut self.sources[at] else { continue };
            let stalled =
                !self.deaf && self.clients.iter().flatten().any(|c| c.wants(stream) && c.stalls());
            let place = if at == 0 { Place::Stdout } else { Place::Stderr };
            if stalled && source.registered {
                // Taken out, not silenced: a hang-up would be reported again and again.
                poller.remove(source.fd.as_fd())?;
                source.registered = false;
            } else if !stalled && !source.registered {
                let token = Token::Stream(self.slot, place).number();
                poller.add(source.fd.as_fd(), token, Interest::READ)?;
                source.registered = true;
            }
        }
        Ok(())
    }

    fn register_input(&mut self, poller: &Poller) -> io::Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let waits = !input.pending.is_empty();
        if waits && !input.registered {
            let token = Token::Stream(self.slot, Place::Stdin).number();
            poller.add(input.fd.as_fd(), token, Interest::WRITE)?;
        } else if !waits && input.registered {
            poller.remove(input.fd.as_fd())?;
        }
        input.registered = waits;
        Ok(())
    }

    fn register_clients(&mut self, poller: &Poller) -> io::Result<()> {
        let room = self.input.as_ref().is_some_and(|input| input.pending.is_empty());
        for (at, slot) in self.clients.iter_mut().enumerate() {
            let Some(client) = slot else { continue };
            let interest = client.interest(room);
            if interest == client.registered {
                continue;
            }
            let token = Token::Stream(self.slot, Place::Client(at as u16)).number();
            match (client.registered, interest) {
                (None, Some(interest)) => poller.add(client.as_fd(), token, interest)?,
                (Some(_), Some(interest)) => poller.modify(client.as_fd(), token, interest)?,
                (Some(_), None) => poller.remove(client.as_fd())?,
                (None, None) => {}
            }
            client.registered = interest;
        }
        Ok(())
    }

    /// Reads what the ended process left in its streams, whether or not clients keep up.
    pub(crate) fn drain(&mut self, buffer: &mut [u8]) {
        for at in [0, 1] {
            self.pump(at, buffer, LAST_WORDS / CHUNK);
        }
    }

    /// Tells whether all output was read.
    pub(crate) fn ended(&self) -> bool {
        self.sources.iter().all(Option::is_none)
    }

    /// Ends the log and lets clients go once they have everything, without waiting for the streams' end.
    pub(crate) fn close(&mut self) {
        for at in [0, 1] {
            if self.sources[at].is_some() {
                self.source_ended(at);
            }
        }
        self.input = None;
        self.clients.iter_mut().flatten().for_each(Client::stdin_ended);
    }

    /// Lets clients go, but goes on reading (and forgetting) output: whoever still writes must not be hurt by it.
    pub(crate) fn turn_deaf(&mut self) {
        self.deaf = true;
        self.input = None;
        self.log = None;
    }

    /// Tells whether nothing is left to be done here.
    pub(crate) fn is_idle(&self) -> bool {
        self.ended() && self.clients.is_empty()
    }

    /// Tells whether a client still waits for output.
    pub(crate) fn has_waiting_clients(&self) -> bool {
        self.clients.iter().flatten().any(Client::waits)
    }
}

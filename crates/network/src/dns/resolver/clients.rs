//! Clients over TCP: accepted, heard, written to as they read. Knows nothing of what is asked.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rorqual_sys::poll::{Interest, Poller};

use super::{Client, LARGEST_QUERY, READ_WRITE, Resolver, Source, token_add};

/// LIMIT: TCP clients of one container.
const CLIENTS_EACH: usize = 16;
/// How long a TCP client may say nothing.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// A client that came over TCP.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) container: String,
    stream: TcpStream,
    read: Vec<u8>,
    pub(super) out: Vec<u8>,
    pub(super) until: Instant,
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &message[..usize::from(length)]].concat()
}

/// Takes a whole message off the front of what was read over TCP.
pub(super) fn unframed(read: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(read.get(..2)?.try_into().ok()?));
    if read.len() < 2 + length {
        return None;
    }
    let rest = read.split_off(2 + length);
    let message = std::mem::replace(read, rest);
    Some(message[2..].to_vec())
}

/// What reading brought.
pub(super) enum Reading {
    More,
    Later,
    Ended,
}

pub(super) fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>, limit: usize) -> Reading {
    let mut part = [0; 4096];
    match stream.read(&mut part) {
        Ok(0) => Reading::Ended,
        Ok(count) => {
            into.extend(&part[..count]);
            if into.len() > limit { Reading::Ended } else { Reading::More }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Reading::Later,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Reading::More,
        Err(_) => Reading::Ended,
    }
}

impl Resolver {
    pub(super) fn accept(&mut self, poller: &Poller, container: &str) {
        for _ in 0..CLIENTS_EACH {
            let Some(served) = self.served.get_mut(container) else { return };
            let Ok((stream, _)) = served.tcp.accept() else { return };
            if served.clients >= CLIENTS_EACH || stream.set_nonblocking(true).is_err() {
                continue;
            }
            served.clients += 1;
            let token = self.token(Source::Client);
            let added = token_add(poller, stream.as_fd(), token, Interest::READ);
            let until = Instant::now() + TCP_IDLE;
            let container = container.to_owned();
            let client = Connected { container, stream, read: Vec::new(), out: Vec::new(), until };
            self.clients.insert(token, client);
            if !added {
                self.drop_client(poller, token);
            }
        }
    }

    pub(super) fn read_client(&mut self, poller: &Poller, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        client.until = Instant::now() + TCP_IDLE;
        let container = client.container.clone();
        if !client.out.is_empty() && !flush(client) {
            return self.drop_client(poller, token);
        }
        let reading = read_some(&mut client.stream, &mut client.read, 2 * LARGEST_QUERY);
        let mut queries = Vec::new();
        while let Some(query) = unframed(&mut client.read) {
            queries.push(query);
        }
        for query in queries {
            self.query(poller, &container, Client::Tcp(token), &query);
        }
        if matches!(reading, Reading::Ended) {
            return self.drop_client(poller, token);
        }
        self.watch_client(poller, token);
    }

    /// Waits for room to write as long as something is left to be written.
    pub(super) fn watch_client(&self, poller: &Poller, token: u64) {
        if let Some(client) = self.clients.get(&token) {
            let interest = if client.out.is_empty() { Interest::READ } else { READ_WRITE };
            poller.modify(client.stream.as_fd(), token, interest).ok();
        }
    }

    pub(super) fn drop_client(&mut self, poller: &Poller, token: u64) {
        self.sources.remove(&token);
        let Some(client) = self.clients.remove(&token) else { return };
        poller.remove(client.stream.as_fd()).ok();
        if let Some(served) = self.served.get_mut(&client.container) {
            served.clients = served.clients.saturating_sub(1);
        }
    }
}

/// Writes what is left for a client; tells whether it is still there.
pub(super) fn flush(client: &mut Connected) -> bool {
    while !client.out.is_empty() {
        match client.stream.write(&client.out) {
            Ok(0) => return false,
            Ok(count) => drop(client.out.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

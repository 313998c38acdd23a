//! Answering: names of containers at once, all others by asking name servers. One thread, and nothing in it waits.

mod clients;
mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rorqual_sys::poll::{Interest, Poller};

use super::cache::Cache;
use super::message::{self, Code, Unusable};
use super::names::{Found, Names};
use super::wire::{Answer, Guest, Request};

use clients::{Connected, flush, framed};
use upstream::Asked;

/// LIMIT: queries of one container that wait for name servers; Docker waits for as many as 1024, which one container
/// should not get from all.
const WAITING_EACH: usize = 128;
/// LIMIT: queries of all containers that wait; each has a socket.
const WAITING_ALL: usize = 4096;
/// LIMIT: messages read of one socket before others get their turn.
const BURST: usize = 64;
/// LIMIT: a query over TCP has a name and options, no more.
const LARGEST_QUERY: usize = 4096;

const READ_WRITE: Interest = Interest { read: true, write: true };

/// Where an answer goes.
#[derive(Clone, Copy, Debug)]
enum Client {
    Udp(SocketAddr),
    Tcp(u64),
}

#[derive(Debug)]
struct Served {
    guest: Guest,
    namespace: OwnedFd,
    udp: UdpSocket,
    tcp: TcpListener,
    tokens: [u64; 2],
    waiting: usize,
    clients: usize,
}

#[derive(Debug)]
enum Source {
    Udp(String),
    Tcp(String),
    Client,
    Asked,
}

/// All containers with what is under way for them.
#[derive(Debug)]
pub(super) struct Resolver {
    served: HashMap<String, Served>,
    names: Names,
    cache: Cache,
    sources: HashMap<u64, Source>,
    asked: BTreeMap<u64, Asked>,
    clients: BTreeMap<u64, Connected>,
    next: u64,
}

fn token_add(poller: &Poller, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> bool {
    poller.add(fd, token, interest).is_ok()
}

impl Resolver {
    /// Makes one whose tokens begin at `first`.
    pub(super) fn new(first: u64) -> Self {
        Self {
            served: HashMap::new(),
            names: Names::default(),
            cache: Cache::default(),
            sources: HashMap::new(),
            asked: BTreeMap::new(),
            clients: BTreeMap::new(),
            next: first,
        }
    }

    /// Tells whether nobody is served.
    pub(super) fn is_idle(&self) -> bool {
        self.served.is_empty()
    }

    fn token(&mut self, source: Source) -> u64 {
        let token = self.next;
        self.next += 1;
        self.sources.insert(token, source);
        token
    }

    /// Does what a daemon asks.
    pub(super) fn tell(
        &mut self,
        poller: &Poller,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Answer {
        match request {
            Request::Put(guest) => return self.put(poller, guest, descriptors),
            Request::Remove(container) => self.remove(poller, &container),
            Request::Keep(containers) => {
                let gone = self.served.keys().filter(|id| !containers.contains(id)).cloned();
                for container in gone.collect::<Vec<_>>() {
                    self.remove(poller, &container);
                }
            }
            // Ports and the firewall are not for this part.
            Request::Relay(_)
            | Request::EndRelay(_)
            | Request::KeepRelays(_)
            | Request::HoldFirewall
            | Request::LetGoFirewall => return Answer::Misunderstood,
        }
        Answer::Done
    }

    fn put(&mut self, poller: &Poller, guest: Guest, descriptors: Vec<OwnedFd>) -> Answer {
        let container = guest.container.clone();
        match <[OwnedFd; 3]>::try_from(descriptors) {
            Ok([namespace, udp, tcp]) => {
                self.remove(poller, &container);
                let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
                let tokens = [
                    self.token(Source::Udp(container.clone())),
                    self.token(Source::Tcp(container.clone())),
                ];
                let added = token_add(poller, udp.as_fd(), tokens[0], Interest::READ)
                    && token_add(poller, tcp.as_fd(), tokens[1], Interest::READ);
                if !added {
                    return Answer::Misunderstood;
                }
                self.names.add(&guest);
                let served = Served { guest, namespace, udp, tcp, tokens, waiting: 0, clients: 0 };
                self.served.insert(container, served);
                Answer::Done
            }
            Err(none) if none.is_empty() => {
                let Some(served) = self.served.get_mut(&container) else {
                    return Answer::NotServed;
                };
                self.names.remove(&served.guest);
                self.names.add(&guest);
                served.guest = guest;
                self.cache.forget(&container);
                Answer::Done
            }
            Err(_) => Answer::Misunderstood,
        }
    }

    fn remove(&mut self, poller: &Poller, container: &str) {
        let Some(served) = self.served.remove(container) else { return };
        self.names.remove(&served.guest);
        self.cache.forget(container);
        poller.remove(served.udp.as_fd()).ok();
        poller.remove(served.tcp.as_fd()).ok();
        for token in served.tokens {
            self.sources.remove(&token);
        }
        let theirs = |owner: &String| owner == container;
        let asked = self.asked.iter().filter(|(_, one)| theirs(&one.container));
        for token in asked.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.drop_asked(poller, token);
        }
        let clients = self.clients.iter().filter(|(_, one)| theirs(&one.container));
        for token in clients.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.drop_client(poller, token);
        }
    }

    /// Returns how long nothing expires.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let asked = self.asked.values().map(|asked| asked.until);
        let first = asked.chain(self.clients.values().map(|client| client.until)).min();
        first.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Gives up what took too long.
    pub(super) fn expire(&mut self, poller: &Poller) {
        let now = Instant::now();
        let late = self.asked.iter().filter(|(_, asked)| asked.until <= now);
        for token in late.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.ask_next(poller, token);
        }
        let silent = self.clients.iter().filter(|(_, client)| client.until <= now);
        for token in silent.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.drop_client(poller, token);
        }
    }

    /// Serves a socket that has something.
    pub(super) fn ready(&mut self, poller: &Poller, token: u64) {
        match self.sources.get(&token) {
            Some(Source::Udp(container)) => {
                let container = container.clone();
                self.read_udp(poller, &container);
            }
            Some(Source::Tcp(container)) => {
                let container = container.clone();
                self.accept(poller, &container);
            }
            Some(Source::Client) => self.read_client(poller, token),
            Some(Source::Asked) => self.read_answer(poller, token),
            // It was closed by an event before this one.
            None => {}
        }
    }

    fn read_udp(&mut self, poller: &Poller, container: &str) {
        let mut buffer = [0; LARGEST_QUERY];
        for _ in 0..BURST {
            let Some(served) = self.served.get(container) else { return };
            let Ok((size, from)) = served.udp.recv_from(&mut buffer) else { return };
            self.query(poller, container, Client::Udp(from), &buffer[..size]);
        }
    }

    fn reply(&mut self, poller: &Poller, container: &str, client: Client, answer: &[u8]) {
        match client {
            Client::Udp(to) => {
                if let Some(served) = self.served.get(container) {
                    // A client that has gone does not miss it; a full queue is the client's own.
                    served.udp.send_to(answer, to).ok();
                }
            }
            Client::Tcp(token) => {
                let Some(client) = self.clients.get_mut(&token) else { return };
                client.out.extend(framed(answer));
                // LIMIT: a client that does not read is not waited for.
                let fine = client.out.len() <= 256 * 1024 && flush(client);
                if fine {
                    self.watch_client(poller, token);
                } else {
                    self.drop_client(poller, token);
                }
            }
        }
    }

    fn query(&mut self, poller: &Poller, container: &str, client: Client, bytes: &[u8]) {
        let query = match message::parse(bytes) {
            Ok(query) => query,
            Err(Unusable::Noise) => return,
            Err(Unusable::Refuse(code)) => {
                let refusal = message::refusal(bytes, code);
                return self.reply(poller, container, client, &refusal);
            }
        };
        let Some(served) = self.served.get(container) else { return };
        let room = match client {
            Client::Udp(_) => query.room(),
            Client::Tcp(_) => usize::from(u16::MAX),
        };
        if query.is_too_new() {
            let refusal = message::answer(bytes, &query, Code::Ok, &[], room);
            return self.reply(poller, container, client, &refusal);
        }
        let own = match self.names.find(&served.guest, &query) {
            Found::Records(records) => {
                Some(message::answer(bytes, &query, Code::Ok, &records, room))
            }
            Found::Nothing => Some(message::answer(bytes, &query, Code::NoSuchName, &[], room)),
            Found::Unknown => {
                let kept = self.cache.get(container, bytes, query.question_end());
                kept.filter(|answer| answer.len() <= room)
            }
        };
        if let Some(answer) = own {
            return self.reply(poller, container, client, &answer);
        }
        let full = served.waiting >= WAITING_EACH || self.asked.len() >= WAITING_ALL;
        if full || !self.ask(poller, (container, client), bytes, 0) {
            let failed = message::answer(bytes, &query, Code::Failed, &[], room);
            self.reply(poller, container, client, &failed);
        }
    }
}

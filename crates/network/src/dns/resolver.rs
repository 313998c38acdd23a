//! Answering: names of containers at once, all others by asking name servers. One thread, and nothing in it waits.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rorqual_sys::net;
use rorqual_sys::poll::{Interest, Poller};

use super::cache::Cache;
use super::message::{self, Code, Unusable};
use super::names::{Found, Names};
use super::wire::{Answer, Guest, Request, Upstream};

/// LIMIT: queries of one container that wait for name servers; Docker waits for as many as 1024, which one container
/// should not get from all.
const WAITING_EACH: usize = 128;
/// LIMIT: queries of all containers that wait; each has a socket.
const WAITING_ALL: usize = 4096;
/// LIMIT: TCP clients of one container.
const CLIENTS_EACH: usize = 16;
/// LIMIT: messages read of one socket before others get their turn.
const BURST: usize = 64;
/// How long a name server has before the next one is asked.
const PATIENCE: Duration = Duration::from_millis(2500);
/// LIMIT: name servers asked for one query; a client has given up by then.
const MOST_SERVERS: usize = 4;
/// How long a TCP client may say nothing.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// LIMIT: a query over TCP has a name and options, no more.
const LARGEST_QUERY: usize = 4096;
const DNS: u16 = 53;

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

/// A query that a name server was asked.
#[derive(Debug)]
struct Asked {
    container: String,
    client: Client,
    query: Vec<u8>,
    question_end: usize,
    id: u16,
    server: usize,
    link: Link,
    until: Instant,
}

#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, out: Vec<u8>, sent: usize, read: Vec<u8> },
}

/// A client that came over TCP.
#[derive(Debug)]
struct Connected {
    container: String,
    stream: TcpStream,
    read: Vec<u8>,
    out: Vec<u8>,
    until: Instant,
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

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &message[..usize::from(length)]].concat()
}

/// Takes a whole message off the front of what was read over TCP.
fn unframed(read: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(read.get(..2)?.try_into().ok()?));
    if read.len() < 2 + length {
        return None;
    }
    let rest = read.split_off(2 + length);
    let message = std::mem::replace(read, rest);
    Some(message[2..].to_vec())
}

/// What reading brought.
enum Reading {
    More,
    Later,
    Ended,
}

fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>, limit: usize) -> Reading {
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
            // Ports are not for this part.
            Request::Relay(_) | Request::EndRelay(_) | Request::KeepRelays(_) => {
                return Answer::Misunderstood;
            }
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

    fn accept(&mut self, poller: &Poller, container: &str) {
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

    fn read_client(&mut self, poller: &Poller, token: u64) {
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
    fn watch_client(&self, poller: &Poller, token: u64) {
        if let Some(client) = self.clients.get(&token) {
            let interest = if client.out.is_empty() { Interest::READ } else { READ_WRITE };
            poller.modify(client.stream.as_fd(), token, interest).ok();
        }
    }

    fn drop_client(&mut self, poller: &Poller, token: u64) {
        self.sources.remove(&token);
        let Some(client) = self.clients.remove(&token) else { return };
        poller.remove(client.stream.as_fd()).ok();
        if let Some(served) = self.served.get_mut(&client.container) {
            served.clients = served.clients.saturating_sub(1);
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

    /// Asks the first name server from `first` on that can be reached; tells whether one was asked.
    fn ask(
        &mut self,
        poller: &Poller,
        (container, client): (&str, Client),
        query: &[u8],
        first: usize,
    ) -> bool {
        let Ok(parsed) = message::parse(query) else { return false };
        let Some(served) = self.served.get(container) else { return false };
        let servers = served.guest.upstream.iter().enumerate().take(MOST_SERVERS).skip(first);
        let over_tcp = matches!(client, Client::Tcp(_));
        let mut id = [0; 2];
        if getrandom::fill(&mut id).is_err() {
            return false;
        }
        let mut out = query.to_vec();
        out[..2].copy_from_slice(&id);
        let link = servers.into_iter().find_map(|(number, server)| {
            let link = open(server, &served.namespace, &out, over_tcp).ok()?;
            Some((number, link))
        });
        let Some((server, link)) = link else { return false };
        let token = self.token(Source::Asked);
        let added = match &link {
            Link::Udp(socket) => token_add(poller, socket.as_fd(), token, Interest::READ),
            Link::Tcp { stream, .. } => token_add(poller, stream.as_fd(), token, READ_WRITE),
        };
        if !added {
            self.sources.remove(&token);
            return false;
        }
        if let Some(served) = self.served.get_mut(container) {
            served.waiting += 1;
        }
        let asked = Asked {
            container: container.to_owned(),
            client,
            query: query.to_vec(),
            question_end: parsed.question_end(),
            id: u16::from_be_bytes(id),
            server,
            link,
            until: Instant::now() + PATIENCE,
        };
        self.asked.insert(token, asked);
        true
    }

    fn drop_asked(&mut self, poller: &Poller, token: u64) -> Option<Asked> {
        self.sources.remove(&token);
        let asked = self.asked.remove(&token)?;
        match &asked.link {
            Link::Udp(socket) => poller.remove(socket.as_fd()).ok(),
            Link::Tcp { stream, .. } => poller.remove(stream.as_fd()).ok(),
        };
        if let Some(served) = self.served.get_mut(&asked.container) {
            served.waiting = served.waiting.saturating_sub(1);
        }
        Some(asked)
    }

    /// Gives a name server up and asks the next, or tells the client that there is none.
    fn ask_next(&mut self, poller: &Poller, token: u64) {
        let Some(asked) = self.drop_asked(poller, token) else { return };
        let next = asked.server + 1;
        if self.ask(poller, (&asked.container, asked.client), &asked.query, next) {
            return;
        }
        if let Ok(query) = message::parse(&asked.query) {
            let failed = message::answer(&asked.query, &query, Code::Failed, &[], query.room());
            self.reply(poller, &asked.container, asked.client, &failed);
        }
    }

    fn read_answer(&mut self, poller: &Poller, token: u64) {
        let Some(asked) = self.asked.get_mut(&token) else { return };
        let answer = match &mut asked.link {
            Link::Udp(socket) => {
                let mut buffer = vec![0; usize::from(u16::MAX)];
                match socket.recv(&mut buffer) {
                    Ok(size) => {
                        buffer.truncate(size);
                        buffer
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(_) => return self.ask_next(poller, token),
                }
            }
            Link::Tcp { stream, out, sent, read } => {
                if *sent < out.len() {
                    match stream.write(&out[*sent..]) {
                        Ok(count) => *sent += count,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                        Err(_) => return self.ask_next(poller, token),
                    }
                    if *sent == out.len() {
                        poller.modify(stream.as_fd(), token, Interest::READ).ok();
                    }
                    return;
                }
                match read_some(stream, read, 2 + usize::from(u16::MAX)) {
                    Reading::Ended => return self.ask_next(poller, token),
                    Reading::Later => return,
                    Reading::More => {}
                }
                let Some(answer) = unframed(read) else { return };
                answer
            }
        };
        // Whatever does not answer this very question is not for us; the right answer may follow.
        if !message::answers(&answer, asked.id, &asked.query, asked.question_end) {
            return;
        }
        // COMPAT: a server that cannot or will not answer is no answer as long as there is another.
        let refused = matches!(message::code(&answer), 2 | 5);
        let served = self.served.get(&asked.container);
        let servers = served.map_or(0, |served| served.guest.upstream.len().min(MOST_SERVERS));
        if refused && asked.server + 1 < servers {
            return self.ask_next(poller, token);
        }
        let Some(asked) = self.drop_asked(poller, token) else { return };
        let mut answer = answer;
        answer[..2].copy_from_slice(&asked.query[..2]);
        self.cache.put(&asked.container, &asked.query, &answer);
        self.reply(poller, &asked.container, asked.client, &answer);
    }
}

/// Writes what is left for a client; tells whether it is still there.
fn flush(client: &mut Connected) -> bool {
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

/// Opens a way to a name server, in the namespace it is reached from, and over UDP sends the query at once.
fn open(server: &Upstream, namespace: &OwnedFd, query: &[u8], over_tcp: bool) -> io::Result<Link> {
    let to = SocketAddr::new(server.address, DNS);
    let any = match server.address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let open = || {
        if over_tcp {
            let stream = net::connect_later(to)?;
            return Ok(Link::Tcp { stream, out: framed(query), sent: 0, read: Vec::new() });
        }
        // A fresh socket for each query has a fresh port, which a forger would have to guess too.
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        socket.send(query)?;
        Ok(Link::Udp(socket))
    };
    if server.on_host { open() } else { net::run_in_namespace(namespace.as_fd(), open) }
}

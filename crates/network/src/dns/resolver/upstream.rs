//! Name servers: asked in the namespace that they are reached from, one after the other, until one answers.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rorqual_sys::net;
use rorqual_sys::poll::{Interest, Poller};

use super::clients::{Reading, framed, read_some, unframed};
use super::{Client, READ_WRITE, Resolver, Source, token_add};
use crate::dns::message::{self, Code};
use crate::dns::wire::Upstream;

/// How long a name server has before the next one is asked.
const PATIENCE: Duration = Duration::from_millis(2500);
/// LIMIT: name servers asked for one query; a client has given up by then.
const MOST_SERVERS: usize = 4;
const DNS: u16 = 53;

/// A query that a name server was asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) container: String,
    client: Client,
    query: Vec<u8>,
    question_end: usize,
    id: u16,
    server: usize,
    link: Link,
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, out: Vec<u8>, sent: usize, read: Vec<u8> },
}

impl Resolver {
    /// Asks the first name server from `first` on that can be reached; tells whether one was asked.
    pub(super) fn ask(
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

    pub(super) fn drop_asked(&mut self, poller: &Poller, token: u64) -> Option<Asked> {
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
    pub(super) fn ask_next(&mut self, poller: &Poller, token: u64) {
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

    pub(super) fn read_answer(&mut self, poller: &Poller, token: u64) {
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
        self.cache.put(&asked.container, (&asked.query, asked.question_end), &answer);
        // A server that says more than was asked for does not make the client's packets larger.
        if matches!(asked.client, Client::Udp(_))
            && let Ok(query) = message::parse(&asked.query)
            && answer.len() > query.room()
        {
            answer = message::cut_short(&answer, &asked.query, &query);
        }
        self.reply(poller, &asked.container, asked.client, &answer);
    }
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

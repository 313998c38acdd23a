//! What containers are answered when they ask for much, or for more than a packet holds, and what name servers learn.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rorqual_sys::net;

use super::host::{Host, NEIGHBOUR, on_a_host};
use super::names::{ask_tcp, ask_udp, create, has, inside, join, query};
use crate::{Attach, Bridges, Networks as _, Sandbox};

/// LIMIT: a container that is told late has been starved; an answer takes far less than a millisecond.
const SOON: Duration = Duration::from_secs(2);

type Queries = Arc<Mutex<Vec<Vec<u8>>>>;

/// A name server that remembers what it was asked. It answers names with `quiet` never, others over UDP as truncated if
/// they begin with `long`, over TCP always.
fn name_server(namespace: BorrowedFd<'_>) -> Queries {
    let (udp, tcp) = net::run_in_namespace(namespace, || {
        Ok((UdpSocket::bind((NEIGHBOUR, 53))?, TcpListener::bind((NEIGHBOUR, 53))?))
    })
    .unwrap();
    let queries = Queries::default();
    let noted = Arc::clone(&queries);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((size, from)) = udp.recv_from(&mut buffer) {
            let query = &buffer[..size];
            noted.lock().unwrap().push(query.to_vec());
            if query.windows(5).any(|part| part == b"quiet") {
                continue;
            }
            // A client that went away is no failure of the server.
            let _gone = udp.send_to(&answer(query, query[13..].starts_with(b"long")), from);
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = tcp.accept() {
            let mut length = [0; 2];
            if client.read_exact(&mut length).is_err() {
                continue;
            }
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            if client.read_exact(&mut query).is_err() {
                continue;
            }
            let answer = answer(&query, false);
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            let _gone = client.write_all(&[&length[..], &answer].concat());
        }
    });
    queries
}

fn answer(query: &[u8], truncated: bool) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut answer = query[..end].to_vec();
    answer[2] |= if truncated { 0x82 } else { 0x80 };
    answer[6..12].fill(0);
    if !truncated {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 99]);
    }
    answer
}

fn guest(host: &Host, networks: &Bridges) -> (Sandbox, String) {
    let attach = Attach { dns: vec![NEIGHBOUR.into()], ..host.request(&[]) };
    let name = attach.name.clone();
    (join(host, networks, attach, "front"), name)
}

/// Counts the sockets of a namespace, which those that wait for name servers are in.
fn sockets(namespace: BorrowedFd<'_>) -> usize {
    let table =
        net::run_in_namespace(namespace, || std::fs::read_to_string("/proc/thread-self/net/udp"));
    table.unwrap().lines().count()
}

#[test]
fn one_that_floods_the_resolver_starves_nobody_and_takes_no_more_than_its_share() {
    on_a_host(|host| {
        let networks = host.open();
        create(host, &networks, "front", false);
        name_server(host.neighbour.as_fd());
        let (loud, _) = guest(host, &networks);
        let (other, name) = guest(host, &networks);
        let before = sockets(inside(&loud));
        let socket = net::run_in_namespace(inside(&loud), || UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        let mut most = 0;
        for number in 0..5000 {
            // A queue that is full drops the rest, which is the sender's own loss.
            let _full = socket.send(&query(&format!("quiet{number}.example.org")));
            if number % 500 == 0 {
                let begun = Instant::now();
                assert!(ask_udp(inside(&other), &query(&name))[7] > 0);
                let outside = ask_udp(inside(&other), &query(&format!("n{number}.example.org")));
                assert!(has(&outside, "192.0.2.99".parse().unwrap()), "{outside:?}");
                assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
                most = most.max(sockets(inside(&loud)));
            }
        }
        // A query that waits has a socket, and the flood comes by one more.
        assert!(most <= before + 128 + 1, "{before} sockets, then {most}");
        // Whoever asks for too much is told at once.
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut refused = [0; 512];
        socket.recv(&mut refused).unwrap();
        assert_eq!(refused[3] & 0x0f, 2);
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp_and_options_reach_the_name_server() {
    on_a_host(|host| {
        let networks = host.open();
        create(host, &networks, "front", false);
        let queries = name_server(host.neighbour.as_fd());
        let (guest, _) = guest(host, &networks);
        let mut long = query("long.example.org");
        // A client that takes 4096 bytes and understands signatures.
        long[11] = 1;
        long.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0]);
        let cut = ask_udp(inside(&guest), &long);
        assert_eq!(cut[2] & 0x02, 0x02, "{cut:?}");
        let heard = queries.lock().unwrap().clone();
        assert_eq!(heard[0][2..], long[2..], "all but its number is as the client wrote it");
        let whole = ask_tcp(inside(&guest), &long);
        assert!(has(&whole, "192.0.2.99".parse().unwrap()), "{whole:?}");
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

#[test]
fn name_servers_learn_nothing_of_containers() {
    on_a_host(|host| {
        let networks = host.open();
        create(host, &networks, "front", false);
        create(host, &networks, "vault", true);
        let queries = name_server(host.neighbour.as_fd());
        let (guest, name) = guest(host, &networks);
        let hidden = host.request(&[]);
        let hidden_name = hidden.name.clone();
        let hidden = join(host, &networks, hidden, "vault");
        let code = |query: &[u8]| ask_udp(inside(&guest), query)[3] & 0x0f;
        let of_kind = |name: &str, kind: u8| {
            let mut query = query(name);
            let at = query.len() - 3;
            query[at] = kind;
            query
        };
        // There, but nothing of that type (TXT); not there; another network's.
        assert_eq!(code(&of_kind(&name, 16)), 0);
        let nothing = ask_udp(inside(&guest), &of_kind(&name, 16));
        assert_eq!(nothing[7], 0, "{nothing:?}");
        assert_eq!(code(&query("nobody.front")), 3);
        assert_eq!(code(&query(&hidden_name)), 3);
        let [a, b, c, d] = hidden.endpoints[0].ipv4.unwrap().0.octets();
        assert_eq!(code(&of_kind(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), 12)), 3);
        assert!(queries.lock().unwrap().is_empty(), "{queries:?}");
        assert_eq!(code(&query("example.org")), 0);
        assert_eq!(queries.lock().unwrap().len(), 1);
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

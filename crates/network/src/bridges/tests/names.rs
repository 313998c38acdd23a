//! Containers ask for names, and reach published ports over IPv6.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rorqual_sys::net;

use super::host::{Host, NEIGHBOUR, on_a_host};
use crate::{
    Attach, Bridges, EndpointRequest, NetworkRequest, Networks as _, Sandbox, SandboxKind,
};

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn create(host: &Host, networks: &Bridges, name: &str, internal: bool) {
    let request = NetworkRequest {
        name: name.to_owned(),
        ipv4: true,
        ipv6: !internal,
        internal,
        ..NetworkRequest::default()
    };
    host.block_on(networks.create(request)).unwrap();
}

pub(super) fn join(host: &Host, networks: &Bridges, mut attach: Attach, network: &str) -> Sandbox {
    let endpoint = EndpointRequest { network: network.to_owned(), ..EndpointRequest::default() };
    attach.kind = SandboxKind::Own(vec![endpoint]);
    host.block_on(networks.attach(attach)).unwrap()
}

pub(super) fn inside(sandbox: &Sandbox) -> BorrowedFd<'_> {
    sandbox.namespace.as_ref().unwrap().as_fd()
}

/// Writes a query for an IPv4 address.
pub(super) fn query(name: &str) -> Vec<u8> {
    let mut out = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

pub(super) fn ask_udp(namespace: BorrowedFd<'_>, query: &[u8]) -> Vec<u8> {
    let answer = net::run_in_namespace(namespace, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect("127.0.0.11:53")?;
        socket.send(query)?;
        let mut answer = vec![0; 4096];
        let size = socket.recv(&mut answer)?;
        answer.truncate(size);
        Ok(answer)
    });
    answer.unwrap()
}

pub(super) fn ask_tcp(namespace: BorrowedFd<'_>, query: &[u8]) -> Vec<u8> {
    let answer = net::run_in_namespace(namespace, || {
        let mut stream = TcpStream::connect("127.0.0.11:53")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    answer.unwrap()
}

pub(super) fn has(answer: &[u8], address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    answer.windows(4).any(|four| four == address.octets())
}

#[test]
fn names_are_answered_over_udp_and_tcp() {
    on_a_host(|host| {
        let networks = host.open();
        create(host, &networks, "front", false);
        let first = host.request(&[]);
        let name = first.name.clone();
        let first = join(host, &networks, first, "front");
        let second = join(host, &networks, host.request(&[]), "front");
        let address = IpAddr::V4(first.endpoints[0].ipv4.unwrap().0);
        for ask in [ask_udp, ask_tcp] {
            let answer = ask(inside(&second), &query(&name));
            assert!(has(&answer, address), "{answer:?}");
        }
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

/// A name server that answers every question with 192.0.2.99, and counts them.
fn name_server(namespace: BorrowedFd<'_>) -> Arc<AtomicUsize> {
    let socket = net::run_in_namespace(namespace, || UdpSocket::bind((NEIGHBOUR, 53))).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((size, from)) = socket.recv_from(&mut buffer) {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut answer = buffer[..size].to_vec();
            answer[2] |= 0x80;
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 99]);
            // A client that went away is no failure of the server.
            let _gone = socket.send_to(&answer, from);
        }
    });
    count
}

#[test]
fn other_names_are_asked_of_the_containers_name_servers_once() {
    on_a_host(|host| {
        let networks = host.open();
        create(host, &networks, "front", false);
        create(host, &networks, "vault", true);
        let asked = name_server(host.neighbour.as_fd());
        let with_server = || Attach { dns: vec![NEIGHBOUR.into()], ..host.request(&[]) };
        let guest = join(host, &networks, with_server(), "front");
        for _ in 0..3 {
            let answer = ask_udp(inside(&guest), &query("example.org"));
            assert!(has(&answer, "192.0.2.99".parse().unwrap()), "{answer:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "the answer is kept");
        let shut_in = join(host, &networks, with_server(), "vault");
        let answer = ask_udp(inside(&shut_in), &query("example.org"));
        assert_eq!(answer[3] & 0x0f, 2, "nobody can be asked: {answer:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "nothing left the internal network");
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

#[test]
fn a_published_port_is_reached_over_ipv6() {
    on_a_host(|host| {
        let networks = host.open();
        create(host, &networks, "six", false);
        let guest = join(host, &networks, host.request(&[("", 8080, 80)]), "six");
        let sibling = join(host, &networks, host.request(&[]), "six");
        let listener =
            net::run_in_namespace(inside(&guest), || TcpListener::bind("[::]:80")).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut client, from)) = listener.accept() {
                // A client that went away is no failure of the server.
                let _gone = client.write_all(from.ip().to_string().as_bytes());
            }
        });
        let ask = |from: BorrowedFd<'_>, to: Ipv6Addr, port: u16| {
            net::run_in_namespace(from, || {
                let to = SocketAddr::from((to, port));
                let mut client = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
                let mut text = String::new();
                client.read_to_string(&mut text)?;
                text.parse::<Ipv6Addr>().map_err(io::Error::other)
            })
        };
        let gateway = guest.endpoints[0].gateway6.unwrap();
        assert_eq!(ask(host.own.as_fd(), gateway, 8080).unwrap(), gateway);
        assert_eq!(ask(inside(&sibling), gateway, 8080).unwrap(), gateway);
        assert!(ask(inside(&sibling), gateway, 8081).is_err());
        assert_eq!(ask(host.own.as_fd(), Ipv6Addr::LOCALHOST, 8080).unwrap(), gateway);
        let long = (9000..9100).map(|port| ("", port, port)).collect::<Vec<_>>();
        join(host, &networks, host.request(&long), "six");
        let loopback = ask(host.own.as_fd(), Ipv6Addr::LOCALHOST, 9000).unwrap_err();
        assert_eq!(loopback.kind(), io::ErrorKind::ConnectionRefused, "at once: {loopback}");
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

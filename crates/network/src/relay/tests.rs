//! Bytes in both directions, ends of each kind, and bounds. On loopback, unprivileged.

use std::io::{Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rorqual_sys::net::{Transport, open_port};
use rustix::net::{AddressFamily, SocketType};

use super::{Destination, Relay, Relayed};
use crate::PortProtocol;

const PATIENCE: Duration = Duration::from_secs(10);
const CONTAINER: &str = "c";
/// Much more than sockets and the relay hold.
const SIZE: usize = 24 << 20;

fn local(container: &str, port: (PortProtocol, u16)) -> Relayed {
    let to = Destination { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None };
    Relayed { container: container.to_owned(), to, ports: vec![port] }
}

fn open(transport: Transport) -> (OwnedFd, SocketAddr) {
    let socket = open_port(transport, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let at = rustix::net::getsockname(&socket).unwrap();
    (socket, at.try_into().unwrap())
}

/// Relays a fresh port to this one; returns where.
fn relay(relay: &mut Relay, inside: u16) -> SocketAddr {
    let (socket, at) = open(Transport::Tcp);
    assert!(relay.put(local(CONTAINER, (PortProtocol::Tcp, inside)), vec![socket]).unwrap());
    at
}

fn connect(to: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

#[test]
fn much_passes_in_both_directions_at_once_and_ends_are_told_apart() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut all = Relay::default();
    let at = relay(&mut all, server.local_addr().unwrap().port());
    let bytes = |salt: usize| (0..SIZE).map(move |at| ((at * 31 + salt) % 251) as u8);
    let echo = std::thread::spawn(move || {
        let (mut inner, _) = server.accept().unwrap();
        let mut writer = inner.try_clone().unwrap();
        let sent = std::thread::spawn(move || {
            writer.write_all(&bytes(1).collect::<Vec<_>>()).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        inner.read_to_end(&mut got).unwrap();
        sent.join().unwrap();
        got
    });
    let mut client = connect(at);
    let mut writer = client.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        writer.write_all(&bytes(2).collect::<Vec<_>>()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // A slow reader, that begins when there is something for it: what it does not take waits, and is not lost.
    client.peek(&mut [0]).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    sent.join().unwrap();
    assert!(got.iter().copied().eq(bytes(1)), "{} bytes came", got.len());
    let got = echo.join().unwrap();
    assert!(got.iter().copied().eq(bytes(2)), "{} bytes arrived", got.len());
}

#[test]
fn a_client_of_a_port_that_nobody_serves_is_cut_off() {
    let mut all = Relay::default();
    // Bound, so that nobody else gets the port, but not listening.
    let held = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&held, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let nobody = SocketAddr::try_from(rustix::net::getsockname(&held).unwrap()).unwrap();
    let at = relay(&mut all, nobody.port());
    let mut answer = Vec::new();
    // The end may come before the client has noticed the beginning.
    let client = TcpStream::connect_timeout(&at, PATIENCE);
    let error = client.and_then(|mut client| client.read_to_end(&mut answer)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_that_breaks_off_breaks_off_at_the_other_end() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut all = Relay::default();
    let at = relay(&mut all, server.local_addr().unwrap().port());
    let client = connect(at);
    let (mut inner, _) = server.accept().unwrap();
    inner.set_read_timeout(Some(PATIENCE)).unwrap();
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    let error = inner.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn what_is_taken_back_frees_its_port_and_ends_its_connections() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut all = Relay::default();
    let at = relay(&mut all, server.local_addr().unwrap().port());
    let mut client = connect(at);
    let _inner = server.accept().unwrap();
    assert!(!all.is_idle());
    all.keep(&[CONTAINER.to_owned()]);
    assert!(!all.is_idle());
    all.keep(&[]);
    assert!(all.is_idle());
    open_port(Transport::Tcp, at).unwrap();
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    let later = Relayed { ports: Vec::new(), ..local(CONTAINER, (PortProtocol::Tcp, 1)) };
    assert!(!all.put(later, Vec::new()).unwrap(), "nothing is relayed to it any more");
}

#[test]
fn later_connections_go_where_the_container_is_then() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let mut all = Relay::default();
    let at = relay(&mut all, port);
    let _before = connect(at);
    first.accept().unwrap();
    let to = Destination { ipv4: Some(Ipv4Addr::new(127, 0, 0, 2)), ipv6: None };
    let moved = Relayed { container: CONTAINER.to_owned(), to, ports: Vec::new() };
    assert!(all.put(moved, Vec::new()).unwrap());
    let _after = connect(at);
    second.accept().unwrap();
}

#[test]
fn packets_of_each_client_go_and_come_by_a_socket_of_its_own() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Relay::default();
    let (socket, at) = open(Transport::Udp);
    let inside = server.local_addr().unwrap().port();
    assert!(all.put(local(CONTAINER, (PortProtocol::Udp, inside)), vec![socket]).unwrap());
    let clients = [(); 3].map(|()| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(at).unwrap();
        client
    });
    for round in 0..2_u8 {
        for (number, client) in clients.iter().enumerate() {
            client.send(&[number as u8, round]).unwrap();
        }
        for _ in &clients {
            let mut packet = [0; 2];
            let (_, from) = server.recv_from(&mut packet).unwrap();
            server.send_to(&[packet[0] + 100, packet[1]], from).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let mut packet = [0; 2];
            client.recv(&mut packet).unwrap();
            assert_eq!(packet, [number as u8 + 100, round]);
        }
    }
}

#[test]
fn a_flood_of_clients_is_bounded_and_the_latest_are_served() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Relay::default();
    let (socket, at) = open(Transport::Udp);
    let inside = server.local_addr().unwrap().port();
    assert!(all.put(local(CONTAINER, (PortProtocol::Udp, inside)), vec![socket]).unwrap());
    for number in 0..1100_u16 {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&number.to_be_bytes(), at).unwrap();
        let mut packet = [0; 2];
        server.recv_from(&mut packet).unwrap();
        assert_eq!(packet, number.to_be_bytes());
    }
    let shared = all.0.as_ref().unwrap();
    assert_eq!(shared.lock().entries.len(), 1 + 1024);
}

#[test]
fn clients_over_ipv6_are_led_to_ipv6_where_the_container_has_it() {
    let v4 = Some(Ipv4Addr::LOCALHOST);
    let v6 = Some(Ipv6Addr::LOCALHOST);
    for (ipv4, ipv6, over_ipv6, expected) in [
        (v4, None, true, v4.map(IpAddr::V4)),
        (v4, None, false, v4.map(IpAddr::V4)),
        (v4, v6, true, v6.map(IpAddr::V6)),
        (v4, v6, false, v4.map(IpAddr::V4)),
        (None, v6, true, v6.map(IpAddr::V6)),
        (None, v6, false, None),
    ] {
        assert_eq!(Destination { ipv4, ipv6 }.of(over_ipv6), expected);
    }
}

//! Clients whom the firewall cannot lead, and those whom it must not.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rorqual_sys::net::{self, Address, Batch, Protocol, Socket};
use rorqual_sys::nft::{Base, Compare, Expression, Hook, Meta, PayloadBase, Transaction, Verdict};

use super::host::{HOST, Host, ask, assert_unreachable, on_a_host, serve};
use crate::{Bridges, Networks as _, PortProtocol, Relay};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const LOCALHOST: Ipv6Addr = Ipv6Addr::LOCALHOST;
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects from a namespace over IPv6 and returns the address that the server saw.
fn ask6(from: BorrowedFd<'_>, to: Ipv6Addr, port: u16) -> io::Result<IpAddr> {
    let mut client = net::run_in_namespace(from, || {
        TcpStream::connect_timeout(&SocketAddr::from((to, port)), Duration::from_secs(1))
    })?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    client.read_to_string(&mut text)?;
    text.parse().map_err(io::Error::other)
}

/// Gives the wire IPv6 addresses, and waits until they can be used.
fn wire_ipv6(host: &Host) {
    for (namespace, address) in [(host.own.as_fd(), HOST6), (host.neighbour.as_fd(), NEIGHBOUR6)] {
        net::run_in_namespace(namespace, || {
            let mut socket = Socket::open(Protocol::Route)?;
            let link = net::find_link(&mut socket, "wire0").unwrap().unwrap().index;
            let mut batch = Batch::new();
            net::add_address(&mut batch, &Address { link, address: address.into(), prefix: 64 });
            socket.transact(&batch).map_err(io::Error::other)
        })
        .unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    let usable = |namespace, address| {
        net::run_in_namespace(namespace, || UdpSocket::bind((address, 0))).is_ok()
    };
    while !(usable(host.own.as_fd(), HOST6) && usable(host.neighbour.as_fd(), NEIGHBOUR6)) {
        assert!(Instant::now() < deadline, "the addresses are not usable");
        std::thread::yield_now();
    }
}

fn open(host: &Host, relay: Relay) -> Bridges {
    let mut options = host.options();
    options.traffic.relay = relay;
    Bridges::open(options).unwrap()
}

#[test]
fn a_container_without_ipv6_is_reached_over_ipv6() {
    on_a_host(|host| {
        wire_ipv6(host);
        let networks = host.open();
        let (attach, guest) = host.attach(&networks, &[("", 8080, 80)]);
        serve(guest.namespace(), 80);
        let shown = guest.sandbox.ports.iter().map(|port| port.host_ip.unwrap().to_string());
        assert_eq!(shown.collect::<Vec<_>>(), ["0.0.0.0", "::"]);
        // The host's address in the container's network, and none that a client could choose.
        assert_eq!(ask6(host.own.as_fd(), LOCALHOST, 8080).unwrap(), GATEWAY);
        assert_eq!(ask6(host.own.as_fd(), HOST6, 8080).unwrap(), GATEWAY);
        assert_eq!(ask6(host.neighbour.as_fd(), HOST6, 8080).unwrap(), GATEWAY);
        assert!(ask6(host.neighbour.as_fd(), HOST6, 8081).is_err());

        let busy = host.block_on(networks.attach(host.request(&[("::1", 8080, 80)]))).unwrap_err();
        assert!(
            busy.to_string().ends_with("Bind for ::1:8080 failed: port is already allocated"),
            "{busy}"
        );
        host.block_on(networks.detach(&attach.container)).unwrap();
        assert!(ask6(host.own.as_fd(), LOCALHOST, 8080).is_err());
        drop(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)).unwrap());
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

#[test]
fn a_port_on_an_ipv6_address_is_on_that_address_only() {
    on_a_host(|host| {
        wire_ipv6(host);
        let networks = host.open();
        let (_, near) = host.attach(&networks, &[("::1", 8080, 80)]);
        let (_, far) = host.attach(&networks, &[("2001:db8::1", 8081, 80)]);
        serve(near.namespace(), 80);
        serve(far.namespace(), 80);
        ask6(host.own.as_fd(), LOCALHOST, 8080).unwrap();
        assert!(ask6(host.neighbour.as_fd(), HOST6, 8080).is_err());
        assert_unreachable(host.own.as_fd(), Ipv4Addr::LOCALHOST, 8080);
        ask6(host.neighbour.as_fd(), HOST6, 8081).unwrap();
        assert!(ask6(host.own.as_fd(), LOCALHOST, 8081).is_err());

        let foreign = host.request(&[("2001:db8::99", 8082, 80)]);
        let refused = host.block_on(networks.attach(foreign)).unwrap_err().to_string();
        assert!(refused.contains(": failed to bind host port 2001:db8::99:8082/tcp"), "{refused}");
        let long = (9000..9100).map(|port| ("::1", port, port)).collect::<Vec<_>>();
        let refused = host.block_on(networks.attach(host.request(&long))).unwrap_err();
        assert!(refused.to_string().contains("more than 16 ports side by side"), "{refused}");
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

/// A server that says all it hears.
fn echo(namespace: BorrowedFd<'_>, port: u16) {
    let listener = net::run_in_namespace(namespace, || TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.unwrap();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut copy = client.try_clone().unwrap();
                io::copy(&mut copy, &mut client)
            });
        }
    });
}

#[test]
fn relayed_connections_outlive_the_daemon() {
    on_a_host(|host| {
        let networks = host.open();
        let (attach, guest) = host.attach(&networks, &[("", 8080, 80)]);
        echo(guest.namespace(), 80);
        let connect = || {
            let client = TcpStream::connect((LOCALHOST, 8080)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        };
        let exchange = |client: &mut TcpStream| {
            client.write_all(b"still there").unwrap();
            let mut heard = [0; 11];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"still there");
        };
        let mut early = connect();
        exchange(&mut early);
        drop(networks);
        exchange(&mut early);
        let mut between = connect();
        exchange(&mut between);

        let networks = host.open();
        let own = std::process::id().cast_signed();
        host.block_on(networks.adopt(&attach.container, own)).unwrap();
        host.block_on(networks.sweep(&[attach.container])).unwrap();
        for client in [&mut early, &mut between, &mut connect()] {
            exchange(client);
        }
        host.block_on(networks.detach(&attach.container)).unwrap();
        assert!(TcpStream::connect((LOCALHOST, 8080)).is_err());
        // What a daemon relayed whose container nobody knows any more is not relayed for long.
        let (_, guest) = host.attach(&networks, &[("", 8080, 80)]);
        echo(guest.namespace(), 80);
        exchange(&mut connect());
        drop(networks);
        let networks = host.open();
        host.block_on(networks.sweep(&[])).unwrap();
        assert!(TcpStream::connect((LOCALHOST, 8080)).is_err());
        host.attach(&networks, &[("", 8080, 80)]);
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

#[test]
fn packets_are_relayed_too() {
    on_a_host(|host| {
        let networks = host.open();
        let mut attach = host.request(&[("", 5353, 53)]);
        attach.ports[0].protocol = PortProtocol::Udp;
        let guest = host.block_on(networks.attach(attach)).unwrap();
        let namespace = guest.namespace.as_ref().unwrap().as_fd();
        let server = net::run_in_namespace(namespace, || UdpSocket::bind("0.0.0.0:53")).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = UdpSocket::bind((LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect((LOCALHOST, 5353)).unwrap();
        client.send(b"query").unwrap();
        let mut packet = [0; 16];
        let (size, from) = server.recv_from(&mut packet).unwrap();
        assert_eq!((&packet[..size], from.ip()), (&b"query"[..], IpAddr::V4(GATEWAY)));
        server.send_to(b"answer", from).unwrap();
        let size = client.recv(&mut packet).unwrap();
        assert_eq!(&packet[..size], b"answer");
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

#[test]
fn nothing_is_relayed_where_that_is_switched_off() {
    on_a_host(|host| {
        let networks = open(host, Relay::Off);
        let (_, guest) = host.attach(&networks, &[("", 8080, 80)]);
        serve(guest.namespace(), 80);
        assert_eq!(guest.sandbox.ports.len(), 1);
        ask(host.own.as_fd(), Ipv4Addr::LOCALHOST, 8080).unwrap();
        let refused = ask6(host.own.as_fd(), LOCALHOST, 8080).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let asked = host.request(&[("::1", 8081, 80)]);
        let refused = host.block_on(networks.attach(asked)).unwrap_err().to_string();
        assert!(refused.contains("use a network with --ipv6"), "{refused}");
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

/// A table of the host's own that drops what comes in by the wire for a port.
fn deny(port: u16) {
    let mut wire = b"wire0".to_vec();
    wire.resize(16, 0);
    let mut all = Transaction::new();
    all.add_table("own");
    all.add_chain("own", "input", Some(Base { kind: "filter", hook: Hook::Input, priority: 0 }));
    let rule = [
        Expression::Meta(Meta::InputName, 1),
        Expression::Compare(1, Compare::Equal, wire),
        Expression::Payload(PayloadBase::Transport, 2, 2, 1),
        Expression::Compare(1, Compare::Equal, port.to_be_bytes().to_vec()),
        Expression::Verdict(Verdict::Drop),
    ];
    all.add_rule("own", "input", &rule);
    all.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
}

#[test]
fn what_the_hosts_own_input_policy_denies_is_denied_where_that_is_asked_for() {
    for respected in [true, false] {
        on_a_host(|host| {
            wire_ipv6(host);
            let relay = if respected { Relay::All } else { Relay::WhereNeeded };
            let networks = open(host, relay);
            deny(8080);
            let (_, guest) = host.attach(&networks, &[("", 8080, 80), ("", 8081, 80)]);
            let (_, sibling) = host.attach(&networks, &[]);
            serve(guest.namespace(), 80);
            let shown = guest.sandbox.ports.iter().map(|port| port.host_ip.unwrap().is_ipv4());
            assert_eq!(shown.collect::<Vec<_>>(), [true, false, true, false]);
            if respected {
                assert_unreachable(host.neighbour.as_fd(), HOST, 8080);
                let long = (9000..9100).map(|port| ("", port, port)).collect::<Vec<_>>();
                let refused = host.block_on(networks.attach(host.request(&long))).unwrap_err();
                assert!(refused.to_string().contains("input policy is respected"), "{refused}");
            } else {
                ask(host.neighbour.as_fd(), HOST, 8080).unwrap();
            }
            assert!(ask6(host.neighbour.as_fd(), HOST6, 8080).is_err());
            for port in [8080, 8081] {
                ask(host.own.as_fd(), Ipv4Addr::LOCALHOST, port).unwrap();
                ask6(host.own.as_fd(), LOCALHOST, port).unwrap();
                ask(sibling.namespace(), HOST, port).unwrap();
            }
            ask(host.neighbour.as_fd(), HOST, 8081).unwrap();
            ask6(host.neighbour.as_fd(), HOST6, 8081).unwrap();
            host.block_on(networks.sweep(&[])).unwrap();
        });
    }
}

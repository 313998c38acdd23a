//! Ports in use; in a network namespace of its own, needs root.

use super::*;
use crate::net::{new_namespace, reserve_port};
use std::io;

#[test]
fn a_socket_keeps_others_from_its_addresses() {
    let bound = |address: &str, both| Bound { address: address.parse().unwrap(), port: 80, both };
    for (socket, address, excludes) in [
        (bound("0.0.0.0", false), "127.0.0.1", true),
        (bound("127.0.0.1", false), "0.0.0.0", true),
        (bound("127.0.0.1", false), "127.0.0.2", false),
        (bound("127.0.0.1", false), "::", false),
        (bound("::", true), "127.0.0.1", true),
        (bound("::", false), "127.0.0.1", false),
        (bound("::ffff:127.0.0.1", true), "127.0.0.1", true),
        (bound("::1", false), "::", true),
    ] {
        assert_eq!(socket.excludes(address.parse().unwrap()), excludes, "{socket:?} {address}");
    }
}

#[test]
fn ports_in_use_are_listed() {
    let (_namespace, ()) = new_namespace(|_| {
        let tcp = reserve_port(Transport::Tcp, "0.0.0.0:8080".parse().unwrap())?;
        let udp = reserve_port(Transport::Udp, "[::]:5353".parse().unwrap())?;
        let list = |transport| bound_ports(transport).map_err(io::Error::other);
        let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        assert_eq!(list(Transport::Tcp)?, [Bound { address: any4, port: 8080, both: false }]);
        assert_eq!(list(Transport::Udp)?, [Bound { address: any6, port: 5353, both: false }]);
        drop((tcp, udp));
        assert_eq!(list(Transport::Tcp)?, []);
        Ok(())
    })
    .unwrap();
}

//! In network namespaces of their own; need root.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "the shape of `map_err`")]
fn other(error: NetlinkError) -> io::Error {
    io::Error::other(format!("{error}: {}", error.source))
}

#[test]
fn a_bridge_with_a_veth_into_another_namespace() {
    let (_outer, ()) = new_namespace(|_| {
        let mut host = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        add_bridge(&mut batch, "br-test", [2, 0, 0, 0, 0, 1]);
        change_link(
            &mut batch,
            LinkRef::Name("br-test"),
            &Change { up: Some(true), alias: Some("hello"), ..Change::default() },
        );
        host.transact(&batch).map_err(other)?;
        let bridge = find_link(&mut host, "br-test").map_err(other)?.unwrap();
        assert_eq!(
            (bridge.kind.as_str(), bridge.alias.as_str(), bridge.up),
            ("bridge", "hello", true)
        );
        assert_eq!(bridge.mac, [2, 0, 0, 0, 0, 1]);
        assert!(find_link(&mut host, "nothing").map_err(other)?.is_none());

        let (_inner, ()) = new_namespace(|inner| {
            let mut batch = Batch::new();
            let veth = Veth {
                name: "v0",
                master: bridge.index,
                mtu: 1400,
                peer_name: "eth0",
                peer_namespace: inner,
            };
            add_veth(&mut batch, &veth);
            let change = Change { isolated: Some(true), alias: Some("v"), ..Change::default() };
            change_link(&mut batch, LinkRef::Name("v0"), &change);
            host.transact(&batch).map_err(other)?;
            set_sysctl(&["ipv6", "conf", "eth0", "disable_ipv6"], "1")?;
            let mut guest = Socket::open(Protocol::Route)?;
            let peer = find_link(&mut guest, "eth0").map_err(other)?.unwrap();
            assert_eq!((peer.kind.as_str(), peer.mtu), ("veth", 1400));
            let address = Address {
                link: peer.index,
                address: Ipv4Addr::new(10, 0, 0, 2).into(),
                prefix: 24,
            };
            let gateway = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
            let route = Route { destination: None, gateway: Some(gateway), link: 0 };
            let mut batch = Batch::new();
            let up = Change { up: Some(true), mac: Some([2, 0, 0, 0, 0, 9]), ..Change::default() };
            change_link(&mut batch, LinkRef::Index(peer.index), &up);
            add_address(&mut batch, &address);
            add_route(&mut batch, &route);
            guest.transact(&batch).map_err(other)?;
            assert_eq!(addresses(&mut guest).map_err(other)?, [address]);
            let listed = routes(&mut guest).map_err(other)?;
            assert!(listed.contains(&Route { link: peer.index, ..route }), "{listed:?}");
            assert_eq!(
                find_link(&mut guest, "eth0").map_err(other)?.unwrap().mac,
                [2, 0, 0, 0, 0, 9]
            );
            Ok(())
        })?;
        let near = find_link(&mut host, "v0").map_err(other)?.unwrap();
        assert_eq!((near.master, near.up, near.alias.as_str()), (bridge.index, true, "v"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_port_without_a_link_local_address() {
    let (_outer, ()) = new_namespace(|_| {
        let mut host = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        add_bridge(&mut batch, "br-test", [2, 0, 0, 0, 0, 1]);
        host.transact(&batch).map_err(other)?;
        let bridge = find_link(&mut host, "br-test").map_err(other)?.unwrap().index;
        let (_inner, ()) = new_namespace(|inner| {
            let mut guest = Socket::open(Protocol::Route)?;
            for (name, peer_name, without) in [("v0", "eth0", true), ("v1", "eth1", false)] {
                let veth =
                    Veth { name, master: bridge, mtu: 1500, peer_name, peer_namespace: inner };
                let mut batch = Batch::new();
                add_veth(&mut batch, &veth);
                let change = Change { without_link_local: without, ..Change::default() };
                change_link(&mut batch, LinkRef::Name(name), &change);
                host.transact(&batch).map_err(other)?;
                let mut batch = Batch::new();
                let up = Change { up: Some(true), ..Change::default() };
                change_link(&mut batch, LinkRef::Name(peer_name), &up);
                guest.transact(&batch).map_err(other)?;
            }
            let ports = ["v0", "v1"].map(|name| find_link(&mut host, name));
            let [spared, usual] = ports.map(|port| port.unwrap().unwrap().index);
            // The kernel gives the address on a thread of its own, to the second port after the first.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            let owners = loop {
                let all = addresses(&mut host).map_err(other)?;
                let owners = all.iter().map(|address| address.link).collect::<Vec<_>>();
                if owners.contains(&usual) || std::time::Instant::now() > deadline {
                    break owners;
                }
                std::thread::yield_now();
            };
            assert!(owners.contains(&usual) && !owners.contains(&spared), "{owners:?}");
            Ok(())
        })?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_refusal_names_the_message_and_spares_the_others() {
    let (_namespace, ()) = new_namespace(|_| {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        add_bridge(&mut batch, "d0", [2, 0, 0, 0, 0, 1]);
        add_bridge(&mut batch, "d0", [2, 0, 0, 0, 0, 1]);
        add_bridge(&mut batch, "d1", [2, 0, 0, 0, 0, 2]);
        let error = socket.transact(&batch).unwrap_err();
        assert_eq!(error.index, 1);
        assert!(error.is(rustix::io::Errno::EXIST), "{error:?}");
        let names = links(&mut socket).map_err(other)?.into_iter().map(|link| link.name);
        assert_eq!(names.collect::<Vec<_>>(), ["lo", "d0", "d1"]);
        let mut batch = Batch::new();
        delete_link(&mut batch, LinkRef::Name("d1"));
        change_link(
            &mut batch,
            LinkRef::Name("lo"),
            &Change { up: Some(true), ..Change::default() },
        );
        socket.transact(&batch).map_err(other)?;
        assert!(find_link(&mut socket, "d1").map_err(other)?.is_none());
        assert!(find_link(&mut socket, "lo").map_err(other)?.unwrap().up);
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_callers_namespace_stays() {
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let (namespace, inside) =
        new_namespace(|_| std::fs::read_link("/proc/thread-self/ns/net")).unwrap();
    let again =
        run_in_namespace(namespace.as_fd(), || std::fs::read_link("/proc/thread-self/ns/net"));
    assert_eq!(again.unwrap(), inside);
    assert_ne!(before, inside);
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
}

#[test]
fn a_held_port_is_refused_to_others() {
    let (_namespace, ()) = new_namespace(|_| {
        let mut socket = Socket::open(Protocol::Route)?;
        let mut batch = Batch::new();
        change_link(
            &mut batch,
            LinkRef::Name("lo"),
            &Change { up: Some(true), ..Change::default() },
        );
        socket.transact(&batch).map_err(other)?;
        for transport in [Transport::Tcp, Transport::Udp] {
            let held = reserve_port(transport, "0.0.0.0:7777".parse().unwrap())?;
            let again = reserve_port(transport, "127.0.0.1:7777".parse().unwrap());
            assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(held);
            reserve_port(transport, "127.0.0.1:7777".parse().unwrap())?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn sysctl_keys_stay_below_net() {
    for key in [["..", "kernel"], ["", "x"], ["a/b", "c"]] {
        assert!(set_sysctl(&key, "1").is_err());
    }
}

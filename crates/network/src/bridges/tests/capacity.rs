//! As many containers as a bridge has ports, and what is said of the next one.

use rorqual_core::{Classify as _, ErrorKind};
use rorqual_sys::net::{self, Batch, LinkRef, Protocol, Socket, Veth};
use std::os::fd::AsFd as _;

use super::host::on_a_host;
use crate::{Attach, EndpointRequest, NetworkRequest, Networks as _, SandboxKind};

/// Ports of a Linux bridge.
const PORTS: usize = 1023;

fn change(make: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    make(&mut batch);
    Socket::open(Protocol::Route).unwrap().transact(&batch).unwrap();
}

#[test]
fn a_full_bridge_is_told_of_and_has_room_again() {
    on_a_host(|host| {
        let networks = host.open();
        let request = NetworkRequest {
            name: "full".to_owned(),
            ipv4: true,
            options: [("com.docker.network.bridge.name".to_owned(), "full0".to_owned())].into(),
            ..NetworkRequest::default()
        };
        let made = host.block_on(networks.create(request)).unwrap();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let master = net::find_link(&mut socket, "full0").unwrap().unwrap().index;
        // Both ends of a pair are ports; the last port is left to a container.
        for pair in 0..PORTS / 2 {
            let (name, peer_name) = (format!("a{pair}"), format!("b{pair}"));
            let peer_namespace = host.own.as_fd();
            change(|batch| {
                let pair =
                    Veth { name: &name, master, mtu: 1500, peer_name: &peer_name, peer_namespace };
                net::add_veth(batch, &pair);
            });
            change(|batch| {
                let change = net::Change { master: Some(master), ..net::Change::default() };
                net::change_link(batch, LinkRef::Name(&peer_name), &change);
            });
        }
        let request = || {
            let endpoint =
                EndpointRequest { network: "full".to_owned(), ..EndpointRequest::default() };
            Attach { kind: SandboxKind::Own(vec![endpoint]), ..host.request(&[]) }
        };
        let last = request();
        let sandbox = host.block_on(networks.attach(last.clone())).unwrap();
        let refused = host.block_on(networks.attach(request())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains("1023 ports"), "{refused}");
        drop(sandbox);
        host.block_on(networks.detach(&last.container)).unwrap();
        // The port of the one that has ended is taken at once, although its link may be there still.
        let next = request();
        let sandbox = host.block_on(networks.attach(next.clone())).unwrap();
        drop(sandbox);
        host.block_on(networks.detach(&next.container)).unwrap();
        networks.settle();
        for pair in 0..PORTS / 2 {
            change(|batch| net::delete_link(batch, LinkRef::Name(&format!("a{pair}"))));
        }
        host.block_on(networks.remove(&made.id)).unwrap();
        drop(networks);
        host.assert_clean();
    });
}

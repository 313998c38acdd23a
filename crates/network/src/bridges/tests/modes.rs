//! Gateway modes, and networks on an interface of the host.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd};

use rorqual_sys::net;

use super::host::{Guest, HOST, Host, NEIGHBOUR, ask, assert_unreachable, on_a_host, serve};
use crate::{
    Attach, Bridges, EndpointRequest, NetworkRecord, NetworkRequest, Networks as _, SandboxKind,
    SubnetRequest,
};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn network(host: &Host, networks: &Bridges, request: NetworkRequest) -> NetworkRecord {
    let name = if request.name.is_empty() { "net".to_owned() } else { request.name };
    host.block_on(networks.create(NetworkRequest { name, ipv4: true, ..request })).unwrap()
}

fn options(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn with_options(all: &[(&str, &str)]) -> NetworkRequest {
    NetworkRequest { options: options(all), ..NetworkRequest::default() }
}

fn join(host: &Host, networks: &Bridges, ports: &[(&str, u16, u16)]) -> (Attach, Guest) {
    let mut attach = host.request(ports);
    let endpoint = EndpointRequest { network: "net".to_owned(), ..EndpointRequest::default() };
    attach.kind = SandboxKind::Own(vec![endpoint]);
    let sandbox = host.block_on(networks.attach(attach.clone())).unwrap();
    (attach, Guest::new(sandbox))
}

const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";

#[test]
fn a_routed_network_is_reached_directly_at_published_ports_only() {
    on_a_host(|host| {
        let networks = host.open();
        network(host, &networks, with_options(&[(MODE, "routed")]));
        let (attach, guest) = join(host, &networks, &[("", 8080, 80), ("127.0.0.1", 8081, 82)]);
        assert!(guest.sandbox.ports.is_empty(), "no port of the host is used");
        for port in [80, 81, 82] {
            serve(guest.namespace(), port);
        }
        let neighbour = host.neighbour.as_fd();
        assert_eq!(ask(neighbour, guest.address, 80).unwrap(), NEIGHBOUR);
        assert_unreachable(neighbour, guest.address, 81);
        assert_unreachable(neighbour, guest.address, 82);
        assert_unreachable(neighbour, HOST, 8080);
        serve(neighbour, 7000);
        let seen = ask(guest.namespace(), NEIGHBOUR, 7000).unwrap();
        assert_eq!(seen, IpAddr::V4(guest.address), "its address is not translated");
        drop(networks);
        let networks = host.open();
        ask(neighbour, guest.address, 80).unwrap();
        assert_unreachable(neighbour, guest.address, 81);
        host.block_on(networks.detach(&attach.container)).unwrap();
        assert_unreachable(neighbour, guest.address, 80);
    });
}

#[test]
fn an_unprotected_network_is_reached_both_ways() {
    on_a_host(|host| {
        let networks = host.open();
        network(host, &networks, with_options(&[(MODE, "nat-unprotected")]));
        let (_, guest) = join(host, &networks, &[("", 8080, 80)]);
        serve(guest.namespace(), 80);
        serve(guest.namespace(), 81);
        let neighbour = host.neighbour.as_fd();
        assert_eq!(ask(neighbour, HOST, 8080).unwrap(), NEIGHBOUR);
        assert_eq!(ask(neighbour, guest.address, 81).unwrap(), NEIGHBOUR);
        serve(neighbour, 7000);
        assert_eq!(ask(guest.namespace(), NEIGHBOUR, 7000).unwrap(), HOST);
    });
}

#[test]
fn an_isolated_network_does_not_know_the_host() {
    on_a_host(|host| {
        let networks = host.open();
        let request = NetworkRequest { internal: true, ..with_options(&[(MODE, "isolated")]) };
        network(host, &networks, request);
        let (_, guest) = join(host, &networks, &[("", 8080, 80)]);
        let (_, sibling) = join(host, &networks, &[]);
        assert_eq!(guest.address.octets()[3], 1, "the first address is free, too");
        serve(guest.namespace(), 80);
        assert_eq!(ask(sibling.namespace(), guest.address, 80).unwrap(), sibling.address);
        assert_unreachable(host.own.as_fd(), guest.address, 80);
        assert_unreachable(host.neighbour.as_fd(), guest.address, 80);
        assert_unreachable(host.own.as_fd(), LOCALHOST, 8080);
    });
}

#[test]
fn a_trusted_interface_reaches_published_ports_directly() {
    on_a_host(|host| {
        let networks = host.open();
        let trusted = "com.docker.network.bridge.trusted_host_interfaces";
        network(host, &networks, with_options(&[(trusted, "other0:wire0")]));
        let (_, guest) = join(host, &networks, &[("", 8080, 80)]);
        serve(guest.namespace(), 80);
        serve(guest.namespace(), 81);
        let neighbour = host.neighbour.as_fd();
        assert_eq!(ask(neighbour, guest.address, 80).unwrap(), NEIGHBOUR);
        assert_eq!(ask(neighbour, HOST, 8080).unwrap(), NEIGHBOUR);
        assert_unreachable(neighbour, guest.address, 81);
    });
}

#[test]
fn outgoing_connections_get_the_address_asked_for() {
    on_a_host(|host| {
        let networks = host.open();
        let wanted = Ipv4Addr::new(192, 0, 2, 77);
        let text = wanted.to_string();
        network(host, &networks, with_options(&[("com.docker.network.host_ipv4", &text)]));
        let mut socket = net::Socket::open(net::Protocol::Route).unwrap();
        let wire = net::find_link(&mut socket, "wire0").unwrap().unwrap();
        let mut batch = net::Batch::new();
        let address = net::Address { link: wire.index, address: wanted.into(), prefix: 24 };
        net::add_address(&mut batch, &address);
        socket.transact(&batch).unwrap();
        let (_, guest) = join(host, &networks, &[]);
        serve(host.neighbour.as_fd(), 7000);
        assert_eq!(ask(guest.namespace(), NEIGHBOUR, 7000).unwrap(), wanted);
    });
}

#[test]
fn another_router_may_be_the_gateway() {
    on_a_host(|host| {
        let networks = host.open();
        let inhibit = "com.docker.network.bridge.inhibit_ipv4";
        let record = network(host, &networks, with_options(&[(inhibit, "true")]));
        let gateway = record.subnets[0].gateway.unwrap();
        let (_, guest) = join(host, &networks, &[]);
        assert_eq!(guest.sandbox.endpoints[0].gateway.map(IpAddr::V4), Some(gateway));
        let mut socket = net::Socket::open(net::Protocol::Route).unwrap();
        let all = net::addresses(&mut socket).unwrap();
        assert!(!all.iter().any(|address| address.address == gateway), "the bridge has none");
    });
}

#[test]
fn an_interface_gets_its_name_settings_and_further_addresses() {
    on_a_host(|host| {
        let networks = host.open();
        network(host, &networks, NetworkRequest::default());
        let mut attach = host.request(&[]);
        let endpoint = EndpointRequest {
            network: "net".to_owned(),
            options: options(&[
                ("com.docker.network.endpoint.ifname", "lan0"),
                ("com.docker.network.endpoint.sysctls", "net.ipv4.conf.IFNAME.log_martians=1"),
            ]),
            link_local: vec!["169.254.7.7".parse().unwrap()],
            ..EndpointRequest::default()
        };
        attach.kind = SandboxKind::Own(vec![endpoint]);
        let sandbox = host.block_on(networks.attach(attach)).unwrap();
        let namespace = sandbox.namespace.as_ref().unwrap().as_fd();
        let seen = net::run_in_namespace(namespace, || {
            let mut socket = net::Socket::open(net::Protocol::Route)?;
            let all = net::addresses(&mut socket).map_err(std::io::Error::other)?;
            let martians = net::read_sysctl(&["ipv4", "conf", "lan0", "log_martians"])?;
            Ok((all.into_iter().map(|one| one.address.to_string()).collect::<Vec<_>>(), martians))
        });
        let (addresses, martians) = seen.unwrap();
        assert!(addresses.contains(&"169.254.7.7".to_owned()), "{addresses:?}");
        assert_eq!(martians, "1");
        assert_eq!(sandbox.endpoints[0].interface, "lan0");
    });
}

fn on_the_wire(mode: &str) -> NetworkRequest {
    NetworkRequest {
        driver: "macvlan".to_owned(),
        subnets: vec![SubnetRequest {
            subnet: "192.0.2.0/24".to_owned(),
            range: "192.0.2.128/25".to_owned(),
            gateway: NEIGHBOUR.to_string(),
            ..SubnetRequest::default()
        }],
        ..with_options(&[("parent", "wire0"), ("macvlan_mode", mode)])
    }
}

#[test]
fn a_macvlan_container_is_a_neighbour_of_its_own() {
    on_a_host(|host| {
        let networks = host.open();
        let record = network(host, &networks, on_the_wire("bridge"));
        let (attach, guest) = join(host, &networks, &[("", 8080, 80)]);
        let (_, sibling) = join(host, &networks, &[]);
        assert_eq!(guest.address, Ipv4Addr::new(192, 0, 2, 128));
        assert!(guest.sandbox.warnings[0].contains("no port is published"));
        serve(guest.namespace(), 80);
        serve(host.neighbour.as_fd(), 7000);
        assert_eq!(ask(guest.namespace(), NEIGHBOUR, 7000).unwrap(), guest.address);
        assert_eq!(ask(host.neighbour.as_fd(), guest.address, 80).unwrap(), NEIGHBOUR);
        assert_eq!(ask(sibling.namespace(), guest.address, 80).unwrap(), sibling.address);
        drop(networks);

        let networks = host.open();
        let used = host.block_on(networks.remove(&record.id)).unwrap_err();
        assert!(used.to_string().contains("has active endpoints"), "{used}");
        host.block_on(networks.detach(&attach.container)).unwrap();
        host.block_on(networks.sweep(&[])).unwrap();
        host.block_on(networks.remove(&record.id)).unwrap();
        let mut socket = net::Socket::open(net::Protocol::Route).unwrap();
        assert!(net::find_link(&mut socket, "wire0").unwrap().is_some(), "the host's own stays");
    });
}

#[test]
fn addresses_come_from_the_next_subnet_when_one_is_exhausted() {
    on_a_host(|host| {
        let networks = host.open();
        let mut asked = on_the_wire("bridge");
        // Room for one container: the other two addresses are the gateway's and reserved.
        asked.subnets[0].range = "192.0.2.128/32".to_owned();
        asked.subnets.push(SubnetRequest {
            subnet: "198.51.100.0/25".to_owned(),
            gateway: "198.51.100.9".to_owned(),
            ..SubnetRequest::default()
        });
        network(host, &networks, asked);
        let (first, one) = join(host, &networks, &[]);
        let (_, two) = join(host, &networks, &[]);
        let place =
            |guest: &Guest| (guest.sandbox.endpoints[0].ipv4, guest.sandbox.endpoints[0].gateway);
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert_eq!(place(&one), (Some((address("192.0.2.128"), 24)), Some(NEIGHBOUR)));
        let second = (Some((address("198.51.100.1"), 25)), Some(address("198.51.100.9")));
        assert_eq!(place(&two), second);
        // What is given back is given out again at once, also by the next daemon.
        let before = place(&one);
        host.block_on(networks.detach(&first.container)).unwrap();
        drop((networks, one));
        let networks = host.open();
        let (_, again) = join(host, &networks, &[]);
        assert_eq!(place(&again), before);
        let (_, third) = join(host, &networks, &[]);
        assert_eq!(third.address, address("198.51.100.2"));
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

#[test]
fn a_vlan_is_made_for_a_network_and_goes_with_it() {
    on_a_host(|host| {
        let networks = host.open();
        let mut asked = on_the_wire("bridge");
        asked.subnets[0].subnet = "203.0.113.0/24".to_owned();
        asked.subnets[0].range = String::new();
        asked.subnets[0].gateway = "203.0.113.1".to_owned();
        asked.options.insert("parent".to_owned(), "wire0.50".to_owned());
        let record = match host.block_on(networks.create(NetworkRequest {
            name: "net".to_owned(),
            ipv4: true,
            ..asked
        })) {
            // Such a kernel says so.
            Err(error) => {
                assert!(error.to_string().contains("8021q"), "{error}");
                return;
            }
            Ok(record) => record,
        };
        let there = |name: &str| {
            let mut socket = net::Socket::open(net::Protocol::Route).unwrap();
            net::find_link(&mut socket, name).unwrap().is_some()
        };
        assert!(there("wire0.50"));
        let (attach, guest) = join(host, &networks, &[]);
        assert_eq!(guest.address, Ipv4Addr::new(203, 0, 113, 2));
        let (_, sibling) = join(host, &networks, &[]);
        serve(guest.namespace(), 80);
        assert_eq!(ask(sibling.namespace(), guest.address, 80).unwrap(), sibling.address);
        // The wire itself is another network.
        assert_unreachable(host.neighbour.as_fd(), guest.address, 80);
        host.block_on(networks.detach(&attach.container)).unwrap();
        host.block_on(networks.sweep(&[])).unwrap();
        networks.settle();
        host.block_on(networks.remove(&record.id)).unwrap();
        assert!(!there("wire0.50") && there("wire0"));
    });
}

#[test]
fn private_macvlan_containers_do_not_meet() {
    on_a_host(|host| {
        let networks = host.open();
        network(host, &networks, on_the_wire("private"));
        let (_, guest) = join(host, &networks, &[]);
        let (_, sibling) = join(host, &networks, &[]);
        serve(guest.namespace(), 80);
        ask(host.neighbour.as_fd(), guest.address, 80).unwrap();
        assert_unreachable(sibling.namespace(), guest.address, 80);
    });
}

fn has_link(namespace: BorrowedFd<'_>, name: &str) -> bool {
    let found = net::run_in_namespace(namespace, || {
        let mut socket = net::Socket::open(net::Protocol::Route)?;
        net::find_link(&mut socket, name).map_err(std::io::Error::other)
    });
    found.unwrap().is_some()
}

#[test]
fn a_macvlan_network_without_a_parent_is_internal() {
    on_a_host(|host| {
        let networks = host.open();
        let request = NetworkRequest { driver: "macvlan".to_owned(), ..NetworkRequest::default() };
        let record = network(host, &networks, request);
        let parent = format!("dm-{}", record.id.short());
        assert!(has_link(host.own.as_fd(), &parent));
        let (attach, guest) = join(host, &networks, &[]);
        let (_, sibling) = join(host, &networks, &[]);
        assert_eq!(guest.sandbox.endpoints[0].gateway, None);
        serve(guest.namespace(), 80);
        ask(sibling.namespace(), guest.address, 80).unwrap();
        drop((guest, sibling));
        host.block_on(networks.detach(&attach.container)).unwrap();
        host.block_on(networks.sweep(&[])).unwrap();
        host.block_on(networks.remove(&record.id)).unwrap();
        assert!(!has_link(host.own.as_fd(), &parent), "what was made here goes");
        networks.settle();
        drop(networks);
        host.assert_clean();
    });
}

#[test]
fn a_macvlan_link_is_taken_out_of_a_running_container() {
    on_a_host(|host| {
        let networks = host.open();
        let record = network(host, &networks, on_the_wire("bridge"));
        let (attach, guest) = host.attach(&networks, &[]);
        let inside = net::run_in_namespace(guest.namespace(), || {
            // This thread plays a process of the container.
            let task = rustix::thread::gettid().as_raw_nonzero().get();
            let network = "net".to_owned();
            let request = EndpointRequest { network, ..EndpointRequest::default() };
            let joined = networks.connect(&attach.container, task, request);
            assert_eq!(host.block_on(joined).unwrap()[1].interface, "eth1");
            let present = has_link(guest.namespace(), "eth1");
            let left = networks.disconnect(&attach.container, task, &record.id);
            assert_eq!(host.block_on(left).unwrap().len(), 1);
            Ok(present)
        });
        assert!(inside.unwrap());
        assert!(!has_link(guest.namespace(), "eth1"));
    });
}

#[test]
fn parents_are_shared_or_not_as_the_mode_says() {
    on_a_host(|host| {
        let networks = host.open();
        network(host, &networks, on_the_wire("bridge"));
        let create = |name: &str, request: NetworkRequest| {
            let subnets = vec![SubnetRequest {
                subnet: format!("10.{}.0.0/24", name.len()),
                ..SubnetRequest::default()
            }];
            let name = name.to_owned();
            let request = NetworkRequest { name, ipv4: true, subnets, ..request };
            host.block_on(networks.create(request)).map_err(|error| error.to_string())
        };
        let passthru = create("whole", on_the_wire("passthru")).unwrap_err();
        assert_eq!(
            passthru,
            "cannot use mode passthru, macvlan network net is already using parent interface wire0"
        );
        create("second", on_the_wire("vepa")).unwrap();
        let nowhere = with_options(&[("parent", "nothing0")]);
        let nowhere = NetworkRequest { driver: "macvlan".to_owned(), ..nowhere };
        let error = create("third", nowhere).unwrap_err();
        assert!(error.contains("example formatting is eth0.10"), "{error}");
        let ipvlan = NetworkRequest { driver: "ipvlan".to_owned(), ..NetworkRequest::default() };
        // Where the kernel has them, they work; where not, it is said.
        if let Err(error) = create("the-fourth", ipvlan) {
            assert!(error.contains("kernel with ipvlan links"), "{error}");
        }
    });
}

//! Choices of subnets, and options.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rorqual_core::{NetworkId, Timestamp};

use super::{EndpointOptions, Stacked};
use super::{Surroundings, network};
use crate::ipam::default_pools;
use crate::{Error, NetworkRecord, NetworkRequest, SubnetRequest};

fn design(
    request: NetworkRequest,
    networks: &[&str],
    routes: &[&str],
) -> Result<NetworkRecord, Error> {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let pools = default_pools();
    let around = Surroundings {
        pools: &pools,
        networks: parse(networks),
        routes: parse(routes),
        plugins: false,
    };
    let id = NetworkId::from_random([1; 32]);
    network(request, id, Timestamp::default(), &around, || [1, 2, 3, 4, 5, 6, 7])
}

fn request() -> NetworkRequest {
    NetworkRequest { name: "n".to_owned(), ipv4: true, ..NetworkRequest::default() }
}

#[test]
fn a_subnet_is_chosen_beside_networks_and_routes() {
    let taken = ["172.17.0.0/16", "172.19.0.0/16"];
    let record = design(request(), &taken, &["172.18.4.0/24", "10.0.0.0/8"]).unwrap();
    assert_eq!(record.subnets[0].subnet, "172.20.0.0/16");
    assert_eq!(record.subnets[0].gateway.unwrap().to_string(), "172.20.0.1");
}

#[test]
fn ipv6_gets_a_unique_local_subnet() {
    let record = design(NetworkRequest { ipv6: true, ipv4: false, ..request() }, &[], &[]).unwrap();
    assert_eq!(record.subnets[0].subnet, "fd01:203:405:607::/64");
    assert_eq!(record.subnets[0].gateway.unwrap().to_string(), "fd01:203:405:607::1");
}

#[test]
fn options_are_done_or_refused() {
    let with = |key: &str, value: &str| {
        let options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        design(NetworkRequest { options, ..request() }, &[], &[])
    };
    for (key, value, fine) in [
        ("com.docker.network.driver.mtu", "1400", true),
        ("com.docker.network.driver.mtu", "many", false),
        ("com.docker.network.driver.mtu", "10", false),
        ("com.docker.network.bridge.enable_icc", "false", true),
        ("com.docker.network.bridge.enable_icc", "perhaps", false),
        ("com.docker.network.bridge.name", "br7", true),
        ("com.docker.network.bridge.name", "a-name-that-is-too-long", false),
        ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1", true),
        ("com.docker.network.bridge.host_binding_ipv4", "here", false),
        ("com.docker.network.bridge.gateway_mode_ipv4", "nat", true),
        ("com.docker.network.bridge.gateway_mode_ipv4", "routed", true),
        ("com.docker.network.bridge.gateway_mode_ipv6", "nat-unprotected", true),
        ("com.docker.network.bridge.gateway_mode_ipv4", "isolated", false),
        ("com.docker.network.bridge.gateway_mode_ipv4", "open", false),
        ("com.docker.network.bridge.inhibit_ipv4", "true", true),
        ("com.docker.network.bridge.trusted_host_interfaces", "eth0:wg0", true),
        ("com.docker.network.bridge.trusted_host_interfaces", "et/h0", false),
        ("com.docker.network.host_ipv4", "192.0.2.1", true),
        ("com.docker.network.host_ipv6", "192.0.2.1", false),
        ("com.docker.network.enable_ipv6", "true", true),
        ("com.docker.network.enable_ipv4", "perhaps", false),
        ("com.docker.network.container_iface_prefix", "net", true),
        ("com.docker.network.container_iface_prefix", "a/b", false),
        ("com.docker.network.something", "new", false),
        ("com.example.note", "anything", true),
    ] {
        assert_eq!(with(key, value).is_ok(), fine, "{key}={value}");
    }
}

#[test]
fn ranges_gateways_and_reserved_addresses_lie_in_their_subnet() {
    let with = |range: &str, gateway: &str, auxiliary: &str| {
        let auxiliary = if auxiliary.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([("router".to_owned(), auxiliary.to_owned())])
        };
        let subnet = SubnetRequest {
            subnet: "10.1.0.0/16".to_owned(),
            range: range.to_owned(),
            gateway: gateway.to_owned(),
            auxiliary,
            pool: String::new(),
        };
        design(NetworkRequest { subnets: vec![subnet], ..request() }, &[], &[])
    };
    assert!(with("10.1.2.0/24", "10.1.255.254", "10.1.2.9").is_ok());
    for (range, gateway, auxiliary) in [
        ("10.2.0.0/24", "", ""),
        ("10.1.0.0/8", "", ""),
        ("10.1.2.1/24", "", ""),
        ("", "10.2.0.1", ""),
        ("", "", "10.2.0.1"),
        ("fd00::/64", "", ""),
    ] {
        let error = with(range, gateway, auxiliary).unwrap_err().to_string();
        assert!(error.starts_with("invalid network config:\n"), "{error}");
    }
}

proptest! {
    #[test]
    fn hostile_texts_are_refused_in_words(subnet in ".{0,40}", range in ".{0,40}", gateway in ".{0,40}") {
        let subnets = vec![SubnetRequest { subnet, range, gateway, ..SubnetRequest::default() }];
        // Whatever comes, it is an answer and no panic.
        let _answer = design(NetworkRequest { subnets, ipv6: true, ..request() }, &[], &[]);
    }
}

#[test]
fn stacked_drivers_have_options_of_their_own() {
    let with = |driver: &str, key: &str, value: &str| {
        let options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let request = NetworkRequest { driver: driver.to_owned(), options, ..request() };
        design(request, &[], &[]).and_then(|record| Stacked::of(&record))
    };
    for (driver, key, value, wanted) in [
        ("macvlan", "parent", "eth0.10", Some(Stacked::Macvlan(4))),
        ("macvlan", "macvlan_mode", "passthru", Some(Stacked::Macvlan(8))),
        ("ipvlan", "ipvlan_mode", "l3s", Some(Stacked::Ipvlan(2, 0))),
        ("ipvlan", "ipvlan_flag", "private", Some(Stacked::Ipvlan(0, 1))),
        ("bridge", "parent", "eth0", None),
    ] {
        assert_eq!(with(driver, key, value).unwrap(), wanted, "{driver} {key}={value}");
    }
    for (driver, key, value) in [
        ("macvlan", "parent", "lo"),
        ("macvlan", "parent", "a/b"),
        ("macvlan", "macvlan_mode", "l3"),
        ("ipvlan", "ipvlan_mode", "bridge"),
        ("ipvlan", "macvlan_mode", "bridge"),
        ("macvlan", "com.docker.network.bridge.enable_icc", "true"),
    ] {
        assert!(with(driver, key, value).is_err(), "{driver} {key}={value}");
    }
}

#[test]
fn several_subnets_are_for_drivers_that_route_none_of_them() {
    let with = |driver: &str, subnets: &[(&str, &str)]| {
        let subnets = subnets.iter().map(|(subnet, gateway)| SubnetRequest {
            subnet: (*subnet).to_owned(),
            gateway: (*gateway).to_owned(),
            ..SubnetRequest::default()
        });
        let (driver, subnets) = (driver.to_owned(), subnets.collect());
        let asked = NetworkRequest { driver, ipv6: true, subnets, ..request() };
        design(asked, &[], &[]).map_err(|error| error.to_string())
    };
    let two = [("10.1.0.0/24", "10.1.0.9"), ("10.2.0.0/24", ""), ("fd00:1::/64", "")];
    let record = with("macvlan", &two).unwrap();
    let shown = record.subnets.iter().map(|subnet| subnet.gateway.unwrap().to_string());
    assert_eq!(shown.collect::<Vec<_>>(), ["10.1.0.9", "10.2.0.1", "fd00:1::1"]);
    assert!(with("ipvlan", &two).is_ok());
    assert_eq!(with("bridge", &two).unwrap_err(), "bridge driver doesn't support multiple subnets");
    let overlapping = [("10.1.0.0/16", ""), ("10.1.4.0/24", "")];
    let refused = with("macvlan", &overlapping).unwrap_err();
    assert!(refused.contains("Pool overlaps with other one"), "{refused}");
}

#[test]
fn an_isolated_network_has_no_gateway() {
    let key = "com.docker.network.bridge.gateway_mode_ipv4".to_owned();
    let options = BTreeMap::from([(key, "isolated".to_owned())]);
    let isolated = NetworkRequest { options, internal: true, ..request() };
    assert_eq!(design(isolated, &[], &[]).unwrap().subnets[0].gateway, None);
}

#[test]
fn settings_of_an_interface_are_of_that_interface() {
    let read = |key: &str, value: &str| {
        let key = format!("com.docker.network.endpoint.{key}");
        EndpointOptions::read(&BTreeMap::from([(key, value.to_owned())]))
    };
    let both = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0";
    let settings = read("sysctls", both).unwrap().settings("eth3");
    assert_eq!(settings[0].0, ["ipv4", "conf", "eth3", "log_martians"]);
    assert_eq!(settings[1].1, "0");
    assert_eq!(read("ifname", "lan").unwrap().interface.as_deref(), Some("lan"));
    for (key, value) in [
        ("sysctls", "net.ipv4.ip_forward=1"),
        ("sysctls", "net.ipv4.conf.all.forwarding=1"),
        ("sysctls", "net.ipv4.conf.IFNAME.../../x=1"),
        ("sysctls", "kernel.conf.x.IFNAME.y=1"),
        ("sysctls", "net.ipv4.conf.IFNAME.forwarding"),
        ("ifname", "a/b"),
        ("ifname", "lo"),
        ("colour", "red"),
    ] {
        assert!(read(key, value).is_err(), "{key}={value}");
    }
}

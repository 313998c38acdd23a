//! Choices of subnets, and options.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rorqual_core::{NetworkId, Timestamp};

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
    let around = Surroundings { pools: &pools, networks: parse(networks), routes: parse(routes) };
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
        ("com.docker.network.bridge.gateway_mode_ipv4", "routed", false),
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

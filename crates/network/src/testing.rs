//! Requests for tests of this crate.

use std::net::Ipv4Addr;
use std::path::Path;

use rorqual_core::{ContainerId, NetworkId};

use crate::ipam::{mac_of, mac_text};
use crate::{Attach, Endpoint, EndpointRequest, NamespaceOwner, SandboxKind};

/// A container of a fresh id on the network of this name.
pub(crate) fn attach(network: &str, directory: &Path) -> Attach {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).unwrap();
    let container = ContainerId::from_random(bits);
    let request = EndpointRequest { network: network.to_owned(), ..EndpointRequest::default() };
    Attach {
        container,
        kind: SandboxKind::Own(vec![request]),
        owner: NamespaceOwner::Host,
        name: format!("test-{}", container.short()),
        hostname: container.short(),
        domainname: String::new(),
        extra_hosts: Vec::new(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        ports: Vec::new(),
        directory: directory.to_owned(),
    }
}

/// An endpoint with this address.
pub(crate) fn endpoint(address: Ipv4Addr) -> Endpoint {
    Endpoint {
        network: NetworkId::from_random([7; 32]),
        network_name: "bridge".to_owned(),
        id: "7".repeat(64),
        interface: "eth0".to_owned(),
        mac: mac_text(mac_of(address)),
        ipv4: Some((address, 16)),
        gateway: None,
        ipv6: None,
        gateway6: None,
        aliases: Vec::new(),
        gateway_priority: 0,
        direct: false,
        links: Vec::new(),
    }
}

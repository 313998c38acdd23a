//! The obligations of [`Networks`], one function each; real and fake networks must pass all of them.
//!
//! Each function starts and ends with nothing attached.
#![expect(clippy::expect_used, reason = "an obligation that is not met must stop the test")]

use std::path::Path;

use rorqual_core::{Classify as _, ContainerId, ErrorKind};

use crate::{
    Attach, EndpointRequest, Error, Networks, PortProtocol, PublishedPort, Sandbox, SandboxKind,
};

/// Runs every obligation; containers' files go below `directory`.
///
/// # Panics
/// When an obligation is not met.
pub async fn all(networks: &dyn Networks, directory: &Path) {
    predefined_networks_are_found(networks).await;
    attach_and_detach(networks, directory).await;
    addresses_differ(networks, directory).await;
    detach_is_idempotent(networks).await;
    failed_attach_leaves_nothing(networks, directory).await;
    published_ports_are_exclusive(networks, directory).await;
    other_kinds(networks, directory).await;
    sweep_keeps_the_known(networks, directory).await;
}

fn request(name: &str, number: u8, directory: &Path) -> Attach {
    let request = EndpointRequest { network: name.to_owned(), ..EndpointRequest::default() };
    let directory = directory.join(number.to_string());
    std::fs::create_dir_all(&directory).expect("the caller gave a directory to write to");
    Attach {
        container: ContainerId::from_random([number; 32]),
        kind: SandboxKind::Own(vec![request]),
        name: format!("c{number}"),
        hostname: format!("h{number}"),
        domainname: String::new(),
        extra_hosts: vec!["up:host-gateway".to_owned()],
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        ports: Vec::new(),
        directory,
    }
}

async fn must_attach(networks: &dyn Networks, attach: &Attach) -> Sandbox {
    networks.attach(attach.clone()).await.expect("attaching works")
}

async fn must_detach(networks: &dyn Networks, attach: &Attach) {
    networks.detach(&attach.container).await.expect("detaching works");
}

async fn attached_count(networks: &dyn Networks) -> usize {
    let bridge = networks.find("bridge").await.expect("there is a bridge network");
    networks.endpoints(&bridge.id).await.expect("it has a list of endpoints").len()
}

async fn predefined_networks_are_found(networks: &dyn Networks) {
    let list = networks.list().await.expect("listing works");
    let mut names = list.iter().map(|network| network.name.as_str()).collect::<Vec<_>>();
    names.sort_unstable();
    assert_eq!(names, ["bridge", "host", "none"]);
    for network in &list {
        let id = network.id.to_string();
        for text in [&network.name, &id, &id[..12].to_owned()] {
            assert_eq!(networks.find(text).await.expect("it is listed").id, network.id);
        }
    }
    for missing in ["", "nothing", "bridge2"] {
        let error = networks.find(missing).await.expect_err("no such network");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("network {missing} not found"));
    }
}

async fn attach_and_detach(networks: &dyn Networks, directory: &Path) {
    let attach = request("bridge", 1, directory);
    let sandbox = must_attach(networks, &attach).await;
    assert!(sandbox.namespace.is_some());
    let endpoint = &sandbox.endpoints[0];
    assert_eq!((endpoint.interface.as_str(), endpoint.network_name.as_str()), ("eth0", "bridge"));
    let (address, _) = endpoint.ipv4.expect("a bridge gives addresses");
    let hosts = std::fs::read_to_string(&sandbox.files.hosts).expect("there is a hosts file");
    assert!(hosts.ends_with(&format!("{address}\th1\n")), "{hosts}");
    let gateway = endpoint.gateway.expect("a bridge is a gateway");
    assert!(hosts.contains(&format!("{gateway}\tup\n")), "{hosts}");
    assert_eq!(std::fs::read_to_string(&sandbox.files.hostname).expect("it is written"), "h1\n");
    assert!(sandbox.files.resolv_conf.exists());

    let listed = networks.endpoints(&endpoint.network).await.expect("listing works");
    assert_eq!(listed, [(attach.container, "c1".to_owned(), endpoint.clone())]);
    let twice = networks.attach(attach.clone()).await.expect_err("attached already");
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    must_detach(networks, &attach).await;
    assert_eq!(attached_count(networks).await, 0);
}

async fn addresses_differ(networks: &dyn Networks, directory: &Path) {
    let (first, second) = (request("bridge", 1, directory), request("default", 2, directory));
    let (a, b) = (must_attach(networks, &first).await, must_attach(networks, &second).await);
    assert_ne!(a.endpoints[0].ipv4, b.endpoints[0].ipv4);
    assert_ne!(a.endpoints[0].mac, b.endpoints[0].mac);
    assert_ne!(a.endpoints[0].id, b.endpoints[0].id);
    must_detach(networks, &first).await;
    must_detach(networks, &second).await;
}

async fn detach_is_idempotent(networks: &dyn Networks) {
    let nobody = ContainerId::from_random([9; 32]);
    networks.detach(&nobody).await.expect("nothing to do");
    networks.detach(&nobody).await.expect("nothing to do");
}

async fn failed_attach_leaves_nothing(networks: &dyn Networks, directory: &Path) {
    let mut bad = request("bridge", 3, directory);
    bad.extra_hosts = vec!["no address".to_owned()];
    assert_eq!(attach_error(networks, &bad).await, ErrorKind::InvalidArgument);
    let mut bad_mac = request("bridge", 3, directory);
    if let SandboxKind::Own(requests) = &mut bad_mac.kind {
        requests[0].mac = Some("nonsense".to_owned());
    }
    assert_eq!(attach_error(networks, &bad_mac).await, ErrorKind::InvalidArgument);
    let unknown = request("nowhere", 3, directory);
    assert_eq!(attach_error(networks, &unknown).await, ErrorKind::NotFound);
    assert_eq!(attached_count(networks).await, 0);
    let good = request("bridge", 3, directory);
    must_attach(networks, &good).await;
    must_detach(networks, &good).await;
}

async fn attach_error(networks: &dyn Networks, attach: &Attach) -> ErrorKind {
    networks.attach(attach.clone()).await.expect_err("this cannot work").kind()
}

async fn published_ports_are_exclusive(networks: &dyn Networks, directory: &Path) {
    let port = PublishedPort {
        container: 80,
        protocol: PortProtocol::Tcp,
        host_ip: None,
        host: (18080, 18080),
    };
    let mut first = request("bridge", 4, directory);
    first.ports = vec![port.clone()];
    let sandbox = must_attach(networks, &first).await;
    assert_eq!(sandbox.ports, first.ports);

    let mut second = request("bridge", 5, directory);
    second.ports = vec![port.clone()];
    let error: Error = networks.attach(second.clone()).await.expect_err("the port is taken");
    assert_eq!(error.to_string(), "Bind for 0.0.0.0:18080 failed: port is already allocated");
    second.ports = vec![PublishedPort { host: (18080, 18082), ..port.clone() }];
    assert_eq!(must_attach(networks, &second).await.ports[0].host, (18081, 18081));

    must_detach(networks, &first).await;
    must_attach(networks, &first).await;
    must_detach(networks, &first).await;
    must_detach(networks, &second).await;
}

async fn other_kinds(networks: &dyn Networks, directory: &Path) {
    let mut on_host = request("host", 6, directory);
    on_host.kind = SandboxKind::Host;
    on_host.extra_hosts.clear();
    let sandbox = must_attach(networks, &on_host).await;
    assert!(sandbox.namespace.is_none() && sandbox.endpoints.is_empty());

    let alone = request("none", 7, directory);
    let sandbox = must_attach(networks, &alone).await;
    assert!(sandbox.namespace.is_some() && sandbox.endpoints.is_empty());

    let mut guest = request("", 8, directory);
    let own_pid = i32::try_from(std::process::id()).expect("process ids are positive");
    guest.kind = SandboxKind::Container(alone.container, own_pid);
    let guest_sandbox = must_attach(networks, &guest).await;
    assert!(guest_sandbox.namespace.is_some());
    assert_eq!(guest_sandbox.files, sandbox.files);
    for attach in [&guest, &alone, &on_host] {
        must_detach(networks, attach).await;
    }
}

async fn sweep_keeps_the_known(networks: &dyn Networks, directory: &Path) {
    let (kept, gone) = (request("bridge", 1, directory), request("bridge", 2, directory));
    must_attach(networks, &kept).await;
    must_attach(networks, &gone).await;
    networks.sweep(&[kept.container]).await.expect("sweeping works");
    assert_eq!(attached_count(networks).await, 1);
    must_detach(networks, &kept).await;
    assert_eq!(attached_count(networks).await, 0);
}

//! The obligations of [`Networks`], one function each; real and fake networks must pass all of them.
//!
//! Each function starts and ends with nothing attached.
#![expect(clippy::expect_used, reason = "an obligation that is not met must stop the test")]

use std::os::fd::AsFd as _;
use std::path::Path;

use rorqual_core::{Classify as _, ContainerId, ErrorKind};

use crate::{
    Attach, EndpointRequest, Error, NamespaceOwner, NetworkRecord, NetworkRequest, Networks,
    PortProtocol, PublishedPort, Sandbox, SandboxKind, SubnetRequest,
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
    networks_come_and_go(networks).await;
    bad_networks_are_refused(networks).await;
    several_networks_at_once(networks, directory).await;
    chosen_addresses_are_kept(networks, directory).await;
    connect_and_disconnect(networks, directory).await;
    a_new_name_is_known(networks, directory).await;
    networks_are_made_of_configurations(networks, directory).await;
}

fn network(name: &str, subnet: &str) -> NetworkRequest {
    let subnets = if subnet.is_empty() {
        Vec::new()
    } else {
        vec![SubnetRequest { subnet: subnet.to_owned(), ..SubnetRequest::default() }]
    };
    NetworkRequest { name: name.to_owned(), ipv4: true, subnets, ..NetworkRequest::default() }
}

async fn must_create(networks: &dyn Networks, request: NetworkRequest) -> NetworkRecord {
    networks.create(request).await.expect("the network can be made")
}

async fn networks_come_and_go(networks: &dyn Networks) {
    let request = NetworkRequest { ipv6: true, ..network("first", "") };
    let first = must_create(networks, request).await;
    let second = must_create(networks, network("second", "10.123.0.0/24")).await;
    assert_eq!(first.subnets.len(), 2, "one of each family");
    assert!(first.subnets[1].subnet.starts_with("fd"), "a unique local subnet");
    assert_ne!(first.subnets[0].subnet, second.subnets[0].subnet);
    assert_eq!(second.subnets[0].gateway.map(|ip| ip.to_string()).as_deref(), Some("10.123.0.1"));
    assert_eq!(networks.find("second").await.expect("it is there"), second);
    assert_eq!(networks.find(&first.id.to_string()[..12]).await.expect("it is there"), first);
    for record in [&first, &second] {
        networks.remove(&record.id).await.expect("nobody uses it");
        let gone = networks.find(&record.name).await.expect_err("it is gone");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
    let error = networks.remove(&first.id).await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

async fn networks_are_made_of_configurations(networks: &dyn Networks, directory: &Path) {
    let config = NetworkRequest { config_only: true, ..network("config", "10.125.0.0/24") };
    let config = must_create(networks, config).await;
    assert!(config.config_only);
    assert_eq!(
        attach_error(networks, &request("config", 9, directory)).await,
        ErrorKind::Forbidden
    );
    let of = |name: &str, from: &str| NetworkRequest {
        config_from: from.to_owned(),
        ..network(name, "")
    };
    let made = must_create(networks, of("made", "config")).await;
    assert_eq!((made.driver.as_str(), made.config_from.as_str()), ("bridge", "config"));
    assert_eq!(made.subnets[0].subnet, "10.125.0.0/24");
    let both = NetworkRequest { config_only: true, ..of("bad", "config") };
    let own =
        NetworkRequest { config_from: "config".to_owned(), ..network("bad", "10.126.0.0/24") };
    for (request, kind) in [
        (both, ErrorKind::Forbidden),
        (own, ErrorKind::Forbidden),
        (of("bad", "nothing"), ErrorKind::NotFound),
        (of("bad", "made"), ErrorKind::NotFound),
    ] {
        let error = networks.create(request.clone()).await.expect_err("it cannot be made");
        assert_eq!(error.kind(), kind, "{request:?}: {error}");
    }
    let used = networks.remove(&config.id).await.expect_err("it is used");
    assert_eq!(
        used.to_string(),
        "error while removing network: configuration network \"config\" is in use"
    );
    for record in [made, config] {
        networks.remove(&record.id).await.expect("nobody uses it");
    }
}

async fn bad_networks_are_refused(networks: &dyn Networks) {
    let kept = must_create(networks, network("kept", "10.123.0.0/24")).await;
    let gateway = |gateway: &str| {
        let mut request = network("bad", "10.124.0.0/24");
        gateway.clone_into(&mut request.subnets[0].gateway);
        request
    };
    let driver = |driver: &str| NetworkRequest { driver: driver.to_owned(), ..network("bad", "") };
    for (request, kind) in [
        (network("kept", ""), ErrorKind::Conflict),
        (network("bridge", ""), ErrorKind::Forbidden),
        (network("", ""), ErrorKind::InvalidArgument),
        (network("a/b", ""), ErrorKind::InvalidArgument),
        (network("bad", "10.123.0.128/25"), ErrorKind::Forbidden),
        (network("bad", "10.124.0.1/24"), ErrorKind::InvalidArgument),
        (network("bad", "10.124.0.0"), ErrorKind::InvalidArgument),
        (network("bad", "10.124.0.0/32"), ErrorKind::InvalidArgument),
        (gateway("10.125.0.1"), ErrorKind::InvalidArgument),
        (driver("nothing"), ErrorKind::NotFound),
        (driver("host"), ErrorKind::Forbidden),
        (NetworkRequest { ipv4: false, ..network("bad", "") }, ErrorKind::InvalidArgument),
    ] {
        let error = networks.create(request.clone()).await.expect_err("this cannot be");
        assert_eq!(error.kind(), kind, "{request:?}: {error}");
    }
    // COMPAT: a subnet of a family that is off is kept, and not used.
    let off = must_create(networks, network("off", "fd00:1::/64")).await;
    assert!(!off.ipv6 && off.subnets.iter().all(|subnet| !subnet.subnet.contains(':')));
    assert_eq!(
        off.unused.iter().map(|one| one.subnet.as_str()).collect::<Vec<_>>(),
        ["fd00:1::/64"]
    );
    networks.remove(&off.id).await.expect("nobody uses it");
    let bridge = networks.find("bridge").await.expect("it is always there");
    let error = networks.remove(&bridge.id).await.expect_err("it stays");
    assert_eq!(error.to_string(), "bridge is a pre-defined network and cannot be removed");
    networks.remove(&kept.id).await.expect("nobody uses it");
    assert_eq!(networks.list().await.expect("listing works").len(), 3);
}

fn on(attach: &mut Attach, requests: Vec<EndpointRequest>) {
    attach.kind = SandboxKind::Own(requests);
}

fn endpoint(network: &str) -> EndpointRequest {
    EndpointRequest { network: network.to_owned(), ..EndpointRequest::default() }
}

async fn several_networks_at_once(networks: &dyn Networks, directory: &Path) {
    let one = must_create(networks, NetworkRequest { ipv6: true, ..network("one", "") }).await;
    let internal = NetworkRequest { internal: true, ..network("two", "") };
    let two = must_create(networks, internal).await;
    let mut attach = request("bridge", 11, directory);
    let aliased = EndpointRequest { aliases: vec!["db".to_owned()], ..endpoint("one") };
    on(&mut attach, vec![endpoint("bridge"), aliased, endpoint("two")]);
    let sandbox = must_attach(networks, &attach).await;
    let interfaces = sandbox.endpoints.iter().map(|one| one.interface.as_str());
    assert_eq!(interfaces.collect::<Vec<_>>(), ["eth0", "eth1", "eth2"]);
    assert!(sandbox.endpoints[1].ipv6.is_some() && sandbox.endpoints[1].gateway6.is_some());
    assert_eq!(sandbox.endpoints[1].aliases, ["db"]);
    assert_eq!(sandbox.endpoints[2].gateway, None, "an internal network has no way out");
    let hosts = std::fs::read_to_string(&sandbox.files.hosts).expect("there is a hosts file");
    assert_eq!(hosts.matches("\th11\n").count(), 4, "{hosts}");

    let error = networks.remove(&one.id).await.expect_err("it is in use");
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert!(error.to_string().contains("has active endpoints (name:\"c11\""), "{error}");
    must_detach(networks, &attach).await;
    for record in [one, two] {
        networks.remove(&record.id).await.expect("nobody uses it");
    }
}

async fn chosen_addresses_are_kept(networks: &dyn Networks, directory: &Path) {
    let record = must_create(networks, network("chosen", "10.123.0.0/24")).await;
    let free = must_create(networks, network("free", "")).await;
    let mut attach = request("bridge", 12, directory);
    let wanted = EndpointRequest {
        ipv4: Some("10.123.0.77".parse().expect("an address")),
        mac: Some("02:00:00:00:00:07".to_owned()),
        ..endpoint("chosen")
    };
    on(&mut attach, vec![wanted.clone()]);
    let sandbox = must_attach(networks, &attach).await;
    assert_eq!(sandbox.endpoints[0].ipv4, Some(("10.123.0.77".parse().expect("an address"), 24)));
    assert_eq!(sandbox.endpoints[0].mac, "02:00:00:00:00:07");
    let mut second = request("bridge", 13, directory);
    on(&mut second, vec![wanted.clone()]);
    assert_eq!(attach_error(networks, &second).await, ErrorKind::Conflict);
    let outside = EndpointRequest { ipv4: Some([10, 1, 2, 3].into()), ..endpoint("chosen") };
    on(&mut second, vec![outside]);
    assert_eq!(attach_error(networks, &second).await, ErrorKind::InvalidArgument);
    on(&mut second, vec![EndpointRequest { network: "free".to_owned(), ..wanted }]);
    assert_eq!(attach_error(networks, &second).await, ErrorKind::InvalidArgument);
    must_detach(networks, &attach).await;
    for record in [record, free] {
        networks.remove(&record.id).await.expect("nobody uses it");
    }
}

async fn a_new_name_is_known(networks: &dyn Networks, directory: &Path) {
    let attach = request("bridge", 15, directory);
    let sandbox = must_attach(networks, &attach).await;
    networks.rename(&attach.container, "new").await.expect("renaming works");
    let listed = networks.endpoints(&sandbox.endpoints[0].network).await.expect("listing works");
    assert_eq!(listed, [(attach.container, "new".to_owned(), sandbox.endpoints[0].clone())]);
    must_detach(networks, &attach).await;
    networks.rename(&attach.container, "gone").await.expect("there is nothing to rename");
}

/// The container of this obligation lives in the caller's namespace only where that is the namespace handed out, so its
/// first process is a thread that enters the sandbox.
async fn connect_and_disconnect(networks: &dyn Networks, directory: &Path) {
    let one = must_create(networks, network("one", "")).await;
    let two = must_create(networks, network("two", "")).await;
    let attach = request("one", 14, directory);
    let sandbox = must_attach(networks, &attach).await;
    let resident = Resident::in_namespace(&sandbox);
    let connected = networks.connect(&attach.container, resident.id, endpoint("two")).await;
    let connected = connected.expect("connecting works");
    assert_eq!(connected.len(), 2);
    assert_eq!(connected[1].interface, "eth1");
    let listed = networks.endpoints(&two.id).await.expect("listing works");
    assert_eq!(listed, [(attach.container, "c14".to_owned(), connected[1].clone())]);
    let again = networks.connect(&attach.container, resident.id, endpoint("two")).await;
    let again = again.expect_err("it is connected");
    assert_eq!(again.to_string(), "endpoint with name c14 already exists in network two");
    let none = networks.connect(&attach.container, resident.id, endpoint("none")).await;
    assert_eq!(none.expect_err("this cannot be").kind(), ErrorKind::Forbidden);

    let left = networks.disconnect(&attach.container, resident.id, &one.id).await;
    assert_eq!(left.expect("disconnecting works"), connected[1..]);
    let twice = networks.disconnect(&attach.container, resident.id, &one.id).await;
    assert_eq!(twice.expect_err("it is not connected").kind(), ErrorKind::Forbidden);
    networks.remove(&one.id).await.expect("nobody uses it");
    drop(resident);
    must_detach(networks, &attach).await;
    networks.remove(&two.id).await.expect("nobody uses it");
}

/// A thread in a sandbox's namespace, which stands for a container's first process.
struct Resident {
    id: i32,
    leave: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Resident {
    fn in_namespace(sandbox: &Sandbox) -> Self {
        let namespace = sandbox.namespace.as_ref().expect("it has a namespace of its own");
        let namespace = namespace.try_clone().expect("descriptors can be doubled");
        let (tell, told) = std::sync::mpsc::channel();
        let (leave, left) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let stay = move || {
                let id = rustix::thread::gettid().as_raw_nonzero().get();
                tell.send(id).map_err(std::io::Error::other)?;
                // Ends when the other side is dropped.
                let _closed = left.recv();
                Ok(())
            };
            rorqual_sys::net::run_in_namespace(namespace.as_fd(), stay).expect("it can be entered");
        });
        let id = told.recv().expect("the thread tells its number");
        Self { id, leave: Some(leave), thread: Some(thread) }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        drop(self.leave.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread ends in order");
        }
    }
}

fn request(name: &str, number: u8, directory: &Path) -> Attach {
    let request = EndpointRequest { network: name.to_owned(), ..EndpointRequest::default() };
    let directory = directory.join(number.to_string());
    std::fs::create_dir_all(&directory).expect("the caller gave a directory to write to");
    Attach {
        container: ContainerId::from_random([number; 32]),
        kind: SandboxKind::Own(vec![request]),
        owner: NamespaceOwner::Host,
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
    // It may be shown once for each family.
    assert!(!sandbox.ports.is_empty());
    assert!(sandbox.ports.iter().all(|shown| shown.host == port.host), "{:?}", sandbox.ports);

    let mut second = request("bridge", 5, directory);
    second.ports = vec![port.clone()];
    let error: Error = networks.attach(second.clone()).await.expect_err("the port is taken");
    let words = "Bind for 0.0.0.0:18080 failed: port is already allocated";
    assert!(error.to_string().ends_with(words), "{error}");
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

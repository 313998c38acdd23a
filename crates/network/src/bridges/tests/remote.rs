//! Networks whose driver is a plugin.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rorqual_core::{Classify as _, ErrorKind};
use rorqual_plugin::fake::FakePlugin;
use rorqual_plugin::{Patience, Places, Plugins};
use rorqual_sys::net::{self, Address, Batch, LinkRef, Protocol, Socket, Veth};
use serde_json::{Value, json};

use super::host::{Host, ask, on_a_host, serve};
use crate::{
    Attach, Bridges, EndpointRequest, Error, NetworkPlugins, NetworkRequest, Networks as _,
    PortProtocol, PublishedPort, SandboxKind, SubnetRequest,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

fn up(batch: &mut Batch, name: &str) {
    let change = net::Change { up: Some(true), ..net::Change::default() };
    net::change_link(batch, LinkRef::Name(name), &change);
}

/// Makes the link of an endpoint: a pair, whose one end the host keeps.
fn make_pair(endpoint: &str) -> (String, String) {
    let (outer, inner) = (format!("pa{}", &endpoint[..8]), format!("pb{}", &endpoint[..8]));
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let own = net::own_namespace().unwrap();
    let mut batch = Batch::new();
    let peer_namespace = own.as_fd();
    let pair = Veth { name: &outer, master: 0, mtu: 1400, peer_name: &inner, peer_namespace };
    net::add_veth(&mut batch, &pair);
    up(&mut batch, &outer);
    socket.transact(&batch).unwrap();
    let link = net::find_link(&mut socket, &outer).unwrap().unwrap().index;
    let mut batch = Batch::new();
    net::add_address(&mut batch, &Address { link, address: GATEWAY.into(), prefix: 24 });
    socket.transact(&batch).unwrap();
    (outer, inner)
}

/// A plugin that connects each container with the host by a pair of links; options say what is to fail.
fn wires(host: &Host) -> FakePlugin {
    let answers = |method: &str, question: &Value| {
        let endpoint = question["EndpointID"].as_str().unwrap_or_default();
        let asked = &question["Options"]["com.docker.network.generic"]["fail"];
        let fails = asked.as_str().is_some_and(|fail| !fail.is_empty() && method.ends_with(fail));
        let answer = match method {
            _ if fails => json!({ "Err": "as you wish" }),
            "Plugin.Activate" => json!({ "Implements": ["NetworkDriver"] }),
            "NetworkDriver.GetCapabilities" => json!({ "Scope": "local" }),
            "NetworkDriver.CreateEndpoint" => {
                json!({ "Interface": { "MacAddress": "02:09:00:00:00:09" } })
            }
            "NetworkDriver.Join" => {
                let (_, inner) = make_pair(endpoint);
                json!({
                    "InterfaceName": { "SrcName": inner, "DstPrefix": "wire" },
                    "Gateway": GATEWAY.to_string(),
                    "StaticRoutes": [
                        { "Destination": "10.77.0.0/16", "RouteType": 0, "NextHop": "10.9.0.1" },
                        { "Destination": "10.78.0.0/16", "RouteType": 1, "NextHop": "" },
                    ],
                })
            }
            "NetworkDriver.ProgramExternalConnectivity" => return (404, json!({})),
            _ => json!({}),
        };
        (200, answer)
    };
    std::fs::create_dir_all(host.directory().join("plugins")).unwrap();
    FakePlugin::serve(host.directory().join("plugins/wires.sock"), answers).unwrap()
}

fn open(host: &Host) -> Bridges {
    let mut options = host.options();
    let places = Places { sockets: host.directory().join("plugins"), files: Vec::new() };
    let briefly = Duration::from_millis(200);
    let patience = Patience { total: briefly, ..Patience::default() };
    let plugins = Arc::new(Plugins::with_patience(places, patience));
    options.plugins = Some(NetworkPlugins::new(plugins, host.runtime()));
    Bridges::open(options).unwrap()
}

fn network(name: &str, fail: &str) -> NetworkRequest {
    let options = BTreeMap::from([("fail".to_owned(), fail.to_owned())]);
    NetworkRequest {
        name: name.to_owned(),
        driver: "wires".to_owned(),
        ipv4: true,
        subnets: vec![SubnetRequest {
            subnet: "10.9.0.0/24".to_owned(),
            ..SubnetRequest::default()
        }],
        options,
        ..NetworkRequest::default()
    }
}

fn request(host: &Host, network: &str, fail: &str) -> Attach {
    let options = BTreeMap::from([("fail".to_owned(), fail.to_owned())]);
    let endpoint =
        EndpointRequest { network: network.to_owned(), options, ..EndpointRequest::default() };
    Attach { kind: SandboxKind::Own(vec![endpoint]), ..host.request(&[]) }
}

fn links(namespace: BorrowedFd<'_>) -> Vec<String> {
    let links = net::run_in_namespace(namespace, || {
        net::links(&mut Socket::open(Protocol::Route)?).map_err(std::io::Error::other)
    });
    let mut names = links.unwrap().into_iter().map(|link| link.name).collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn a_plugin_links_containers_and_is_told_of_their_ends() {
    on_a_host(|host| {
        let plugin = wires(host);
        let networks = open(host);
        let made = host.block_on(networks.create(network("far", ""))).unwrap();
        assert_eq!(made.driver, "wires");
        let mut attach = request(host, "far", "");
        attach.ports = vec![PublishedPort {
            container: 80,
            protocol: PortProtocol::Tcp,
            host_ip: None,
            host: (8080, 8080),
        }];
        let guest = host.block_on(networks.attach(attach.clone())).unwrap();
        let namespace = guest.namespace.as_ref().unwrap().as_fd();
        let endpoint = &guest.endpoints[0];
        let address = endpoint.ipv4.unwrap().0;
        assert_eq!((address, endpoint.gateway), ("10.9.0.2".parse().unwrap(), Some(GATEWAY)));
        assert_eq!(
            (endpoint.interface.as_str(), endpoint.mac.as_str()),
            ("wire0", "02:09:00:00:00:09")
        );
        serve(namespace, 80);
        assert_eq!(ask(host.own.as_fd(), address, 80).unwrap(), IpAddr::V4(GATEWAY));
        let routes = net::run_in_namespace(namespace, || {
            net::routes(&mut Socket::open(Protocol::Route)?).map_err(std::io::Error::other)
        });
        let routes = routes.unwrap();
        let to = |destination| routes.iter().find(|route| route.destination == Some(destination));
        let by = |route: Option<&net::Route>| route.map(|route| route.gateway);
        assert_eq!(by(to(("10.77.0.0".parse().unwrap(), 16))), Some(Some(GATEWAY.into())));
        assert_eq!(by(to(("10.78.0.0".parse().unwrap(), 16))), Some(None));
        assert!(routes.iter().any(|route| route.gateway == Some(GATEWAY.into())));

        // A next daemon goes on with what there is, without a word to the plugin.
        let before = plugin.methods();
        drop(networks);
        let networks = open(host);
        let own = std::process::id().cast_signed();
        let adopted = host.block_on(networks.adopt(&attach.container, own)).unwrap();
        assert_eq!(adopted, guest.endpoints);
        assert_eq!(plugin.methods(), before);
        let busy = host.block_on(networks.remove(&made.id)).unwrap_err();
        assert!(busy.to_string().contains("has active endpoints"), "{busy}");

        host.block_on(networks.detach(&attach.container)).unwrap();
        host.block_on(networks.remove(&made.id)).unwrap();
        let methods = plugin.methods();
        let driver = methods.iter().filter_map(|method| method.strip_prefix("NetworkDriver."));
        let expected = "GetCapabilities CreateNetwork CreateEndpoint Join ProgramExternalConnectivity \
                        Leave DeleteEndpoint DeleteNetwork";
        assert_eq!(driver.collect::<Vec<_>>().join(" "), expected);
        let calls = plugin.calls();
        let of = |name: &str| &calls.iter().find(|(method, _)| method.ends_with(name)).unwrap().1;
        assert_eq!(of("CreateNetwork")["IPv4Data"][0]["Gateway"], "10.9.0.1/24");
        assert_eq!(of("CreateEndpoint")["Interface"]["Address"], "10.9.0.2/24");
        let ports = &of("ProgramExternalConnectivity")["Options"]["com.docker.network.portmap"];
        assert_eq!((&ports[0]["Port"], &ports[0]["HostPort"]), (&json!(80), &json!(8080)));
    });
}

#[test]
fn a_running_container_comes_and_goes_and_the_link_is_given_back() {
    on_a_host(|host| {
        let _plugin = wires(host);
        let networks = open(host);
        let far = host.block_on(networks.create(network("far", ""))).unwrap();
        let (attach, guest) = host.attach(&networks, &[]);
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                net::run_in_namespace(guest.namespace(), move || {
                    tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                    let _closed = ended.recv();
                    Ok(())
                })
            });
            let pid = told.recv().unwrap();
            let asked = EndpointRequest { network: "far".to_owned(), ..EndpointRequest::default() };
            let all =
                host.block_on(networks.connect(&attach.container, pid, asked.clone())).unwrap();
            assert_eq!(all.len(), 2);
            assert_eq!(links(guest.namespace()), ["eth0", "lo", "wire0"]);
            let twice = host.block_on(networks.connect(&attach.container, pid, asked)).unwrap_err();
            assert!(twice.to_string().contains("already exists in network far"), "{twice}");
            let left = host.block_on(networks.disconnect(&attach.container, pid, &far.id)).unwrap();
            assert_eq!(left.len(), 1);
            drop(end);
        });
        assert_eq!(links(guest.namespace()), ["eth0", "lo"]);
        let given_back = links(host.own.as_fd());
        assert!(given_back.iter().any(|name| name.starts_with("pb")), "{given_back:?}");
        host.block_on(networks.sweep(&[])).unwrap();
        host.block_on(networks.remove(&far.id)).unwrap();
    });
}

#[test]
fn what_a_plugin_refuses_leaves_nothing_half_made() {
    on_a_host(|host| {
        let plugin = wires(host);
        let networks = open(host);
        let refused = host.block_on(networks.create(network("far", "CreateNetwork"))).unwrap_err();
        assert_eq!(refused.to_string(), "remote: as you wish");
        assert!(host.block_on(networks.find("far")).is_err());
        let unknown = NetworkRequest { driver: "nobody".to_owned(), ..network("far", "") };
        let refused = host.block_on(networks.create(unknown)).unwrap_err();
        assert_eq!(refused.to_string(), "plugin \"nobody\" not found");
        assert_eq!(refused.kind(), ErrorKind::NotFound);

        host.block_on(networks.create(network("far", ""))).unwrap();
        for (fail, taken_back) in [("CreateEndpoint", false), ("Join", true)] {
            let attach = request(host, "far", fail);
            let refused = host.block_on(networks.attach(attach)).unwrap_err();
            assert!(matches!(&refused, Error::Plugin(text) if text == "remote: as you wish"));
            let last = plugin.methods().pop().unwrap();
            assert_eq!(last == "NetworkDriver.DeleteEndpoint", taken_back, "{last}");
        }
        let guest = host.block_on(networks.attach(request(host, "far", ""))).unwrap();
        let address = guest.endpoints[0].ipv4.unwrap().0;
        assert_eq!(address, Ipv4Addr::new(10, 9, 0, 2), "addresses were given back");
        drop(plugin);
        // A plugin that is gone holds nobody up for ever, and keeps nobody from leaving.
        host.block_on(networks.sweep(&[])).unwrap();
    });
}

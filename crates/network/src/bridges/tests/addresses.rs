//! Networks whose addresses a plugin gives away, and plugins that do not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rorqual_core::{Classify as _, ErrorKind};
use rorqual_plugin::fake::FakePlugin;
use rorqual_plugin::{Patience, Places, Plugins};
use serde_json::{Value, json};

use super::host::{Host, on_a_host};
use crate::{
    AddressDriver, Attach, Bridges, EndpointRequest, Error, NetworkPlugins, NetworkRequest,
    Networks as _, SandboxKind, SubnetRequest,
};

/// What a plugin has given away: pools, and addresses by pool.
type Given = Arc<Mutex<BTreeSet<String>>>;

fn text(question: &Value, key: &str) -> String {
    question[key].as_str().unwrap_or_default().to_owned()
}

/// A plugin of one subnet, whose addresses it gives away from 10.44.0.70 on.
fn pool(host: &Host, misbehaves: &'static str) -> (FakePlugin, Given) {
    let given = Given::default();
    let (next, noted) = (Mutex::new(70_u8), Arc::clone(&given));
    let answers = move |method: &str, question: &Value| {
        let method = method.strip_prefix("IpamDriver.").unwrap_or(method);
        let mut given = noted.lock().unwrap();
        let answer = match method {
            "Plugin.Activate" => json!({ "Implements": ["IpamDriver"] }),
            "GetCapabilities" => {
                json!({ "RequiresMACAddress": true, "RequiresRequestReplay": true })
            }
            "GetDefaultAddressSpaces" => {
                json!({ "LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "there" })
            }
            "RequestPool" if question["Options"]["fail"] == "pool" => {
                json!({ "Error": "no pool for you" })
            }
            "RequestPool" => {
                assert_eq!(
                    (&question["AddressSpace"], &question["V6"]),
                    (&json!("here"), &json!(false))
                );
                given.insert("p1".to_owned());
                json!({ "PoolID": "p1", "Pool": "10.44.0.0/24", "Data": {} })
            }
            "ReleasePool" => {
                given.remove(&text(question, "PoolID"));
                json!({})
            }
            "RequestAddress" => {
                let gateway =
                    question["Options"]["RequestAddressType"] == "com.docker.network.gateway";
                let asked = text(question, "Address");
                let address = match asked.as_str() {
                    "" if gateway => "10.44.0.1".to_owned(),
                    "" if misbehaves == "outside" => "10.45.0.9".to_owned(),
                    "" => {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        format!("10.44.0.{}", *next - 1)
                    }
                    asked => asked.to_owned(),
                };
                if misbehaves == "exhausted" && !gateway {
                    return (200, json!({ "Error": "no addresses left" }));
                }
                given.insert(address.clone());
                json!({ "Address": format!("{address}/24") })
            }
            "ReleaseAddress" => {
                given.remove(&text(question, "Address"));
                json!({})
            }
            other => panic!("{other}"),
        };
        (200, answer)
    };
    std::fs::create_dir_all(host.directory().join("plugins")).unwrap();
    (FakePlugin::serve(host.directory().join("plugins/pool.sock"), answers).unwrap(), given)
}

fn open(host: &Host) -> Bridges {
    let mut options = host.options();
    let places = Places { sockets: host.directory().join("plugins"), files: Vec::new() };
    let patience = Patience { total: Duration::from_millis(200), ..Patience::default() };
    let plugins = Arc::new(Plugins::with_patience(places, patience));
    options.plugins = Some(NetworkPlugins::new(plugins, host.runtime()));
    Bridges::open(options).unwrap()
}

fn network(name: &str, plugin: &str) -> NetworkRequest {
    let ipam = AddressDriver { name: plugin.to_owned(), options: BTreeMap::new() };
    NetworkRequest { name: name.to_owned(), ipv4: true, ipam, ..NetworkRequest::default() }
}

fn request(host: &Host, endpoint: EndpointRequest) -> Attach {
    Attach { kind: SandboxKind::Own(vec![endpoint]), ..host.request(&[]) }
}

fn joining(network: &str) -> EndpointRequest {
    EndpointRequest { network: network.to_owned(), ..EndpointRequest::default() }
}

fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !probe() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_plugin_gives_subnets_and_addresses_away_and_gets_them_back() {
    on_a_host(|host| {
        let (plugin, given) = pool(host, "");
        let networks = open(host);
        let mut asked = network("wide", "pool");
        asked.ipam.options.insert("zone".to_owned(), "a".to_owned());
        let made = host.block_on(networks.create(asked)).unwrap();
        assert_eq!((made.ipam.name.as_str(), made.subnets[0].pool.as_str()), ("pool", "p1"));
        assert_eq!(made.subnets[0].subnet, "10.44.0.0/24");
        assert_eq!(made.subnets[0].gateway, Some("10.44.0.1".parse().unwrap()));

        let attach = request(host, joining("wide"));
        let guest = host.block_on(networks.attach(attach.clone())).unwrap();
        let endpoint = guest.endpoints[0].clone();
        assert_eq!(endpoint.ipv4, Some(("10.44.0.70".parse().unwrap(), 24)));
        let calls = plugin.calls();
        let (_, last) =
            calls.iter().rfind(|(method, _)| method.ends_with("RequestAddress")).unwrap();
        let told = &last["Options"]["com.docker.network.endpoint.macaddress"];
        assert_eq!(*told, json!(endpoint.mac), "the plugin knows the address that the link has");
        let wish = EndpointRequest { ipv4: "10.44.0.9".parse().ok(), ..joining("wide") };
        let second = request(host, wish);
        let other = host.block_on(networks.attach(second.clone())).unwrap();
        assert_eq!(other.endpoints[0].ipv4.unwrap().0.to_string(), "10.44.0.9");
        let all = ["10.44.0.1", "10.44.0.70", "10.44.0.9", "p1"];
        assert!(given.lock().unwrap().iter().eq(all), "{given:?}");

        // A plugin that keeps nothing itself is told by the next daemon.
        given.lock().unwrap().clear();
        drop(networks);
        let networks = open(host);
        eventually("all is asked for again", || given.lock().unwrap().iter().eq(all));
        drop((guest, other));
        for container in [&attach.container, &second.container] {
            host.block_on(networks.detach(container)).unwrap();
        }
        host.block_on(networks.remove(&made.id)).unwrap();
        assert!(given.lock().unwrap().is_empty(), "{given:?}");
        drop(networks);
        host.assert_clean();
    });
}

#[test]
fn what_an_address_plugin_refuses_leaves_nothing_half_made() {
    on_a_host(|host| {
        let (plugin, given) = pool(host, "exhausted");
        let networks = open(host);
        let unknown = host.block_on(networks.create(network("wide", "nobody"))).unwrap_err();
        assert_eq!(unknown.to_string(), "plugin \"nobody\" not found");
        assert_eq!(unknown.kind(), ErrorKind::NotFound);
        let mut fails = network("wide", "pool");
        fails.ipam.options.insert("fail".to_owned(), "pool".to_owned());
        let refused = host.block_on(networks.create(fails)).unwrap_err();
        assert_eq!(refused.to_string(), "remote: no pool for you");

        // Another network has the subnet: that is found here, and the plugin gets all of it back.
        let subnet =
            SubnetRequest { subnet: "10.44.0.0/16".to_owned(), ..SubnetRequest::default() };
        let other = NetworkRequest { subnets: vec![subnet], ..network("other", "") };
        let other = host.block_on(networks.create(other)).unwrap();
        let refused = host.block_on(networks.create(network("wide", "pool"))).unwrap_err();
        assert!(refused.to_string().contains("Pool overlaps"), "{refused}");
        assert!(given.lock().unwrap().is_empty(), "{given:?}");
        host.block_on(networks.remove(&other.id)).unwrap();

        let made = host.block_on(networks.create(network("wide", "pool"))).unwrap();
        let refused = host.block_on(networks.attach(request(host, joining("wide")))).unwrap_err();
        assert!(matches!(&refused, Error::Plugin(text) if text == "remote: no addresses left"));
        assert!(given.lock().unwrap().iter().eq(["10.44.0.1", "p1"]), "{given:?}");
        drop(plugin);
        let (_plugin, given) = pool(host, "outside");
        let refused = host.block_on(networks.attach(request(host, joining("wide")))).unwrap_err();
        assert!(refused.to_string().contains("10.45.0.9/24"), "{refused}");
        eventually("it is given back", || given.lock().unwrap().is_empty());
        host.block_on(networks.remove(&made.id)).unwrap();
        drop(networks);
        host.assert_clean();
    });
}

/// A plugin that says nothing to one method until it is let go, and tells when it was asked.
fn silent(host: &Host, name: &str, on: &'static str) -> (FakePlugin, Receiver<()>, Sender<()>) {
    let ((tell, told), (end, ended)) = (channel(), channel::<()>());
    let (tell, ended) = (Mutex::new(tell), Mutex::new(ended));
    let answers = move |method: &str, _: &Value| {
        if method.ends_with(on) {
            tell.lock().unwrap().send(()).unwrap();
            let _closed = ended.lock().unwrap().recv();
            return (200, json!({ "Err": "too late", "Error": "too late" }));
        }
        let answer = match method {
            "Plugin.Activate" => json!({ "Implements": ["NetworkDriver", "IpamDriver"] }),
            "NetworkDriver.GetCapabilities" => json!({ "Scope": "local" }),
            "IpamDriver.GetDefaultAddressSpaces" => json!({ "LocalDefaultAddressSpace": "here" }),
            "IpamDriver.RequestPool" => json!({ "PoolID": "p", "Pool": "10.46.0.0/24" }),
            "IpamDriver.RequestAddress" => json!({ "Address": "10.46.0.1/24" }),
            _ => json!({}),
        };
        (200, answer)
    };
    std::fs::create_dir_all(host.directory().join("plugins")).unwrap();
    let path = host.directory().join(format!("plugins/{name}.sock"));
    (FakePlugin::serve(path, answers).unwrap(), told, end)
}

/// Does what users do meanwhile with other networks, in much less than the patience with plugins.
fn goes_on(host: &Host, networks: &Bridges) {
    let begun = Instant::now();
    assert!(host.block_on(networks.list()).unwrap().len() >= 3);
    host.block_on(networks.find("bridge")).unwrap();
    let other = host.block_on(networks.create(network("other", ""))).unwrap();
    let attach = request(host, joining("other"));
    let guest = host.block_on(networks.attach(attach.clone())).unwrap();
    host.block_on(networks.endpoints(&other.id)).unwrap();
    drop(guest);
    host.block_on(networks.detach(&attach.container)).unwrap();
    host.block_on(networks.remove(&other.id)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn nobody_waits_for_a_plugin_that_says_nothing_but_who_asked_for_it() {
    on_a_host(|host| {
        let by_plugin = |name: &str| NetworkRequest {
            driver: name.to_owned(),
            subnets: vec![SubnetRequest {
                subnet: "10.47.0.0/24".to_owned(),
                ..SubnetRequest::default()
            }],
            ..network(name, "")
        };
        for (name, on) in [
            ("mute-create", "CreateNetwork"),
            ("mute-join", "Join"),
            ("mute-delete", "DeleteNetwork"),
        ] {
            let (plugin, told, end) = silent(host, name, on);
            let networks = open(host);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    let made = host.block_on(networks.create(by_plugin(name)))?;
                    if on == "Join" {
                        host.block_on(networks.attach(request(host, joining(name))))?;
                    }
                    host.block_on(networks.remove(&made.id))
                });
                told.recv_timeout(Duration::from_secs(10)).unwrap();
                goes_on(host, &networks);
                drop(end);
                let refused = waiting.join().unwrap().unwrap_err();
                assert_eq!(refused.to_string(), "remote: too late", "{on}");
            });
            if let Ok(left) = host.block_on(networks.find(name)) {
                host.block_on(networks.remove(&left.id)).unwrap();
            }
            drop((networks, plugin));
            std::fs::remove_dir_all(host.directory().join("state/networks")).unwrap();
        }
        for (name, on) in [("dry-pool", "RequestPool"), ("dry-address", "RequestAddress")] {
            let (plugin, told, end) = silent(host, name, on);
            let networks = open(host);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| host.block_on(networks.create(network(name, name))));
                told.recv_timeout(Duration::from_secs(10)).unwrap();
                goes_on(host, &networks);
                drop(end);
                assert_eq!(waiting.join().unwrap().unwrap_err().to_string(), "remote: too late");
            });
            drop((networks, plugin));
        }
        host.assert_clean();
    });
}

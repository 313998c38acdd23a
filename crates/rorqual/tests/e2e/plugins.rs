//! Plugins over Docker's legacy protocol: of volumes, of networks, and those that judge requests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rorqual_plugin::fake::FakePlugin;
use rorqual_testkit::{Host, HostOptions, TestResult, eventually};
use serde_json::{Value, json};

use crate::scenario_with;

/// A plugin that keeps each volume in a directory below `root`, as small as the protocol allows.
fn keeper(root: PathBuf) -> impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static {
    let mounts: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::default();
    move |method, question| {
        let text = |key: &str| question[key].as_str().unwrap_or_default().to_owned();
        let failed = |why: &str| (500, json!({ "Err": why }));
        let (name, id) = (text("Name"), text("ID"));
        let path = root.join(&name);
        let Ok(mut mounts) = mounts.lock() else { return failed("poisoned") };
        let volume = |name: &str, ids: &BTreeSet<String>| json!({ "Name": name, "Mountpoint": root.join(name), "Status": { "users": ids.len() } });
        match method {
            "Plugin.Activate" => (200, json!({ "Implements": ["VolumeDriver"] })),
            "VolumeDriver.Capabilities" => (200, json!({ "Capabilities": { "Scope": "global" } })),
            "VolumeDriver.List" => {
                let all: Vec<_> = mounts.iter().map(|(name, ids)| volume(name, ids)).collect();
                (200, json!({ "Volumes": all }))
            }
            "VolumeDriver.Create" if question["Opts"]["fail"] == "yes" => failed("as you wish"),
            "VolumeDriver.Create" => {
                mounts.entry(name).or_default();
                let made = std::fs::create_dir_all(path);
                if made.is_ok() { (200, json!({})) } else { failed("cannot make it") }
            }
            _ if !mounts.contains_key(&name) => failed("no such volume"),
            "VolumeDriver.Get" => (200, json!({ "Volume": volume(&name, &mounts[&name]) })),
            "VolumeDriver.Path" => (200, json!({ "Mountpoint": path })),
            "VolumeDriver.Mount" => {
                mounts.entry(name).or_default().insert(id);
                (200, json!({ "Mountpoint": path }))
            }
            "VolumeDriver.Unmount" => match mounts.entry(name).or_default().remove(&id) {
                true => (200, json!({})),
                false => failed("not mounted"),
            },
            "VolumeDriver.Remove" => {
                mounts.remove(&name);
                let _ = std::fs::remove_dir_all(path);
                (200, json!({}))
            }
            _ => (404, json!({})),
        }
    }
}

/// A daemon whose `/etc`, in its own mount namespace, names the plugin `keeper` at `socket`.
fn options(socket: &Path) -> HostOptions {
    let script = format!(
        "if [ ! -e /etc/docker/plugins/keeper.spec ]; then
            mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w &&
            mount -t overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w overlay /etc &&
            mkdir -p /etc/docker/plugins &&
            echo unix://{} > /etc/docker/plugins/keeper.spec
        fi",
        socket.display()
    );
    HostOptions { before: Some(format!("{{ {script}; }}")), ..HostOptions::default() }
}

fn users(host: &Host, volume: &str) -> TestResult<String> {
    host.cli(["volume", "inspect", "-f", "{{.Status.users}}", volume])?.ok()
}

#[test]
fn a_plugin_keeps_volumes_of_containers() -> TestResult {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("keeper.sock");
    let plugin = FakePlugin::serve(&socket, keeper(folder.path().join("volumes")))?;
    scenario_with(options(&socket), |host| {
        host.cli(["volume", "create", "-d", "keeper", "-o", "a=b", "kept"])?.prints("kept")?;
        let format = "{{.Driver}} {{.Scope}} {{.Status.users}}";
        host.cli(["volume", "inspect", "-f", format, "kept"])?.prints("keeper global 0")?;
        let run = ["run", "-d", "--name", "one", "-v", "kept:/v", "-v", "kept:/w", "busybox"];
        host.cli(run.into_iter().chain(["sh", "-c", "echo hi > /v/file; exec sleep 1000"]))?
            .ok()?;
        assert_eq!(users(host, "kept")?, "1");
        host.cli(["run", "--rm", "-v", "kept:/v", "busybox", "cat", "/v/file"])?.prints("hi")?;
        host.cli(["volume", "rm", "kept"])?.exits_with(1)?.complains("volume is in use")?;
        host.docker(["volume", "ls", "--format", "{{.Driver}} {{.Name}}"])?
            .prints("keeper kept")?;
        // A next daemon knows who uses it.
        host.kill_daemon()?;
        host.start_daemon()?;
        host.cli(["exec", "one", "cat", "/w/file"])?.prints("hi")?;
        assert_eq!(users(host, "kept")?, "1");
        // One that ends while nobody watches is given back, too.
        host.cli(["rm", "-f", "one"])?.ok()?;
        assert_eq!(users(host, "kept")?, "0");
        let short = ["run", "-d", "--name", "two", "-v", "kept:/v", "busybox", "sleep", "1000"];
        host.cli(short)?.ok()?;
        host.kill_daemon()?;
        host.start_daemon()?;
        host.cli(["kill", "two"])?.ok()?;
        eventually("the volume is given back", || {
            (users(host, "kept").ok()? == "0").then_some(())
        })?;
        host.cli(["rm", "two"])?.ok()?;
        // A driver for all volumes of a container that name none.
        host.cli(["run", "--rm", "--volume-driver", "keeper", "-v", "/anon", "busybox", "true"])?
            .ok()?;
        host.cli(["volume", "clone", "kept", "copy"])?.prints("copy")?;
        host.cli(["run", "--rm", "-v", "copy:/v", "busybox", "cat", "/v/file"])?.prints("hi")?;
        host.cli(["volume", "rm", "kept", "copy"])?.ok()?;
        let mounts = plugin.methods().iter().filter(|m| *m == "VolumeDriver.Mount").count();
        let unmounts = plugin.methods().iter().filter(|m| *m == "VolumeDriver.Unmount").count();
        assert_eq!(mounts, unmounts, "{:?}", plugin.methods());
        Ok(())
    })
}

#[test]
fn a_plugin_that_fails_or_is_away_is_told() -> TestResult {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("keeper.sock");
    let plugin = FakePlugin::serve(&socket, keeper(folder.path().join("volumes")))?;
    scenario_with(options(&socket), |host| {
        host.cli(["volume", "create", "-d", "nosuch", "x1"])?.exits_with(1)?.complains(
            "create x1: error looking up volume plugin nosuch: plugin \"nosuch\" not found",
        )?;
        host.cli(["volume", "create", "-d", "keeper", "-o", "fail=yes", "x2"])?
            .exits_with(1)?
            .complains("create x2: VolumeDriver.Create: as you wish")?;
        host.cli(["volume", "create", "-d", "keeper", "kept"])?.ok()?;
        host.cli(["volume", "create", "-d", "local", "kept"])?
            .exits_with(1)?
            .complains("create kept: conflict: volume name must be unique")?;
        host.cli(["create", "--name", "user", "-v", "kept:/v", "busybox", "true"])?.ok()?;
        drop(plugin);
        host.cli(["start", "user"])?.exits_with(1)?.complains("cannot reach plugin \"keeper\"")?;
        host.cli(["rm", "user"])?.ok()?;
        let listed = host.cli(["volume", "ls", "-q"])?.ok()?;
        assert_eq!(listed, "kept");
        host.cli(["volume", "rm", "kept"])?.exits_with(1)?;
        host.cli(["volume", "rm", "-f", "kept"])?.ok()?;
        host.cli(["volume", "ls", "-q"])?.prints("")?;
        host.docker(["plugin", "ls"])?.ok()?;
        Ok(())
    })
}

#[test]
fn a_plugin_gives_addresses_away() -> TestResult {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("keeper.sock");
    let plugin = FakePlugin::serve(&socket, |method, question| match method {
        "Plugin.Activate" => (200, json!({ "Implements": ["IpamDriver"] })),
        "IpamDriver.GetDefaultAddressSpaces" => {
            (200, json!({ "LocalDefaultAddressSpace": "here" }))
        }
        "IpamDriver.RequestPool" => (200, json!({ "PoolID": "p", "Pool": "10.44.0.0/24" })),
        "IpamDriver.RequestAddress" => {
            let gateway = question["Options"]["RequestAddressType"].is_string();
            (200, json!({ "Address": if gateway { "10.44.0.1/24" } else { "10.44.0.77/24" } }))
        }
        "IpamDriver.ReleaseAddress" | "IpamDriver.ReleasePool" => (200, json!({})),
        _ => (404, json!({})),
    })?;
    scenario_with(options(&socket), |host| {
        host.docker(["network", "create", "--ipam-driver", "nosuch", "far"])?
            .exits_with(1)?
            .complains("plugin \"nosuch\" not found")?;
        let create =
            ["network", "create", "--ipam-driver", "keeper", "--ipam-opt", "zone=a", "far"];
        host.docker(create)?.ok()?;
        let shown = "{{.IPAM.Driver}} {{.IPAM.Options.zone}} {{(index .IPAM.Config 0).Subnet}}";
        host.docker(["network", "inspect", "-f", shown, "far"])?.prints("keeper a 10.44.0.0/24")?;
        let run = ["run", "-d", "--name", "web", "--network", "far", "busybox", "sleep", "1000"];
        host.docker(run)?.ok()?;
        // A next daemon goes on with what there is.
        host.kill_daemon()?;
        host.start_daemon()?;
        let address = "{{.NetworkSettings.Networks.far.IPAddress}}";
        host.docker(["inspect", "-f", address, "web"])?.prints("10.44.0.77")?;
        host.cli(["exec", "web", "ping", "-c", "1", "10.44.0.1"])?.ok()?;
        host.docker(["rm", "-f", "web"])?.ok()?;
        host.docker(["network", "rm", "far"])?.ok()?;
        let given_back = |address: &str| {
            let calls = plugin.calls();
            calls.iter().any(|(method, question)| {
                method == "IpamDriver.ReleaseAddress" && question["Address"] == address
            })
        };
        assert!(given_back("10.44.0.77") && given_back("10.44.0.1"), "{:?}", plugin.calls());
        assert_eq!(plugin.methods().last().map(String::as_str), Some("IpamDriver.ReleasePool"));
        Ok(())
    })
}

#[test]
fn a_plugin_makes_networks() -> TestResult {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("keeper.sock");
    let plugin = FakePlugin::serve(&socket, |method, _| match method {
        "Plugin.Activate" => (200, json!({ "Implements": ["NetworkDriver"] })),
        "NetworkDriver.GetCapabilities" => (200, json!({ "Scope": "local" })),
        "NetworkDriver.CreateEndpoint" => (200, json!({ "Interface": {} })),
        "NetworkDriver.Join" => {
            let name = json!({ "SrcName": "plug1", "DstPrefix": "far" });
            (200, json!({ "InterfaceName": name, "Gateway": "10.9.0.1" }))
        }
        _ => (200, json!({})),
    })?;
    scenario_with(options(&socket), |host| {
        let create = ["network", "create", "-d", "keeper", "--subnet", "10.9.0.0/24"];
        host.docker(create.into_iter().chain(["-o", "colour=red", "far"]))?.ok()?;
        let shown = "{{.Driver}} {{.Scope}} {{.Options.colour}}";
        host.docker(["network", "inspect", "-f", shown, "far"])?.prints("keeper local red")?;
        let mut ip = host.command("ip");
        ip.args(["link", "add", "plug0", "type", "veth", "peer", "name", "plug1"]);
        host.run(ip)?.ok()?;
        let run = ["run", "-d", "--name", "web", "--network", "far", "busybox", "sleep", "1000"];
        host.docker(run)?.ok()?;
        let seen = host.docker(["exec", "web", "ip", "addr", "show", "far0"])?.ok()?;
        assert!(seen.contains("inet 10.9.0.2/24"), "{seen}");
        host.kill_daemon()?;
        host.start_daemon()?;
        host.docker(["network", "rm", "far"])?.exits_with(1)?.complains("has active endpoints")?;
        host.docker(["network", "disconnect", "far", "web"])?.ok()?;
        let mut ip = host.command("ip");
        ip.args(["link", "show", "plug1"]);
        host.run(ip)?.ok()?;
        host.docker(["rm", "-f", "web"])?.ok()?;
        host.docker(["network", "rm", "far"])?.ok()?;
        let methods = plugin.methods();
        let of_driver = methods.iter().filter_map(|method| method.strip_prefix("NetworkDriver."));
        let asked = of_driver.collect::<Vec<_>>().join(" ");
        let first = "GetCapabilities CreateNetwork CreateEndpoint Join Leave DeleteEndpoint";
        assert_eq!(asked, format!("{first} DeleteNetwork"));
        Ok(())
    })
}

#[test]
fn a_plugin_judges_requests() -> TestResult {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("keeper.sock");
    let plugin = FakePlugin::serve(&socket, |method, question| {
        let uri = question["RequestUri"].as_str().unwrap_or_default();
        let answer = method == "AuthZPlugin.AuthZRes";
        match method {
            "Plugin.Activate" => (200, json!({ "Implements": ["authz"] })),
            _ if uri.contains("name=forbidden") => {
                (200, json!({ "Allow": false, "Msg": "no such names" }))
            }
            _ if answer && uri.contains("/secret/json") => {
                (200, json!({ "Allow": false, "Msg": "nobody sees it" }))
            }
            _ => (200, json!({ "Allow": true })),
        }
    })?;
    let flags = ["--authorization-plugin", "keeper"].map(str::to_owned).to_vec();
    scenario_with(HostOptions { flags, ..options(&socket) }, |host| {
        host.docker(["run", "--rm", "--name", "allowed", "busybox", "echo", "hi"])?.prints("hi")?;
        host.docker(["run", "--rm", "--name", "forbidden", "busybox", "true"])?
            .exits_with(125)?
            .complains("authorization denied by plugin keeper: no such names")?;
        host.docker(["run", "-d", "--name", "secret", "busybox", "sleep", "1000"])?.ok()?;
        host.docker(["inspect", "-f", "{{.Id}}", "--type", "container", "secret"])?
            .complains("authorization denied by plugin keeper: nobody sees it")?;
        let info = host.docker(["info", "-f", "{{json .Plugins.Authorization}}"])?.ok()?;
        assert_eq!(info, r#"["keeper"]"#);
        host.docker(["rm", "-f", "secret"])?.ok()?;
        assert!(plugin.methods().iter().any(|method| method == "AuthZPlugin.AuthZRes"));
        Ok(())
    })
}

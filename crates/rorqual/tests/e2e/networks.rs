//! Networks of users: who reaches whom, and what the client shows of them.

use std::process::Command;

use rorqual_testkit::{Host, TestResult, eventually};

use crate::{inspect, scenario};

fn run(host: &Host, flags: &[&str], script: &str) -> TestResult<String> {
    let command = ["busybox", "sh", "-c", script];
    host.cli(["run", "--rm"].iter().chain(flags).chain(&command))?.ok()
}

/// Starts a container that answers with `text` on port 80 of every address it has.
fn serve(host: &Host, flags: &[&str], text: &str) -> TestResult {
    let script = format!("mkdir /www; echo {text} > /www/index.html; exec httpd -f -p 80 -h /www");
    let command = ["busybox", "sh", "-c", &script];
    host.cli(["run", "-d"].iter().chain(flags).chain(&command))?.ok()?;
    Ok(())
}

/// Waits until a server answers, which it does a moment after its container has started.
fn wait_for(host: &Host, container: &str) -> TestResult {
    eventually("the server answers", || {
        let asked = host.cli(["exec", container, "wget", "-qO-", "http://127.0.0.1/"]).ok()?;
        asked.ok().ok()
    })?;
    Ok(())
}

/// A script that asks a web server at a numeric address; fails when it does not answer in two seconds.
fn fetch(address: &str) -> String {
    // The static wget is no use here: it crashes when the time is up.
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80 | tail -n 1 | grep .")
}

#[test]
fn a_network_is_made_shown_and_removed() -> TestResult {
    scenario(|host| {
        let id = host
            .docker([
                "network",
                "create",
                "--subnet",
                "10.77.0.0/24",
                "--ip-range",
                "10.77.0.128/25",
                "--gateway",
                "10.77.0.254",
                "--aux-address",
                "router=10.77.0.129",
                "--label",
                "a=b",
                "--ipv6",
                "-o",
                "com.docker.network.driver.mtu=1400",
                "back",
            ])?
            .ok()?;
        let shown = |format: &str| host.docker(["network", "inspect", "-f", format, "back"])?.ok();
        assert_eq!(
            shown("{{.Id}} {{.Driver}} {{.EnableIPv6}} {{.Internal}}")?,
            format!("{id} bridge true false")
        );
        assert_eq!(
            shown("{{with index .IPAM.Config 0}}{{.Subnet}} {{.IPRange}} {{.Gateway}}{{end}}")?,
            "10.77.0.0/24 10.77.0.128/25 10.77.0.254"
        );
        assert!(shown("{{(index .IPAM.Config 1).Subnet}}")?.starts_with("fd"));
        let row = host.docker([
            "network",
            "ls",
            "--filter",
            "label=a=b",
            "--format",
            "{{.Name}} {{.Driver}}",
        ])?;
        assert_eq!(row.ok()?, "back bridge");

        let seen = run(host, &["--network", "back"], "ip addr show eth0; ip route")?;
        assert!(seen.contains("inet 10.77.0.128/24"), "the first of the range: {seen}");
        assert!(seen.contains("mtu 1400") && seen.contains("default via 10.77.0.254"), "{seen}");
        assert!(seen.contains("inet6 fd"), "{seen}");

        host.docker(["network", "create", "back"])?
            .exits_with(1)?
            .complains("network with name back already exists")?;
        host.docker(["network", "create", "--subnet", "10.77.0.0/16", "other"])?
            .complains("Pool overlaps with other one on this address space")?;
        serve(host, &["--network", "back", "--name", "web"], "x")?;
        host.docker(["network", "rm", "back"])?
            .exits_with(1)?
            .complains("has active endpoints (name:\"web\"")?;
        host.cli(["rm", "-f", "web"])?.ok()?;
        assert_eq!(host.docker(["network", "rm", "back"])?.ok()?, "back");
        let bridges =
            host.command("ip").args(["-br", "link", "show", "type", "bridge"]).output()?;
        assert!(!String::from_utf8_lossy(&bridges.stdout).contains("br-"), "the bridge is gone");
        Ok(())
    })
}

#[test]
fn networks_keep_apart_and_connect() -> TestResult {
    scenario(|host| {
        for name in ["one", "two"] {
            host.cli(["network", "create", "--ipv6", name])?.ok()?;
        }
        host.cli(["network", "create", "--internal", "vault"])?.ok()?;
        serve(host, &["--network", "one", "--name", "web"], "hello")?;
        wait_for(host, "web")?;
        let of = |network: &str, field: &str| {
            inspect(host, "web", &format!("{{{{.NetworkSettings.Networks.{network}.{field}}}}}"))
        };
        let (v4, v6) = (of("one", "IPAddress")?, of("one", "GlobalIPv6Address")?);
        let by4 = fetch(&v4);
        let by6 = fetch(&v6);
        assert_eq!(run(host, &["--network", "one"], &by4)?, "hello");
        assert_eq!(run(host, &["--network", "one"], &by6)?, "hello");
        for network in ["two", "bridge", "vault"] {
            assert!(run(host, &["--network", network], &by4).is_err(), "{network} reaches one");
        }
        assert!(run(host, &["--network", "two"], &by6).is_err(), "two reaches one by IPv6");
        let route = run(host, &["--network", "vault"], "ip route")?;
        assert!(!route.contains("default"), "an internal network has no way out: {route}");

        host.docker(["network", "connect", "--alias", "www", "two", "web"])?.ok()?;
        let by4 = fetch(&of("two", "IPAddress")?);
        assert_eq!(run(host, &["--network", "two"], &by4)?, "hello");
        let hosts = host.cli(["exec", "web", "cat", "/etc/hosts"])?.ok()?;
        assert!(hosts.contains(&of("two", "IPAddress")?), "{hosts}");
        host.docker(["network", "disconnect", "two", "web"])?.ok()?;
        assert!(run(host, &["--network", "two"], &by4).is_err(), "two still reaches web");
        let links = host.cli(["exec", "web", "ip", "link"])?.ok()?;
        assert!(!links.contains("eth1"), "{links}");
        assert_eq!(inspect(host, "web", "{{len .NetworkSettings.Networks}}")?, "1");
        Ok(())
    })
}

#[test]
fn networks_and_connections_outlive_the_daemon() -> TestResult {
    scenario(|host| {
        host.cli(["network", "create", "--subnet", "10.78.0.0/24", "keep"])?.ok()?;
        let flags = ["--network", "keep", "--ip", "10.78.0.9", "-p", "18080:80", "--name", "web"];
        serve(host, &flags, "still")?;
        wait_for(host, "web")?;
        host.cli(["network", "connect", "bridge", "web"])?.ok()?;
        let before = inspect(host, "web", "{{json .NetworkSettings.Networks}}")?;
        host.kill_daemon()?;
        let ask = |host: &Host| -> TestResult<String> {
            let asked =
                host.command("curl").args(["-sm", "5", "http://127.0.0.1:18080/"]).output()?;
            Ok(String::from_utf8_lossy(&asked.stdout).trim().to_owned())
        };
        assert_eq!(ask(host)?, "still", "published while no daemon runs");
        host.start_daemon()?;
        assert_eq!(ask(host)?, "still");
        assert_eq!(inspect(host, "web", "{{json .NetworkSettings.Networks}}")?, before);
        let taken = ["run", "--rm", "--network", "keep", "--ip", "10.78.0.9", "busybox", "true"];
        host.cli(taken)?.complains("Address already in use")?;
        host.cli(["restart", "-t", "0", "web"])?.ok()?;
        wait_for(host, "web")?;
        assert_eq!(
            inspect(host, "web", "{{.NetworkSettings.Networks.keep.IPAddress}}")?,
            "10.78.0.9"
        );
        assert_eq!(inspect(host, "web", "{{len .NetworkSettings.Networks}}")?, "2");
        Ok(())
    })
}

/// Asks the resolver for a name as a container does; prints the addresses of the answer.
fn lookup(name: &str) -> String {
    format!("nslookup {name} 127.0.0.11 2>&1 | tail -n +3")
}

#[test]
fn containers_know_each_other_by_name() -> TestResult {
    scenario(|host| {
        host.cli(["network", "create", "--ipv6", "front"])?.ok()?;
        host.cli(["network", "create", "--internal", "vault"])?.ok()?;
        let flags = ["--network", "front", "--network-alias", "www", "--name", "web"];
        serve(host, &flags, "hello")?;
        let field = |name: &str| {
            inspect(host, "web", &format!("{{{{.NetworkSettings.Networks.front.{name}}}}}"))
        };
        let (v4, v6) = (field("IPAddress")?, field("GlobalIPv6Address")?);
        let short = inspect(host, "web", "{{.Id}}")?[..12].to_owned();
        let front = ["--network", "front"];
        for name in ["web", "www", "WEB", "web.front", &short] {
            let answer = run(host, &front, &lookup(name))?;
            assert!(answer.contains(&v4) && answer.contains(&v6), "{name}: {answer}");
        }
        let named = run(host, &front, &lookup(&v4))?;
        assert!(named.contains("web.front"), "{named}");
        let resolv = run(host, &front, "cat /etc/resolv.conf")?;
        assert!(resolv.contains("nameserver 127.0.0.11\n"), "{resolv}");
        assert!(resolv.contains("ndots:0"), "{resolv}");
        let apart = run(host, &["--network", "vault"], &lookup("web"));
        assert!(!format!("{apart:?}").contains(&v4), "{apart:?}");

        // A name server of the container's own has port 53 for itself.
        let own = "nc -l -p 53 </dev/null >/dev/null & \
                   timeout 9 sh -c 'until echo | nc -w 1 127.0.0.1 53 2>/dev/null; do :; done' && echo mine";
        assert_eq!(run(host, &front, own)?, "mine");

        host.cli(["rename", "web", "site"])?.ok()?;
        assert!(run(host, &front, &lookup("site"))?.contains(&v4));
        host.cli(["rename", "site", "web"])?.ok()?;

        host.cli(["network", "connect", "vault", "web"])?.ok()?;
        let seen = run(host, &["--network", "vault"], &lookup("web"))?;
        let inner = inspect(host, "web", "{{.NetworkSettings.Networks.vault.IPAddress}}")?;
        assert!(seen.contains(&inner) && !seen.contains(&v4), "{seen}");
        Ok(())
    })
}

#[test]
fn names_are_answered_while_no_daemon_runs() -> TestResult {
    scenario(|host| {
        host.cli(["network", "create", "front"])?.ok()?;
        serve(host, &["--network", "front", "--name", "web"], "hello")?;
        let script =
            format!("while :; do {} >> /answers; echo end >> /answers; done", lookup("web"));
        let asker =
            ["run", "-d", "--network", "front", "--name", "asker", "busybox", "sh", "-c", &script];
        host.cli(asker)?.ok()?;
        let v4 = inspect(host, "web", "{{.NetworkSettings.Networks.front.IPAddress}}")?;
        let answers = |host: &Host| -> TestResult<String> {
            host.cli(["exec", "asker", "cat", "/answers"])?.ok()
        };
        let more_than = |host: &Host, count: usize| {
            eventually("the asker goes on", || {
                answers(host).ok().filter(|text| text.matches("end").count() > count)
            })
        };
        let before = more_than(host, 3)?.matches("end").count();
        host.kill_daemon()?;
        host.start_daemon()?;
        let text = more_than(host, before + 3)?;
        let (asked, answered) = (text.matches("end").count(), text.matches(v4.as_str()).count());
        assert!(answered >= asked, "{asked} queries, {answered} answers");
        Ok(())
    })
}

/// Finds the resolver of this host's daemon.
fn resolver(host: &Host) -> Option<String> {
    let run_dir = host.folder().join("run");
    let run_dir = run_dir.to_string_lossy();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let words = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let words = words.split('\0').collect::<Vec<_>>();
        let ours = words.get(1) == Some(&"resolver")
            && words.get(2).is_some_and(|directory| directory.starts_with(&*run_dir));
        ours.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

#[test]
fn a_resolver_that_dies_is_replaced_and_has_no_rights_to_spare() -> TestResult {
    scenario(|host| {
        host.cli(["network", "create", "front"])?.ok()?;
        serve(host, &["--network", "front", "--name", "web"], "hello")?;
        let v4 = inspect(host, "web", "{{.NetworkSettings.Networks.front.IPAddress}}")?;
        let asked = |host: &Host| {
            let found = host.cli(["exec", "web", "sh", "-c", &lookup("web")]).ok()?.ok().ok()?;
            found.contains(&v4).then_some(())
        };
        eventually("names are answered", || asked(host))?;
        for restarted in [false, true] {
            if restarted {
                host.kill_daemon()?;
                host.start_daemon()?;
            }
            let pid = resolver(host).ok_or("there is no resolver")?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let of = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap_or_default().trim().to_owned()
            };
            // CAP_SYS_ADMIN, which setns(2) asks for, and no other.
            assert_eq!(of("CapEff:"), "0000000000200000", "{status}");
            assert_eq!(of("CapBnd:"), "0000000000200000", "{status}");
            assert_eq!(
                (of("Uid:").split('\t').next(), of("NoNewPrivs:")),
                (Some("65534"), "1".to_owned())
            );
            Command::new("kill").args(["-9", &pid]).status()?;
            eventually("another one answers", || {
                resolver(host).filter(|other| *other != pid)?;
                asked(host)
            })?;
        }
        Ok(())
    })
}

#[test]
fn networks_are_made_of_a_configuration() -> TestResult {
    scenario(|host| {
        let subnet = ["--subnet", "10.79.0.0/24", "--ip-range", "10.79.0.64/26"];
        let config = ["network", "create", "--config-only"].iter().chain(&subnet).chain(&["plan"]);
        host.docker(config)?.ok()?;
        let shown = "{{.Driver}} {{.ConfigOnly}} <{{.ConfigFrom.Network}}>";
        assert_eq!(host.docker(["network", "inspect", "-f", shown, "plan"])?.ok()?, "null true <>");
        host.docker(["run", "--rm", "--network", "plan", "busybox", "true"])?
            .complains("cannot create endpoint on configuration-only network")?;
        host.docker(["network", "create", "--config-from", "plan", "made"])?.ok()?;
        let shown = host.docker(["network", "inspect", "-f", shown, "made"])?.ok()?;
        assert_eq!(shown, "bridge false <plan>");
        let seen = run(host, &["--network", "made"], "ip addr show eth0")?;
        assert!(seen.contains("inet 10.79.0.64/24"), "{seen}");
        host.docker(["network", "rm", "plan"])?
            .complains("configuration network \"plan\" is in use")?;
        host.kill_daemon()?;
        host.start_daemon()?;
        host.docker(["network", "rm", "made", "plan"])?.ok()?;
        host.docker(["network", "create", "--ingress", "way"])?
            .complains("Ingress network can only be global scope network")?;
        host.docker(["network", "create", "-d", "overlay", "over"])?
            .complains("This node is not a swarm manager")?;
        host.docker(["network", "create", "-d", "nothing", "none-such"])?
            .complains("plugin \"nothing\" not found")?;
        Ok(())
    })
}

#[test]
fn a_container_is_on_the_wire_of_its_host() -> TestResult {
    scenario(|host| {
        let wire = "ip link add wire0 type veth peer name wire1 && ip link set wire0 up && ip link set wire1 up && \
                    ip addr add 192.0.2.1/24 dev wire1";
        let mut make = host.command("sh");
        make.args(["-c", wire]);
        host.run(make)?.ok()?;
        let options = ["-d", "macvlan", "-o", "parent=wire0", "--subnet", "192.0.2.0/24"];
        let range = ["--ip-range", "192.0.2.128/25", "--gateway", "192.0.2.1", "lan"];
        host.docker(["network", "create"].iter().chain(&options).chain(&range))?.ok()?;
        assert_eq!(
            host.docker(["network", "inspect", "-f", "{{.Driver}} {{.Options}}", "lan"])?.ok()?,
            "macvlan map[parent:wire0]"
        );
        let seen =
            run(host, &["--network", "lan"], "ip addr show eth0; ip route; ping -c 1 192.0.2.1")?;
        assert!(
            seen.contains("inet 192.0.2.128/24") && seen.contains("1 packets received"),
            "{seen}"
        );
        assert!(seen.contains("default via 192.0.2.1"), "{seen}");
        serve(host, &["--network", "lan", "--name", "web"], "x")?;
        assert!(run(host, &["--network", "lan"], &lookup("web"))?.contains("192.0.2.128"));
        host.docker(["network", "connect", "bridge", "web"])?.ok()?;
        host.docker(["network", "disconnect", "lan", "web"])?.ok()?;
        let links = host.cli(["exec", "web", "ip", "-o", "link"])?.ok()?;
        assert!(!links.contains("eth0") && links.contains("eth1"), "{links}");
        host.docker(["network", "create", "-d", "macvlan", "-o", "macvlan_mode=odd", "odd"])?
            .complains("requested macvlan mode 'odd' is not valid")?;
        Ok(())
    })
}

#[test]
fn endpoints_have_options_and_links_of_their_own() -> TestResult {
    scenario(|host| {
        host.docker(["network", "create", "front"])?.ok()?;
        serve(host, &["--network", "front", "--name", "db"], "hello")?;
        let v4 = inspect(host, "db", "{{.NetworkSettings.Networks.front.IPAddress}}")?;
        let network = "name=front,driver-opt=com.docker.network.endpoint.ifname=lan7,\
                       \"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1\"";
        let flags = ["run", "--rm", "--network", network, "busybox", "sh", "-c"];
        let script = "ip -o addr show lan7; cat /proc/sys/net/ipv4/conf/lan7/log_martians";
        let seen = host.docker(flags.iter().chain(&[script]))?.ok()?;
        assert!(seen.contains("inet ") && seen.ends_with('1'), "{seen}");
        let flags =
            ["run", "--rm", "--network", "front", "--link", "db:store", "busybox", "sh", "-c"];
        let seen = host.docker(flags.iter().chain(&[lookup("store").as_str()]))?.ok()?;
        assert!(seen.contains(&v4), "{seen}");
        assert!(
            !format!("{:?}", run(host, &["--network", "front"], &lookup("store"))).contains(&v4)
        );
        Ok(())
    })
}

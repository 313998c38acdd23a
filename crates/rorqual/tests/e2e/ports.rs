//! Published ports, from the host, from a neighbour of it, and as the client shows them.

use std::process::Command;

use rorqual_testkit::{Host, TestResult, eventually};

use crate::daemon::with_flags;
use crate::{inspect, scenario, scenario_with};

const NEIGHBOUR: &str = "192.0.2.2";
const HOST: &str = "192.0.2.1";

/// Makes a second host, on a wire to the first, that sends everything by way of it; ends with the returned process.
struct Neighbour(std::process::Child);

impl Neighbour {
    fn new(host: &Host) -> TestResult<Self> {
        let mut command = host.command("unshare");
        command.args(["-n", "sleep", "600"]);
        let child = Self(command.spawn()?);
        let pid = child.0.id().to_string();
        let own = || std::fs::read_link("/proc/self/ns/net").ok();
        eventually("the neighbour has a network", || {
            let theirs = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
            let hosts = std::fs::read_link(format!("/proc/{}/ns/net", host.daemon_pid()?)).ok()?;
            (Some(theirs.clone()) != own() && theirs != hosts).then_some(())
        })?;
        let make = format!(
            "ip link add wire0 type veth peer name wire0 netns {pid} && ip addr add {HOST}/24 dev wire0 && \
             ip link set wire0 up"
        );
        host.run(sh(host.command("sh"), &make))?.ok()?;
        let there = format!(
            "ip link set lo up && ip addr add {NEIGHBOUR}/24 dev wire0 && ip link set wire0 up && \
             ip route add default via {HOST}"
        );
        host.run(child.command(&there))?.ok()?;
        Ok(child)
    }

    /// Prepares a shell command on the neighbour.
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &self.0.id().to_string(), "sh"]);
        sh(command, script)
    }

    /// Asks a web server; `None` when it does not answer.
    fn fetch(&self, host: &Host, address: &str, port: u16) -> Option<String> {
        host.run(self.command(&fetch(address, port))).ok()?.ok().ok()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(mut command: Command, script: &str) -> Command {
    command.args(["-c", script]);
    command
}

/// A script that asks a web server; fails when it does not answer in two seconds.
fn fetch(address: &str, port: u16) -> String {
    format!(
        "timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port} && printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3 && \
         tail -n 1 <&3 | grep .'"
    )
}

fn on_host(host: &Host, address: &str, port: u16) -> Option<String> {
    host.run(sh(host.command("sh"), &fetch(address, port))).ok()?.ok().ok()
}

/// Starts a container that answers with `text` on port 80.
fn serve(host: &Host, flags: &[&str], text: &str) -> TestResult {
    let script = format!("mkdir /www; echo {text} > /www/index.html; exec httpd -f -p 80 -h /www");
    let command = ["busybox", "sh", "-c", &script];
    host.docker(["run", "-d"].iter().chain(flags).chain(&command))?.ok()?;
    Ok(())
}

#[test]
fn a_port_is_reached_where_it_is_published_and_nowhere_else() -> TestResult {
    scenario(|host| {
        let neighbour = Neighbour::new(host)?;
        serve(host, &["--name", "all", "-p", "8080:80"], "all")?;
        serve(host, &["--name", "home", "-p", "127.0.0.1:8081:80"], "home")?;
        serve(host, &["--name", "wire", "-p", &format!("{HOST}:8082:80")], "wire")?;
        eventually("all is served", || neighbour.fetch(host, HOST, 8080))?;
        eventually("home is served", || on_host(host, "127.0.0.1", 8081))?;
        eventually("wire is served", || neighbour.fetch(host, HOST, 8082))?;
        assert_eq!(on_host(host, "127.0.0.1", 8080).as_deref(), Some("all"));
        assert_eq!(on_host(host, HOST, 8080).as_deref(), Some("all"));
        assert_eq!(on_host(host, HOST, 8081), None);
        assert_eq!(on_host(host, "127.0.0.1", 8082), None);
        assert_eq!(neighbour.fetch(host, HOST, 8081), None);
        for name in ["all", "home", "wire"] {
            let address = inspect(host, name, "{{.NetworkSettings.Networks.bridge.IPAddress}}")?;
            assert_eq!(neighbour.fetch(host, &address, 80), None, "{name} is reached directly");
        }
        // A neighbour may send what is for 127/8 by way of us.
        let route = format!("ip route add 127.0.0.0/16 via {HOST} table local; true");
        host.run(neighbour.command(&route))?;
        let lure = "echo 1 > /proc/sys/net/ipv4/conf/wire0/route_localnet; ip addr del 127.0.0.1/8 dev lo; true";
        host.run(neighbour.command(lure))?;
        assert_eq!(neighbour.fetch(host, "127.0.0.1", 8081), None);

        let shown = host.docker(["port", "all"])?.ok()?;
        assert_eq!(shown, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
        assert_eq!(host.docker(["port", "home", "80"])?.ok()?, "127.0.0.1:8081");
        host.docker(["run", "--rm", "-p", "8080:80", "busybox", "true"])?
            .exits_with(125)?
            .complains("Bind for 0.0.0.0:8080 failed: port is already allocated")?;
        Ok(())
    })
}

#[test]
fn ten_thousand_ports_are_published_at_once() -> TestResult {
    scenario(|host| {
        let range = "20000-29999:20000-29999";
        host.cli(["run", "-d", "--name", "many", "-p", range, "busybox", "sleep", "600"])?.ok()?;
        let script = "mkdir -p /www; echo far > /www/index.html; httpd -p 29999 -h /www";
        host.cli(["exec", "many", "sh", "-c", script])?.ok()?;
        eventually("the last port is served", || on_host(host, "127.0.0.1", 29_999))?;
        let mut rules = host.command("nft");
        rules.args(["list", "ruleset"]);
        let rules = host.run(rules)?.ok()?;
        assert_eq!(rules.matches("tcp . 20000-29999").count(), 1, "one element for all");
        let shown = host.docker(["ps", "--format", "{{.Ports}}"])?.ok()?;
        assert_eq!(shown, "0.0.0.0:20000-29999->20000-29999/tcp");
        let fds = format!("/proc/{}/fd", host.daemon_pid().unwrap_or_default());
        assert!(std::fs::read_dir(fds)?.count() < 500, "no socket for each port");
        host.docker(["run", "--rm", "-p", "25000:80", "busybox", "true"])?
            .complains("Bind for 0.0.0.0:25000 failed: port is already allocated")?;
        host.kill_daemon()?;
        assert_eq!(on_host(host, "127.0.0.1", 29_999).as_deref(), Some("far"));
        host.start_daemon()?;
        assert_eq!(on_host(host, "127.0.0.1", 29_999).as_deref(), Some("far"));
        host.cli(["rm", "-f", "many"])?.ok()?;
        assert_eq!(on_host(host, "127.0.0.1", 29_999), None);
        host.cli(["run", "--rm", "-p", "25000:80", "busybox", "true"])?.ok()?;
        Ok(())
    })
}

#[test]
fn open_choices_of_ports_are_made() -> TestResult {
    scenario(|host| {
        serve(host, &["--name", "first", "-p", "18000-18001:80"], "first")?;
        serve(host, &["--name", "second", "-p", "18000-18001:80"], "second")?;
        for (name, port) in [("first", 18000), ("second", 18001)] {
            let shown = host.docker(["port", name])?.ok()?;
            assert_eq!(shown, format!("80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}"));
        }
        host.docker(["run", "--rm", "-p", "18000-18001:80", "busybox", "true"])?
            .complains("port is already allocated")?;
        serve(host, &["--name", "any", "--expose", "80", "-P"], "any")?;
        let port = host.docker(["port", "any", "80/tcp"])?.ok()?;
        let port = port.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        assert!(port >= 32768, "{port}");
        let answer = eventually("it is served", || on_host(host, "127.0.0.1", port))?;
        assert_eq!(answer, "any");
        Ok(())
    })
}

#[test]
fn ports_are_relayed_to_containers_without_ipv6_by_one_process() -> TestResult {
    scenario(|host| {
        let neighbour = Neighbour::new(host)?;
        let address = |own: &str| format!("ip addr add {own}/64 dev wire0 nodad");
        host.run(sh(host.command("sh"), &address("2001:db8::1")))?.ok()?;
        host.run(neighbour.command(&address("2001:db8::2")))?.ok()?;
        serve(host, &["--name", "all", "-p", "8080:80"], "all")?;
        serve(host, &["--name", "home", "-p", "[::1]:8081:80"], "home")?;
        eventually("all is served", || on_host(host, "::1", 8080))?;
        eventually("home is served", || on_host(host, "::1", 8081))?;
        let far = |host: &Host, port| neighbour.fetch(host, "2001:db8::1", port);
        assert_eq!((far(host, 8080).as_deref(), far(host, 8081)), (Some("all"), None));
        assert_eq!(host.docker(["port", "home"])?.ok()?, "80/tcp -> [::1]:8081");

        let relays = |host: &Host| -> TestResult<Vec<String>> {
            let mut ss = host.command("ss");
            ss.args(["-Hltnp", "sport", "=", ":8080", "or", "sport", "=", ":8081"]);
            let listed = host.run(ss)?.ok()?;
            let found = listed.split("pid=").skip(1).filter_map(|rest| rest.split(',').next());
            let mut pids = found.map(str::to_owned).collect::<Vec<_>>();
            pids.sort();
            pids.dedup();
            Ok(pids)
        };
        host.kill_daemon()?;
        let [one] = <[String; 1]>::try_from(relays(host)?).map_err(|all| format!("{all:?}"))?;
        assert_eq!(on_host(host, "::1", 8080).as_deref(), Some("all"), "without a daemon");
        host.start_daemon()?;
        assert_eq!(far(host, 8080).as_deref(), Some("all"));
        // Whoever ends the process ends its connections, and no more.
        Command::new("kill").args(["-9", &one]).status()?;
        eventually("another one relays", || on_host(host, "::1", 8080))?;
        assert_eq!(on_host(host, "::1", 8081).as_deref(), Some("home"));

        host.cli(["rm", "-f", "all", "home"])?.ok()?;
        assert_eq!(on_host(host, "::1", 8080), None);
        host.cli(["run", "--rm", "-p", "[::]:8080:80", "-p", "8081:80", "busybox", "true"])?
            .ok()?;
        Ok(())
    })
}

#[test]
fn the_hosts_own_input_policy_is_respected_where_that_is_asked_for() -> TestResult {
    scenario_with(with_flags(&["--respect-input-policy"]), |host| {
        let neighbour = Neighbour::new(host)?;
        let policy = "nft add table inet own && nft add chain inet own input \
                      '{ type filter hook input priority 0; policy drop; }' && \
                      nft add rule inet own input iifname lo accept && \
                      nft add rule inet own input iifname docker0 accept && \
                      nft add rule inet own input ct state established accept && \
                      nft add rule inet own input tcp dport 8081 accept";
        host.run(sh(host.command("sh"), policy))?.ok()?;
        serve(host, &["--name", "web", "-p", "8080:80", "-p", "8081:80"], "web")?;
        eventually("it is served", || on_host(host, "127.0.0.1", 8080))?;
        assert_eq!(neighbour.fetch(host, HOST, 8080), None);
        assert_eq!(neighbour.fetch(host, HOST, 8081).as_deref(), Some("web"));
        host.docker(["run", "--rm", "-p", "9000-9100:9000-9100", "busybox", "true"])?
            .exits_with(125)?
            .complains("while the host's own input policy is respected")?;
        Ok(())
    })
}

#[test]
fn the_rules_stay_while_no_daemon_runs() -> TestResult {
    scenario(|host| {
        let neighbour = Neighbour::new(host)?;
        serve(host, &["--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80"], "web")?;
        eventually("it is served", || neighbour.fetch(host, HOST, 8080))?;
        let address = inspect(host, "web", "{{.NetworkSettings.Networks.bridge.IPAddress}}")?;
        host.kill_daemon()?;
        assert_eq!(neighbour.fetch(host, HOST, 8080).as_deref(), Some("web"));
        assert_eq!(on_host(host, "127.0.0.1", 8081).as_deref(), Some("web"));
        assert_eq!(neighbour.fetch(host, HOST, 8081), None, "it is for the host alone");
        assert_eq!(neighbour.fetch(host, &address, 80), None, "nobody comes past the host");
        host.start_daemon()?;
        assert_eq!(neighbour.fetch(host, HOST, 8080).as_deref(), Some("web"));
        Ok(())
    })
}

#[test]
fn a_flush_of_the_hosts_rules_during_traffic_opens_nothing() -> TestResult {
    scenario(|host| {
        let neighbour = Neighbour::new(host)?;
        serve(host, &["--name", "web", "-p", "8080:80"], "web")?;
        eventually("it is served", || neighbour.fetch(host, HOST, 8080))?;
        let address = inspect(host, "web", "{{.NetworkSettings.Networks.bridge.IPAddress}}")?;
        for _ in 0..10 {
            host.run(sh(host.command("sh"), "nft flush ruleset"))?.ok()?;
            let direct =
                neighbour.command(&fetch(&address, 80).replace("timeout 2", "timeout 0.1"));
            assert!(host.run(direct)?.ok().is_err(), "a container is open after a flush");
            assert_eq!(neighbour.fetch(host, HOST, 8080).as_deref(), Some("web"));
        }
        Ok(())
    })
}

/// Tells whether the resolver has a netlink socket: the one that owns the firewall's table.
fn resolver_keeps_the_table(host: &Host) -> Option<()> {
    let folder = host.folder().display().to_string();
    let is_resolver = |entry: &std::fs::DirEntry| {
        let words = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        words.contains("\0resolver\0") && words.contains(&folder)
    };
    let place = std::fs::read_dir("/proc").ok()?.flatten().find(is_resolver)?.path();
    let sockets = std::fs::read_to_string(place.join("net/netlink")).ok()?;
    let inodes = sockets.lines().filter_map(|line| line.split_whitespace().last());
    let own = inodes.map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>();
    let open = std::fs::read_dir(place.join("fd")).ok()?.flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let links = links.map(|link| link.to_string_lossy().into_owned()).collect::<Vec<_>>();
    links.iter().any(|link| own.contains(link)).then_some(())
}

#[test]
fn a_flush_of_the_hosts_rules_while_no_daemon_runs_opens_and_closes_nothing() -> TestResult {
    scenario(|host| {
        let neighbour = Neighbour::new(host)?;
        // A container alone, without names or relayed ports, is protected as well.
        serve(host, &["--name", "alone"], "alone")?;
        let rules = host.run(sh(host.command("sh"), "nft list ruleset"))?.ok()?;
        if !rules.contains("owner") {
            // Before Linux 6.9 the next daemon puts the table back; the network crate's tests see to that.
            return Ok(());
        }
        eventually("the table is kept", || resolver_keeps_the_table(host))?;
        serve(host, &["--name", "web", "-p", "8080:80"], "web")?;
        eventually("it is served", || neighbour.fetch(host, HOST, 8080))?;
        let addresses = ["alone", "web"]
            .map(|name| inspect(host, name, "{{.NetworkSettings.Networks.bridge.IPAddress}}"));
        let addresses = addresses.into_iter().collect::<Result<Vec<_>, _>>()?;
        for _ in 0..2 {
            eventually("the table is kept", || resolver_keeps_the_table(host))?;
            host.kill_daemon()?;
            host.run(sh(host.command("sh"), "nft flush ruleset"))?.ok()?;
            for address in &addresses {
                let direct =
                    neighbour.command(&fetch(address, 80).replace("timeout 2", "timeout 0.3"));
                assert!(host.run(direct)?.ok().is_err(), "{address} is open after a flush");
            }
            assert_eq!(neighbour.fetch(host, HOST, 8080).as_deref(), Some("web"));
            host.start_daemon()?;
        }
        // The new daemon changes the table as the old one did.
        serve(host, &["--name", "second", "-p", "8081:80"], "second")?;
        eventually("it is served", || neighbour.fetch(host, HOST, 8081))?;
        host.cli(["rm", "-f", "web"])?.ok()?;
        assert_eq!(neighbour.fetch(host, HOST, 8080), None);
        Ok(())
    })
}

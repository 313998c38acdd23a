//! Requests against what docker's own client sends for the same words.

use std::path::Path;

use super::ports::{Bindings, Ports};
use super::*;
use crate::command::ROOT;
use crate::flag;

/// Documents docker's client 28 sent for the same words.
const PLAIN: &str = include_str!("plain.json");
const FULL: &str = include_str!("full.json");
const NETWORKS: &str = include_str!("networks.json");

fn built(words: &[&str]) -> Json {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let root = flag::parse(&ROOT, "docker".to_owned(), &[]).unwrap();
    let cli = Cli::for_tests(root, Path::new("/nonexistent"));
    let matches = flag::parse(&CREATE, "docker create".to_owned(), &words).unwrap();
    serde_json::from_str(&request(&cli, &matches).unwrap().text().unwrap()).unwrap()
}

fn check(words: &[&str], golden: &str) {
    let golden: Json = serde_json::from_str(golden).unwrap();
    let built = built(words);
    // As text too: the order of the fields is Docker's.
    assert_eq!(
        serde_json::to_string_pretty(&built).unwrap(),
        serde_json::to_string_pretty(&golden).unwrap()
    );
}

#[test]
fn a_plain_request_is_the_one_docker_sends() {
    check(&["bb"], PLAIN);
}

#[test]
fn networks_and_devices_are_described_as_docker_does() {
    let words = "--network name=n1,alias=a1,driver-opt=k=v,ip=1.1.1.1 --network n2 --ulimit nproc=5 --gpus device=0 --gpus \"capabilities=utility,compute\",count=2 -a stdout bb";
    check(&words.split(' ').collect::<Vec<_>>(), NETWORKS);
}

#[test]
fn a_request_with_everything_is_the_one_docker_sends() {
    let words = "-it --name x --rm -p 8080:80 -p 127.0.0.1:9000-9001:9000-9001/udp -P --expose 53/udp -v vol:/c -v /a:/b:ro -v /anon --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777 --mount type=bind,src=/x,dst=/y,readonly,bind-propagation=rshared --mount type=volume,src=v2,dst=/z,volume-label=a=b,volume-nocopy --tmpfs /tt:size=1m -e A=b -e HOME=/root -l x=y --annotation p=q --network foo --network-alias al --ip 1.2.3.4 --mac-address 02:42:ac:11:00:02 --link c:d --dns 8.8.8.8 --dns-search x --dns-option o --add-host h:1.2.3.4 --add-host k=::1 --cap-add net_admin --cap-drop ALL --security-opt no-new-privileges --ulimit nofile=10:20 --sysctl net.b=c --device /dev/null:/dev/x:r --device-read-bps /dev/sda:1mb --blkio-weight 100 --blkio-weight-device /dev/sda:200 --gpus all --memory 64m --memory-swap -1 --memory-swappiness 10 --cpus 1.5 -c 12 --pids-limit 5 --health-interval 5s --health-retries 3 --stop-signal INT --stop-timeout 5 --log-driver none --init --read-only --privileged --userns host --uts host --pid host --ipc private --cgroupns private --cgroup-parent cp --runtime rt --shm-size 1m --group-add g --oom-kill-disable --oom-score-adj 5 --volumes-from vf --volume-driver vd --storage-opt size=1 -w /w -u me -h hn --domainname dom --entrypoint ep --platform linux/amd64";
    let mut words: Vec<&str> = words.split(' ').collect();
    words.extend(["--health-cmd", "true x", "--device-cgroup-rule", "c 1:3 r", "bb", "cmd", "arg"]);
    check(&words, FULL);
}

#[test]
fn networks_that_cannot_be_are_refused_as_docker_does() {
    for (words, expected) in [
        (
            &["--network-alias", "x", "bb"][..],
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            &["--network", "name=bridge,alias=x", "bb"],
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (&["--network", "n", "--network", "n", "bb"], "network \"n\" is specified multiple times"),
    ] {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let matches = flag::parse(&CREATE, "docker create".to_owned(), &words).unwrap();
        assert_eq!(network::networks(&matches), Err(expected.to_owned()), "{words:?}");
    }
}

#[test]
fn published_ports() {
    let published = |text: &str| {
        let mut ports = Ports::default();
        ports.publish(text).map(|()| serde_json::to_string(&Bindings(&ports)).unwrap())
    };
    let cases = [
        ("80", Ok(r#"{"80/tcp":[{"HostIp":"","HostPort":""}]}"#)),
        ("[::1]:8080:80/udp", Ok(r#"{"80/udp":[{"HostIp":"::1","HostPort":"8080"}]}"#)),
        ("127.0.0.1::80", Ok(r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}"#)),
        ("8000-8010:80", Ok(r#"{"80/tcp":[{"HostIp":"","HostPort":"8000-8010"}]}"#)),
        ("foo", Err("invalid containerPort: foo")),
        ("x:1:1", Err("invalid IP address: x")),
        ("1-2:1-3", Err("invalid ranges specified for container and host Ports: 1-3 and 1-2")),
        ("80/foo", Err("invalid proto: foo")),
    ];
    for (text, expected) in cases {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(published(text), expected, "{text}");
    }
}

#[test]
fn files_of_variables_are_read_as_docker_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("env").display().to_string();
    std::fs::write(&path, "# no\nA=b c\n\n  B=\nHOST\nGONE\n").unwrap();
    let known = |name: &str| (name == "HOST").then(|| "HOST=here".to_owned());
    let all = read_variables(std::slice::from_ref(&path), &["C=d".to_owned()], known).unwrap();
    assert_eq!(all, ["A=b c", "B=", "HOST=here", "C=d"]);
    std::fs::write(&path, "A B=c\n").unwrap();
    let failure = read_variables(std::slice::from_ref(&path), &[], known).unwrap_err();
    assert_eq!(
        failure.text,
        format!("invalid environment file: {path}: variable 'A B' contains whitespaces")
    );
}

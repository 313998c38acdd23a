use super::*;
use crate::command::ROOT;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn parsed(command: &str, text: &str) -> Result<Matches, UsageError> {
    let command = ROOT.child(command).unwrap();
    parse(command, format!("docker {}", command.name), &words(text))
}

fn failure(command: &str, text: &str) -> String {
    match parsed(command, text).and_then(|matches| matches.check_count()) {
        Err(UsageError::Flag(text) | UsageError::Count(text)) => text,
        other => format!("{other:?}"),
    }
}

#[test]
fn flags_are_read_in_all_their_forms() {
    let matches =
        parsed("run", "-it --rm=false -p80:80 -p=81:81 --name x --publish 82 img -x --rm").unwrap();
    assert!(matches.on("interactive") && matches.on("tty") && !matches.on("rm"));
    assert_eq!(matches.list("publish"), ["80:80", "81:81", "82"]);
    assert_eq!(matches.text("name"), "x");
    assert_eq!(matches.words, ["img", "-x", "--rm"]);
    let matches = parsed("ps", "-aqn 3 --filter a=b -f c=d").unwrap();
    assert!(matches.on("all") && matches.on("quiet"));
    assert_eq!(matches.int("last"), 3);
    assert_eq!(matches.list("filter"), ["a=b", "c=d"]);
    let matches = parsed("rm", "a -f b -- -c").unwrap();
    assert!(matches.on("force"));
    assert_eq!(matches.words, ["a", "b", "-c"]);
    let matches = parsed("run", "--net host --dns-opt a img").unwrap();
    assert_eq!((matches.text("network"), matches.text("dns-option")), ("host", "a"));
}

// The texts of docker 28.
const FAILURES: &[(&str, &str, &str)] = &[
    ("ps", "--foo", "unknown flag: --foo"),
    ("ps", "--foo=1", "unknown flag: --foo"),
    ("ps", "-aX", "unknown shorthand flag: 'X' in -X"),
    ("ps", "--last", "flag needs an argument: --last"),
    ("ps", "-n", "flag needs an argument: 'n' in -n"),
    (
        "ps",
        "--last=x",
        "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
    ),
    (
        "ps",
        "--all=maybe",
        "invalid argument \"maybe\" for \"-a, --all\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
    ),
    (
        "ps",
        "-f foo",
        "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
    ),
    ("ps", "x", "'docker ps' accepts no arguments"),
    ("rm", "", "'docker rm' requires at least 1 argument"),
    ("rename", "a", "'docker rename' requires 2 arguments"),
    ("run", "-m x img", "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"),
    (
        "run",
        "--mount type=foo img",
        "invalid argument \"type=foo\" for \"--mount\" flag: target is required",
    ),
    (
        "run",
        "-e =x img",
        "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x",
    ),
];

#[test]
fn failures_have_the_texts_scripts_know() {
    for (command, text, expected) in FAILURES {
        assert_eq!(failure(command, text), *expected, "{command} {text}");
    }
}

#[test]
fn processors_are_exact() {
    let cases = [
        ("1.5", Some(1_500_000_000)),
        ("0.000000001", Some(1)),
        ("1/4", Some(250_000_000)),
        ("0.0000000001", None),
        ("x", None),
        ("1/0", None),
    ];
    for (text, expected) in cases {
        assert_eq!(nano_cpus(text).ok(), expected, "{text}");
    }
}

/// Long names of the flags of docker 28.5's commands in scope.
const DOCKER_FLAGS: &[(&str, &str)] = &[
    ("attach", "detach-keys no-stdin sig-proxy"),
    ("commit", "author change message pause"),
    ("cp", "archive follow-link quiet"),
    ("exec", "detach detach-keys env env-file interactive privileged tty user workdir"),
    ("export", "output"),
    ("kill", "signal"),
    ("logs", "details follow since tail timestamps until"),
    ("ps", "all filter format last latest no-trunc quiet size"),
    ("restart", "signal timeout time"),
    ("stop", "signal timeout time"),
    ("rm", "force link volumes"),
    ("start", "attach checkpoint checkpoint-dir detach-keys interactive"),
    ("stats", "all format no-stream no-trunc"),
    (
        "update",
        "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems memory memory-reservation memory-swap pids-limit restart kernel-memory",
    ),
    ("images", "all digests filter format no-trunc quiet tree"),
    ("history", "format human no-trunc platform quiet"),
    ("import", "change message platform"),
    ("load", "input platform quiet"),
    ("save", "output platform"),
    ("rmi", "force no-prune platform"),
    ("pull", "all-tags disable-content-trust platform quiet"),
    ("push", "all-tags disable-content-trust platform quiet"),
    ("inspect", "format size type"),
    ("events", "filter format since until"),
    ("info", "format"),
    ("version", "format"),
    (
        "network create",
        "attachable aux-address config-from config-only driver gateway ingress internal ip-range ipam-driver ipam-opt ipv4 ipv6 label opt scope subnet",
    ),
    ("network connect", "alias driver-opt gw-priority ip ip6 link link-local-ip"),
    ("volume create", "driver label opt name"),
    ("volume prune", "all filter force"),
    ("system prune", "all filter force volumes"),
    ("system df", "format verbose"),
    ("container prune", "filter force"),
    ("image prune", "all filter force"),
    ("context create", "description docker from"),
    (
        "run",
        "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval health-start-period health-timeout hostname init interactive ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit user userns uts volume volume-driver volumes-from workdir dns-opt net net-alias",
    ),
];

#[test]
fn no_flag_of_docker_is_missing() {
    for (path, flags) in DOCKER_FLAGS {
        let command = path.split(' ').fold(&ROOT, |command, word| command.child(word).unwrap());
        for flag in flags.split(' ') {
            assert!(command.find(flag).is_some(), "docker {path} --{flag}");
        }
    }
}

#[test]
fn every_command_is_described_and_its_letters_are_its_own() {
    fn check(command: &'static Command) {
        let mut letters = Vec::new();
        for flag in command.flags() {
            assert!(!flag.help.is_empty() || flag.hidden, "{} --{}", command.name, flag.name);
            assert!(flag.alias_of.is_empty() || command.find(flag.alias_of).is_some());
            assert!(flag.short == '\0' || !letters.contains(&flag.short), "{}", flag.short);
            letters.push(flag.short);
        }
        assert!(command.run.is_some() == command.children.is_empty(), "{}", command.name);
        command.children.iter().for_each(|child| check(child));
    }
    ROOT.children.iter().for_each(|child| check(child));
}

//! Refused requests and their texts.

use std::time::Duration;

use super::{container, is_cpu_list, normal};
use crate::options::Options;
use crate::spec::{ContainerSpec, HealthSpec, MountKind, MountSpec, RestartPolicy, TmpfsOptions};

fn check(change: impl FnOnce(&mut ContainerSpec), expected: &str) {
    let mut spec = ContainerSpec::default();
    change(&mut spec);
    let result = container(&spec, &Options::docker_defaults());
    assert_eq!(result.err().map(|error| error.to_string()).unwrap_or_default(), expected);
}

fn tmpfs(target: &str) -> MountSpec {
    MountSpec {
        kind: MountKind::Tmpfs(TmpfsOptions::default()),
        target: target.to_owned(),
        read_only: false,
        mode: String::new(),
    }
}

#[test]
fn texts() {
    check(|_| {}, "");
    check(|spec| spec.resources.memory = Some(4096), "Minimum memory limit allowed is 6MB");
    check(
        |spec| {
            spec.resources.memory = Some(64 << 20);
            spec.resources.memory_swap = Some(32 << 20);
        },
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    );
    check(
        |spec| {
            spec.auto_remove = true;
            spec.restart = RestartPolicy::Always;
        },
        "can't create 'AutoRemove' container with restart policy",
    );
    check(
        |spec| spec.security.options = vec!["nonsense".to_owned()],
        "invalid --security-opt 2: \"nonsense\"",
    );
    check(
        |spec| spec.process.working_dir = "tmp".to_owned(),
        "the working directory 'tmp' is invalid, it needs to be an absolute path",
    );
    check(|spec| spec.runtime = Some("kata".to_owned()), "unknown or invalid runtime name: kata");
    check(
        |spec| spec.storage.mounts = vec![tmpfs("/a"), tmpfs("/a/")],
        "Duplicate mount point: /a/",
    );
    check(
        |spec| {
            spec.healthcheck = Some(HealthSpec::Check {
                test: None,
                interval: Some(Duration::from_nanos(1)),
                timeout: None,
                start_period: None,
                start_interval: None,
                retries: None,
            });
        },
        "Interval in Healthcheck cannot be less than 1ms",
    );
}

#[test]
fn small_parsers() {
    for (list, expected) in [("0-3,5", true), ("", true), ("3-1", false), ("a", false)] {
        assert_eq!(is_cpu_list(list), expected, "{list}");
    }
    for (path, expected) in [("/a//b/./c/", "/a/b/c"), ("/a/../..", "/"), ("/", "/")] {
        assert_eq!(normal(path), expected);
    }
}

//! Refused requests and their texts.

use std::time::Duration;

use super::{container, cpusets, is_cpu_list, normal};
use crate::options::{AppArmor, CgroupDriver, Options};
use crate::spec::{
    ContainerSpec, HealthSpec, MountKind, MountSpec, Resources, RestartPolicy, TmpfsOptions,
};

fn check(change: impl FnOnce(&mut ContainerSpec), expected: &str) {
    let mut spec = ContainerSpec::default();
    change(&mut spec);
    let result = container(&mut spec.clone(), &Options::docker_defaults());
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
fn labels_without_effect_are_told() {
    let warned = |option: &str, apparmor: bool| {
        let mut options = Options::docker_defaults();
        options.apparmor = apparmor
            .then_some(AppArmor { default_profile: "docker-default", ensure_default: || Ok(()) });
        let mut spec = ContainerSpec::default();
        spec.security.options = vec![option.to_owned()];
        container(&mut spec.clone(), &options).map_err(|error| error.to_string())
    };
    for (option, apparmor, warnings) in [
        ("apparmor=mine", true, &[][..]),
        ("apparmor=unconfined", false, &[]),
        (
            "apparmor=mine",
            false,
            &["AppArmor is not enabled on this host: profile mine has no effect"],
        ),
        ("label=disable", false, &[]),
        ("label=type:x_t", false, &["SELinux is not enabled here: label=type:x_t has no effect"]),
    ] {
        let expected: Vec<_> = warnings.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(warned(option, apparmor), Ok(expected), "{option}");
    }
    assert_eq!(
        warned("apparmor=a\nb", true),
        Err("invalid --security-opt 2: \"apparmor=a\\nb\"".to_owned())
    );
}

#[test]
fn parents_of_systemd_are_slices() {
    let mut options = Options::docker_defaults();
    options.cgroup_driver = CgroupDriver::Systemd;
    for (parent, valid) in [
        ("", true),
        ("a.slice", true),
        ("-.slice", true),
        ("/a", false),
        (".slice", false),
        ("a/b.slice", false),
    ] {
        let mut spec = ContainerSpec::default();
        spec.resources.cgroup_parent = Some(parent.to_owned());
        assert_eq!(container(&mut spec.clone(), &options).is_ok(), valid, "{parent}");
    }
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

#[test]
fn processors_and_memory_nodes_must_be_there() {
    let options = Options {
        cpus: Some("0-3,6".to_owned()),
        memory_nodes: Some("0".to_owned()),
        ..Options::docker_defaults()
    };
    for (cpus, nodes, expected) in [
        ("0-3", "0", ""),
        ("6", "", ""),
        ("3-6", "", "Requested CPUs are not available - requested 3-6, available: 0-3,6"),
        ("", "1", "Requested memory nodes are not available - requested 1, available: 0"),
        ("x", "", ""),
    ] {
        let wanted = Resources {
            cpuset_cpus: Some(cpus.to_owned()),
            cpuset_mems: Some(nodes.to_owned()),
            ..Resources::default()
        };
        let result = cpusets(&wanted, &options);
        let text = result.err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(text, expected, "{cpus} {nodes}");
    }
    // A host that does not tell is not second-guessed.
    let wanted = Resources { cpuset_cpus: Some("99".to_owned()), ..Resources::default() };
    assert!(cpusets(&wanted, &Options::docker_defaults()).is_ok());
}

#[test]
fn labels_are_checked_where_they_mean_something() {
    let policy = "process = \"u:r:t:s0\"\nfile = \"u:o:f:s0\"\n";
    let contexts = rorqual_core::selinux::Contexts::parse(policy).unwrap();
    let options = Options {
        selinux: Some(crate::options::SeLinux { contexts, relabel: |_, _, _| Ok(()) }),
        ..Options::docker_defaults()
    };
    let checked = |option: &str| {
        let mut spec = ContainerSpec::default();
        spec.security.options.push(option.to_owned());
        container(&mut spec, &options).map_err(|error| error.to_string())
    };
    for option in ["label=disable", "label:type:x_t", "label=level:s0:c1,c2"] {
        assert_eq!(checked(option), Ok(Vec::new()), "{option}");
    }
    assert!(
        checked("label=colour:red").unwrap_err().starts_with("bad label option \"colour:red\"")
    );
}

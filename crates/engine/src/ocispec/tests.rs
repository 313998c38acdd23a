//! Snapshots of the specification.

use std::path::PathBuf;

use rorqual_core::ContainerId;
use rorqual_core::capability::Capabilities;
use rorqual_core::idmap::{IdMap, IdMaps};
use rorqual_network::HostFiles;

use super::{HostFacts, Input, Net, build};
use crate::options::CgroupDriver;
use crate::spec::{ContainerSpec, IpcMode, Propagation, TmpfsOptions};
use crate::view::{Effective, MountPoint, MountPointKind};

pub(crate) fn facts() -> HostFacts {
    HostFacts {
        cgroup_driver: CgroupDriver::Cgroupfs,
        cgroup_parent: "/rorqual".to_owned(),
        cgroup_unified: false,
        cgroup_namespace: None,
        shm_size: 64 << 20,
        ulimits: Vec::new(),
        init_binary: Some(PathBuf::from("/run/rorqual/init")),
        default_init: false,
        no_new_privileges: false,
        default_profile: None,
    }
}

fn built(spec: &ContainerSpec, mounts: &[MountPoint]) -> oci_spec::runtime::Spec {
    built_on(&facts(), spec, mounts)
}

fn built_on(
    host: &HostFacts,
    spec: &ContainerSpec,
    mounts: &[MountPoint],
) -> oci_spec::runtime::Spec {
    built_for(host, spec, mounts, None)
}

fn built_for(
    host: &HostFacts,
    spec: &ContainerSpec,
    mounts: &[MountPoint],
    users: Option<&IdMaps>,
) -> oci_spec::runtime::Spec {
    let effective = Effective {
        command: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        env: vec!["A=1".to_owned()],
        hostname: "abababababab".to_owned(),
        ..Effective::default()
    };
    let files = HostFiles {
        hosts: PathBuf::from("/c/hosts"),
        hostname: PathBuf::from("/c/hostname"),
        resolv_conf: PathBuf::from("/c/resolv.conf"),
    };
    let input = Input {
        id: &ContainerId::from_random([0xab; 32]),
        spec,
        effective: &effective,
        mounts,
        files: &files,
        net: Net::Joined,
        host,
        pid_of: None,
        ipc_of: None,
        ipc: &IpcMode::Private,
        capabilities: Capabilities::DOCKER_DEFAULT,
        users,
        is_directory: &|_| true,
        layers: &|layers| layers.iter().map(|id| PathBuf::from(format!("/{id}"))).collect(),
    };
    build(&input).unwrap()
}

fn point(target: &str, writable: bool, propagation: Option<Propagation>) -> MountPoint {
    MountPoint {
        kind: MountPointKind::Bind,
        name: None,
        source: PathBuf::from("/src"),
        target: target.to_owned(),
        driver: String::new(),
        mode: String::new(),
        writable,
        propagation,
        anonymous: false,
        subpath: None,
        layers: Vec::new(),
        image: String::new(),
        idmap: None,
    }
}

#[test]
fn a_plain_container() {
    let mut spec = serde_json::to_value(built(&ContainerSpec::default(), &[])).unwrap();
    for set in ["bounding", "effective", "permitted"] {
        // The type keeps them as a set without an order.
        let names = spec["process"]["capabilities"][set].as_array_mut().unwrap();
        names.sort_by_key(ToString::to_string);
    }
    spec["linux"]["sysctl"].sort_all_objects();
    insta::assert_snapshot!(serde_json::to_string_pretty(&spec).unwrap());
}

#[test]
fn mounts_go_parents_first_and_replace_defaults() {
    let mounts = [
        point("/a/b", false, None),
        point("/a", true, Some(Propagation::Rslave)),
        point("/dev/shm", true, None),
    ];
    let spec = built(&ContainerSpec::default(), &mounts);
    let all = spec.mounts().as_ref().unwrap();
    let targets: Vec<_> =
        all.iter().map(|mount| mount.destination().display().to_string()).collect();
    assert_eq!(targets.iter().filter(|target| *target == "/dev/shm").count(), 1);
    let at = |wanted: &str| targets.iter().position(|target| target == wanted).unwrap();
    assert!(at("/a") < at("/a/b"));
    let options = all[at("/a/b")].options().clone().unwrap();
    assert_eq!(options, ["rbind", "ro", "rro", "rprivate"]);
    assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some("rslave"));
}

#[test]
fn init_wraps_the_command() {
    let mut spec = ContainerSpec::default();
    spec.process.init = Some(true);
    let built = built(&spec, &[]);
    let args = built.process().as_ref().unwrap().args().clone().unwrap();
    assert_eq!(args, ["/sbin/docker-init", "--", "sh", "-c", "true"]);
    let bound = built
        .mounts()
        .as_ref()
        .unwrap()
        .iter()
        .any(|mount| mount.destination() == &PathBuf::from("/sbin/docker-init"));
    assert!(bound);
}

#[test]
fn limits() {
    let mut spec = ContainerSpec::default();
    spec.resources.memory = Some(64 << 20);
    spec.resources.nano_cpus = Some(1_500_000_000);
    spec.resources.pids = Some(0);
    spec.resources.cgroup_parent = Some("/mine/".to_owned());
    let built = built(&spec, &[]);
    let linux = serde_json::to_value(built.linux()).unwrap();
    assert_eq!(linux["cgroupsPath"], format!("/mine/{}", "ab".repeat(32)));
    assert_eq!(linux["resources"]["memory"]["swap"], 128 << 20);
    assert_eq!(linux["resources"]["cpu"]["quota"], 150_000);
    assert_eq!(linux["resources"]["pids"]["limit"], -1);
}

#[test]
fn systemd_makes_scopes() {
    let host = HostFacts {
        cgroup_driver: CgroupDriver::Systemd,
        cgroup_parent: "system.slice".to_owned(),
        ..facts()
    };
    let id = "ab".repeat(32);
    let mut spec = ContainerSpec::default();
    for (own, path) in [
        (None, format!("system.slice:rorqual:{id}")),
        (Some("a-b.slice"), format!("a-b.slice:rorqual:{id}")),
    ] {
        spec.resources.cgroup_parent = own.map(str::to_owned);
        let linux = serde_json::to_value(built_on(&host, &spec, &[]).linux()).unwrap();
        assert_eq!(linux["cgroupsPath"], path);
    }
}

#[test]
fn cgroup_namespaces() {
    use crate::spec::Ownership::{Host, Private};
    for (unified, privileged, default, own, expected) in [
        (false, false, None, None, false),
        (true, false, None, None, true),
        (true, true, None, None, true),
        (false, true, Some(Private), None, false),
        (false, false, Some(Private), None, true),
        (true, false, Some(Host), None, false),
        (true, true, Some(Private), Some(Host), false),
        (false, true, None, Some(Private), true),
    ] {
        let host = HostFacts { cgroup_unified: unified, cgroup_namespace: default, ..facts() };
        let mut spec = ContainerSpec::default();
        spec.security.privileged = privileged;
        spec.namespaces.cgroup = own;
        let linux = serde_json::to_value(built_on(&host, &spec, &[]).linux()).unwrap();
        let namespaces = linux["namespaces"].as_array().unwrap();
        let found = namespaces.iter().any(|one| one["type"] == "cgroup");
        assert_eq!(found, expected, "{unified} {privileged} {default:?} {own:?}");
    }
}

#[test]
fn profiles_of_apparmor() {
    let host = HostFacts { default_profile: Some("docker-default"), ..facts() };
    for (options, privileged, expected) in [
        (&[][..], false, "docker-default"),
        (&[], true, "unconfined"),
        (&["apparmor=mine"], false, "mine"),
        (&["apparmor:mine"], true, "mine"),
        (&["apparmor=mine", "label=disable", "apparmor=unconfined"], false, "unconfined"),
        (&["apparmor="], false, "docker-default"),
    ] {
        let mut spec = ContainerSpec::default();
        spec.security.options = options.iter().map(|option| (*option).to_owned()).collect();
        spec.security.privileged = privileged;
        let profile = |host: &HostFacts| {
            let built = built_on(host, &spec, &[]);
            built.process().as_ref().unwrap().apparmor_profile().clone()
        };
        assert_eq!(profile(&host).as_deref(), Some(expected), "{options:?}");
        assert_eq!(profile(&facts()), None, "{options:?}");
    }
}

#[test]
fn privileged_hides_nothing() {
    let mut spec = ContainerSpec::default();
    spec.security.privileged = true;
    let linux = serde_json::to_value(built(&spec, &[]).linux()).unwrap();
    assert!(linux.get("maskedPaths").is_none_or(serde_json::Value::is_null));
    assert_eq!(linux["resources"]["devices"][0]["allow"], true);
}

#[test]
fn tmpfs_words_of_the_user_win() {
    let options =
        TmpfsOptions { size: Some(4096), mode: Some(0o700), options: vec!["exec".to_owned()] };
    assert_eq!(
        super::mounts::tmpfs_options(&options, false),
        ["nosuid", "nodev", "rprivate", "exec", "size=4096", "mode=700", "ro"]
    );
}

#[test]
fn remapped_users() {
    let map = IdMap::parse("0 100000 65536").unwrap();
    let maps = IdMaps { users: map.clone(), groups: map };
    let volume = MountPoint {
        kind: MountPointKind::Volume,
        name: Some("data".parse().unwrap()),
        ..point("/data", true, None)
    };
    let mounts = [volume, point("/host", true, None)];
    let options = |users: Option<&IdMaps>, target: &str| {
        let spec = built_for(&facts(), &ContainerSpec::default(), &mounts, users);
        let all = spec.mounts().clone().unwrap();
        let mount = all.iter().find(|mount| mount.destination() == &PathBuf::from(target));
        mount.unwrap().options().clone().unwrap()
    };
    let idmap = "idmap".to_owned();
    let caller = crate::spec::IdMap { container: Some((1, 2)), host: (1000, 1000) };
    let shared = MountPoint { idmap: Some(caller), ..point("/caller", true, None) };
    let spec = built_for(&facts(), &ContainerSpec::default(), &[shared], Some(&maps));
    let all = serde_json::to_value(spec.mounts()).unwrap();
    let mount = all.as_array().unwrap().iter().find(|mount| mount["destination"] == "/caller");
    let mount = mount.unwrap();
    let line = serde_json::json!({ "containerID": 1000, "hostID": 100_001, "size": 1 });
    assert!(mount["uidMappings"].as_array().unwrap().contains(&line), "{mount}");
    for (target, mapped) in [("/data", true), ("/etc/hosts", true), ("/host", false)] {
        assert_eq!(options(Some(&maps), target).contains(&idmap), mapped, "{target}");
        assert!(!options(None, target).contains(&idmap), "{target}");
    }
    let spec = built_for(&facts(), &ContainerSpec::default(), &[], Some(&maps));
    let linux = serde_json::to_value(spec.linux()).unwrap();
    let expected = serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    assert_eq!((&linux["uidMappings"], &linux["gidMappings"]), (&expected, &expected));
    assert_eq!(linux["sysctl"]["net.ipv4.ping_group_range"], "0 65535");
    let namespaces = linux["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&serde_json::json!({ "type": "user" })));
}

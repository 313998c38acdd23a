use super::*;

fn spec(json: &str) -> Spec {
    serde_json::from_str(json).unwrap()
}

fn plan(spec: &Spec) -> Result<InitPlan, Error> {
    let rootfs = RootfsPlan::Directory { path: "/rootfs".into() };
    let facts = Facts { barrier: true, ..Facts::default() };
    init_plan(&PlanInput {
        bundle: Path::new("/bundle"),
        spec,
        rootfs: &rootfs,
        user: &ProcessUser::Spec,
        facts: &facts,
    })
}

const SMALL: &str = r#"{
    "ociVersion": "1.2.0",
    "process": {"args": ["true"], "cwd": "/", "user": {"uid": 1, "gid": 2}, "noNewPrivileges": true},
    "root": {"path": "rootfs", "readonly": true},
    "hostname": "name",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro", "rslave"]}
    ],
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "network"},
                       {"type": "ipc", "path": "/proc/1/ns/ipc"}],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"]
    }
}"#;

#[test]
fn plans_a_small_container() {
    insta::assert_snapshot!(plan(&spec(SMALL)).unwrap().to_string());
}

fn refused(from: &str, to: &str, expected: &str) {
    assert!(SMALL.contains(from));
    let error = plan(&spec(&SMALL.replace(from, to))).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn refuses_what_cannot_work() {
    refused(
        "net.ipv4.ip_forward",
        "kernel.panic",
        r#"invalid specification: sysctl "kernel.panic" is not in a separate kernel namespace"#,
    );
    refused(
        r#"{"type": "network"},"#,
        "",
        r#"invalid specification: sysctl "net.ipv4.ip_forward" not allowed in host namespace"#,
    );
    refused(
        r#""cwd": "/""#,
        r#""cwd": "tmp""#,
        r#"invalid specification: process.cwd "tmp" must be an absolute path"#,
    );
    let twice = r#"{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}"#;
    refused(
        r#""cwd": "/""#,
        &format!(r#""cwd": "/", "rlimits": [{twice}, {twice}]"#),
        "invalid specification: process.rlimits has RLIMIT_CORE twice",
    );
    refused(
        r#""hostname": "name""#,
        r#""hooks": {"poststop": [{"path": "/bin/true", "timeout": 0}]}"#,
        r#"invalid specification: hook "/bin/true" must have a timeout greater than zero, or none"#,
    );
    refused(
        r#""hostname": "name""#,
        r#""hooks": {"prestart": [{"path": "true"}]}"#,
        r#"invalid specification: hook "true" must be an absolute path"#,
    );
    refused(
        r#""maskedPaths""#,
        r#""devices": [{"path": "/dev/x", "type": "a", "major": 1, "minor": 1}], "maskedPaths""#,
        r#"invalid specification: device "/dev/x" needs the type b, c, u or p"#,
    );
    refused(
        r#""maskedPaths""#,
        r#""netDevices": {"eth7": {"name": "a/b"}}, "maskedPaths""#,
        r#"invalid specification: netDevices: "eth7" to "a/b" is not a pair of device names"#,
    );
    refused(r#"["true"]"#, "[]", "invalid specification: process.args must not be empty");
    refused(
        r#"{"type": "uts"}"#,
        r#"{"type": "pid"}"#,
        "invalid specification: namespace pid is listed twice",
    );
    refused(
        "net.ipv4.ip_forward",
        "net/../kernel/panic",
        r#"invalid specification: sysctl "net/../kernel/panic" not allowed in host namespace"#,
    );
}

#[test]
fn id_maps_come_first_where_the_parent_has_no_rights() {
    let spec = spec(&SMALL.replace(r#"{"type": "pid"}"#, r#"{"type": "user"}"#));
    let rootfs = RootfsPlan::Directory { path: "/rootfs".into() };
    let (user, bundle) = (ProcessUser::Spec, Path::new("/bundle"));
    let first = |unprivileged| {
        let facts = Facts { unprivileged, ..Facts::default() };
        let (spec, rootfs, user, facts) = (&spec, &rootfs, &user, &facts);
        let plan = init_plan(&PlanInput { bundle, spec, rootfs, user, facts }).unwrap();
        assert!(plan.steps.contains(&Step::AwaitIdMaps));
        plan.steps[..2].to_vec()
    };
    assert_eq!(first(true), [Step::AwaitIdMaps, Step::ForbidDumping]);
    assert_eq!(first(false)[0], Step::ForbidDumping);
}

#[test]
fn a_shared_mount_namespace_keeps_its_root() {
    let text = plan(&spec(&SMALL.replace(r#"{"type": "mount"},"#, ""))).unwrap().to_string();
    assert!(!text.contains("isolate") && !text.to_lowercase().contains("pivot"), "{text}");
    assert!(text.contains("root from source") && text.contains(" at /"), "{text}");
}

#[test]
fn misplaced_mount_options_are_refused_or_told() {
    let bind = r#"["rbind", "ro", "rslave"]"#;
    refused(
        r#"{"destination": "/proc", "type": "proc", "source": "proc"}"#,
        r#"{"destination": "/proc", "type": "proc", "options": ["idmap"]}"#,
        r#"invalid specification: mount on "/proc": ids can only be mapped for bind mounts"#,
    );
    refused(
        r#"{"destination": "/proc", "type": "proc", "source": "proc"}"#,
        r#"{"destination": "/proc", "type": "proc", "options": ["tmpcopyup"]}"#,
        r#"invalid specification: mount on "/proc": tmpcopyup is only for tmpfs"#,
    );
    let told = plan(&spec(&SMALL.replace(bind, r#"["rbind", "sync", "size=3"]"#))).unwrap();
    assert_eq!(told.warnings, [r#"bind mount on "/data": no effect of options size=3, sync"#]);
}

#[test]
fn a_remount_changes_mount_and_file_system() {
    let steps = |options: &str| -> Vec<String> {
        let mount = format!(r#"{{"destination": "/proc", "type": "proc", "options": {options}}}"#);
        let old = r#"{"destination": "/proc", "type": "proc", "source": "proc"}"#;
        let text = plan(&spec(&SMALL.replace(old, &mount))).unwrap().to_string();
        let about = |line: &&str| line.starts_with("Remount") || line.starts_with("Reconfigure");
        text.lines().filter(about).map(|line| line[..6].to_owned()).collect()
    };
    assert_eq!(steps(r#"["remount", "nosuid", "hidepid=2"]"#), ["Remoun", "Reconf"]);
    assert_eq!(steps(r#"["remount", "bind", "nosuid", "hidepid=2"]"#), ["Remoun"]);
    assert_eq!(steps(r#"["remount", "hidepid=2"]"#), ["Reconf"]);
}

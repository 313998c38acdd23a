use super::*;

fn spec(json: &str) -> Spec {
    serde_json::from_str(json).unwrap()
}

fn plan(spec: &Spec) -> Result<InitPlan, Error> {
    let rootfs = RootfsPlan::Directory { path: "/rootfs".into() };
    let facts = Facts { barrier: true, ..Facts::default() };
    init_plan(&PlanInput {
        id: "one",
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
fn a_shared_mount_namespace_keeps_its_root() {
    let text = plan(&spec(&SMALL.replace(r#"{"type": "mount"},"#, ""))).unwrap().to_string();
    assert!(!text.contains("isolate") && !text.to_lowercase().contains("pivot"), "{text}");
    assert!(text.contains("root from source") && text.contains(" at /"), "{text}");
}

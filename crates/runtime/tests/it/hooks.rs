//! Hooks of every kind, in their order, by the command line and by the library.

use std::os::fd::AsFd;

use rorqual_core::mount::RootfsPlan;
use rorqual_runtime::{Barrier, ContainerRequest, ProcessUser, Stdio};
use rorqual_sys::cgroup::Cgroup;
use rorqual_sys::process;
use serde_json::{Value, json};

use crate::{Host, Test, stderr};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("hooks_run_in_order", hooks_run_in_order), ("hooks_of_the_library", hooks_of_the_library)];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Has every kind of hook write its name and the status that it is told; the first of those that come late fails.
fn all_kinds(host: &Host, spec: &mut Value) {
    let outside = host.path("rootfs/order").display().to_string();
    let write = |kind: &str| {
        let file = if kind == "startContainer" { "/order" } else { &outside };
        let script = format!(
            "read state; case $state in *running*) s=running;; *stopped*) s=stopped;; *) s=before;; esac; \
             echo {kind} $s >> {file}"
        );
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    };
    for kind in KINDS {
        let mut list = vec![write(kind)];
        if matches!(kind, "poststart" | "poststop") {
            list.insert(0, json!({"path": "/bin/false"}));
        }
        spec["hooks"][kind] = json!(list);
    }
    spec["root"]["readonly"] = json!(false);
}

fn order(host: &Host) -> String {
    std::fs::read_to_string(host.path("rootfs/order")).unwrap_or_default()
}

const BEFORE: &str =
    "prestart before\ncreateRuntime before\ncreateContainer before\nstartContainer before\n";

fn hooks_run_in_order(host: &Host) {
    host.spec(&["sleep", "0.3"], |spec| all_kinds(host, spec));
    let output = host.run();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(order(host), format!("{BEFORE}poststart running\npoststop stopped\n"));
    for kind in ["poststart", "poststop"] {
        let warning = format!("error running {kind} hook #0");
        assert!(stderr(&output).contains(&warning), "{output:?}");
    }
}

fn hooks_of_the_library(host: &Host) {
    host.spec(&["sleep", "100"], |spec| all_kinds(host, spec));
    let text = std::fs::read(host.path("config.json")).unwrap();
    for barrier in [Barrier::Pass, Barrier::Wait] {
        let _ = std::fs::remove_file(host.path("rootfs/order"));
        let spec: oci_spec::runtime::Spec = serde_json::from_slice(&text).unwrap();
        let pipe =
            || std::fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
        let request = ContainerRequest {
            id: host.id.clone(),
            bundle: host.path(""),
            spec: spec.clone(),
            rootfs: RootfsPlan::Directory { path: host.path("rootfs") },
            joined: Vec::new(),
            stdio: Stdio::Pipes([pipe(), pipe(), pipe()]),
            user: ProcessUser::Spec,
            barrier,
            filter: None,
        };
        let mut created = rorqual_runtime::create(request).unwrap();
        if barrier == Barrier::Wait {
            assert!(!order(host).contains("start running"), "{}", order(host));
            created.start().unwrap();
        }
        assert_eq!(order(host), format!("{BEFORE}poststart running\n"));
        let told = created.warnings.iter().any(|text| text.contains("poststart hook #0"));
        assert!(told, "{:?}", created.warnings);
        process::pidfd_send_signal(created.pidfd.as_fd(), 9).unwrap();
        process::wait_pidfd(created.pidfd.as_fd()).unwrap();
        Cgroup::open(&created.cgroup).unwrap().delete().unwrap();
        let warnings = rorqual_runtime::deleted(&host.id, host.path(""), &spec);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(order(host).ends_with("poststop stopped\n"), "{}", order(host));
    }
}

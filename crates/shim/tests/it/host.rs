//! A run directory and a busybox root of their own, gone at the end.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oci_spec::runtime::Spec;
use rorqual_core::ContainerId;
use rorqual_core::mount::RootfsPlan;
use rorqual_shim::log::{FileLog, LogTarget};
use rorqual_shim::{Launch, Shims, ShimsOptions, TaskId, WindowSize};

/// What a test needs of the host.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        let bin = host.rootfs().join("bin");
        for name in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(host.rootfs().join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in [
            "sh", "true", "false", "echo", "cat", "sleep", "head", "stty", "yes", "dd", "kill",
            "printf", "seq",
        ] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        host
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// A daemon's view of the shims; several may follow each other over one host.
    pub(crate) async fn shims(&self) -> Arc<Shims> {
        let built = || env!("CARGO_BIN_EXE_rorqual-shim-host").into();
        let binary =
            Some(PathBuf::from(std::env::var_os("RORQUAL_SHIM_HOST").unwrap_or_else(built)));
        Shims::start(ShimsOptions { run_dir: self.run_dir(), binary }).await.unwrap()
    }

    pub(crate) fn launch(&self, args: &[&str]) -> Launch {
        launch(self.dir.path(), &self.rootfs(), args)
    }
}

impl Drop for Host {
    /// Ends what a failed test left running.
    fn drop(&mut self) {
        let Ok(shims) = std::fs::read_dir(self.run_dir().join("shims")) else { return };
        for shim in shims.flatten() {
            let record = std::fs::read(shim.path().join("task")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
            let pid =
                record["pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
            if let Some(pid) = pid.filter(|_| !shim.path().join("exit").exists()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

pub(crate) fn fresh_container() -> ContainerId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bits = [0; 32];
    bits[..4].copy_from_slice(&std::process::id().to_be_bytes());
    bits[4..12].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    ContainerId::from_random(bits)
}

pub(crate) fn launch(dir: &Path, rootfs: &Path, args: &[&str]) -> Launch {
    let container = fresh_container();
    Launch {
        container,
        task: TaskId(7),
        spec: spec(container, args, false),
        seccomp: None,
        rootfs: RootfsPlan::Directory { path: rootfs.to_owned() },
        user: String::new(),
        groups: Vec::new(),
        namespaces: Vec::new(),
        open_stdin: false,
        stdin_once: false,
        window: WindowSize::default(),
        log: LogTarget::JsonFile(FileLog {
            path: dir.join(format!("{container}.log")),
            max_size: None,
            max_files: 1,
            compress: false,
            attrs: std::collections::BTreeMap::new(),
        }),
        attachments: Vec::new(),
    }
}

pub(crate) fn spec(container: ContainerId, args: &[&str], terminal: bool) -> Spec {
    let capabilities = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN"];
    let document = serde_json::json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {
            "cgroupsPath": format!("/rorqual-shim-test-{container}"),
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
            ],
        },
    });
    serde_json::from_value(document).unwrap()
}

//! Starts real containers through the command line. Needs root and `/bin/busybox`; says so and passes without them.
//!
//! No test harness: the runtime duplicates its process and must be alone in it. Called with `runtime` as first argument
//! this program is the runtime itself.
#![expect(clippy::print_stderr, reason = "a test program of its own")]
#![expect(clippy::unwrap_used, reason = "a test program of its own")]

mod hooks;
mod listener;
mod options;
mod security;

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use serde_json::{Value, json};

const APPLETS: [&str; 14] = [
    "sh", "ls", "cat", "id", "true", "sleep", "hostname", "grep", "echo", "test", "wc", "readlink",
    "stat", "touch",
];

fn main() -> ExitCode {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new("runtime")) {
        return rorqual_runtime::cli::main(std::env::args_os().skip(1));
    }
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new("attack")) {
        return security::attack();
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: needs root and a static /bin/busybox");
        return ExitCode::SUCCESS;
    }
    let own: [(&str, Test); 11] = [
        ("runs_and_exits", runs_and_exits),
        ("waits_for_start", waits_for_start),
        ("explains_failures", explains_failures),
        ("leaks_no_descriptor", leaks_no_descriptor),
        ("execs", execs),
        ("lists_mounts_in_order", lists_mounts_in_order),
        ("shares_a_mount_namespace", shares_a_mount_namespace),
        ("maps_users", maps_users),
        ("contains_hostile_links", contains_hostile_links),
        ("filters_calls", filters_calls),
        ("starts_often", starts_often),
    ];
    let filter = std::env::args().nth(1).unwrap_or_default();
    let others =
        hooks::TESTS.iter().chain(listener::TESTS).chain(options::TESTS).chain(security::TESTS);
    for (name, test) in own.iter().chain(others).filter(|(name, _)| name.contains(&filter)) {
        eprintln!("test {name} ...");
        test(&Host::new());
    }
    eprintln!("all ok");
    ExitCode::SUCCESS
}

type Test = fn(&Host);

/// A bundle and a state directory of its own, removed with all containers at the end.
struct Host {
    directory: tempfile::TempDir,
    id: String,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let id = format!(
            "rt-it-{}",
            directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.')
        );
        let bin = directory.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(directory.path().join("rootfs/etc")).unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        Self { directory, id }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the specification for `args`, changed by `change`.
    fn spec(&self, args: &[&str], change: impl FnOnce(&mut Value)) {
        let _ = std::fs::remove_file(self.path("config.json"));
        let output = self.call(&["spec", "--bundle", self.directory.path().to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read(self.path("config.json")).unwrap();
        let mut spec: Value = serde_json::from_slice(&text).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        change(&mut spec);
        std::fs::write(self.path("config.json"), spec.to_string()).unwrap();
    }

    fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("runtime").arg("--root").arg(self.path("state")).args(args);
        command.current_dir(self.directory.path());
        command
    }

    fn run(&self) -> Output {
        self.call(&["run", &self.id])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.call(&["delete", "--force", &self.id]);
        let left = std::fs::read_dir(self.path("state")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "state left behind");
        assert!(!Path::new("/sys/fs/cgroup/pids").join(&self.id).exists(), "cgroup left behind");
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn runs_and_exits(host: &Host) {
    host.spec(&["sh", "-c", "hostname; id; exit 7"], |_| {});
    let output = host.run();
    assert_eq!(stdout(&output), "container\nuid=0 gid=0\n", "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(7));
}

fn waits_for_start(host: &Host) {
    host.spec(&["sleep", "1000"], |_| {});
    let status = |expected: &str| {
        let document: Value =
            serde_json::from_slice(&host.call(&["state", &host.id]).stdout).unwrap();
        assert_eq!(document["status"], expected);
    };
    // Nothing may hold the pipes of this call open: the container outlives it.
    let created = host
        .command(&["create", &host.id])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(created.success());
    status("created");
    assert!(!host.call(&["create", &host.id]).status.success());
    assert!(host.call(&["start", &host.id]).status.success());
    status("running");
    assert!(!host.call(&["start", &host.id]).status.success());
    assert!(host.call(&["pause", &host.id]).status.success());
    status("paused");
    assert!(host.call(&["resume", &host.id]).status.success());
    assert!(!host.call(&["delete", &host.id]).status.success());
    assert!(host.call(&["delete", "--force", &host.id]).status.success());
    assert!(!host.call(&["state", &host.id]).status.success());
}

fn explains_failures(host: &Host) {
    let cases = [
        ("nosuch", r#"exec: "nosuch": executable file not found in $PATH"#),
        ("/nosuch", r#"exec: "/nosuch": stat /nosuch: no such file or directory"#),
        ("/bin", r#"exec: "/bin": is a directory"#),
    ];
    for (program, expected) in cases {
        host.spec(&[program], |_| {});
        let output = host.run();
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output).replace("\\\"", "\"");
        assert!(text.contains(expected), "{text}");
    }
}

fn leaks_no_descriptor(host: &Host) {
    host.spec(&["ls", "/proc/self/fd"], |_| {});
    let file = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let output = host.run();
    // The last one is the directory that `ls` itself reads.
    assert_eq!(stdout(&output), "0\n1\n2\n3\n");
}

fn execs(host: &Host) {
    host.spec(&["sleep", "1000"], |_| {});
    let null = std::process::Stdio::null;
    let run = host.command(&["run", "-d", &host.id]).stdout(null()).stderr(null()).status();
    assert!(run.unwrap().success());
    let output =
        host.call(&["exec", &host.id, "sh", "-c", "hostname; readlink /proc/1/exe; exit 9"]);
    assert_eq!(stdout(&output), "container\n/bin/busybox\n");
    assert_eq!(output.status.code(), Some(9));
    let output = host.call(&["exec", "--cwd", "/none", &host.id, "id"]);
    assert_eq!(output.status.code(), Some(255));
    let text = stderr(&output).replace("\\\"", "\"");
    assert!(
        text.contains(
            r#"chdir to cwd ("/none") set in config.json failed: no such file or directory"#
        ),
        "{text}"
    );
    let output = host.call(&["exec", &host.id, "ls", "/proc/self/fd"]);
    assert_eq!(stdout(&output), "0\n1\n2\n3\n");
}

fn lists_mounts_in_order(host: &Host) {
    host.spec(&["cat", "/proc/self/mountinfo"], |spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let bind = json!({"source": "rootfs/etc", "type": "bind", "options": ["rbind"]});
        for (name, bound) in [("/m/1", true), ("/m/2", false), ("/m/3", true), ("/m/4", false)] {
            let tmpfs = json!({"source": "tmpfs", "type": "tmpfs"});
            let mut mount = if bound { bind.clone() } else { tmpfs };
            mount["destination"] = json!(name);
            mounts.push(mount);
        }
    });
    let output = stdout(&host.run());
    let points = output.lines().filter_map(|line| line.split(' ').nth(4));
    let points: Vec<_> = points.filter(|point| point.starts_with("/m/")).collect();
    assert_eq!(points, ["/m/1", "/m/2", "/m/3", "/m/4"], "{output}");
}

fn shares_a_mount_namespace(host: &Host) {
    let table = || {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(host.path("rootfs").to_str().unwrap())).count()
    };
    std::fs::write(host.path("rootfs/etc/marker"), "inside").unwrap();
    host.spec(&["sleep", "1000"], |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "mount");
    });
    let null = std::process::Stdio::null;
    let run = host.command(&["run", "-d", &host.id]).stdout(null()).stderr(null()).status();
    assert!(run.unwrap().success());
    assert!(table() > 0);
    let script = "cat /etc/marker; ls -d /boot 2>/dev/null";
    let output = host.call(&["exec", &host.id, "sh", "-c", script]);
    assert_eq!(stdout(&output), "inside", "{output:?}");
    assert!(host.call(&["delete", "--force", &host.id]).status.success());
    assert_eq!(table(), 0, "mounts left behind");
}

fn maps_users(host: &Host) {
    // The container's root makes mount points, so the directory must be his.
    std::os::unix::fs::chown(host.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    host.spec(&["sh", "-c", "id; cat /proc/self/uid_map; echo x >/dev/null"], |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for key in ["uidMappings", "gidMappings"] {
            spec["linux"][key] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
    });
    let output = host.run();
    let words: Vec<String> = stdout(&output).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words.join(" "), "uid=0 gid=0 0 100000 65536", "{}", stderr(&output));
}

fn contains_hostile_links(host: &Host) {
    let outside = host.path("outside");
    std::fs::create_dir(&outside).unwrap();
    host.spec(&["true"], |spec| spec["root"]["readonly"] = json!(false));
    let root = host.path("rootfs");
    let untouched = || assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);

    symlink(&outside, root.join("dev")).unwrap();
    assert!(host.run().status.success());
    untouched();
    std::fs::remove_file(root.join("dev")).unwrap();

    std::fs::remove_dir_all(root.join("proc")).unwrap();
    for target in [outside.as_path(), Path::new("/"), Path::new("../../../..")] {
        symlink(target, root.join("proc")).unwrap();
        let output = host.run();
        assert!(stderr(&output).contains("must be mounted on ordinary directory"), "{output:?}");
        untouched();
        std::fs::remove_file(root.join("proc")).unwrap();
    }
}

fn filters_calls(host: &Host) {
    host.spec(&["hostname"], |spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
    });
    let output = host.run();
    assert!(!stdout(&output).contains("container"), "{output:?}");
}

fn starts_often(host: &Host) {
    let count = std::env::var("RORQUAL_STRESS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    host.spec(&["true"], |_| {});
    for _ in 0..count {
        let output = host.run();
        assert!(output.status.success(), "{output:?}");
    }
}

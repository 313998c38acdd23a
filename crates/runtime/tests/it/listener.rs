//! System calls handed to an agent, and what the command line tells.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

use super::{Host, Test, stderr, stdout};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("hands_calls_to_an_agent", hands_calls_to_an_agent),
    ("needs_the_agent", needs_the_agent),
    ("logs_what_was_asked_for", logs_what_was_asked_for),
    ("refuses_checkpoints", refuses_checkpoints),
    ("runs_without_rights", runs_without_rights),
];

fn notify(host: &Host, args: &[&str]) {
    host.spec(args, |spec| {
        spec["annotations"] = json!({"a": "b"});
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": host.path("agent"),
            "listenerMetadata": "told",
            "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_NOTIFY"}],
        });
    });
}

/// Takes one connection; returns what was told and what the descriptor is. Closing it fails the calls with ENOSYS.
fn serve(listener: &UnixListener) -> (Value, String) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut text, fd) = receive(&stream);
    stream.read_to_string(&mut text).unwrap();
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    (serde_json::from_str(&text).unwrap(), link.to_str().unwrap().to_owned())
}

fn receive(stream: &UnixStream) -> (String, OwnedFd) {
    let mut bytes = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let length = rustix::net::recvmsg(stream, &mut data, &mut control, flags).unwrap().bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (String::from_utf8(bytes[..length].to_vec()).unwrap(), fd.unwrap())
}

fn hands_calls_to_an_agent(host: &Host) {
    let listener = UnixListener::bind(host.path("agent")).unwrap();
    notify(host, &["sh", "-c", "hostname; sleep 1000"]);
    let null = std::process::Stdio::null;
    let create = host.command(&["create", &host.id]).stdout(null()).stderr(null()).status();
    assert!(create.unwrap().success());
    let agent = std::thread::spawn(move || {
        let started = serve(&listener);
        (started, serve(&listener))
    });
    assert!(host.call(&["start", &host.id]).status.success());
    let output = host.call(&["exec", &host.id, "hostname"]);
    assert!(!stdout(&output).contains("container"), "{output:?}");

    let ((init, link), (exec, _)) = agent.join().unwrap();
    assert_eq!(link, "anon_inode:seccomp notify");
    assert_eq!(init["fds"], json!(["seccompFd"]));
    assert_eq!(init["metadata"], "told");
    assert_eq!(init["state"]["id"], json!(host.id));
    assert_eq!(init["state"]["status"], "created");
    assert_eq!(init["state"]["annotations"], json!({"a": "b"}));
    assert_eq!(init["pid"], init["state"]["pid"]);
    assert_eq!(exec["state"]["status"], "running");
    assert_eq!(exec["state"]["pid"], init["pid"]);
    assert_ne!(exec["pid"], init["pid"]);
}

fn needs_the_agent(host: &Host) {
    notify(host, &["true"]);
    let text = stderr(&host.run());
    assert!(text.contains("cannot hand the seccomp listener to"), "{text}");
    host.spec(&["true"], |spec| {
        spec["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"});
    });
    let text = stderr(&host.run());
    assert!(text.contains("listenerMetadata is for an agent"), "{text}");
}

fn logs_what_was_asked_for(host: &Host) {
    host.spec(&["true"], |_| {});
    let log = host.path("log");
    let at = log.to_str().unwrap();
    let run = |debug: bool| {
        let mut args = vec!["--log", at, "--log-format", "json", "run", &host.id];
        if debug {
            args.insert(0, "--debug");
        }
        assert!(host.call(&args).status.success());
        let text = std::fs::read_to_string(&log).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["level"] == "debug").collect::<Vec<_>>()
    };
    assert!(run(false).is_empty());
    let said = run(true);
    for expected in ["control group:", "plan of init:", "Execute", "init is process "] {
        let has = |line: &Value| line["msg"].as_str().unwrap().starts_with(expected);
        assert!(said.iter().any(has), "{expected}: {said:?}");
    }
    let output = host.call(&["--criu", "/bin/criu", "run", &host.id]);
    assert!(stderr(&output).contains("--criu is without effect"), "{output:?}");
    let output = host.call(&["--log", "/nowhere/log", "list"]);
    assert!(stderr(&output).contains("cannot open the log file"), "{output:?}");
}

fn refuses_checkpoints(host: &Host) {
    for command in ["checkpoint", "restore"] {
        let output = host.call(&[command, "--image-path", "/tmp/x", &host.id]);
        assert!(stderr(&output).contains(&format!("{command} is not supported")), "{output:?}");
        assert_eq!(output.status.code(), Some(1));
    }
}

/// A user without any right, in a user namespace of his own.
fn runs_without_rights(host: &Host) {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(host.directory.path(), open).unwrap();
    let state = host.path("own-state");
    std::fs::create_dir(&state).unwrap();
    for path in [&state, &host.path("rootfs")] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    let program = host.path("runtime");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let call = |flag: &str, args: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(["runtime", "--rootless", flag, "--root"]).arg(&state).args(args);
        command.uid(65534).gid(65534).current_dir(host.directory.path()).output().unwrap()
    };
    host.spec(&["sh", "-c", "id; cat /proc/self/uid_map"], |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for key in ["uidMappings", "gidMappings"] {
            spec["linux"][key] = json!([{"containerID": 0, "hostID": 65534, "size": 1}]);
        }
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        let pts = mounts.iter_mut().find(|mount| mount["destination"] == "/dev/pts").unwrap();
        pts["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
    });
    let output = call("auto", &["run", &host.id]);
    let text = stdout(&output);
    assert!(text.starts_with("uid=0 gid=0"), "{output:?}");
    let map: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(map, ["0", "65534", "1"]);
    assert!(stderr(&output).contains("the container has no control group"), "{output:?}");
    let output = call("false", &["run", &host.id]);
    assert!(stderr(&output).contains("unable to apply cgroup configuration"), "{output:?}");
}

//! Ways out of a container that other runtimes had, each tried.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Host, Test, stderr, stdout};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("own_program_stays_whole", own_program_stays_whole),
    ("no_way_out_by_descriptors", no_way_out_by_descriptors),
    ("masks_with_the_host_s_null", masks_with_the_host_s_null),
    ("masks_while_null_changes", masks_while_null_changes),
    ("console_stays_out_of_proc", console_stays_out_of_proc),
    ("nothing_is_mounted_inside_proc", nothing_is_mounted_inside_proc),
    ("mount_points_stay_inside", mount_points_stay_inside),
    ("labels_are_not_passed_over", labels_are_not_passed_over),
    ("odd_user_files_do_not_hold_up", odd_user_files_do_not_hold_up),
];

/// LIMIT: rounds against a race; each is a start of a container.
const ROUNDS: usize = 25;

/// Inside of a container, executed as the runtime's own program: keeps its file open while becoming something else, so that
/// the file is not busy any more, and writes to it.
pub(crate) fn attack() -> ExitCode {
    let flags = rustix::fs::OFlags::PATH;
    let own = rustix::fs::open("/proc/self/exe", flags, rustix::fs::Mode::empty()).unwrap();
    let script = format!("echo evil >/proc/self/fd/{}; echo tried", own.as_raw_fd());
    let error = std::os::unix::process::CommandExt::exec(
        Command::new("/bin/busybox").args(["sh", "-c", &script]),
    );
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// CVE-2019-5736: the container executes `/proc/self/exe` while that is the runtime, and overwrites it.
fn own_program_stays_whole(host: &Host) {
    let program = host.path("runtime");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let before = std::fs::read(&program).unwrap();
    let call = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["runtime", "--root"]).arg(host.path("state")).args(args);
        command.current_dir(host.directory.path()).output().unwrap()
    };
    symlink("/proc/self/exe", host.path("rootfs/bin/evil")).unwrap();
    for entry in ["/proc/self/exe", "/bin/evil"] {
        host.spec(&[entry, "attack"], |spec| spec["root"]["readonly"] = json!(false));
        let output = call(&["run", &host.id]);
        assert!(stdout(&output).contains("tried"), "the attack must get that far: {output:?}");
        // Not merely busy: that would pass with the process.
        let text = stderr(&output);
        assert!(text.contains("Read-only") || text.contains("not permitted"), "{text}");
        assert!(!text.contains("busy"), "{text}");
    }
    host.spec(&["sleep", "1000"], |_| {});
    let null = std::process::Stdio::null;
    let run = host.command(&["run", "-d", &host.id]).stdout(null()).stderr(null()).status();
    assert!(run.unwrap().success());
    let output = call(&["exec", &host.id, "/bin/evil", "attack"]);
    assert!(stdout(&output).contains("tried") && !stderr(&output).contains("busy"), "{output:?}");
    assert!(std::fs::read(&program).unwrap() == before, "the runtime was overwritten");
}

/// CVE-2024-21626: a working directory, or a program, below a descriptor of a directory of the host.
fn no_way_out_by_descriptors(host: &Host) {
    let open = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    std::fs::write(host.path("host-only"), "secret").unwrap();
    let secret = host.path("host-only");
    let relative = format!("..{0}{1} .{1}", "/..".repeat(8), secret.display());
    let script = format!("cat {relative} 2>/dev/null; true");
    symlink("/proc/self/fd", host.path("rootfs/descriptors")).unwrap();
    let harmless = |output: &std::process::Output| {
        assert!(!stdout(output).contains("secret"), "{output:?}");
    };
    for number in 3..24 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/descriptors/{number}")] {
            host.spec(&["sh", "-c", &script], |spec| spec["process"]["cwd"] = json!(cwd));
            let output = host.run();
            harmless(&output);
            assert!(!output.status.success(), "{cwd} is no directory to work in: {output:?}");
        }
    }
    host.spec(&["sleep", "1000"], |_| {});
    let null = std::process::Stdio::null;
    let run = host.command(&["run", "-d", &host.id]).stdout(null()).stderr(null()).status();
    assert!(run.unwrap().success());
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let output = host.call(&["exec", "--cwd", &cwd, &host.id, "sh", "-c", &script]);
        harmless(&output);
        assert!(!output.status.success(), "{cwd}: {output:?}");
        let program = format!("{cwd}/bin/busybox");
        let output = host.call(&["exec", &host.id, &program, "cat", secret.to_str().unwrap()]);
        harmless(&output);
        assert!(!output.status.success(), "{program}: {output:?}");
    }
}

/// Replaces the tmpfs on `/dev` by the image's own directory.
fn own_dev(spec: &mut serde_json::Value) {
    spec["root"]["readonly"] = json!(false);
    spec["linux"]["maskedPaths"] = json!(["/proc/version"]);
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
}

const NULL: &str = "1,3\n";
const SHOW_MASK: &str = "stat -c %t,%T /proc/version";

/// CVE-2025-31133: masks are made of a `/dev/null` that the image has replaced by a link.
fn masks_with_the_host_s_null(host: &Host) {
    std::fs::create_dir(host.path("rootfs/dev")).unwrap();
    let null = host.path("rootfs/dev/null");
    for target in ["/proc/sys/kernel/hostname", "/proc/meminfo", "/etc", "nowhere"] {
        symlink(target, &null).unwrap();
        host.spec(&["sh", "-c", SHOW_MASK], own_dev);
        let output = host.run();
        assert_eq!(stdout(&output), NULL, "{target}: {}", stderr(&output));
        std::fs::remove_file(&null).unwrap();
    }
}

/// Does something all the time while `body` runs.
fn meanwhile(mut disturb: impl FnMut() + Send, body: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                disturb();
            }
        });
        // The thread must end whatever happens here.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The same as a race: a program with a hand in the image swaps the node and a link all the time.
fn masks_while_null_changes(host: &Host) {
    let dev = host.path("rootfs/dev");
    std::fs::create_dir(&dev).unwrap();
    let swap = || {
        let link = dev.join("link");
        let _ = symlink("/proc/sys/kernel/hostname", &link);
        let _ = std::fs::rename(&link, dev.join("null"));
        let _ = std::fs::remove_file(dev.join("null"));
    };
    meanwhile(swap, || {
        for _ in 0..ROUNDS {
            host.spec(&["sh", "-c", SHOW_MASK], own_dev);
            let output = host.run();
            // Losing the race may fail the start, but never opens what is masked.
            assert!(matches!(stdout(&output).as_str(), "" | NULL), "{output:?}");
        }
    });
}

/// CVE-2025-52565: the terminal is mounted where a link in place of `/dev/console` leads.
fn console_stays_out_of_proc(host: &Host) {
    std::fs::create_dir_all(host.path("rootfs/dev/pts")).unwrap();
    let console = host.path("rootfs/dev/console");
    for target in ["/proc/sys/kernel/hostname", "/proc/self/status", "/proc/version"] {
        symlink(target, &console).unwrap();
        host.spec(&["true"], |spec| {
            own_dev(spec);
            spec["process"]["terminal"] = json!(true);
            let pts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts"});
            spec["mounts"].as_array_mut().unwrap().push(pts);
        });
        let text = stderr(&host.run());
        assert!(text.contains("cannot be mounted because it is inside /proc"), "{text}");
        std::fs::remove_file(&console).unwrap();
    }
}

/// CVE-2025-52881: mounts inside `/proc`, directly or by links, turn the runtime's writes to labels and parameters away.
fn nothing_is_mounted_inside_proc(host: &Host) {
    symlink("/proc/self/attr", host.path("rootfs/attr")).unwrap();
    symlink("/proc", host.path("rootfs/p")).unwrap();
    let places =
        ["/proc/self/attr", "/attr", "/proc/sys/kernel", "/p/sys/net", "/p/self/attr/exec"];
    for place in places {
        let tmpfs = json!({"destination": place, "type": "tmpfs", "source": "tmpfs"});
        let bind = json!({"destination": place, "type": "bind", "source": "rootfs/etc", "options": ["bind"]});
        let file = json!({
            "destination": place, "type": "bind", "source": "/proc/self/sched", "options": ["bind"],
        });
        for mount in [tmpfs, bind, file] {
            host.spec(&["true"], |spec| spec["mounts"].as_array_mut().unwrap().push(mount));
            let output = host.run();
            assert!(!output.status.success(), "{place}: {output:?}");
        }
    }
}

/// CVE-2021-30465: a directory of the image turns into a link while the runtime mounts below it.
fn mount_points_stay_inside(host: &Host) {
    let outside = host.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let root = host.path("rootfs");
    std::fs::create_dir(root.join("real")).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    // The directory and the link change places, in one step of the kernel.
    let swap = || {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let at = |name: &str| root.join(name);
        rustix::fs::renameat_with(rustix::fs::CWD, at("real"), rustix::fs::CWD, at("link"), flags)
            .unwrap();
    };
    meanwhile(swap, || {
        for round in 0..ROUNDS {
            host.spec(&["true"], |spec| {
                spec["root"]["readonly"] = json!(false);
                let mounts = spec["mounts"].as_array_mut().unwrap();
                for name in ["real", "link"] {
                    let at = format!("/{name}/a{round}/b");
                    mounts.push(json!({"destination": at, "type": "tmpfs", "source": "tmpfs"}));
                    let at = format!("/{name}/file{round}");
                    let source = "/etc/hostname";
                    mounts.push(json!({
                        "destination": at, "type": "bind", "source": source, "options": ["bind"],
                    }));
                }
            });
            // It may fail, or mount at either place inside.
            host.run();
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "round {round}");
        }
    });
}

/// A confinement that cannot be had is refused, not left out.
fn labels_are_not_passed_over(host: &Host) {
    for label in ["apparmorProfile", "selinuxLabel"] {
        host.spec(&["true"], |spec| spec["process"][label] = json!("no:such:label:of:tests"));
        let output = host.run();
        assert!(!output.status.success(), "{label}: {output:?}");
        assert!(stderr(&output).contains("cannot apply label"), "{output:?}");
    }
}

/// Nothing that stands where user files should be keeps a start waiting.
fn odd_user_files_do_not_hold_up(host: &Host) {
    let passwd = host.path("rootfs/etc/passwd");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &passwd,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    host.spec(&["true"], |_| {});
    assert!(host.run().status.success());
    std::fs::remove_file(&passwd).unwrap();
    symlink("/dev/zero", &passwd).unwrap();
    assert!(host.run().status.success());
}

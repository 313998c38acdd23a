//! Mount options as the kernel shows them afterwards.

use std::os::unix::fs::{MetadataExt as _, chown};

use serde_json::{Value, json};

use super::{Host, Test, stderr, stdout};

/// Runs a script as the only one in a new network namespace; there the runtime is called by `$@`.
fn in_own_network(host: &Host, script: &str) -> std::process::Output {
    let runtime = host.command(&["run", &host.id]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "sh", "-ec", script, "sh"]).arg(runtime.get_program());
    command.args(runtime.get_args()).current_dir(host.directory.path());
    command.output().unwrap()
}

const DEVICES: &str = "ip link add dm0 type veth peer name dm1
    ip addr add 10.9.8.7/24 dev dm0; ip addr add fd00:9::7/64 dev dm0
    \"$@\"
    ip -o link show";

fn moves_network_devices(host: &Host) {
    let busybox = ["sh", "-c", "busybox ip -o addr; busybox ip -o link"];
    host.spec(&busybox, |spec| {
        spec["linux"]["netDevices"] = json!({"dm0": {"name": "net%d"}, "dm1": {}});
    });
    let output = in_own_network(host, DEVICES);
    let text = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    let inside = |needle: &str| text.lines().filter(|line| line.contains(needle)).count();
    assert_eq!(
        (inside("net0    inet 10.9.8.7/24"), inside("net0    inet6 fd00:9::7/64")),
        (1, 1),
        "{text}"
    );
    assert_eq!(
        text.lines().filter(|line| line.contains(": dm1@net0: ") && line.contains("UP")).count(),
        1,
        "{text}"
    );
    assert_eq!(inside("dm0"), 0, "it has left: {text}");

    let refused = |devices: Value, expected: &str| {
        host.spec(&["true"], |spec| spec["linux"]["netDevices"] = devices);
        let output = in_own_network(host, DEVICES);
        assert!(stderr(&output).contains(expected), "{output:?}");
    };
    refused(json!({"dm0": {"name": "lo"}}), "the container has a device \\\"lo\\\" already");
    refused(json!({"nosuch": {}}), "no such device");
}

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("options_reach_the_file_system", options_reach_the_file_system),
    ("options_reach_bind_mounts", options_reach_bind_mounts),
    ("maps_ids_of_mounts", maps_ids_of_mounts),
    ("moves_network_devices", moves_network_devices),
    ("devices_spare_files", devices_spare_files),
    ("copies_up", copies_up),
    ("tmpfs_permissions", tmpfs_permissions),
];

fn add(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn tmpfs(at: &str, options: &[&str]) -> Value {
    json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// Returns the options of a mount: its own, and those of its file system.
fn options<'a>(mountinfo: &'a str, at: &str) -> (Vec<&'a str>, Vec<&'a str>) {
    let line = mountinfo.lines().find(|line| line.split(' ').nth(4) == Some(at)).unwrap();
    let own = line.split(' ').nth(5).unwrap().split(',').collect();
    (own, line.rsplit(' ').next().unwrap().split(',').collect())
}

fn options_reach_the_file_system(host: &Host) {
    host.spec(&["cat", "/proc/self/mountinfo"], |spec| {
        add(spec, tmpfs("/a", &["sync", "lazytime", "noatime", "size=64k", "nr_inodes=9"]));
        add(
            spec,
            tmpfs("/b", &["iversion", "silent", "dirsync", "noexec", "nodiratime", "size=64k"]),
        );
        add(spec, tmpfs("/c", &["sync", "async", "size=64k"]));
        add(spec, tmpfs("/c", &["remount", "size=128k", "nosuid"]));
    });
    let output = host.run();
    let text = stdout(&output);
    let has = |at: &str, expected: (&[&str], &[&str])| {
        let (own, of_system) = options(&text, at);
        assert!(expected.0.iter().all(|option| own.contains(option)), "{at}: {own:?}");
        assert!(expected.1.iter().all(|option| of_system.contains(option)), "{at}: {of_system:?}");
    };
    has("/a", (&["noatime"], &["sync", "lazytime", "size=64k", "nr_inodes=9"]));
    has("/b", (&["noexec", "nodiratime"], &["dirsync", "size=64k"]));
    has("/c", (&["nosuid"], &["size=128k"]));
    assert!(!options(&text, "/c").1.contains(&"sync"));

    host.spec(&["true"], |spec| add(spec, tmpfs("/a", &["nonsense=1"])));
    let text = stderr(&host.run());
    assert!(text.contains("nonsense"), "the kernel names the option: {text}");
}

fn options_reach_bind_mounts(host: &Host) {
    std::fs::create_dir_all(host.path("outer/inner")).unwrap();
    host.spec(&["cat", "/proc/self/mountinfo"], |spec| {
        add(spec, tmpfs("/a", &[]));
        add(spec, tmpfs("/a/b", &[]));
        let bind = |at: &str, options: &[&str]| {
            json!({"destination": at, "type": "bind", "source": "outer", "options": options})
        };
        add(spec, bind("/x", &["rbind", "ro", "nosuid", "odd", "sync"]));
        add(spec, bind("/y", &["rbind", "rro", "rnodev"]));
    });
    let output = host.run();
    let text = stdout(&output);
    let (x, y) = (options(&text, "/x").0, options(&text, "/y").0);
    assert!(x.contains(&"ro") && x.contains(&"nosuid"), "{x:?}");
    assert!(y.contains(&"ro") && y.contains(&"nodev"), "{y:?}");
    assert!(stderr(&output).contains("no effect of options odd, sync"), "{output:?}");
}

fn maps_ids_of_mounts(host: &Host) {
    std::fs::create_dir(host.path("data")).unwrap();
    std::fs::write(host.path("data/file"), "").unwrap();
    chown(host.path("data/file"), Some(3000), Some(4000)).unwrap();
    for (option, kind) in [("idmap", "bind"), ("ridmap", "rbind")] {
        host.spec(&["stat", "-c", "%u:%g", "/data/file"], |spec| {
            let map = |from: u32| json!([{"containerID": from, "hostID": from + 10_000, "size": 1}]);
            add(
                spec,
                json!({
                    "destination": "/data", "type": "bind", "source": "data", "options": [kind, option],
                    "uidMappings": map(3000), "gidMappings": map(4000),
                }),
            );
        });
        let output = host.run();
        assert_eq!(stdout(&output), "13000:14000\n", "{option}: {output:?}");
    }
    assert_eq!(std::fs::metadata(host.path("data/file")).unwrap().uid(), 3000);
    host.spec(&["true"], |spec| add(spec, tmpfs("/a", &["idmap"])));
    let text = stderr(&host.run());
    assert!(text.contains("ids can only be mapped for bind mounts"), "{text}");
}

/// A tmpfs over a directory takes its permissions; one at a new place is for everybody, as the kernel makes it.
fn tmpfs_permissions(host: &Host) {
    use std::os::unix::fs::PermissionsExt as _;
    let old = host.path("rootfs/old");
    std::fs::create_dir(&old).unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o2750)).unwrap();
    for more in ["nodev", "iversion"] {
        let paths = ["/old", "/new", "/chosen"];
        host.spec(&["stat", "-c", "%a", paths[0], paths[1], paths[2]], |spec| {
            add(spec, tmpfs("/old", &[more]));
            add(spec, tmpfs("/new", &[more]));
            add(spec, tmpfs("/chosen", &[more, "mode=711"]));
        });
        for start in ["first", "second"] {
            assert_eq!(stdout(&host.run()), "2750\n1777\n711\n", "{start} with {more}");
        }
        std::fs::remove_dir(host.path("rootfs/new")).unwrap();
    }
}

/// A device does not take the place of somebody's file; what a mount put there is meant.
fn devices_spare_files(host: &Host) {
    std::fs::write(host.path("rootfs/etc/node"), "mine").unwrap();
    let device = |spec: &mut Value| {
        spec["linux"]["devices"] =
            json!([{"path": "/etc/node", "type": "c", "major": 1, "minor": 7}]);
    };
    host.spec(&["true"], device);
    let text = stderr(&host.run());
    assert!(text.contains("cannot create device /etc/node: another file is there"), "{text}");
    assert_eq!(std::fs::read(host.path("rootfs/etc/node")).unwrap(), b"mine");

    host.spec(&["stat", "-c", "%t:%T", "/etc/node"], |spec| {
        device(spec);
        let bind = json!({
            "destination": "/etc/node", "type": "bind", "source": "/dev/zero", "options": ["bind"],
        });
        add(spec, bind);
    });
    assert_eq!(stdout(&host.run()), "1:5\n");
    std::fs::remove_file(host.path("rootfs/etc/node")).unwrap();
    host.spec(&["stat", "-c", "%t:%T", "/etc/node"], |spec| {
        spec["root"]["readonly"] = json!(false);
        device(spec);
    });
    assert_eq!(stdout(&host.run()), "1:7\n");
}

/// Also where a flag takes the older call.
fn copies_up(host: &Host) {
    std::fs::write(host.path("rootfs/etc/marker"), "here").unwrap();
    for (more, expected) in [("mode=700", "here700\n"), ("iversion", "here755\n")] {
        host.spec(&["sh", "-c", "cat /etc/marker; stat -c %a /etc"], |spec| {
            add(spec, tmpfs("/etc", &["tmpcopyup", more]));
        });
        assert_eq!(stdout(&host.run()), expected);
    }
}

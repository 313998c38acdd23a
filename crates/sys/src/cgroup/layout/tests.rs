use super::{Mount, Version, parse_mount, unescape};

#[test]
fn mount_lines() {
    let v1 = "38 31 0:35 / /sys/fs/cgroup/blk\\040io rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct";
    assert_eq!(
        parse_mount(v1),
        Some(Mount {
            controllers: vec!["cpu".to_owned(), "cpuacct".to_owned()],
            at: "/sys/fs/cgroup/blk io".to_owned(),
            root: "/".to_owned(),
        })
    );
    let v2 = "41 31 0:38 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
    let v2 = parse_mount(v2).expect("a mount");
    assert_eq!((v2.controllers.len(), v2.root.as_str()), (0, "/docker/x"));
    let named = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
    assert_eq!(parse_mount(named).expect("a mount").controllers, ["name=systemd"]);
    assert_eq!(parse_mount("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755"), None);
    assert_eq!(parse_mount("nonsense"), None);
}

#[test]
fn a_text_without_mounts_has_no_layout() {
    assert!(super::Layout::from_mounts("").is_err());
    assert_eq!(unescape("a\\134b"), "a\\b");
    assert_ne!(Version::V1, Version::V2);
}

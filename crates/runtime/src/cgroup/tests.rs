use super::*;

#[test]
fn pairs_hierarchies_with_mounts() {
    let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
    let found = hierarchies("3:cpu,cpuacct:/a\n2:name=systemd:/b\n1:pids:/c\n0::/\n", mounts);
    let text: Vec<_> = found
        .iter()
        .map(|h| format!("{} {} {}", h.mountpoint.display(), h.controllers, h.path.display()))
        .collect();
    assert_eq!(
        text,
        ["/sys/fs/cgroup/cpu,cpuacct cpu,cpuacct /a", "/sys/fs/cgroup/systemd name=systemd /b"]
    );
}

#[test]
fn zero_means_not_asked_for() {
    let spec: LinuxResources =
        serde_json::from_str(r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"cpus":""}}"#)
            .unwrap();
    assert_eq!(convert(&spec).unwrap(), Resources::default());
}

//! The table of flags of `create` and `run`.

use super::{mounts, request, values};
use crate::flag::{Flag, Kind};

const fn text(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::Text("string"), help)
}

const fn list(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::List("list"), help)
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::Bool, help)
}

const fn int(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::Int, help)
}

const fn bytes(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::Bytes, help)
}

const fn duration(name: &'static str, help: &'static str) -> Flag {
    Flag::new(name, Kind::Duration, help).default("0s")
}

/// Flags `run` has beyond those of `create`.
pub(in crate::command) const RUN_FLAGS: &[Flag] = &[
    switch("detach", "Leave the container in the background and print its ID").short('d'),
    text("detach-keys", "Keys that detach from the container instead of the configured ones"),
    switch("sig-proxy", "Pass signals on to the container's process").default("true"),
];

/// Flags of `create`, which `run` has too.
pub(in crate::command) const CREATE_FLAGS: &[Flag] = &[
    list("add-host", "Add a line to /etc/hosts (host:ip)")
        .checked(|text| request::extra_host(text).map(drop)),
    Flag::new("annotation", Kind::List("map"), "Hand an annotation on to the OCI runtime"),
    list("attach", "Connect to stdin, stdout or stderr").short('a').checked(request::check_stream),
    Flag::new("blkio-weight", Kind::Uint16, "Relative weight of disk I/O: 10 to 1000, 0 for none")
        .default("0"),
    list("blkio-weight-device", "Relative weight of I/O of one device (path:weight)")
        .checked(|text| values::weight(text).map(drop)),
    list("cap-add", "Grant a Linux capability"),
    list("cap-drop", "Withhold a Linux capability"),
    text("cgroup-parent", "Cgroup to put the container's into"),
    text("cgroupns", "Cgroup namespace: host or private (the daemon's default if empty)"),
    text("cidfile", "Write the ID of the container to this file"),
    int("cpu-period", "Period of the CPU quota in microseconds"),
    int("cpu-quota", "CPU time per period in microseconds"),
    int("cpu-rt-period", "Period of the real-time quota in microseconds"),
    int("cpu-rt-runtime", "Real-time CPU time per period in microseconds"),
    int("cpu-shares", "Relative weight of CPU time").short('c'),
    Flag::new("cpus", Kind::Cpus, "How many CPUs may be used"),
    text("cpuset-cpus", "Which CPUs may be used (0-3, 0,1)"),
    text("cpuset-mems", "Which memory nodes may be used (0-3, 0,1)"),
    list("device", "Give a device of the host to the container"),
    list("device-cgroup-rule", "Add a rule to the devices the container may use")
        .checked(values::check_device_rule),
    list("device-read-bps", "Limit bytes read from a device per second (path:rate)")
        .checked(|text| values::byte_rate(text).map(drop)),
    list("device-read-iops", "Limit reads from a device per second (path:rate)")
        .checked(|text| values::plain_rate(text).map(drop)),
    list("device-write-bps", "Limit bytes written to a device per second (path:rate)")
        .checked(|text| values::byte_rate(text).map(drop)),
    list("device-write-iops", "Limit writes to a device per second (path:rate)")
        .checked(|text| values::plain_rate(text).map(drop)),
    switch("disable-content-trust", "Skip verification of the image").default("true").hidden(),
    list("dns", "DNS server to ask").checked(values::check_address),
    list("dns-opt", "").alias("dns-option"),
    list("dns-option", "Option for the resolver"),
    list("dns-search", "Domain in which short names are looked up"),
    text("domainname", "NIS domain name"),
    text("entrypoint", "Program to run instead of the image's ENTRYPOINT"),
    list("env", "Set an environment variable").short('e').checked(values::check_variable),
    list("env-file", "Read environment variables from a file"),
    list("expose", "Declare a port or a range of ports"),
    Flag::new("gpus", Kind::List("gpu-request"), "GPUs to give to the container ('all' for all)")
        .checked(|text| values::gpus(text).map(drop)),
    list("group-add", "Further group of the process"),
    text("health-cmd", "Command that checks the container's health"),
    duration("health-interval", "Time between two checks (ms|s|m|h)"),
    int("health-retries", "Failed checks in a row that make it unhealthy").default("0"),
    duration("health-start-interval", "Time between two checks while it starts (ms|s|m|h)"),
    duration("health-start-period", "Time to start in which failed checks don't count (ms|s|m|h)"),
    duration("health-timeout", "Longest time one check may take (ms|s|m|h)"),
    text("hostname", "Host name of the container").short('h'),
    switch("init", "Run an init that forwards signals and reaps processes"),
    switch("interactive", "Keep stdin open even when not attached").short('i'),
    text("ip", "IPv4 address (e.g., 172.30.100.104)"),
    text("ip6", "IPv6 address (e.g., 2001:db8::33)"),
    text("ipc", "IPC namespace to use"),
    text("isolation", "Isolation technology"),
    bytes("kernel-memory", "Limit of kernel memory")
        .deprecated("and no longer supported by the kernel"),
    list("label", "Set a label").short('l').checked(values::check_label),
    list("label-file", "Read labels from a file, one per line"),
    list("link", "Link to another container"),
    list("link-local-ip", "Link-local address of the container"),
    text("log-driver", "Where the container's output is logged"),
    list("log-opt", "Option of the log driver"),
    text("mac-address", "MAC address (e.g., 92:d0:c6:0a:29:33)"),
    bytes("memory", "Limit of memory").short('m').default("0"),
    bytes("memory-reservation", "Soft limit of memory").default("0"),
    Flag::new(
        "memory-swap",
        Kind::SwapBytes,
        "Limit of memory and swap together: '-1' for unlimited swap",
    )
    .default("0"),
    int("memory-swappiness", "Tendency to swap (0 to 100)").default("-1"),
    Flag::new("mount", Kind::List("mount"), "Mount a file system into the container")
        .checked(|text| mounts::mount(text).map(drop)),
    text("name", "Name of the container"),
    Flag::new("net", Kind::List("network"), "").alias("network"),
    list("net-alias", "").alias("network-alias"),
    Flag::new("network", Kind::List("network"), "Connect the container to a network"),
    list("network-alias", "Further name of the container in its network"),
    switch("no-healthcheck", "Ignore the image's HEALTHCHECK"),
    switch("oom-kill-disable", "Don't kill processes when memory runs out"),
    int("oom-score-adj", "How likely processes are killed when memory runs out (-1000 to 1000)")
        .default("0"),
    text("pid", "PID namespace to use"),
    int("pids-limit", "Limit of processes (-1 for none)").default("0"),
    text("platform", "Platform of the image, where there are several"),
    switch("privileged", "Give the container all privileges"),
    list("publish", "Make a container's port reachable at the host").short('p'),
    switch("publish-all", "Make all declared ports reachable at free ports of the host").short('P'),
    text("pull", "When to fetch the image (\"always\", \"missing\", \"never\")").default("missing"),
    switch("quiet", "Don't show the progress of fetching").short('q'),
    switch("read-only", "Mount the container's root file system read-only"),
    text("restart", "When to restart the container after it exited").default("no"),
    switch("rm", "Remove the container and its anonymous volumes when it exits"),
    text("runtime", "OCI runtime to use"),
    list("security-opt", "Security option"),
    bytes("shm-size", "Size of /dev/shm").default("0"),
    text("stop-signal", "Signal that stops the container"),
    int("stop-timeout", "Seconds until a stop becomes a kill").default("0"),
    list("storage-opt", "Option of the storage driver"),
    Flag::new("sysctl", Kind::List("map"), "Set a kernel parameter of the namespaces")
        .checked(values::check_sysctl),
    list("tmpfs", "Mount a tmpfs directory"),
    switch("tty", "Give the container a terminal").short('t'),
    Flag::new("ulimit", Kind::List("ulimit"), "Limit of a process resource")
        .checked(|text| values::ulimit(text).map(drop)),
    text("user", "User name or UID (format: <name|uid>[:<group|gid>])").short('u'),
    text("userns", "User namespace to use"),
    text("uts", "UTS namespace to use"),
    list("volume", "Mount a volume or a directory of the host").short('v'),
    text("volume-driver", "Driver of the container's volumes"),
    list("volumes-from", "Mount the volumes of another container"),
    text("workdir", "Directory the process starts in").short('w'),
];

//! Facts about the host that `info` and `version` tell. Read once; what changes is read anew where it is asked for.

use std::path::Path;

/// The host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) kernel: String,
    pub(crate) system: String,
    pub(crate) system_version: String,
    pub(crate) machine: String,
    pub(crate) architecture: String,
    pub(crate) memory: u64,
    pub(crate) cpus: Option<String>,
    pub(crate) memory_nodes: Option<String>,
    pub(crate) cgroup_unified: bool,
    pub(crate) has_systemd: bool,
    pub(crate) controllers: Controllers,
    pub(crate) has_seccomp: bool,
    pub(crate) has_apparmor: bool,
    pub(crate) init_binary: String,
}

/// What the kernel's cgroups can limit.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct Controllers {
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) kernel_memory_tcp: bool,
    pub(crate) oom_control: bool,
    pub(crate) cpu_period: bool,
    pub(crate) cpu_quota: bool,
    pub(crate) cpu_shares: bool,
    pub(crate) cpuset: bool,
    pub(crate) pids: bool,
    pub(crate) disk_weight: bool,
    pub(crate) disk_weight_device: bool,
}

impl Facts {
    /// Looks at the host; `id` is the daemon's.
    pub(crate) fn read(id: String) -> Self {
        let uname = rustix::system::uname();
        let words = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let (system, system_version) = os_release();
        let cgroup_unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            id,
            kernel: words(uname.release()),
            system,
            system_version,
            machine: words(uname.machine()),
            architecture: rorqual_core::Platform::host().architecture,
            memory: memory(),
            cpus: list("/sys/devices/system/cpu/online"),
            memory_nodes: list("/sys/devices/system/node/online"),
            cgroup_unified,
            has_systemd: Path::new("/run/systemd/system").is_dir(),
            controllers: if cgroup_unified { unified() } else { hierarchies() },
            has_seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            has_apparmor: rorqual_sys::lsm::can_load_profiles(),
            init_binary: "docker-init".to_owned(),
        }
    }
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Reads a list such as `0-3,5`; `None` when there is none.
fn list(path: &str) -> Option<String> {
    Some(text(path).trim().to_owned()).filter(|list| !list.is_empty())
}

/// Returns the host's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Tells whether a kernel switch is on.
pub(crate) fn is_on(path: &str) -> bool {
    text(path).trim() == "1"
}

/// Counts this process's descriptors.
pub(crate) fn descriptors() -> i64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64)
}

fn os_release() -> (String, String) {
    let release = ["/etc/os-release", "/usr/lib/os-release"]
        .map(text)
        .into_iter()
        .find(|text| !text.is_empty());
    let release = release.unwrap_or_default();
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let name = value("PRETTY_NAME");
    (if name.is_empty() { "Linux".to_owned() } else { name }, value("VERSION_ID"))
}

fn memory() -> u64 {
    let meminfo = text("/proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn unified() -> Controllers {
    let list = text("/sys/fs/cgroup/cgroup.controllers");
    let has = |name: &str| list.split_whitespace().any(|word| word == name);
    Controllers {
        memory: has("memory"),
        swap: has("memory"),
        kernel_memory_tcp: false,
        oom_control: false,
        cpu_period: has("cpu"),
        cpu_quota: has("cpu"),
        cpu_shares: has("cpu"),
        cpuset: has("cpuset"),
        pids: has("pids"),
        // Only groups below the root have the files; any that is there shows what the kernel was built with.
        disk_weight: has("io") && any_group_has(&["io.weight", "io.bfq.weight"]),
        disk_weight_device: has("io") && any_group_has(&["io.weight", "io.bfq.weight"]),
    }
}

/// Tells whether a group at the top has one of these files. A host without groups is not second-guessed.
fn any_group_has(files: &[&str]) -> bool {
    let groups = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut groups = groups.filter(|entry| entry.path().join("io.stat").exists()).peekable();
    groups.peek().is_none()
        || groups.any(|group| files.iter().any(|file| group.path().join(file).exists()))
}

fn hierarchies() -> Controllers {
    let mounts = text("/proc/self/mountinfo");
    // The mount point whose super options name the controller.
    let place = |controller: &str| {
        mounts.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut words = file_system.split(' ');
            let is_cgroup = words.next() == Some("cgroup");
            let has = words.nth(1)?.split(',').any(|word| word == controller);
            (is_cgroup && has).then(|| mount.split(' ').nth(4).map(str::to_owned))?
        })
    };
    let has_file = |controller: &str, file: &str| {
        place(controller).is_some_and(|place| Path::new(&place).join(file).exists())
    };
    Controllers {
        memory: place("memory").is_some(),
        swap: has_file("memory", "memory.memsw.limit_in_bytes"),
        kernel_memory_tcp: has_file("memory", "memory.kmem.tcp.limit_in_bytes"),
        oom_control: has_file("memory", "memory.oom_control"),
        cpu_period: has_file("cpu", "cpu.cfs_period_us"),
        cpu_quota: has_file("cpu", "cpu.cfs_quota_us"),
        cpu_shares: has_file("cpu", "cpu.shares"),
        cpuset: place("cpuset").is_some(),
        pids: place("pids").is_some(),
        disk_weight: has_file("blkio", "blkio.weight") || has_file("blkio", "blkio.bfq.weight"),
        disk_weight_device: has_file("blkio", "blkio.weight_device")
            || has_file("blkio", "blkio.bfq.weight_device"),
    }
}

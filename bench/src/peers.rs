//! The peers: Docker's daemon in namespaces of its own, podman, crun, runc.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rorqual_testkit::{TestResult, eventually, image};

/// A dockerd of its own, from the host or from a peer tree.
pub(crate) struct Dockerd {
    folder: tempfile::TempDir,
    child: Child,
}

/// Enters the peer tree (an empty `$1` is the host itself) and starts dockerd with its state in `$2`.
const START: &str = r#"
set -e
mount --make-rprivate /
ip link set lo up
if [ -n "$1" ]; then
    # A runtime can only pivot where the root is a mount.
    mount --rbind "$1" "$1"
    mount -t proc proc "$1/proc"; mount --rbind /sys "$1/sys"; mount --rbind /dev "$1/dev"
    mount -t tmpfs tmpfs "$1/run"; mount --rbind "$2" "$1/mnt"
    exec chroot "$1" /usr/sbin/dockerd -H unix:///mnt/sock --data-root /mnt/data --exec-root /mnt/run -p /mnt/pid \
        --cgroup-parent /rorqual-bench-peer
fi
exec dockerd -H "unix://$2/sock" --data-root "$2/data" --exec-root "$2/run" -p "$2/pid" --cgroup-parent /rorqual-bench-peer
"#;

/// The tree that holds peers newer than the host's, if one was named.
pub(crate) fn tree() -> Option<PathBuf> {
    std::env::var_os("BENCH_PEER_ROOT").map(PathBuf::from).filter(|tree| tree.is_dir())
}

/// Finds a program on the path.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

impl Dockerd {
    /// Starts it when there is one, with the busybox image imported.
    pub(crate) fn start() -> TestResult<Option<Self>> {
        let tree = tree();
        if !installed("docker") || (tree.is_none() && !installed("dockerd")) {
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("rorqual-bench-").tempdir()?;
        let child = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", START, "dockerd"])
            .arg(tree.unwrap_or_default())
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let peer = Self { folder, child };
        eventually("dockerd answers", || {
            peer.docker(["version"]).output().ok().filter(|o| o.status.success())
        })?;
        let mut import = peer
            .docker(["import", "-", "busybox"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = import.stdin.take() {
            std::io::Write::write_all(&mut stdin, &image::busybox_rootfs()?)?;
        }
        import.wait()?;
        // A daemon that cannot run anything here is no peer; say so, do not fail.
        let tried = peer.docker(["run", "--rm", "busybox", "true"]).output()?;
        if !tried.status.success() {
            eprintln!("left out: {}: {}", peer.name(), String::from_utf8_lossy(&tried.stderr));
            return Ok(None);
        }
        Ok(Some(peer))
    }

    /// Prepares a command of the docker client against it.
    pub(crate) fn docker<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}/sock", self.folder.path().display()))
            .args(args);
        command
    }

    /// Processes of its engine: dockerd, containerd, shims, proxies.
    pub(crate) fn processes(&self) -> Vec<u32> {
        descendants(self.child.id())
    }

    /// What it says its version is.
    pub(crate) fn name(&self) -> String {
        let output = self.docker(["version", "--format", "{{.Server.Version}}"]).output().ok();
        let version =
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        format!("dockerd {}", version.unwrap_or_default())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let ids = self
            .docker(["ps", "-aq"])
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        let ids = ids.unwrap_or_default();
        if !ids.trim().is_empty() {
            let _ = self.docker(["rm", "-f"]).args(ids.split_whitespace()).output();
        }
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        // What dockerd leaves of its parent group; one that is not empty stays.
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join("rorqual-bench-peer"));
        }
        let _ = std::fs::remove_dir("/sys/fs/cgroup/rorqual-bench-peer");
    }
}

/// A process and all below it.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten()
        {
            let children =
                std::fs::read_to_string(entry.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}

/// An OCI bundle with a busybox root that runs `true`, for the runtimes' command lines.
pub(crate) fn bundle(folder: &Path) -> TestResult {
    let root = folder.join("rootfs");
    std::fs::create_dir_all(&root)?;
    tar::Archive::new(image::busybox_rootfs()?.as_slice()).unpack(&root)?;
    Ok(())
}

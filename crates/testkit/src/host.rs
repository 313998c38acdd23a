//! A scenario's host: a daemon in network and mount namespaces of its own, with its own roots and socket.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::leak;
use crate::output::Finished;
use crate::wait::eventually;
use crate::{TestResult, image};

static NUMBER: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// How to start the daemon.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Further flags for `rorqual daemon`.
    pub flags: Vec<String>,
    /// Text of its configuration file.
    pub config: Option<String>,
    /// Shell commands that the daemon's process executes before it becomes the daemon, as `ulimit -n 64`.
    pub before: Option<String>,
    /// Hand the listening socket over, as systemd does.
    pub activated: bool,
}

/// A running daemon with everything that belongs to it. [`Host::finish`] ends it and checks for leaks.
pub struct Host {
    pub(crate) binary: PathBuf,
    folder: tempfile::TempDir,
    cgroup: String,
    options: HostOptions,
    daemon: Option<Child>,
    /// Sleeps in the host's namespaces, so that a second daemon finds the same network as the first.
    holder: Child,
}

impl Host {
    /// Starts a daemon from `binary` with default options.
    pub fn start(binary: impl Into<PathBuf>) -> TestResult<Self> {
        Self::start_with(binary, HostOptions::default())
    }

    /// Starts a daemon from `binary`.
    pub fn start_with(binary: impl Into<PathBuf>, options: HostOptions) -> TestResult<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("rorqual-test-{}-{number}", std::process::id());
        SWEEP.call_once(leak::sweep_dead_harnesses);
        let folder = tempfile::Builder::new().prefix("rorqual-test-").tempdir()?;
        if let Some(config) = &options.config {
            std::fs::write(folder.path().join("daemon.json"), config)?;
        }
        std::fs::create_dir(folder.path().join(leak::TEMPORARY))?;
        let holder = hold_namespaces(folder.path())?;
        let binary = binary.into();
        let mut host = Self { binary, folder, cgroup, options, daemon: None, holder };
        host.start_daemon()?;
        Ok(host)
    }

    /// The folder that holds data root, run directory, socket and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// The cgroup that all containers of this host are below.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Process id of the daemon.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// What the daemon has logged so far.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default()
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn start_daemon(&mut self) -> TestResult {
        let path = self.folder.path();
        let log = File::options().create(true).append(true).open(path.join("daemon.log"))?;
        let config = path.join("daemon.json");
        let mut command = self.enter();
        if let Some(before) = &self.options.before {
            command.args(["sh", "-c", &format!("{before} && exec \"$@\""), "sh"]);
        }
        if self.options.activated {
            command.args(["sh", "-c", HAND_OVER, "activation"]).arg(&self.binary).arg("daemon");
            command.args(["-H", "fd://"]);
        } else {
            command.arg(&self.binary).arg("daemon");
            command.arg("-H").arg(format!("unix://{}", self.socket().display()));
        }
        command.arg("--data-root").arg(path.join("data")).arg("--exec-root").arg(path.join("run"));
        command
            .arg("-p")
            .arg(path.join("pid"))
            .args(["--cgroup-parent", &format!("/{}", self.cgroup)]);
        if config.exists() {
            command.arg("--config-file").arg(config);
        }
        command.args(&self.options.flags);
        command.stdin(self.daemon_input()?).stdout(log.try_clone()?).stderr(log);
        let mut daemon = command.spawn()?;
        let answers = eventually("the daemon answers", || {
            if let Ok(Some(status)) = daemon.try_wait() {
                return Some(Err(format!("the daemon ended with {status}: {}", self.daemon_log())));
            }
            self.ping().then_some(Ok(()))
        });
        self.daemon = Some(daemon);
        Ok(answers??)
    }

    /// What the daemon gets as standard input: the socket to listen at when it is handed over, otherwise nothing.
    fn daemon_input(&self) -> TestResult<Stdio> {
        if !self.options.activated {
            return Ok(Stdio::null());
        }
        // An earlier one is no longer listened at.
        let _ = std::fs::remove_file(self.socket());
        let listener = std::os::unix::net::UnixListener::bind(self.socket())?;
        Ok(std::os::fd::OwnedFd::from(listener).into())
    }

    /// Begins a command line that runs in the host's namespaces.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "-t", &self.holder.id().to_string(), "--"]);
        command.env("TMPDIR", self.folder.path().join(leak::TEMPORARY));
        command
    }

    fn ping(&self) -> bool {
        use std::io::Read;
        let Ok(mut socket) = std::os::unix::net::UnixStream::connect(self.socket()) else {
            return false;
        };
        let asked =
            socket.write_all(b"GET /_ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok()
            && socket.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    /// Ends the daemon by SIGKILL, as a crash does.
    pub fn kill_daemon(&mut self) -> TestResult {
        let mut daemon = self.daemon.take().ok_or("the daemon does not run")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// Ends the daemon by SIGTERM and waits for it.
    pub fn stop_daemon(&mut self) -> TestResult {
        let mut daemon = self.daemon.take().ok_or("the daemon does not run")?;
        Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status()?;
        eventually("the daemon stops", || daemon.try_wait().ok().flatten())?;
        Ok(())
    }

    /// Sends the daemon a signal by name.
    pub fn signal_daemon(&self, signal: &str) -> TestResult {
        let pid = self.daemon_pid().ok_or("the daemon does not run")?;
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status()?;
        if sent.success() { Ok(()) } else { Err("cannot send a signal to the daemon".into()) }
    }

    /// Lets the machine lose its power and start again: every process ends at once and the exec root is empty.
    pub fn reboot(&mut self) -> TestResult {
        self.power_off()?;
        self.start_daemon()
    }

    /// Ends every process at once and empties the exec root.
    pub fn power_off(&mut self) -> TestResult {
        self.kill_daemon()?;
        let gone = || {
            let alive = leak::process_ids(self.folder.path(), &self.cgroup);
            for pid in &alive {
                // It may have ended meanwhile.
                let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
            }
            alive.is_empty().then_some(())
        };
        eventually("all processes are gone", gone)?;
        leak::remove_cgroups(&self.cgroup);
        std::fs::remove_dir_all(self.folder.path().join("run"))?;
        Ok(())
    }

    /// Runs a second daemon with `flags` on this host, which must refuse to start.
    pub fn refused_daemon<S: AsRef<OsStr>>(
        &self,
        flags: impl IntoIterator<Item = S>,
    ) -> TestResult<Finished> {
        // LIMIT: a daemon that does start is ended after this many seconds, and has another exit code then.
        let mut command = self.command("timeout");
        command.arg("20").arg(&self.binary).arg("daemon").args(flags);
        finish(command, &[])
    }

    /// Runs a command to its end.
    pub fn run(&self, command: Command) -> TestResult<Finished> {
        finish(command, &[])
    }

    /// Prepares a command inside the host's namespaces.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter();
        command.arg(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.env("DOCKER_CONFIG", self.folder.path().join("config")).stdin(Stdio::null());
        command
    }

    /// Runs our own client.
    pub fn cli<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> TestResult<Finished> {
        let mut command = self.command(&self.binary);
        command.args(args);
        finish(command, &[])
    }

    /// Runs our own client with `input` on its standard input.
    pub fn cli_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> TestResult<Finished> {
        let mut command = self.command(&self.binary);
        command.args(args).stdin(Stdio::piped());
        finish(command, input)
    }

    /// Runs the `docker` client that is installed.
    pub fn docker<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> TestResult<Finished> {
        let mut command = self.command("docker");
        command.args(args);
        finish(command, &[])
    }

    /// Imports the busybox image under the name `busybox`.
    pub fn import_busybox(&self) -> TestResult {
        let args = ["import", "--change", "CMD [\"/bin/sh\"]", "-", "busybox:latest"];
        self.cli_with_input(args, &image::busybox_rootfs()?)?.ok()?;
        Ok(())
    }

    /// Removes all containers, stops the daemon and fails if anything of this host is left.
    pub fn finish(mut self) -> TestResult {
        if self.daemon.is_none() {
            self.start_daemon()?;
        }
        let ids = self.cli(["ps", "-aq"])?.ok()?;
        if !ids.is_empty() {
            self.cli(["rm", "-f", "-v"].into_iter().chain(ids.lines()))?.ok()?;
        }
        self.stop_daemon()?;
        // The kernel takes network namespaces apart in its own time.
        let left = || {
            let links = finish(self.links_command(), &[]).and_then(Finished::ok);
            leak::left_by_containers(self.folder.path(), &links.unwrap_or_default())
        };
        eventually("containers leave nothing behind", || left().is_empty().then_some(()))
            .map_err(|error| format!("{error}: {:#?}\n{}", left(), self.daemon_log()))?;
        if self.daemon_log().contains("panicked") {
            return Err("the daemon panicked".into());
        }
        self.release_namespaces();
        let check = || leak::leftovers(self.folder.path(), &self.cgroup);
        let clean = eventually("nothing is left behind", || check().is_empty().then_some(()));
        clean.map_err(|_| format!("left behind: {:#?}\n{}", check(), self.daemon_log()).into())
    }

    fn links_command(&self) -> Command {
        let mut command = self.command("ip");
        command.args(["-br", "link"]);
        command
    }

    fn release_namespaces(&mut self) {
        // Killing what has ended already is no failure.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Drop for Host {
    /// Ends what a failed scenario left running; shows what the daemon had to say.
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return self.release_namespaces();
        };
        if let Ok(ids) = self.cli(["ps", "-aq"]) {
            let _ = self.cli(["rm", "-f", "-v"].into_iter().chain(ids.stdout.lines()));
        }
        let _ = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
        let _ = daemon.wait();
        self.release_namespaces();
        let _ = writeln!(std::io::stderr(), "daemon log:\n{}", self.daemon_log());
    }
}

/// Moves the socket from standard input to descriptor 3 and says so, as systemd does.
const HAND_OVER: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";

/// Starts the process that keeps a host's namespaces; returns once they are ready.
fn hold_namespaces(folder: &Path) -> TestResult<Child> {
    // LIMIT: an hour is longer than any test run; a harness that was killed leaves it no longer than that.
    let script = "ip link set lo up && touch \"$1\" && exec sleep 3600";
    let ready = folder.join("namespaces");
    let holder = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c", script, "holder"])
        .arg(&ready)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    eventually("the namespaces are there", || ready.exists().then_some(()))?;
    Ok(holder)
}

/// Runs a command to its end, feeding it `input`.
fn finish(mut command: Command, input: &[u8]) -> TestResult<Finished> {
    let text = format!("{command:?}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A program that does not read all of it has its own way to say so.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&input);
        }
    });
    let output = child.wait_with_output()?;
    let _ = feeder.join();
    Ok(Finished::new(text, &output))
}

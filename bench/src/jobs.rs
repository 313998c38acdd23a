//! The jobs that are measured.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rorqual_testkit::{Host, TestResult};

use crate::images::{self, Archives, Contender};
use crate::measure::{Job, Times, interleaved, once};
use crate::memory::{marked, pss, rss};
use crate::network;
use crate::oci;
use crate::peers::{Dockerd, installed};
use crate::report::Row;

/// Names of all jobs, in the order they are run.
pub(crate) const NAMES: [&str; 12] = [
    "run", "host", "exec", "version", "oci", "memory", "parallel", "images", "ports", "traffic",
    "names", "thousand",
];

// LIMIT: enough for a stable median, few enough that the slow peers end within minutes.
const ROUNDS: usize = 30;
/// How long nothing is asked of the daemons before the memory that they hold idle is read.
const IDLE: Duration = Duration::from_secs(30);
/// How long nothing is asked of a daemon between two starts that are not a burst.
const PAUSE: Duration = Duration::from_millis(100);

/// Everything the jobs share.
struct Bench<'a> {
    binary: &'a Path,
    host: Host,
    docker: Option<Dockerd>,
    rows: Vec<Row>,
}

/// Runs the wanted jobs, all of them when none is named.
pub(crate) fn run(binary: &Path, wanted: &[String]) -> TestResult<Vec<Row>> {
    let host = Host::start(binary)?;
    host.import_busybox()?;
    let mut bench = Bench { binary, host, docker: Dockerd::start()?, rows: Vec::new() };
    for name in NAMES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        match name {
            "run" => bench.clients("run --rm, bridge", &["run", "--rm", "busybox", "true"])?,
            "host" => bench.clients(
                "run --rm, host network",
                &["run", "--rm", "--network", "host", "busybox", "true"],
            )?,
            "exec" => bench.exec()?,
            "version" => bench.clients("client version", &["version"])?,
            "oci" => bench.oci()?,
            "memory" => bench.memory()?,
            "parallel" => bench.parallel()?,
            "images" => bench.images()?,
            "ports" => bench.ports()?,
            "traffic" => bench.traffic()?,
            "names" => bench.names()?,
            _ => bench.thousand()?,
        }
    }
    let Bench { host, docker, rows, .. } = bench;
    drop(docker);
    host.finish()?;
    Ok(rows)
}

impl Bench<'_> {
    /// Times a client command by us, by the docker client against us, by Docker and by podman.
    fn clients(&mut self, job: &str, args: &[&str]) -> TestResult {
        let mut names = vec!["rorqual".to_owned()];
        let mut jobs: Vec<Job<'_>> = vec![Box::new(|| self.ours(args))];
        if installed("docker") {
            names.push("docker CLI + rorqual".to_owned());
            jobs.push(Box::new(|| client(Path::new("docker"), &self.host.socket(), args)));
        }
        if let Some(docker) = &self.docker {
            names.push(docker.name());
            jobs.push(Box::new(|| {
                let mut command = docker.docker([]);
                command.args(args);
                command
            }));
        }
        let times = interleaved(&jobs, ROUNDS)?;
        drop(jobs);
        self.note(job, names, &times);
        Ok(())
    }

    /// Our client and our daemon. The client runs outside of the daemon's namespaces, as the peers' clients do.
    fn ours(&self, args: &[&str]) -> Command {
        client(self.binary, &self.host.socket(), args)
    }

    fn note(&mut self, job: &str, names: Vec<String>, times: &[Times]) {
        for (who, times) in names.into_iter().zip(times) {
            let note = format!("least {:.2}, p90 {:.2}", ms(times.least()), ms(times.p90()));
            self.rows.push(Row {
                job: job.to_owned(),
                who,
                value: ms(times.median()),
                unit: "ms",
                note,
            });
        }
    }

    fn exec(&mut self) -> TestResult {
        let start = ["run", "-d", "--name", "bench", "busybox", "sleep", "10000"];
        once(self.ours(&start))?;
        if let Some(docker) = &self.docker {
            once(docker.docker(start))?;
        }
        self.clients("exec", &["exec", "bench", "true"])?;
        let stop = ["rm", "-f", "bench"];
        once(self.ours(&stop))?;
        if let Some(docker) = &self.docker {
            once(docker.docker(stop))?;
        }
        Ok(())
    }

    fn images(&mut self) -> TestResult {
        let archives = Archives::new()?;
        let mut contenders = vec![Contender {
            name: "rorqual".to_owned(),
            client: Box::new(|args| self.ours(args)),
        }];
        if let Some(docker) = &self.docker {
            let client = |args: &[&str]| {
                let mut command = docker.docker([]);
                command.args(args);
                command
            };
            contenders.push(Contender { name: docker.name(), client: Box::new(client) });
        }
        let names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
        let times = images::measure(&contenders, &archives)?;
        drop(contenders);
        for (job, times) in images::JOBS.iter().zip(&times) {
            self.note(job, names.clone(), times);
        }
        Ok(())
    }

    fn oci(&mut self) -> TestResult {
        let (names, times): (Vec<_>, Vec<_>) =
            oci::measure(self.binary, ROUNDS * 2)?.into_iter().unzip();
        self.note("OCI run", names, &times);
        Ok(())
    }

    /// Memory beyond the containers' own processes.
    fn memory(&mut self) -> TestResult {
        const COUNT: usize = 50;
        let mark = self.host.folder().display().to_string();
        let ours = || marked(&mark).into_iter().filter(|pid| !is_sleep(*pid)).collect::<Vec<_>>();
        let daemon = self.host.daemon_pid().into_iter().collect::<Vec<_>>();
        // What an idle daemon holds is seen when it has been idle for a while.
        std::thread::sleep(IDLE);
        self.row(
            "idle daemon, RSS",
            "rorqual",
            rss(&daemon) as f64,
            "KiB",
            "the daemon process, 30 s after the last request",
        );
        let before = pss(&ours());
        for n in 0..COUNT {
            once(self.ours(&[
                "run",
                "-d",
                "--name",
                &format!("m{n}"),
                "busybox",
                "sleep",
                "10000",
            ]))?;
        }
        // As before them, so that what the daemon needed to start them is not counted as theirs.
        std::thread::sleep(IDLE);
        let each = (pss(&ours()).saturating_sub(before)) as f64 / COUNT as f64;
        self.row(
            "memory per container, PSS",
            "rorqual",
            each,
            "KiB",
            "of 50, all but their own processes",
        );
        for n in 0..COUNT {
            once(self.ours(&["rm", "-f", &format!("m{n}")]))?;
        }
        let Some(docker) = &self.docker else {
            return Ok(());
        };
        let name = docker.name();
        let engine =
            || docker.processes().into_iter().filter(|pid| !is_sleep(*pid)).collect::<Vec<_>>();
        let idle = rss(&engine()) as f64;
        let before = pss(&engine());
        for n in 0..COUNT {
            once(docker.docker([
                "run",
                "-d",
                "--name",
                &format!("m{n}"),
                "busybox",
                "sleep",
                "10000",
            ]))?;
        }
        // Shims are reparented, so they are found by their name and not below dockerd.
        let mut all = engine();
        all.extend(marked("containerd-shim").into_iter().filter(|pid| !is_sleep(*pid)));
        all.sort_unstable();
        all.dedup();
        let each = pss(&all).saturating_sub(before) as f64 / COUNT as f64;
        for n in 0..COUNT {
            once(docker.docker(["rm", "-f", &format!("m{n}")]))?;
        }
        self.row("idle daemon, RSS", &name, idle, "KiB", "dockerd and containerd");
        self.row(
            "memory per container, PSS",
            &name,
            each,
            "KiB",
            "of 50, all but their own processes",
        );
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of the table")]
    fn row(&mut self, job: &str, who: &str, value: f64, unit: &'static str, note: &str) {
        self.rows.push(Row {
            job: job.to_owned(),
            who: who.to_owned(),
            value,
            unit,
            note: note.to_owned(),
        });
    }

    /// What publishing adds to a run, and what ten thousand ports cost.
    fn ports(&mut self) -> TestResult {
        const RANGE: &str = "20000-29999:20000-29999";
        let plain = ["run", "--rm", "busybox", "true"];
        let one = ["run", "--rm", "-p", "18080:80", "busybox", "true"];
        let many = ["run", "--rm", "-p", RANGE, "busybox", "true"];
        let jobs: Vec<Job<'_>> = vec![
            Box::new(|| self.ours(&plain)),
            Box::new(|| self.ours(&one)),
            Box::new(|| self.ours(&many)),
        ];
        let times = interleaved(&jobs, ROUNDS)?;
        drop(jobs);
        for (job, times) in
            ["run --rm", "run --rm -p, one port", "run --rm -p, 10000"].iter().zip(&times)
        {
            self.note(job, vec!["rorqual".to_owned()], std::slice::from_ref(times));
        }
        self.clients("run --rm -p, against peers", &one)?;
        let daemon = self.host.daemon_pid().into_iter().collect::<Vec<_>>();
        let kernel = || memory_of_kernel();
        let mark = self.host.folder().display().to_string();
        let own = || pss(&marked(&mark));
        let container = |flags: &[&str], name: &str| {
            let start = [&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "10000"]];
            once(self.ours(&start.concat()))
        };
        container(&[], "few")?;
        // What earlier runs left in the heap would hide what is held.
        std::thread::sleep(IDLE);
        let before = (own(), kernel());
        container(&["-p", RANGE], "many")?;
        std::thread::sleep(IDLE);
        let with = (own().saturating_sub(before.0), kernel().saturating_sub(before.1));
        for name in ["few", "many"] {
            once(self.ours(&["rm", "-f", name]))?;
        }
        let note = format!(
            "PSS with one more container; kernel's {} KiB beside; daemon {}",
            with.1,
            rss(&daemon)
        );
        self.row("10000 ports, memory", "rorqual", with.0 as f64, "KiB", &note);
        Ok(())
    }

    /// How much passes to a published port and between containers.
    fn traffic(&mut self) -> TestResult {
        if !installed("iperf3") {
            return Ok(());
        }
        let ours = |args: &[&str]| self.ours(args);
        let server = network::container(&ours, &["--name", "server", "-p", "15201:5201"])?;
        let client = network::container(&ours, &["--name", "client"])?;
        let address =
            self.ours(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server"]).output()?;
        let address = String::from_utf8_lossy(&address.stdout).trim().to_owned();
        let host = self.host.daemon_pid().ok_or("the daemon does not run")?;
        let plain = network::Plain::new()?;
        let way = |from: u32, address: &str, port: u16| network::Way {
            from,
            to: server,
            address: address.to_owned(),
            port,
        };
        let ways = [
            way(host, "127.0.0.1", 15201),
            way(host, "::1", 15201),
            way(client, &address, 5201),
            plain.way(),
        ];
        let figures = network::passes(&ways)?;
        for name in ["server", "client"] {
            once(self.ours(&["rm", "-f", name]))?;
        }
        let what = [
            ("host to published port", "rorqual"),
            ("host to published port at ::1, relayed", "rorqual"),
            ("container to container", "rorqual"),
            ("container to container", "veth and bridge"),
        ];
        for ((job, who), figure) in what.into_iter().zip(figures) {
            self.row(job, who, figure, "Gbit/s", "median of 5 streams of 3 s, in turn");
        }
        Ok(())
    }

    /// How fast names of containers are answered.
    fn names(&mut self) -> TestResult {
        once(self.ours(&["network", "create", "bench"]))?;
        let ours = |args: &[&str]| self.ours(args);
        network::container(&ours, &["--name", "web", "--network", "bench"])?;
        let pid = network::container(&ours, &["--name", "asker", "--network", "bench"])?;
        let (asked, spent) = network::names(&self.host, pid, "web")?;
        for name in ["web", "asker"] {
            once(self.ours(&["rm", "-f", name]))?;
        }
        once(self.ours(&["network", "rm", "bench"]))?;
        let a_core = asked.each_second * 5.0 / spent.as_secs_f64().max(0.001);
        let note = format!(
            "p50 {:.2} ms, p99 {:.2} ms, {} lost, 16 at once; {a_core:.0}/s of the resolver's processor time",
            ms(asked.p50),
            ms(asked.p99),
            asked.lost
        );
        self.row("names answered", "rorqual", asked.each_second, "1/s", &note);
        Ok(())
    }

    /// Fifty `run --rm` at once, as time per container.
    fn parallel(&mut self) -> TestResult {
        const COUNT: u32 = 50;
        let at_once = |command: &(dyn Fn() -> Command + Sync)| -> TestResult<Duration> {
            let begun = Instant::now();
            std::thread::scope(|scope| {
                let runs: Vec<_> = (0..COUNT).map(|_| scope.spawn(|| once(command()))).collect();
                runs.into_iter().try_for_each(|run| {
                    run.join().unwrap_or_else(|_| Err("a run panicked".into())).map(|_| ())
                })
            })?;
            Ok(begun.elapsed())
        };
        let args = ["run", "--rm", "busybox", "true"];
        let ours = at_once(&|| self.ours(&args))?;
        let peer = match &self.docker {
            Some(docker) => Some((docker.name(), at_once(&|| docker.docker(args))?)),
            None => None,
        };
        self.row("50 runs at once, per run", "rorqual", ms(ours / COUNT), "ms", "one batch");
        if let Some((name, took)) = peer {
            self.row("50 runs at once, per run", &name, ms(took / COUNT), "ms", "one batch");
        }
        Ok(())
    }

    /// The cost of a start among many.
    fn thousand(&mut self) -> TestResult {
        let mut times = Vec::new();
        for n in 0..1000 {
            // A burst outruns whatever a daemon prepares for the next start. With a pause, the number of containers
            // is what is compared; without one, what a burst costs is seen.
            if !(50..950).contains(&n) {
                std::thread::sleep(PAUSE);
            }
            let name = format!("t{n}");
            times.push(once(
                self.ours(&["run", "-d", "--name", &name, "busybox", "sleep", "10000"]),
            )?);
        }
        for (job, range, note) in [
            ("run -d, among few", 1..50, "49 starts with pauses"),
            ("run -d, among 1000", 950..1000, "50 starts with pauses"),
            ("run -d, burst, among few", 100..200, "100 starts in a row"),
            ("run -d, burst, among 1000", 850..950, "100 starts in a row"),
        ] {
            let median = Times::of(times[range].to_vec()).median();
            self.row(job, "rorqual", ms(median), "ms", note);
        }
        for n in 0..1000 {
            once(self.ours(&["rm", "-f", &format!("t{n}")]))?;
        }
        Ok(())
    }
}

fn client(program: &Path, socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display())).args(args);
    command
}

/// KiB of the kernel's own memory that are not given back on demand.
fn memory_of_kernel() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
    };
    ["SUnreclaim:", "Percpu:", "VmallocUsed:"].iter().filter_map(|key| of(key)).sum()
}

/// The containers' own process.
fn is_sleep(pid: u32) -> bool {
    name(pid) == "sleep" || name(pid) == "busybox"
}

fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

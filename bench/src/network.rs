//! Networks: what a published port costs, how much passes, and how fast names are answered.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rorqual_testkit::{Host, TestResult, eventually};

use crate::measure::{Times, once};

/// The argument that makes this program ask for names instead.
pub(crate) const ASK: &str = "--ask-names";
/// Queries under way at once.
const AT_ONCE: usize = 16;
/// How long names are asked for.
const ASKING: Duration = Duration::from_secs(5);
/// Seconds of one run of iperf3.
const STREAM: &str = "3";
const RUNS: usize = 5;

/// What asking for names brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) each_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) lost: u64,
}

/// Starts a container and returns its process.
pub(crate) fn container(client: &dyn Fn(&[&str]) -> Command, flags: &[&str]) -> TestResult<u32> {
    let start = [&["run", "-d"][..], flags, &["busybox", "sleep", "10000"]].concat();
    let id = output(client(&start))?;
    Ok(output(client(&["inspect", "-f", "{{.State.Pid}}", &id]))?.parse()?)
}

fn output(mut command: Command) -> TestResult<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn inside(pid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "-t", &pid.to_string()]).arg(program);
    command
}

/// A way for bytes: from one namespace to a server in another.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) address: String,
    pub(crate) port: u16,
}

impl Way {
    fn client(&self, args: &[&str]) -> Command {
        let mut client = inside(self.from, "iperf3");
        client.args(args).args(["-c", &self.address, "-p", &self.port.to_string()]);
        client
    }

    /// Gbit/s of one stream.
    fn stream(&self) -> TestResult<f64> {
        let report = output(self.client(&["-J", "-t", STREAM]))?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.ok_or("iperf3 reports no bits")? / 1e9)
    }
}

/// A server of iperf3 in a namespace, until it is dropped.
struct Server(std::process::Child);

impl Server {
    fn start(way: &Way) -> TestResult<Self> {
        let mut server = inside(way.to, "iperf3");
        let server = server.args(["-s", "-p", "5201"]).stdout(Stdio::null()).spawn()?;
        let server = Self(server);
        let mut refused = String::new();
        // A probe that is given both a time and an amount is refused by iperf3 itself.
        let ready = eventually("the server listens", || {
            let tried = once(way.client(&["-n", "1K"]));
            tried.map_err(|error| refused = error.to_string()).ok()
        });
        ready.map_err(|error| format!("{error}: {refused}"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures how much passes by each way, in Gbit/s: medians of streams in turn, since the machine drifts.
pub(crate) fn passes(ways: &[Way]) -> TestResult<Vec<f64>> {
    let mut figures = vec![Vec::new(); ways.len()];
    for _ in 0..RUNS {
        for (way, figures) in ways.iter().zip(&mut figures) {
            let _server = Server::start(way)?;
            figures.push(way.stream()?);
        }
    }
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Ok(figures.into_iter().map(median).collect())
}

/// Two namespaces on a bridge and nothing else, to compare with.
pub(crate) struct Plain {
    holders: Vec<std::process::Child>,
}

impl Plain {
    pub(crate) fn new() -> TestResult<Self> {
        let hold = |command: &mut Command| command.stdin(Stdio::null()).spawn();
        let mut plain = Self { holders: Vec::new() };
        for _ in 0..3 {
            plain.holders.push(hold(Command::new("unshare").args(["-n", "sleep", "600"]))?);
        }
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for pid in [0, 1, 2].map(|place| plain.pid(place)) {
            let theirs = || std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            eventually("a namespace is there", || theirs().filter(|theirs| *theirs != own))?;
        }
        let mut script =
            "ip link set lo up; ip link add br0 type bridge; ip link set br0 up".to_owned();
        for place in [1, 2] {
            let pid = plain.pid(place);
            script += &format!(
                "; ip link add v{place} type veth peer name eth0 netns {pid}; ip link set v{place} master br0 up; \
                 nsenter --net -t {pid} sh -c 'ip link set lo up; ip addr add 10.9.0.{place}/24 dev eth0; \
                 ip link set eth0 up'"
            );
        }
        let mut make = inside(plain.pid(0), "sh");
        make.args(["-ec", &script]);
        once(make)?;
        Ok(plain)
    }

    fn pid(&self, place: usize) -> u32 {
        self.holders[place].id()
    }

    /// The way between the two.
    pub(crate) fn way(&self) -> Way {
        Way { from: self.pid(1), to: self.pid(2), address: "10.9.0.2".to_owned(), port: 5201 }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            // It may have ended already.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// Asks for a name from a container's namespace; returns what came and the resolver's processor time.
pub(crate) fn names(host: &Host, pid: u32, name: &str) -> TestResult<(Asked, Duration)> {
    let resolver = resolver(host).ok_or("there is no resolver")?;
    let before = processor_time(&resolver)?;
    let mut asker = inside(pid, std::env::current_exe()?);
    let text = output({
        asker.args([ASK, name]);
        asker
    })?;
    let spent = processor_time(&resolver)?.saturating_sub(before);
    let figures = text.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [each_second, p50, p99, lost] = figures[..] else { return Err("no figures".into()) };
    let micros = |figure: f64| Duration::from_secs_f64(figure / 1e6);
    Ok((Asked { each_second, p50: micros(p50), p99: micros(p99), lost: lost as u64 }, spent))
}

fn resolver(host: &Host) -> Option<String> {
    let run_dir = host.folder().join("run").display().to_string();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let words = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let ours = words.contains("\0resolver\0") && words.contains(&run_dir);
        ours.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

fn processor_time(pid: &str) -> TestResult<Duration> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("schedstat"))?;
    let nanos = stat.split(' ').next().ok_or("no time")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

/// Asks the resolver of this namespace, with some queries under way at once, and prints answers per second, the
/// median and the 99th percentile in microseconds, and the number of queries without an answer.
pub(crate) fn ask(name: &str) -> TestResult<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(("127.0.0.11", 53))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let begun = Instant::now();
    let mut sent = vec![None::<Instant>; usize::from(u16::MAX) + 1];
    let (mut next, mut lost, mut times) = (0_u16, 0_u64, Vec::new());
    let mut send = |sent: &mut Vec<Option<Instant>>| -> TestResult {
        sent[usize::from(next)] = Some(Instant::now());
        socket.send(&query(next, name))?;
        next = next.wrapping_add(1);
        Ok(())
    };
    for _ in 0..AT_ONCE {
        send(&mut sent)?;
    }
    let mut answer = [0; 512];
    while begun.elapsed() < ASKING {
        let Ok(size) = socket.recv(&mut answer) else {
            lost += 1;
            send(&mut sent)?;
            continue;
        };
        let id = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
        let good = size > 12 && answer[3].trailing_zeros() >= 4 && answer[7] > 0;
        match sent[id].take().filter(|_| good) {
            Some(at) => times.push(at.elapsed()),
            None => lost += 1,
        }
        send(&mut sent)?;
    }
    let each_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    let p50 = Times::of(times).median();
    Ok(format!("{each_second} {} {} {lost}", p50.as_micros(), p99.as_micros()))
}

//! These run on whatever the machine has, version 1 or 2, and need root.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::tree::{below, clean, parse_description};
use super::{
    Access, Cgroup, Cpu, DeviceKind, DeviceRule, Driver, Error, Layout, Memory, Resources, Version,
};

/// A group that is gone when the test ends, with everything in it.
struct Scratch(Cgroup);

impl Scratch {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() || Layout::current().is_err() {
            return None;
        }
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = format!("/rorqual-test-{pid}-{number}/inner");
        Some(Self(Cgroup::create(&path, Driver::Cgroupfs).expect("a group")))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.0.kill_all().expect("killed");
        self.0.delete().expect("deleted");
        let parent = self.0.description().replace("/inner", "");
        Cgroup::open(&parent).expect("the parent").delete().expect("deleted");
    }
}

/// A process that does nothing until it is killed, and is reaped in any case.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "cgroup::tests::sleeper", "--ignored", "--nocapture"]);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a child"))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the body of a child process"]
fn sleeper() {
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::yield_now();
    }
}

#[test]
fn paths() {
    for (path, expected) in
        [("/a/b", Some("a/b")), ("a//b/", Some("a/b")), ("/", None), ("", None), ("/a/../b", None)]
    {
        assert_eq!(clean(path).ok().as_deref(), expected, "{path}");
    }
    assert_eq!(below("docker/x/y", "/docker/x"), "y");
    assert_eq!(below("docker/xy", "/docker/x"), "docker/xy");
    assert_eq!(below("docker/x", "/"), "docker/x");
    assert!(parse_description("").is_err());
    assert!(parse_description("0::/../x").is_err());
    let places = parse_description("3:cpu,cpuacct:/a\n0::/b\n").expect("two lines");
    assert_eq!(places[0], (vec!["cpu".to_owned(), "cpuacct".to_owned()], "a".to_owned()));
    assert_eq!(places[1], (vec![], "b".to_owned()));
}

#[test]
fn a_life() {
    let Some(scratch) = Scratch::new() else { return };
    let group = &scratch.0;
    let child = Sleeper::new();
    group.add(child.pid()).expect("added");
    assert_eq!(group.processes(false).expect("a list"), [child.pid()]);

    let again = Cgroup::open(&group.description()).expect("opened");
    assert_eq!(again.description(), group.description());
    assert_eq!(again.processes(true).expect("a list"), [child.pid()]);

    assert!(!group.is_frozen().expect("a state"));
    group.freeze().expect("frozen");
    assert!(group.is_frozen().expect("a state"));
    group.thaw().expect("thawed");
    eventually("thawed", || !group.is_frozen().expect("a state"));

    group.freeze().expect("frozen");
    group.kill_all().expect("killed");
    let mut child = child;
    child.0.wait().expect("it ended");
    eventually("empty", || group.processes(true).expect("a list").is_empty());
    group.delete().expect("deleted");
    group.delete().expect("deleted twice is no fault");
    assert!(Cgroup::open(&group.description()).is_err());
}

#[test]
fn a_parent_lists_and_kills_what_is_below() {
    let Some(scratch) = Scratch::new() else { return };
    let parent = Cgroup::open(&scratch.0.description().replace("/inner", "")).expect("the parent");
    let mut child = Sleeper::new();
    scratch.0.add(child.pid()).expect("added");
    assert!(parent.processes(false).expect("a list").is_empty());
    assert_eq!(parent.processes(true).expect("a list"), [child.pid()]);
    parent.kill_all().expect("killed");
    child.0.wait().expect("it ended");
}

fn limited(memory: i64) -> Resources {
    Resources {
        memory: Memory { limit: Some(memory), reservation: Some(16 << 20), ..Memory::default() },
        cpu: Cpu {
            shares: Some(512),
            quota: Some(50_000),
            period: Some(100_000),
            cpus: Some("0".to_owned()),
            ..Cpu::default()
        },
        pids: Some(33),
        ..Resources::default()
    }
}

#[test]
fn limits_hold_and_change() {
    let Some(scratch) = Scratch::new() else { return };
    let group = &scratch.0;
    for size in [64_i64 << 20, 256 << 20, 32 << 20] {
        let mut resources = limited(size);
        resources.memory.swap = Some(size * 2);
        group.apply(&resources).expect("applied");
        let stats = group.stats().expect("numbers");
        assert_eq!(stats.memory.limit, Some(size as u64));
        assert_eq!(stats.pids.limit, Some(33));
        let sum = size as u64 * 2;
        let expected = if group.version() == Version::V1 { sum } else { sum - size as u64 };
        if let Some(swap) = stats.memory.swap_limit {
            assert_eq!(swap, expected);
        }
    }
    let endless = Resources {
        memory: Memory { limit: Some(-1), swap: Some(-1), ..Memory::default() },
        pids: Some(-1),
        ..Resources::default()
    };
    group.apply(&endless).expect("lifted");
    let stats = group.stats().expect("numbers");
    assert_eq!((stats.memory.limit, stats.pids.limit), (None, None));
}

#[test]
fn a_quota_and_its_period_change_in_any_order() {
    let Some(scratch) = Scratch::new() else { return };
    for (quota, period, burst) in [
        (50_000, 100_000, 20_000),
        (900_000, 1_000_000, 100_000),
        (2_000, 10_000, 0),
        (-1, 100_000, 0),
    ] {
        let cpu =
            Cpu { quota: Some(quota), period: Some(period), burst: Some(burst), ..Cpu::default() };
        let resources = Resources { cpu, ..Resources::default() };
        let applied = scratch.0.apply(&resources);
        assert!(applied.is_ok(), "{quota} {period} {burst}: {applied:?}");
    }
    let only_period = Cpu { period: Some(50_000), ..Cpu::default() };
    scratch.0.apply(&Resources { cpu: only_period, ..Resources::default() }).expect("applied");
}

#[test]
fn a_bad_value_is_an_error_that_names_it() {
    let Some(scratch) = Scratch::new() else { return };
    let cpu = Cpu { cpus: Some("4000-5000".to_owned()), ..Cpu::default() };
    let error = scratch.0.apply(&Resources { cpu, ..Resources::default() }).expect_err("refused");
    let Error::File { file, .. } = &error else { panic!("{error:?}") };
    assert_eq!(file, "cpuset.cpus");
}

#[test]
fn the_other_versions_settings_are_not_silently_lost() {
    let Some(scratch) = Scratch::new() else { return };
    let mut resources = Resources::default();
    match scratch.0.version() {
        Version::V1 => {
            resources.unified.insert("memory.high".to_owned(), "1".to_owned());
            assert!(matches!(scratch.0.apply(&resources), Err(Error::Unsupported(_))));
        }
        Version::V2 => {
            resources.memory.swappiness = Some(3);
            assert_eq!(scratch.0.apply(&resources).expect("applied").len(), 1);
            resources.unified.insert("memory.high".to_owned(), "67108864".to_owned());
            scratch.0.apply(&resources).expect("applied");
            resources.unified.insert("../memory.high".to_owned(), "1".to_owned());
            assert!(matches!(scratch.0.apply(&resources), Err(Error::Unsupported(_))));
        }
    }
}

fn devices(allow_zero: bool) -> Vec<DeviceRule> {
    let everything = DeviceRule {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: Access::ALL,
    };
    let zero = DeviceRule {
        allow: allow_zero,
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(5),
        access: Access::ALL,
    };
    let null = DeviceRule { allow: true, minor: Some(3), ..zero };
    vec![everything, null, zero]
}

/// Opens both devices from inside the group, in a process of its own.
fn openable(group: &Cgroup) -> (bool, bool) {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "cgroup::tests::opener", "--ignored", "--nocapture"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child");
    group.add(child.id() as i32).expect("added");
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("it ended");
    let text = String::from_utf8_lossy(&output.stdout);
    (text.contains("null: true"), text.contains("zero: true"))
}

#[test]
#[ignore = "the body of a child process"]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn opener() {
    sleeper();
    let opens = |path| std::fs::File::open(path).is_ok();
    println!("null: {} zero: {}", opens("/dev/null"), opens("/dev/zero"));
}

#[test]
fn device_rules_hold_and_change() {
    let Some(scratch) = Scratch::new() else { return };
    assert_eq!(openable(&scratch.0), (true, true));
    for allow_zero in [false, true, false] {
        let resources = Resources { devices: Some(devices(allow_zero)), ..Resources::default() };
        scratch.0.apply(&resources).expect("applied");
        assert_eq!(openable(&scratch.0), (true, allow_zero));
    }
}

#[test]
#[ignore = "the body of a child process"]
fn glutton() {
    sleeper();
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&hoard);
    }
}

#[test]
fn running_out_of_memory_is_told() {
    let Some(scratch) = Scratch::new() else { return };
    let memory = Memory { limit: Some(24 << 20), swap: Some(24 << 20), ..Memory::default() };
    scratch.0.apply(&Resources { memory, ..Resources::default() }).expect("applied");
    let mut events = scratch.0.watch_oom().expect("watching");
    assert!(!events.take().expect("asked"));
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "cgroup::tests::glutton", "--ignored"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a child");
    scratch.0.add(child.id() as i32).expect("added");
    drop(child.stdin.take());
    let second = Timespec { tv_sec: 20, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&second)).expect("polled");
    assert_eq!(ready, 1);
    child.wait().expect("it ended");
    eventually("counted", || scratch.0.oom_kills().expect("a number") > 0);
    let told = events.take().expect("asked");
    assert!(told || scratch.0.version() == Version::V2, "an eventfd says so at once");
}

#[test]
fn numbers_are_measured() {
    let Some(scratch) = Scratch::new() else { return };
    // A sleeping process may use no time at all once it is in the group.
    let busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
    let mut busy = busy.expect("started");
    scratch.0.add(busy.id() as i32).expect("added");
    eventually("measured", || {
        let stats = scratch.0.stats().expect("numbers");
        stats.cpu.total > 0 && stats.pids.current >= 1 && !stats.memory.details.is_empty()
    });
    busy.kill().and_then(|()| busy.wait()).expect("ended");
}

#[test]
fn a_single_thread_enters_by_itself() {
    let Some(scratch) = Scratch::new() else { return };
    // SAFETY: the child only makes system calls and then leaves.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = i32::from(scratch.0.enter().is_err());
        // SAFETY: both are plain system calls; the parent kills the child once it has seen it.
        unsafe {
            if code == 0 {
                libc::pause();
            }
            libc::_exit(code);
        }
    }
    assert!(pid > 0);
    let all = || scratch.0.processes(false).expect("a list").contains(&pid);
    eventually("inside", all);
    // The last hierarchy of the list is entered last.
    eventually("inside everywhere", || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        scratch.0.description().lines().all(|line| {
            let place = line.split_once(':').expect("a line").1;
            text.lines().any(|known| known.ends_with(place))
        })
    });
    super::tree::kill(pid);
    // SAFETY: reaps the child made above.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

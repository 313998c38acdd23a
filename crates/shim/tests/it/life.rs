//! Obligations of the real shims.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use oci_spec::runtime::Process;
use rorqual_core::{ContainerId, ExecId, Signal};
use rorqual_shim::log::{LogQuery, LogTarget, read};
use rorqual_shim::suite::{self, attachment, exit_of};
use rorqual_shim::{Adoption, ExecLaunch, KillReach, Task, Tasks, WindowSize};

use crate::host::{Host, launch, spec};

async fn log_text(target: &LogTarget) -> Vec<u8> {
    let (_, running) = tokio::sync::watch::channel(false);
    let mut records = read(target, &LogQuery::default(), running).unwrap();
    let mut text = Vec::new();
    while let Some(record) = records.next().await {
        text.extend(record.unwrap().line);
    }
    text
}

fn exec(number: u8, args: &[&str], terminal: bool) -> ExecLaunch {
    let document = spec(ContainerId::from_random([0; 32]), args, terminal);
    let process: Process = document.process().clone().unwrap();
    ExecLaunch {
        id: ExecId::from_random([number; 32]),
        process,
        user: String::new(),
        groups: Vec::new(),
        window: WindowSize { width: 80, height: 24 },
        attachment: None,
    }
}

async fn kill(task: &Arc<dyn Task>) {
    task.signal(Signal::KILL, KillReach::Init).await.unwrap();
    exit_of(task).await;
    task.release().await.unwrap();
}

/// Waits until a condition holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn shims_keep_the_contract() {
    let host = Host::new();
    let shims = host.shims().await;
    let (dir, rootfs) = (host.dir.path().to_owned(), host.rootfs());
    suite::run(shims, Arc::new(move |args| launch(&dir, &rootfs, args))).await;
    let left: Vec<_> = std::fs::read_dir(host.run_dir().join("shims")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_a_late_reader_get_every_byte() {
    let host = Host::new();
    let shims = host.shims().await;
    let mut request = host.launch(&["seq", "1", "200000"]);
    let log = request.log.clone();
    let (near, far) = attachment(false);
    request.attachments.push(far);
    let task = shims.launch(request).await.unwrap();
    // The client reads only now: until then the program stands still, and nothing is lost.
    let (out, err) = near.read_framed().await;
    assert_eq!(exit_of(&task).await.code, 0);
    let numbers: Vec<String> = (1..=200_000).map(|number| number.to_string()).collect();
    let expected = numbers.join("\n") + "\n";
    assert!(out == expected.as_bytes() && err.is_empty());
    assert!(log_text(&log).await == expected.as_bytes());
    task.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_be_slow_for_a_while() {
    let host = Host::new();
    let shims = host.shims().await;
    // More than the socket takes, less than is kept.
    let mut request = host.launch(&["seq", "1", "100000"]);
    let (near, far) = attachment(false);
    request.attachments.push(far);
    let task = shims.launch(request).await.unwrap();
    assert_eq!(exit_of(&task).await.code, 0);
    let (out, _) = near.read_framed().await;
    let lines = (1..=100_000).map(|n| n.to_string()).collect::<Vec<_>>();
    let expected = lines.join("\n") + "\n";
    assert!(out == expected.as_bytes(), "{} of {} bytes", out.len(), expected.len());
    task.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_the_program() {
    let host = Host::new();
    let shims = host.shims().await;
    let mut request = host.launch(&["seq", "1", "300000"]);
    let (near, far) = attachment(false);
    request.attachments.push(far);
    let task = shims.launch(request).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), task.exit()).await.is_err(),
        "a client that does not read must stall the program"
    );
    drop(near);
    assert_eq!(exit_of(&task).await.code, 0);
    task.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_raw_and_knows_its_size() {
    let host = Host::new();
    let shims = host.shims().await;
    let mut request = host.launch(&[]);
    request.spec = spec(
        request.container,
        &["sh", "-c", "stty size; read line; stty size; echo got $line"],
        true,
    );
    request.open_stdin = true;
    request.window = WindowSize { width: 100, height: 30 };
    let (near, far) = attachment(true);
    request.attachments.push(far);
    let task = shims.launch(request).await.unwrap();
    let mut socket = near.0.try_clone().unwrap();
    let mut seen = String::new();
    let mut read_until = |socket: &mut UnixStream, what: &str| {
        while !seen.contains(what) {
            let mut buffer = [0; 1024];
            let count = socket.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "{seen:?} ended before {what:?}");
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    };
    read_until(&mut socket, "30 100\r\n");
    task.resize(WindowSize { width: 90, height: 20 }).await.unwrap();
    socket.write_all(b"word\n").unwrap();
    read_until(&mut socket, "20 90\r\n");
    read_until(&mut socket, "got word\r\n");
    assert_eq!(exit_of(&task).await.code, 0);
    task.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_run_are_told_and_found_again() {
    let host = Host::new();
    let shims = host.shims().await;
    let request = host.launch(&["sleep", "1000"]);
    let container = request.container;
    let task = shims.launch(request).await.unwrap();

    let mut first = exec(1, &["sh", "-c", "cat; echo error >&2; exit 3"], false);
    let (near, far) = attachment(true);
    first.attachment = Some(far);
    let running = task.exec(first).await.unwrap();
    (&near.0).write_all(b"input").unwrap();
    near.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(near.read_framed().await, (b"input".to_vec(), b"error\n".to_vec()));
    assert_eq!(running.exit().await.code, 3);

    // Detached, and with a child that outlives it and holds its streams.
    let running = task.exec(exec(2, &["sh", "-c", "sleep 1000 & exit 4"], false)).await.unwrap();
    assert_eq!(running.exit().await.code, 4);

    let mut third = exec(3, &["sh", "-c", "stty size; read x"], true);
    let (near, far) = attachment(true);
    third.attachment = Some(far);
    let running = task.exec(third).await.unwrap();
    let mut line = [0; 7];
    (&near.0).read_exact(&mut line).unwrap();
    assert_eq!(&line, b"24 80\r\n");
    assert_eq!(near.0.set_read_timeout(None).ok(), Some(()));

    // The daemon goes and another comes.
    drop((task, shims));
    let shims = host.shims().await;
    let Adoption::Running(task) = shims.adopt(container).await.unwrap() else {
        panic!("not adopted");
    };
    assert_eq!(task.find_exec(ExecId::from_random([1; 32])).await.unwrap().exit().await.code, 3);
    let found = task.find_exec(ExecId::from_random([3; 32])).await.unwrap();
    assert_eq!(found.pid(), running.pid());
    found.resize(WindowSize { width: 10, height: 10 }).await.unwrap();
    found.signal(Signal::KILL).await.unwrap();
    assert_eq!(found.exit().await.code, 137);
    let nobody = task.find_exec(ExecId::from_random([9; 32])).await;
    assert!(matches!(nobody.err(), Some(rorqual_shim::Error::NoSuchExec)));

    let failed = task.exec(exec(5, &["nosuchprogram"], false)).await;
    assert!(
        matches!(failed.err(), Some(rorqual_shim::Error::Start { exit_code: 127, .. })),
        "a missing program"
    );
    // An exec dies with its container.
    let last = task.exec(exec(6, &["sleep", "1000"], false)).await.unwrap();
    task.signal(Signal::KILL, KillReach::Init).await.unwrap();
    assert_eq!(last.exit().await.code, 137);
    exit_of(&task).await;
    task.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_while_no_daemon_is_there_is_found_by_the_next() {
    let host = Host::new();
    let shims = host.shims().await;
    let request = host.launch(&["sh", "-c", "read line; echo last words; exit 9"]);
    let (container, log) = (request.container, request.log.clone());
    let mut request = request;
    request.open_stdin = true;
    request.stdin_once = true;
    let (near, far) = attachment(true);
    request.attachments.push(far);
    let task = shims.launch(request).await.unwrap();
    let pid = task.pid();
    drop((task, shims));
    drop(near);
    eventually("the program ends", || !alive(pid)).await;
    let record = host.run_dir().join("shims").join(container.to_string()).join("exit");
    eventually("the exit is written down", || record.exists()).await;

    let shims = host.shims().await;
    let exit = match shims.adopt(container).await.unwrap() {
        Adoption::Ended(_, exit) => exit,
        Adoption::Running(task) => exit_of(&task).await,
        Adoption::Unknown => panic!("the exit is lost"),
    };
    assert_eq!((exit.code, exit.witnessed), (9, true));
    assert_eq!(log_text(&log).await, b"last words\n");
    shims.forget(container).await.unwrap();
}

pub(crate) fn shim_of(host: &Host, container: ContainerId) -> i32 {
    let path = host.run_dir().join("shims").join(container.to_string()).join("task");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    record["shim_pid"].as_i64().unwrap() as i32
}

fn kill_9(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_container_along_and_that_is_told() {
    let host = Host::new();
    let shims = host.shims().await;
    let request = host.launch(&["sleep", "1000"]);
    let container = request.container;
    let task = shims.launch(request).await.unwrap();
    kill_9(shim_of(&host, container));
    let exit = exit_of(&task).await;
    assert_eq!((exit.code, exit.witnessed), (137, false));
    assert!(!alive(task.pid()));
    task.release().await.unwrap();

    // The same while no daemon is there.
    let request = host.launch(&["sleep", "1000"]);
    let container = request.container;
    let task = shims.launch(request).await.unwrap();
    let pid = task.pid();
    drop(task);
    kill_9(shim_of(&host, container));
    let mut adopted = None;
    while adopted.is_none() {
        // The socket of a dying shim may still answer.
        adopted = match shims.adopt(container).await {
            Ok(Adoption::Ended(_, exit)) => Some(exit),
            Ok(Adoption::Running(task)) => Some(exit_of(&task).await),
            Ok(Adoption::Unknown) => panic!("forgotten"),
            Err(_) => None,
        };
    }
    assert!(adopted.is_some_and(|exit| !exit.witnessed));
    eventually("the container is gone", || !alive(pid)).await;
    shims.forget(container).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_launcher_is_replaced_and_harms_nobody() {
    let host = Host::new();
    let shims = host.shims().await;
    let task = shims.launch(host.launch(&["sleep", "1000"])).await.unwrap();
    kill_9(shims.launcher().pid().await.unwrap() as i32);
    let other = shims.launch(host.launch(&["sh", "-c", "exit 5"])).await.unwrap();
    assert_eq!(exit_of(&other).await.code, 5);
    other.release().await.unwrap();
    assert!(alive(task.pid()));
    kill(&task).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_start_at_once() {
    let host = Host::new();
    let shims = host.shims().await;
    let started = Instant::now();
    let mut launches = tokio::task::JoinSet::new();
    for number in 0..100_u8 {
        let (shims, request) =
            (Arc::clone(&shims), host.launch(&["sh", "-c", &format!("exit {number}")]));
        launches.spawn(async move {
            let task = shims.launch(request).await.unwrap();
            assert_eq!(exit_of(&task).await.code, i32::from(number));
            task.release().await.unwrap();
        });
    }
    while let Some(done) = launches.join_next().await {
        done.unwrap();
    }
    eprintln!("100 runs: {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_can_be_frozen_measured_and_limited() {
    let host = Host::new();
    let shims = host.shims().await;
    let task = shims.launch(host.launch(&["sleep", "1000"])).await.unwrap();
    task.pause().await.unwrap();
    task.unpause().await.unwrap();
    let stats = task.stats().await.unwrap();
    assert!(stats.pids.0 >= 1, "{stats:?}");
    let resources = serde_json::from_value(serde_json::json!({"pids": {"limit": 5}})).unwrap();
    task.update(resources).await.unwrap();
    assert_eq!(task.stats().await.unwrap().pids.1, Some(5));
    kill(&task).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_is_called_off_leaves_nothing() {
    let host = Host::new();
    let shims = host.shims().await;
    for microseconds in [0, 200, 1000, 3000, 6000, 10_000, 20_000] {
        let request = host.launch(&["sleep", "1000"]);
        let container = request.container;
        let patience = Duration::from_micros(microseconds);
        let Ok(started) = tokio::time::timeout(patience, shims.launch(request)).await else {
            let directory = host.run_dir().join("shims").join(container.to_string());
            eventually("it is taken down", || !directory.exists() && !in_some_cgroup(container))
                .await;
            continue;
        };
        kill(&started.unwrap()).await;
    }
}

/// Tells whether a control group of the container exists.
fn in_some_cgroup(container: ContainerId) -> bool {
    std::fs::read_dir("/sys/fs/cgroup").unwrap().any(|hierarchy| {
        let hierarchy = hierarchy.unwrap().path();
        hierarchy.join(format!("rorqual-shim-test-{container}")).exists()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_shim_leaks_into_the_container() {
    let host = Host::new();
    let shims = host.shims().await;
    let script = "cat /proc/self/status; for fd in /proc/self/fd/*; do echo fd ${fd##*/}; done";
    let mut request = host.launch(&["sh", "-c", script]);
    let (near, far) = attachment(false);
    request.attachments.push(far);
    let task = shims.launch(request).await.unwrap();
    let text = String::from_utf8(near.read_framed().await.0).unwrap();
    for field in ["SigBlk:", "SigIgn:"] {
        let mask = text.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim();
        // The standard signals; what lies above is the C library's own and as whoever started the test left it.
        let standard = u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff;
        assert_eq!(standard, 0, "{field} {mask}");
    }
    let descriptors: Vec<&str> = text.lines().filter(|line| line.starts_with("fd ")).collect();
    // The shell itself holds the directory it lists.
    assert!(descriptors.len() <= 4, "{descriptors:?}");
    exit_of(&task).await;
    task.release().await.unwrap();
}

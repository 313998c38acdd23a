//! Figures, not obligations: `cargo test -p rorqual-shim --test it -- --ignored --nocapture`.
//!
//! `RORQUAL_SHIM_HOST` names another binary to measure, for instance an optimised one.

use std::time::{Duration, Instant};

use rorqual_core::Signal;
use rorqual_shim::suite::exit_of;
use rorqual_shim::{KillReach, Tasks};

use crate::host::Host;
use crate::life::shim_of;

fn memory(pid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn memory_and_latency() {
    const COUNT: u32 = 50;
    let host = Host::new();
    let shims = host.shims().await;
    let mut tasks = Vec::new();
    let mut took = Vec::new();
    for _ in 0..COUNT {
        let request = host.launch(&["sleep", "1000"]);
        let container = request.container;
        let started = Instant::now();
        let task = shims.launch(request).await.unwrap();
        took.push(started.elapsed());
        tasks.push((container, task));
    }
    took.sort();
    let shims_pss: Vec<u64> =
        tasks.iter().map(|(container, _)| memory(shim_of(&host, *container), "Pss:")).collect();
    let private: Vec<u64> = tasks
        .iter()
        .map(|(container, _)| memory(shim_of(&host, *container), "Private_Dirty:"))
        .collect();
    let launcher = shims.launcher().pid().await.unwrap() as i32;
    eprintln!("launch: median {:?}, worst {:?}", took[took.len() / 2], took[took.len() - 1]);
    eprintln!(
        "PSS per shim: mean {} KiB, last {} KiB; private dirty {} KiB; launcher {} KiB",
        shims_pss.iter().sum::<u64>() / u64::from(COUNT),
        shims_pss[shims_pss.len() - 1],
        private[private.len() - 1],
        memory(launcher, "Pss:"),
    );
    let mut ends = Duration::ZERO;
    for (_, task) in tasks {
        let started = Instant::now();
        task.signal(Signal::KILL, KillReach::Init).await.unwrap();
        exit_of(&task).await;
        ends += started.elapsed();
        task.release().await.unwrap();
    }
    eprintln!("kill to exit: mean {:?}", ends / COUNT);
}

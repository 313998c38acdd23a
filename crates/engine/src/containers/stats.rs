//! `stats` and `top`.

use std::sync::Arc;

use rorqual_core::ErrorKind;
use rorqual_shim::{Error as TaskError, ProcessTable, Stats};
use rorqual_store::blocking;

use crate::container::Container;
use crate::error::{Error, Result};
use crate::request::StatsSample;
use crate::world::World;

pub(super) async fn sample(world: &World, container: &Arc<Container>) -> Result<StatsSample> {
    let task = container.task();
    let running = task.is_some();
    let stats = match task {
        Some(task) => match task.stats().await {
            Ok(stats) => stats,
            // It ended while we asked.
            Err(rorqual_shim::Error::Ended) => Stats::default(),
            Err(source) => {
                let message = format!("cannot read the counters of container {}", container.id);
                return Err(Error::Task { message, source });
            }
        },
        None => Stats::default(),
    };
    let (system_cpu, online_cpus) = blocking(host_cpu).await;
    Ok(StatsSample {
        id: container.id,
        name: container.definition().name.clone(),
        read: world.options.clock.now(),
        stats,
        system_cpu,
        online_cpus,
        running,
    })
}

/// Returns CPU time of the host in ns and the number of CPUs, from `/proc/stat`.
fn host_cpu() -> (u64, u32) {
    parse_cpu(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parse_cpu(text: &str) -> (u64, u32) {
    let mut lines = text.lines().take_while(|line| line.starts_with("cpu"));
    let all = lines.next().unwrap_or_default();
    // user nice system idle iowait irq softirq; guest time is part of user time. Ticks are hundredths of a second.
    let ticks = all.split_ascii_whitespace().skip(1).take(7);
    let ticks: u64 = ticks.filter_map(|number| number.parse::<u64>().ok()).sum();
    (ticks * 10_000_000, lines.count() as u32)
}

pub(super) async fn top(
    world: &World,
    container: &Arc<Container>,
    ps_args: &str,
) -> Result<ProcessTable> {
    let task = container.running_task()?;
    let args = if ps_args.is_empty() { "-ef" } else { ps_args };
    let table = task.processes(args).await.map_err(|source| match source {
        // COMPAT: what is wrong with the format is told without words in front.
        TaskError::Refused { message, kind: ErrorKind::InvalidArgument } => Error::Invalid(message),
        source => {
            let message = format!("cannot list the processes of container {}", container.id);
            Error::Task { message, source }
        }
    })?;
    world.container_event(container, "top", []);
    Ok(table)
}

#[cfg(test)]
mod tests {
    //! Tests of reading the host's counters.

    #[test]
    fn host_counters() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 0 0 0\ncpu1 0 0 0 0\nintr 5\n";
        assert_eq!(super::parse_cpu(text), (280_000_000, 2));
    }
}

//! Timing of commands, interleaved.

use std::process::Command;
use std::time::{Duration, Instant};

use rorqual_testkit::TestResult;

/// Times of one contender, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn least(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    pub(crate) fn p90(&self) -> Duration {
        self.0.get(self.0.len() * 9 / 10).copied().unwrap_or_default()
    }

    /// The times in nanoseconds, shortest first.
    pub(crate) fn nanos(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }
}

/// A command to time: built anew for each run.
pub(crate) type Job<'a> = Box<dyn Fn() -> Command + 'a>;

/// Runs one command to its end, quietly, and returns how long it took.
pub(crate) fn once(mut command: Command) -> TestResult<Duration> {
    let begun = Instant::now();
    let output = command.output()?;
    let took = begun.elapsed();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?}: {}: {text}", output.status).into());
    }
    Ok(took)
}

/// Times all jobs in turn, A B C A B C …, after one uncounted round.
pub(crate) fn interleaved(jobs: &[Job<'_>], rounds: usize) -> TestResult<Vec<Times>> {
    let mut times = vec![Vec::with_capacity(rounds); jobs.len()];
    for round in 0..=rounds {
        for (job, times) in jobs.iter().zip(&mut times) {
            let took = once(job())?;
            if round > 0 {
                times.push(took);
            }
        }
    }
    Ok(times.into_iter().map(Times::of).collect())
}

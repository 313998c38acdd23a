//! The table of ratios.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) job: String,
    /// Who did it.
    pub(crate) who: String,
    /// The figure, with its unit in `unit`.
    pub(crate) value: f64,
    /// `ms`, `KiB`
    pub(crate) unit: &'static str,
    /// Spread or number of runs, in words.
    pub(crate) note: String,
}

/// Lays out rows; the first contender of each job is ours, and ratios are its share of the peer's figure.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!("{}\n\n", machine());
    let _ = writeln!(text, "{:<34} {:<22} {:>12} {:>9}  note", "job", "who", "figure", "peer/us");
    for row in rows {
        let ours =
            rows.iter().find(|other| other.job == row.job).map_or(row.value, |other| other.value);
        let ratio = if ours > 0.0 { row.value / ours } else { 0.0 };
        let figure = format!("{:.2} {}", row.value, row.unit);
        let _ = writeln!(
            text,
            "{:<34} {:<22} {:>12} {:>8.1}x  {}",
            row.job, row.who, figure, ratio, row.note
        );
    }
    text
}

fn machine() -> String {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let kernel = run("uname", &["-sr"]).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{kernel}, {cores} cores; medians of interleaved runs; figures of one line are from one run"
    )
}

/// Writes the table below `bench/results/`, named by the time.
pub(crate) fn keep(text: &str) -> io::Result<PathBuf> {
    let folder = PathBuf::from("bench/results");
    fs::create_dir_all(&folder)?;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let path = folder.join(format!("{now}.txt"));
    fs::write(&path, text)?;
    Ok(path)
}

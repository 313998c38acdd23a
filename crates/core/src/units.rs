//! Sizes and durations as Docker's users write and read them.

use std::time::Duration;

/// A text that is not a size or a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// Not a size such as `512m`.
    #[error("invalid size: '{0}'")]
    Size(String),
    /// Not a duration such as `1m30s`.
    #[error("invalid duration {0:?}: need a number with a unit (ns, us, ms, s, m, h)")]
    Duration(String),
}

/// Reads a size in bytes: `512`, `64k`, `1.5GiB`; units are powers of 1024, any case.
pub fn parse_size(text: &str) -> Result<u64, InvalidUnit> {
    let invalid = || InvalidUnit::Size(text.to_owned());
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    let factor = 1024_u64.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(invalid);
    }
    let value = number.parse::<f64>().map_err(|_| invalid())? * factor as f64;
    // LIMIT: beyond 2^63 the wire's signed integers end.
    if value.is_finite() && value < 9.2e18 { Ok(value as u64) } else { Err(invalid()) }
}

fn scaled(bytes: f64, base: f64, units: &[&str]) -> (f64, String) {
    let mut value = bytes;
    let mut at = 0;
    while value >= base && at + 1 < units.len() {
        value /= base;
        at += 1;
    }
    (value, units[at].to_owned())
}

/// Writes a size with decimal units, four significant digits: `1.093GB`, `12.3kB`, `0B`.
pub fn human_size(bytes: u64) -> String {
    let (value, unit) = scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"]);
    format!("{}{unit}", significant(value, 4))
}

/// Writes a size with decimal units, three significant digits: `1.09GB`.
pub fn human_size_short(bytes: u64) -> String {
    let (value, unit) = scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"]);
    format!("{}{unit}", significant(value, 3))
}

/// Writes a size with binary units, four significant digits: `63.75MiB`.
pub fn binary_size(bytes: u64) -> String {
    let (value, unit) =
        scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
    format!("{}{unit}", significant(value, 4))
}

/// Writes `value` as C's `%.<digits>g` does for numbers from 0 up to the next unit.
fn significant(value: f64, digits: usize) -> String {
    let whole_digits = if value < 1.0 { 1 } else { value.log10().floor() as usize + 1 };
    let mut text = format!("{value:.*}", digits.saturating_sub(whole_digits));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

/// Reads a duration as Go's `time.ParseDuration` does: `1h2m3.5s`, `300ms`; negative ones are refused.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidUnit> {
    let invalid = || InvalidUnit::Duration(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0_f64;
    let mut exact = 0_u64;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(invalid()),
        };
        match number.parse::<u64>() {
            Ok(whole) => {
                let part = whole.checked_mul(nanos).ok_or_else(invalid)?;
                exact = exact.checked_add(part).ok_or_else(invalid)?;
            }
            Err(_) => total += number.parse::<f64>().map_err(|_| invalid())? * nanos as f64,
        }
        rest = tail;
    }
    // LIMIT: Go's durations are signed 64-bit nanoseconds.
    let nanos =
        exact.checked_add(total.round() as u64).filter(|nanos| i64::try_from(*nanos).is_ok());
    nanos.map(Duration::from_nanos).ok_or_else(invalid)
}

/// Writes a duration as Go does: `1m30s`, `1.5s`, `300ms`, `0s`.
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let text =
            format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Writes a duration roughly, as `docker ps` does: `Less than a second`, `5 minutes`, `About an hour`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (duration.as_secs_f64() / 3600.0).round() as u64);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests;

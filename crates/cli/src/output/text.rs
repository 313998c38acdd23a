//! Times, sizes and shortened texts as Docker's lists show them.

use std::time::SystemTime;

use rorqual_core::{Timestamp, units};

/// `2 hours ago` for a moment in seconds since 1970.
pub(crate) fn ago(seconds: i64) -> String {
    let then = Timestamp::from_nanos((seconds.max(0) as u64).saturating_mul(1_000_000_000));
    format!("{} ago", units::human_duration(now().since(then)))
}

/// Returns the present.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// `2026-11-20 23:14:05 +0000 UTC` in the local time zone.
pub(crate) fn local_time(seconds: i64) -> String {
    let Ok(moment) = jiff::Timestamp::from_second(seconds) else { return String::new() };
    // Without any configuration the local zone is UTC, and Go says so.
    let zone = jiff::tz::TimeZone::try_system().unwrap_or(jiff::tz::TimeZone::UTC);
    moment.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// Same, with the fraction of the second.
pub(crate) fn local_time_exact(nanos: i128) -> String {
    let Ok(moment) = jiff::Timestamp::from_nanosecond(nanos) else { return String::new() };
    let zone = jiff::tz::TimeZone::try_system().unwrap_or(jiff::tz::TimeZone::UTC);
    moment.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
}

/// Cuts a text to `length` characters, the last of them `…` when something was cut.
pub(crate) fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(length.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Returns the first twelve digits of an id, without its algorithm.
pub(crate) fn short_id(id: &str) -> String {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.chars().take(12).collect()
}

/// Percent-encodes a path segment or query value.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A query string from pairs; pairs with an empty value are left out.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| {
        let value = encoded(value).replace('/', "%2F").replace(':', "%3A");
        format!("{name}={value}")
    };
    let all: Vec<String> = pairs.iter().filter(|(_, v)| !v.is_empty()).map(pair).collect();
    if all.is_empty() { String::new() } else { format!("?{}", all.join("&")) }
}

/// `filters` of the API from the values of `--filter`.
pub(crate) fn filters(values: &[String]) -> Result<String, String> {
    let mut all = serde_json::Map::new();
    for value in values {
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        let Some((key, wanted)) = value.split_once('=') else {
            // COMPAT: docker's text.
            return Err(format!(
                "invalid argument {value:?} for \"-f, --filter\" flag: invalid filter {value:?} (should be of the form name=value)"
            ));
        };
        let key = key.trim().to_ascii_lowercase();
        let set = all.entry(key).or_insert_with(|| serde_json::json!({}));
        set[wanted.trim()] = true.into();
    }
    Ok(if all.is_empty() { String::new() } else { serde_json::Value::Object(all).to_string() })
}

//! Texts of flags → values of the request: variables, labels, devices, limits, GPUs.

use std::io::Read as _;

use rorqual_core::{InvalidUlimit, Ulimit, units};
use serde_json::{Map, Value as Json, json};

use crate::failure::{Failure, open_failure};

/// Reads files of `NAME=value` lines and adds single values behind them.
///
/// `complete` says what a bare name stands for: the variable of our own environment, or nothing.
pub(in crate::command) fn read_variables(
    files: &[String],
    single: &[String],
    complete: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for path in files {
        for line in lines_of(path)? {
            all.extend(file_line(path, &line, &complete)?);
        }
    }
    for value in single {
        if value.is_empty() || value.starts_with('=') {
            return Err(Failure::new(format!("invalid environment variable: {value}")));
        }
        match value.contains('=') {
            true => all.push(value.clone()),
            false => all.extend(complete(value)),
        }
    }
    Ok(all)
}

fn lines_of(path: &str) -> Result<Vec<String>, Failure> {
    // LIMIT: a file of variables larger than this is a mistake.
    const LARGEST: u64 = 16 << 20;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| open_failure(path, &error))?;
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| open_failure(path, &error))?;
    Ok(text.trim_start_matches('\u{feff}').lines().map(str::to_owned).collect())
}

fn file_line(
    path: &str,
    line: &str,
    complete: &impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, Failure> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (line, None),
    };
    let wrong = |reason: &str| Failure::new(format!("invalid environment file: {path}: {reason}"));
    if name.is_empty() {
        return Err(wrong(&format!("no variable name on line '{line}'")));
    }
    if name.contains(char::is_whitespace) {
        return Err(wrong(&format!("variable '{name}' contains whitespaces")));
    }
    Ok(match value {
        Some(value) => Some(format!("{name}={value}")),
        None => complete(name),
    })
}

/// Refuses a variable without a name.
pub(super) fn check_variable(text: &str) -> Result<(), String> {
    match text.is_empty() || text.starts_with('=') {
        true => Err(format!("invalid environment variable: {text}")),
        false => Ok(()),
    }
}

/// `key=value` pairs → an object; a bare key has the empty text.
pub(super) fn object(pairs: &[String]) -> Json {
    let mut object = Map::new();
    for pair in pairs {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        object.insert(key.to_owned(), value.into());
    }
    sorted(object)
}

/// Go writes maps sorted.
pub(super) fn sorted(object: Map<String, Json>) -> Json {
    let mut pairs: Vec<_> = object.into_iter().collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Json::Object(pairs.into_iter().collect())
}

/// `NET_ADMIN` → `CAP_NET_ADMIN`; `ALL` makes the rest of the list superfluous.
pub(super) fn capabilities(values: &[String]) -> Json {
    let mut all: Vec<String> = Vec::new();
    for value in values {
        let name = value.trim().to_ascii_uppercase();
        let name = match name.as_str() {
            "ALL" | "RESET" => name,
            _ if name.starts_with("CAP_") => name,
            _ => format!("CAP_{name}"),
        };
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all.sort();
    super::list_or_null(&all)
}

/// Reads `name=soft[:hard]`.
pub(super) fn ulimit(text: &str) -> Result<Json, String> {
    let Ulimit { name, soft, hard } =
        text.parse().map_err(|error: InvalidUlimit| error.to_string())?;
    Ok(json!({ "Name": name, "Hard": hard, "Soft": soft }))
}

/// Reads `path:number` of a device.
fn of_device(text: &str) -> Result<(&str, &str), String> {
    let (path, number) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if path.starts_with("/dev/") {
        Ok((path, number))
    } else {
        Err(format!("bad format for device path: {text}"))
    }
}

/// `path:rate` of `--device-read-bps`, in bytes.
pub(super) fn byte_rate(text: &str) -> Result<Json, String> {
    let (path, rate) = of_device(text)?;
    let rate = units::parse_size(rate).map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
    })?;
    Ok(json!({ "Path": path, "Rate": rate }))
}

/// `path:rate` of `--device-read-iops`.
pub(super) fn plain_rate(text: &str) -> Result<Json, String> {
    let (path, rate) = of_device(text)?;
    let rate: u64 = rate.parse().map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer")
    })?;
    Ok(json!({ "Path": path, "Rate": rate }))
}

/// `path:weight` of `--blkio-weight-device`: 0, or 10 to 1000.
pub(super) fn weight(text: &str) -> Result<Json, String> {
    let (path, weight) = of_device(text)?;
    let weight: u16 = weight
        .parse()
        .ok()
        .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
        .ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(json!({ "Path": path, "Weight": weight }))
}

/// Refuses what is no rule as `c 1:3 mr`.
pub(super) fn check_device_rule(text: &str) -> Result<(), String> {
    let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
    let parts: Vec<&str> = text.split(' ').collect();
    let valid = match parts.as_slice() {
        [kind, numbers, access] => {
            matches!(*kind, "a" | "b" | "c")
                && numbers.split_once(':').is_some_and(|(a, b)| number(a) && number(b))
                && (1..=3).contains(&access.len())
                && access.bytes().all(|letter| b"rwm".contains(&letter))
        }
        _ => false,
    };
    if valid { Ok(()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

/// Refuses what is no IP address.
pub(super) fn check_address(text: &str) -> Result<(), String> {
    let parsed = text.trim().parse::<std::net::IpAddr>();
    parsed.map(drop).map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

/// Refuses a label without a name.
pub(super) fn check_label(text: &str) -> Result<(), String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() { Err(format!("invalid label '{text}': empty name")) } else { Ok(()) }
}

/// Refuses kernel parameters that belong to no namespace.
pub(super) fn check_sysctl(text: &str) -> Result<(), String> {
    const ALONE: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let allowed = text.split_once('=').is_some_and(|(key, _)| {
        ALONE.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue.")
    });
    if allowed { Ok(()) } else { Err(format!("sysctl '{text}' is not allowed")) }
}

/// `/dev/host[:/dev/container[:rwm]]`
pub(super) fn device(text: &str) -> Result<Json, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |mode: &str| {
        !mode.is_empty()
            && mode.bytes().all(|byte| b"rwm".contains(&byte))
            && mode.bytes().all(|byte| mode.bytes().filter(|other| *other == byte).count() == 1)
    };
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] if is_mode(mode) => (*host, *inside, *mode),
        [_, _, mode] => return Err(format!("bad mode specified: {mode}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !host.starts_with('/') {
        return Err(format!("{host} is not an absolute path"));
    }
    Ok(json!({ "PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": mode }))
}

/// Tells whether a device is named as the Container Device Interface does: `vendor/class=name`.
pub(super) fn is_cdi(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else { return false };
    !text.starts_with('/')
        && !name.is_empty()
        && kind.split('/').filter(|p| !p.is_empty()).count() == 2
}

/// `all`, a number, or `count=2,"capabilities=a,b",device=…,driver=…,options=…`
pub(super) fn gpus(text: &str) -> Result<Json, String> {
    let fields = csv(text)?;
    let (mut driver, mut count, mut devices) = (String::new(), None, None);
    let mut capabilities = vec!["gpu".to_owned()];
    let mut options = Map::new();
    let counted = |text: &str| match text {
        "all" => Ok(-1),
        _ => text.parse::<i64>().map_err(|_| {
            format!(
                "invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"
            )
        }),
    };
    for field in &fields {
        let (key, value) = match field.split_once('=') {
            Some(pair) => pair,
            None => ("count", field.as_str()),
        };
        match key {
            "driver" => driver = value.to_owned(),
            "count" => count = Some(counted(value)?),
            "device" => devices = Some(value.split(',').map(str::to_owned).collect::<Vec<_>>()),
            "capabilities" => {
                capabilities = value.split(',').map(str::to_owned).collect();
                capabilities.push("gpu".to_owned());
            }
            "options" => {
                for pair in csv(value)? {
                    let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
                    options.insert(key.to_owned(), value.into());
                }
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    let count = count.unwrap_or_else(|| i64::from(devices.is_none()));
    Ok(json!({
        "Driver": driver,
        "Count": count,
        "DeviceIDs": devices,
        "Capabilities": [capabilities],
        "Options": options,
    }))
}

/// Splits a line of comma-separated values; quotes protect commas.
pub(super) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '"' => {
                let column = text.len();
                return Err(format!(
                    "parse error on line 1, column {column}: bare \" in non-quoted-field"
                ));
            }
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err("parse error on line 1: extraneous or missing \" in quoted-field".to_owned());
    }
    fields.push(field);
    Ok(fields)
}

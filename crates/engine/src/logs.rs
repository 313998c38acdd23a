//! Logs of containers: where they are kept and how they are read back.
//!
//! Writing them is the shim's business; how files are read is behind [`LogSource`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;

use futures_util::{Stream, TryStreamExt};
use rorqual_content::ImageRecord;
use rorqual_core::units::parse_size;
use rorqual_core::{BoxError, ContainerId};
use rorqual_shim::log::{FileLog, LogQuery, LogRecord, LogTarget, SyslogTarget};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::spec::ContainerSpec;
use crate::world::World;

/// Records of a log as they come.
pub type LogRecords = Pin<Box<dyn Stream<Item = std::result::Result<LogRecord, BoxError>> + Send>>;

/// Reads logs back.
pub trait LogSource: Send + Sync + 'static {
    /// Opens a log; `None` when this kind cannot be read back. A following reader ends, after the last record, once
    /// `running` turns false or its sender is gone.
    fn open(
        &self,
        target: &LogTarget,
        query: &LogQuery,
        running: watch::Receiver<bool>,
    ) -> Option<LogRecords>;
}

/// The logs that shims write, read from their files.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShimLogs;

impl LogSource for ShimLogs {
    fn open(
        &self,
        target: &LogTarget,
        query: &LogQuery,
        running: watch::Receiver<bool>,
    ) -> Option<LogRecords> {
        let records = rorqual_shim::log::read(target, query, running)?;
        Some(Box::pin(records.map_err(BoxError::from)))
    }
}

/// What a client wants of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Which records.
    pub query: LogQuery,
}

/// A log being read.
pub struct LogView {
    /// Whether the container has a terminal: its log is one raw stream then.
    pub tty: bool,
    /// Records of the streams asked for.
    pub records: LogRecords,
}

// LIMIT: unlike Docker, whose json-file grows for ever, a log without options is bounded: five files of 20 MiB.
const MAX_SIZE: u64 = 20 << 20;
const MAX_FILES: u32 = 5;

/// Options that Docker knows for every driver.
const COMMON: [&str; 6] = [
    "mode",
    "max-buffer-size",
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];
const METADATA: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
const FILES: [&str; 3] = ["max-size", "max-file", "compress"];
const SYSLOG: [&str; 3] = ["syslog-address", "syslog-facility", "syslog-format"];

/// Decides where a container's output is kept; refuses unknown drivers and options.
pub(crate) fn target(
    world: &World,
    spec: &ContainerSpec,
    id: &ContainerId,
    image: &ImageRecord,
) -> Result<LogTarget> {
    let default = &world.options.log;
    let own = spec.log.clone().unwrap_or_default();
    let driver = if own.driver.is_empty() { &default.driver } else { &own.driver };
    let mut options = own.options.clone();
    if *driver == default.driver {
        for (key, value) in &default.options {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let directory = world.parts.snapshots.container_dir(id);
    plan(driver, &options, &Subject { id, spec, image, directory })
}

/// Whose log it is.
pub(crate) struct Subject<'a> {
    id: &'a ContainerId,
    spec: &'a ContainerSpec,
    image: &'a ImageRecord,
    directory: PathBuf,
}

fn plan(driver: &str, options: &BTreeMap<String, String>, of: &Subject<'_>) -> Result<LogTarget> {
    let known: &[&[&str]] = match driver {
        "none" => &[&COMMON],
        "json-file" | "local" => &[&COMMON, &METADATA, &FILES],
        "journald" => &[&COMMON, &METADATA],
        "syslog" => &[&COMMON, &METADATA, &SYSLOG],
        other => {
            // COMPAT: dockerd's text.
            return Err(Error::Invalid(format!(
                "error looking up logging plugin {other}: plugin {other:?} not found"
            )));
        }
    };
    if let Some(key) = options.keys().find(|key| !known.concat().contains(&key.as_str())) {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid(format!("unknown log opt '{key}' for {driver} log driver")));
    }
    for key in [
        "labels-regex",
        "env-regex",
        "cache-disabled",
        "cache-max-size",
        "cache-max-file",
        "cache-compress",
    ] {
        if options.contains_key(key) {
            return Err(Error::Unsupported(format!(
                "log opt '{key}' is not supported by this version"
            )));
        }
    }
    if options.contains_key("max-buffer-size")
        && options.get("mode").is_none_or(|mode| mode != "non-blocking")
    {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned(),
        ));
    }
    if options
        .get("mode")
        .is_some_and(|mode| !matches!(mode.as_str(), "" | "blocking" | "non-blocking"))
    {
        return Err(Error::Invalid(format!(
            "logger: logging mode not supported: {}",
            options["mode"]
        )));
    }
    let attrs = attributes(options, of)?;
    Ok(match driver {
        "none" => LogTarget::None,
        "json-file" => LogTarget::JsonFile(file(options, of, "json.log", false, attrs)?),
        "local" => LogTarget::Local(file(options, of, "local.log", true, attrs)?),
        "journald" => LogTarget::Journald { fields: journal_fields(options, of)? },
        _ => LogTarget::Syslog(syslog(options, of)?),
    })
}

fn file(
    options: &BTreeMap<String, String>,
    of: &Subject<'_>,
    suffix: &str,
    compress: bool,
    attrs: BTreeMap<String, String>,
) -> Result<FileLog> {
    let wrong =
        |key: &str, value: &str| Error::Invalid(format!("invalid value for {key}: {value}"));
    let max_size = match options.get("max-size").map(String::as_str) {
        None => Some(MAX_SIZE),
        Some("-1" | "0") => None,
        Some(text) => Some(parse_size(text).map_err(|_| wrong("max-size", text))?),
    };
    let max_files = match options.get("max-file") {
        // A size without a count keeps Docker's meaning: one file.
        None if options.contains_key("max-size") && suffix == "json.log" => 1,
        None => MAX_FILES,
        Some(text) => text
            .parse::<u32>()
            .ok()
            .filter(|count| (1..=1000).contains(count))
            .ok_or_else(|| wrong("max-file", text))?,
    };
    let compress = match options.get("compress").map(String::as_str) {
        None => compress && max_files > 1,
        Some("true" | "1" | "t") => true,
        Some("false" | "0" | "f") => false,
        Some(text) => return Err(wrong("compress", text)),
    };
    let path = of.directory.join(format!("{}-{suffix}", of.id));
    Ok(FileLog { path, max_size, max_files, compress, attrs })
}

/// The labels and variables that the options name, and the tag where one was given.
fn attributes(
    options: &BTreeMap<String, String>,
    of: &Subject<'_>,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let names = |key: &str| {
        let list = options.get(key).map(String::as_str).unwrap_or_default();
        list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    for name in names("labels") {
        if let Some(value) = of.spec.labels.get(&name) {
            all.insert(name, value.clone());
        }
    }
    for name in names("env") {
        let found = of.spec.process.env.iter().find_map(|variable| {
            variable.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value)
        });
        if let Some(value) = found {
            all.insert(name, value.to_owned());
        }
    }
    if options.contains_key("tag") {
        all.insert("tag".to_owned(), tag(options, of)?);
    }
    Ok(all)
}

/// Fills the fields of a tag's template that Docker documents; another field is an error.
fn tag(options: &BTreeMap<String, String>, of: &Subject<'_>) -> Result<String> {
    let mut rest = options.get("tag").map_or("{{.ID}}", String::as_str);
    let mut filled = String::new();
    while let Some((before, after)) = rest.split_once("{{") {
        // COMPAT: dockerd's texts.
        let Some((field, behind)) = after.split_once("}}") else {
            return Err(Error::Invalid("template: log-tag:1: unclosed action".to_owned()));
        };
        let field = field.trim_matches(['-', ' ']);
        filled.push_str(before);
        filled.push_str(&match field {
            ".ID" => of.id.short(),
            ".FullID" => of.id.to_string(),
            ".Name" => of.spec.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            ".ImageID" => of.image.id.0.short().to_owned(),
            ".ImageFullID" => of.image.id.to_string(),
            ".ImageName" => of.spec.image.clone(),
            ".DaemonName" => "rorqual".to_owned(),
            other => {
                return Err(Error::Invalid(format!(
                    "template: log-tag:1:2: executing \"log-tag\" at <{other}>: can't evaluate field {} in type *logger.Info",
                    other.trim_start_matches('.')
                )));
            }
        });
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Turns a label's or variable's name into one the journal takes, which drops others: capital letters, digits and
/// underscores, the first a letter.
fn field_name(name: &str) -> String {
    // LIMIT: longer names are dropped by the journal.
    const LONGEST: usize = 64;
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }
    };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_start_matches(|letter: char| letter == '_' || letter.is_ascii_digit());
    name.chars().take(LONGEST).collect()
}

fn journal_fields(
    options: &BTreeMap<String, String>,
    of: &Subject<'_>,
) -> Result<BTreeMap<String, String>> {
    let asked = attributes(options, of)?.into_iter().filter(|(key, _)| key != "tag");
    let mut fields: BTreeMap<_, _> = asked
        .map(|(key, value)| (field_name(&key), value))
        .filter(|(key, _)| !key.is_empty())
        .collect();
    let tag = tag(options, of)?;
    let name = of.spec.name.as_ref().map(ToString::to_string).unwrap_or_default();
    for (key, value) in [
        ("CONTAINER_ID", of.id.short()),
        ("CONTAINER_ID_FULL", of.id.to_string()),
        ("CONTAINER_NAME", name),
        ("CONTAINER_TAG", tag.clone()),
        ("IMAGE_NAME", of.spec.image.clone()),
        ("SYSLOG_IDENTIFIER", tag),
    ] {
        fields.insert(key.to_owned(), value);
    }
    Ok(fields)
}

fn syslog(options: &BTreeMap<String, String>, of: &Subject<'_>) -> Result<SyslogTarget> {
    const FACILITIES: [&str; 24] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
        "authpriv", "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2",
        "local3", "local4", "local5", "local6", "local7",
    ];
    let value = |key: &str| options.get(key).cloned().unwrap_or_default();
    let facility = value("syslog-facility");
    let number = match facility.as_str() {
        "" => Some(3),
        name => FACILITIES.iter().position(|known| *known == name).or_else(|| name.parse().ok()),
    };
    let Some(number) = number.filter(|number| *number < FACILITIES.len()) else {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid("invalid syslog facility".to_owned()));
    };
    let format = value("syslog-format");
    if !matches!(format.as_str(), "" | "rfc3164" | "rfc5424" | "rfc5424micro") {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid("Invalid syslog format".to_owned()));
    }
    let address = value("syslog-address");
    let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
    let known = ["unix", "unixgram", "udp", "tcp", "tcp+tls"];
    if !address.is_empty() && !known.contains(&scheme) {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid(format!("unsupported scheme: '{scheme}'")));
    }
    Ok(SyslogTarget { address, facility: number as u8, format, tag: tag(options, of)? })
}

#[cfg(test)]
mod tests;

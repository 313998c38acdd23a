//! Options of a build as its request names them: BuildKit's front end attributes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rorqual_core::Platform;

use super::fault::invalid;
use super::{NoCache, Options};
use crate::git_reference::parse_bool;
use crate::{Error, ExecNetwork, GitReference, ResolveMode};

/// What a main context is, by the text that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextKind {
    /// A git repository.
    Git(GitReference),
    /// A URL, of an archive or of a lone Dockerfile: that is told by what is there.
    Url(String),
    /// The name of a directory that the client offers.
    Local(String),
}

/// Tells what a main context is.
pub fn context_kind(text: &str) -> Result<ContextKind, Error> {
    match GitReference::parse(text) {
        Ok(Some(reference)) => Ok(ContextKind::Git(reference)),
        Ok(None) if text.starts_with("http://") || text.starts_with("https://") => {
            Ok(ContextKind::Url(text.to_owned()))
        }
        Ok(None) => Ok(ContextKind::Local(text.to_owned())),
        Err(refused) => Err(invalid(refused.to_string())),
    }
}

/// Reads the attributes of a build request that the front end knows; it leaves those alone that are for others.
pub fn options_from_attributes(attributes: &BTreeMap<String, String>) -> Result<Options, Error> {
    let get = |key: &str| attributes.get(key).map_or("", String::as_str);
    let arg = |key: &str| get(&format!("build-arg:{key}"));
    if parse_bool(arg("BUILDKIT_DISABLE_FILEOP")) == Some(true) {
        let text = "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11";
        return Err(invalid(text));
    }
    let platforms = platforms(get("platform"))?;
    let multi_platform = multi_platform(
        [arg("BUILDKIT_MULTI_PLATFORM"), get("multi-platform")],
        platforms.len() > 1,
    )?;
    let hostname = arg("BUILDKIT_SANDBOX_HOSTNAME");
    Ok(Options {
        target: get("target").to_owned(),
        platforms,
        multi_platform,
        build_args: prefixed(attributes, "build-arg:"),
        labels: prefixed(attributes, "label:"),
        extra_hosts: extra_hosts(get("add-hosts"))?,
        network: network(get("force-network-mode"))?,
        shm_size: shm_size(get("shm-size"))?,
        ulimits: csv_fields(get("ulimit"))?,
        cgroup_parent: get("cgroup-parent").to_owned(),
        hostname: if hostname.is_empty() { get("hostname") } else { hostname }.to_owned(),
        no_cache: match attributes.get("no-cache").map(String::as_str) {
            None => NoCache::Never,
            Some("") => NoCache::Always,
            Some(stages) => NoCache::Stages(stages.split(',').map(str::to_owned).collect()),
        },
        resolve_mode: match get("image-resolve-mode") {
            "" | "default" => ResolveMode::Default,
            "pull" => ResolveMode::Pull,
            "local" => ResolveMode::Local,
            other => return Err(invalid(format!("invalid image-resolve-mode: {other}"))),
        },
        cache_namespace: arg("BUILDKIT_CACHE_MOUNT_NS").to_owned(),
        named_contexts: prefixed(attributes, "context:"),
        input_configs: input_configs(attributes)?,
        local_sessions: prefixed(attributes, "local-sessionid:"),
        ..Options::default()
    })
}

fn prefixed(attributes: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let named = attributes.iter();
    let named = named.filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    named.map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

fn platforms(text: &str) -> Result<Vec<Platform>, Error> {
    let parts = text.split(',').filter(|_| !text.is_empty());
    parts
        .map(|part| {
            let parsed = part.trim().parse::<Platform>();
            parsed.map(super::platform::normal).map_err(|refused| {
                invalid(format!("failed to parse target platform {part}: {refused}"))
            })
        })
        .collect()
}

fn multi_platform(texts: [&str; 2], several: bool) -> Result<bool, Error> {
    let Some(text) = texts.into_iter().find(|text| !text.is_empty()) else { return Ok(several) };
    match parse_bool(text) {
        Some(false) if several => {
            Err(invalid("conflicting config: returning multiple target platforms is not allowed"))
        }
        Some(wanted) => Ok(wanted),
        None => Err(invalid(format!("invalid boolean value for multi-platform: {text}"))),
    }
}

fn extra_hosts(text: &str) -> Result<Vec<(String, String)>, Error> {
    let fail = |why: String| invalid(format!("failed to parse additional hosts: {why}"));
    csv_fields(text)?
        .into_iter()
        .map(|field| {
            let lower = field.to_lowercase();
            let (host, address) = lower
                .split_once('=')
                .ok_or_else(|| fail(format!("invalid key-value pair {field}")))?;
            address.parse::<IpAddr>().map_err(|_| fail(format!("failed to parse IP {address}")))?;
            Ok((host.to_owned(), address.to_owned()))
        })
        .collect()
}

fn network(text: &str) -> Result<ExecNetwork, Error> {
    match text {
        // COMPAT: the docker driver of buildx sends `default` as well.
        "" | "sandbox" | "default" => Ok(ExecNetwork::Sandbox),
        "none" => Ok(ExecNetwork::None),
        "host" => Ok(ExecNetwork::Host),
        other => Err(invalid(format!("invalid netmode {other}"))),
    }
}

fn shm_size(text: &str) -> Result<Option<u64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let size = text.parse::<u64>();
    let size = size.map_err(|_| {
        invalid(format!("failed to parse shm size: {text:?} is no number of bytes"))
    })?;
    Ok((size > 0).then_some(size))
}

/// Takes one line of comma-separated values apart; fields may be quoted.
pub(super) fn csv_fields(text: &str) -> Result<Vec<String>, Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted).ok_or_else(|| {
                invalid(format!("extraneous or missing \" in quoted-field of {text:?}"))
            })?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(invalid(format!("bare \" in non-quoted-field of {text:?}")));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match tail.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

/// Reads up to the closing quote; returns the field and what follows it: nothing, or a comma.
fn quoted_field(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let quote = rest.find('"')?;
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return (rest.is_empty() || rest.starts_with(',')).then_some((field, rest)),
        }
    }
}

/// `input-metadata:NAME` holds `{"containerimage.config": "…base64 or JSON…"}`.
fn input_configs(
    attributes: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut configs = BTreeMap::new();
    for (name, text) in prefixed(attributes, "input-metadata:") {
        let fail =
            |why: String| invalid(format!("failed to unmarshal input metadata {name}: {why}"));
        let metadata: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(|refused| fail(refused.to_string()))?;
        // COMPAT: Go writes bytes as base64.
        if let Some(serde_json::Value::String(encoded)) = metadata.get("containerimage.config") {
            use base64::Engine as _;
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
            configs.insert(name.clone(), decoded.map_err(|refused| fail(refused.to_string()))?);
        }
    }
    Ok(configs)
}

#[cfg(test)]
mod tests;

//! How registries are spoken to: mirrors, rules, certificates, proxies, bounds.

use std::path::PathBuf;

use rorqual_transfer::{Proxies, RegistryOptions, RegistryRule};
use serde::Deserialize;
use serde_json::Value;

use super::{ConfigError, Settings, proxy};

/// LIMIT: more at a time are of no use, and each takes memory and threads.
const MOST: i64 = 64;

/// One entry of `registry-rules`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    mirrors_only: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    token_servers: Vec<String>,
}

/// Reads everything about registries.
pub(super) fn options(settings: &Settings) -> Result<RegistryOptions, ConfigError> {
    let mut options = RegistryOptions {
        mirrors: settings.list("registry-mirrors"),
        insecure: settings.list("insecure-registries"),
        rules: rules(settings)?,
        proxies: proxies(settings),
        user_agent: agent(),
        ..RegistryOptions::default()
    };
    if let Some(directory) = settings.text("registry-certs") {
        options.certificates = vec![PathBuf::from(directory)];
    }
    options.downloads = at_once(settings, "max-concurrent-downloads", options.downloads)?;
    options.uploads = at_once(settings, "max-concurrent-uploads", options.uploads)?;
    let attempts = settings.int("max-download-attempts", i64::from(options.attempts), 1)?;
    options.attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    options.check().map_err(|error| ConfigError::Setting {
        key: "registry-mirrors",
        why: error.to_string(),
    })?;
    Ok(options)
}

fn at_once(settings: &Settings, key: &'static str, default: usize) -> Result<usize, ConfigError> {
    Ok(settings.int(key, default as i64, 1)?.min(MOST) as usize)
}

fn rules(settings: &Settings) -> Result<Vec<(String, RegistryRule)>, ConfigError> {
    let rules = settings.0.get("registry-rules").and_then(Value::as_object).into_iter().flatten();
    rules
        .map(|(name, rule)| {
            let rule = Rule::deserialize(rule).map_err(|error| ConfigError::Setting {
                key: "registry-rules",
                why: format!("{name}: {error}"),
            })?;
            let Rule { mirrors, mirrors_only, blocked, insecure, token_servers } = rule;
            let rule = RegistryRule { mirrors, mirrors_only, blocked, insecure, token_servers };
            Ok((name.clone(), rule))
        })
        .collect()
}

/// COMPAT: what is set goes before the environment, each for itself.
fn proxies(settings: &Settings) -> Proxies {
    let environment = Proxies::from_environment();
    let or = |key: &str, other: String| {
        Some(proxy(settings, key)).filter(|text| !text.is_empty()).unwrap_or(other)
    };
    Proxies {
        http: or("http-proxy", environment.http),
        https: or("https-proxy", environment.https),
        none: or("no-proxy", environment.none),
    }
}

fn agent() -> String {
    format!("rorqual/{} os/linux arch/{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
}

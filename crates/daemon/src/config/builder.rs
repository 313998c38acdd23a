//! The builder's settings: how much its cache may hold, and what builds may ask for.

use rorqual_core::units::parse_size;
use serde_json::Value;

use super::ConfigError;

/// How much the build cache may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CacheBound {
    /// A tenth of the disk.
    #[default]
    Share,
    /// So many bytes.
    Bytes(u64),
    /// Without bound.
    None,
}

/// What `builder` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BuilderConfig {
    pub(crate) bound: CacheBound,
    pub(crate) network_host: bool,
    pub(crate) security_insecure: bool,
}

impl Default for BuilderConfig {
    /// COMPAT: what dockerd's builder grants.
    fn default() -> Self {
        Self { bound: CacheBound::default(), network_host: true, security_insecure: false }
    }
}

fn wrong(why: String) -> ConfigError {
    ConfigError::Setting { key: "builder", why }
}

fn known(object: &Value, path: &str, keys: &[&str]) -> Result<(), ConfigError> {
    let Some(map) = object.as_object() else {
        return Err(wrong(format!("{path} is no object")));
    };
    match map.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => {
            Err(wrong(format!("{path}.{key} is not known; known are {}", keys.join(", "))))
        }
        None => Ok(()),
    }
}

fn switch(object: &Value, path: &str, key: &str, default: bool) -> Result<bool, ConfigError> {
    match &object[key] {
        Value::Null => Ok(default),
        Value::Bool(on) => Ok(*on),
        _ => Err(wrong(format!("{path}.{key} is neither true nor false"))),
    }
}

fn size(gc: &Value, key: &str) -> Result<Option<u64>, ConfigError> {
    match &gc[key] {
        Value::Null => Ok(None),
        Value::Number(number) if number.as_u64().is_some() => Ok(number.as_u64()),
        Value::String(text) => parse_size(text)
            .map(Some)
            .map_err(|error| wrong(format!("gc.{key}: {text:?}: {error}"))),
        _ => Err(wrong(format!("gc.{key} is no size"))),
    }
}

fn bound(gc: &Value) -> Result<CacheBound, ConfigError> {
    let keys = ["enabled", "defaultKeepStorage", "defaultReservedSpace", "defaultMaxUsedSpace"];
    if gc.get("policy").is_some() {
        return Err(wrong(
            "gc.policy is not supported: the cache has one bound, gc.defaultKeepStorage".to_owned(),
        ));
    }
    known(gc, "gc", &keys)?;
    if !switch(gc, "gc", "enabled", true)? {
        return Ok(CacheBound::None);
    }
    let mut bound = CacheBound::Share;
    for key in &keys[1..] {
        if let Some(bytes) = size(gc, key)? {
            bound = CacheBound::Bytes(bytes);
        }
    }
    Ok(bound)
}

/// Reads the settings.
pub(super) fn read(builder: &Value) -> Result<BuilderConfig, ConfigError> {
    let mut config = BuilderConfig::default();
    known(builder, "builder", &["gc", "entitlements"])?;
    if let Some(gc) = builder.get("gc") {
        config.bound = bound(gc)?;
    }
    if let Some(grants) = builder.get("entitlements") {
        known(grants, "entitlements", &["network-host", "security-insecure"])?;
        config.network_host = switch(grants, "entitlements", "network-host", true)?;
        config.security_insecure = switch(grants, "entitlements", "security-insecure", false)?;
    }
    Ok(config)
}

//! The daemon's configuration: flags and `daemon.json`, merged and checked. Nothing is done here.

mod builder;
mod file;
mod flags;
mod registries;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rorqual_core::Ulimit;
use rorqual_engine::CgroupDriver;
use rorqual_engine::spec::{IpcMode, Ownership};
use rorqual_http::{Address, TlsFiles};
use rorqual_network::{Cidr4, Relay, SubnetPool};
use rorqual_transfer::RegistryOptions;
use serde_json::{Map, Value};

pub(crate) use builder::{BuilderConfig, CacheBound};
pub(crate) use flags::{CommandLine, parse as parse_flags};
use table::{Fate, Kind, ROWS};

/// Why the daemon cannot be configured. Texts are for people at a terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// No such flag.
    #[error("unknown flag: {0}\nSee 'dockerd --help'.")]
    UnknownFlag(String),
    /// A word that is no flag.
    #[error("\"dockerd\" accepts no arguments: {0}\nSee 'dockerd --help'.")]
    ExtraArgument(String),
    /// A flag at the end without its value.
    #[error("flag needs an argument: {0}")]
    MissingValue(String),
    /// A value that the flag does not take.
    #[error("invalid argument \"{value}\" for \"--{flag}\" flag: {why}")]
    BadFlag {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
        /// Why.
        why: String,
    },
    /// The file cannot be used.
    // COMPAT: dockerd's text.
    #[error("unable to configure the Docker daemon with file {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A setting cannot be used.
    #[error("{key}: {why}")]
    Setting {
        /// Its key.
        key: &'static str,
        /// Why.
        why: String,
    },
}

/// Where the configuration file is unless `--config-file` says otherwise.
pub(crate) const DEFAULT_FILE: &str = "/etc/docker/daemon.json";

/// How much is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logging {
    pub(crate) level: tracing::Level,
    pub(crate) json: bool,
}

/// What the default bridge is like.
#[derive(Clone, Debug)]
pub(crate) struct BridgeConfig {
    pub(crate) name: Option<String>,
    pub(crate) bip: Option<String>,
    pub(crate) fixed_cidr: Option<String>,
    pub(crate) mtu: u32,
    pub(crate) icc: bool,
    pub(crate) ip_masq: bool,
    pub(crate) ip_forward: bool,
    pub(crate) firewall: bool,
    pub(crate) relay: Relay,
    pub(crate) publish_on: Option<std::net::IpAddr>,
    /// Where subnets are cut from; empty: Docker's defaults.
    pub(crate) pools: Vec<SubnetPool>,
}

/// Defaults for containers.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    /// `None`: systemd where it runs and there is only cgroup v2.
    pub(crate) cgroup_driver: Option<CgroupDriver>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) cgroup_namespace: Option<Ownership>,
    pub(crate) ipc: IpcMode,
    pub(crate) runtime: String,
    pub(crate) shm_size: u64,
    pub(crate) stop_timeout: Duration,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) dns: Vec<std::net::IpAddr>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) init: bool,
    pub(crate) log_driver: String,
    pub(crate) log_options: std::collections::BTreeMap<String, String>,
    pub(crate) no_new_privileges: bool,
    /// Whether containers are labelled where the kernel has SELinux.
    pub(crate) selinux: bool,
    /// `user[:group]` or `default`.
    pub(crate) userns_remap: Option<String>,
    pub(crate) idmap_binds: bool,
    pub(crate) seccomp_profile: String,
}

/// The configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) hosts: Vec<Address>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) allow_insecure_tcp: bool,
    pub(crate) group: Option<String>,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) logging: Logging,
    pub(crate) debug: bool,
    pub(crate) experimental: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) live_restore: bool,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) bridge: BridgeConfig,
    pub(crate) defaults: Defaults,
    pub(crate) builder: BuilderConfig,
    pub(crate) proxies: [String; 3],
    /// Plugins that must agree to each request, in order.
    pub(crate) authorization: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    /// How registries are spoken to; includes the two above.
    pub(crate) registries: RegistryOptions,
    /// Settings that are kept for parts that are not built yet, with the reason.
    pub(crate) idle: Vec<(&'static str, &'static str)>,
}

/// Reads file and flags.
pub(crate) fn load(line: &CommandLine) -> Result<Config, ConfigError> {
    let path = line.config_file.as_deref().unwrap_or(DEFAULT_FILE);
    let file = file::read(Path::new(path), line.config_file.is_some())?;
    let settings =
        merge(&line.settings, file).map_err(|why| ConfigError::File { path: path.into(), why })?;
    Config::from_settings(Settings(settings), line.allow_insecure_tcp)
}

/// Lays the file over the flags; what is in both is an error.
fn merge(
    flags: &Map<String, Value>,
    file: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let doubles: Vec<String> = ROWS
        .iter()
        .filter_map(|row| Some((row.key, flags.get(row.key)?, file.get(row.key)?)))
        .map(|(key, flag, file)| {
            format!("{key}: (from flag: {}, from file: {})", plain(flag), plain(file))
        })
        .collect();
    if !doubles.is_empty() {
        // COMPAT: dockerd's text.
        return Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            doubles.join(", ")
        ));
    }
    let mut settings = flags.clone();
    settings.extend(file);
    Ok(settings)
}

/// Settings by key, checked for their types.
struct Settings(Map<String, Value>);

impl Settings {
    fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn bool(&self, key: &str, default: bool) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn int(&self, key: &'static str, default: i64, least: i64) -> Result<i64, ConfigError> {
        let value = self.0.get(key).and_then(Value::as_i64).unwrap_or(default);
        if value < least {
            return Err(ConfigError::Setting { key, why: format!("{value} is less than {least}") });
        }
        Ok(value)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let list = self.0.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn parsed<T: std::str::FromStr>(&self, key: &'static str) -> Result<Option<T>, ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: String| {
            text.parse()
                .map_err(|error: T::Err| ConfigError::Setting { key, why: error.to_string() })
        };
        self.text(key).map(parse).transpose()
    }

    fn parsed_list<T: std::str::FromStr>(&self, key: &'static str) -> Result<Vec<T>, ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: String| {
            text.parse()
                .map_err(|error: T::Err| ConfigError::Setting { key, why: error.to_string() })
        };
        self.list(key).into_iter().map(parse).collect()
    }

    fn one_of(
        &self,
        key: &'static str,
        words: &'static [&'static str],
    ) -> Result<Option<&'static str>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let found = words.iter().find(|word| **word == text);
        let why = || format!("{text:?} is not one of {}", words.join(", "));
        found.map(|word| Some(*word)).ok_or_else(|| ConfigError::Setting { key, why: why() })
    }

    /// Whether a setting says something; `false`, zero and empty values say nothing.
    fn says_something(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Number(number) => number.as_i64() != Some(0),
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::Bool(true) => true,
        })
    }
}

impl Config {
    fn from_settings(settings: Settings, allow_insecure_tcp: bool) -> Result<Self, ConfigError> {
        let mut idle = Vec::new();
        for row in ROWS.iter().filter(|row| settings.says_something(row.key)) {
            match row.fate {
                Fate::Refused(reason) => {
                    return Err(ConfigError::Setting { key: row.key, why: reason.to_owned() });
                }
                Fate::Later(reason) => idle.push((row.key, reason)),
                Fate::Works | Fate::Reloads | Fate::Meaningless(_) => {}
            }
        }
        check_choices(&settings)?;
        let debug = settings.bool("debug", false);
        let absolute = |key: &'static str, default: &str| {
            let path = PathBuf::from(settings.text(key).unwrap_or_else(|| default.to_owned()));
            if path.is_absolute() {
                return Ok(path);
            }
            let why = format!("{} is not an absolute path", path.display());
            Err(ConfigError::Setting { key, why })
        };
        let hosts = settings.parsed_list("hosts")?;
        let data_root = absolute("data-root", "/var/lib/rorqual")?;
        let exec_root = absolute("exec-root", "/run/rorqual")?;
        if data_root == exec_root {
            let why = "the data root and the exec root must be two directories".to_owned();
            return Err(ConfigError::Setting { key: "exec-root", why });
        }
        Ok(Self {
            hosts: if hosts.is_empty() {
                vec![Address::Unix("/var/run/docker.sock".into())]
            } else {
                hosts
            },
            tls: tls(&settings)?,
            allow_insecure_tcp,
            group: settings.text("group"),
            data_root,
            exec_root,
            pidfile: absolute("pidfile", "/run/rorqual.pid")?,
            logging: Logging { level: level(&settings, debug)?, json: is_json(&settings)? },
            debug,
            experimental: settings.bool("experimental", false),
            labels: labels(&settings)?,
            live_restore: settings.bool("live-restore", false),
            shutdown_timeout: shutdown_timeout(&settings)?,
            bridge: bridge(&settings)?,
            defaults: defaults(&settings)?,
            builder: settings.0.get("builder").map(builder::read).transpose()?.unwrap_or_default(),
            proxies: ["http-proxy", "https-proxy", "no-proxy"].map(|key| proxy(&settings, key)),
            authorization: settings.list("authorization-plugins"),
            insecure_registries: settings.list("insecure-registries"),
            registry_mirrors: settings.list("registry-mirrors"),
            registries: registries::options(&settings)?,
            idle,
        })
    }

    /// Takes over the reloadable settings of `newer`.
    pub(crate) fn reload(&mut self, newer: Self) {
        self.debug = newer.debug;
        self.logging.level = newer.logging.level;
        self.labels = newer.labels;
        self.live_restore = newer.live_restore;
        self.shutdown_timeout = newer.shutdown_timeout;
        self.authorization = newer.authorization;
        self.insecure_registries = newer.insecure_registries;
        self.registry_mirrors = newer.registry_mirrors;
        self.registries = newer.registries;
    }
}

fn proxy(settings: &Settings, key: &str) -> String {
    let in_file = settings.0.get("proxies").and_then(|proxies| proxies.get(key)?.as_str());
    settings.text(key).or_else(|| in_file.map(str::to_owned)).unwrap_or_default()
}

/// Checks settings that have one possible value here.
fn check_choices(settings: &Settings) -> Result<(), ConfigError> {
    settings.one_of("storage-driver", &["overlay2", "overlayfs", "overlay"])?;
    settings.one_of("firewall-backend", &["nftables"])?;
    settings.one_of("default-runtime", RUNTIMES)?;
    Ok(())
}

/// Reads who makes cgroups; `None` when the host decides.
fn cgroup_driver(settings: &Settings) -> Result<Option<CgroupDriver>, ConfigError> {
    let mut chosen = None;
    for option in settings.list("exec-opts") {
        let why = match option.split_once('=') {
            Some(("native.cgroupdriver", "cgroupfs")) => {
                chosen = Some(CgroupDriver::Cgroupfs);
                continue;
            }
            Some(("native.cgroupdriver", "systemd")) => {
                chosen = Some(CgroupDriver::Systemd);
                continue;
            }
            Some(("native.cgroupdriver", _)) => "the cgroup drivers are cgroupfs and systemd",
            _ => "only native.cgroupdriver is known",
        };
        return Err(ConfigError::Setting { key: "exec-opts", why: format!("{option}: {why}") });
    }
    Ok(chosen)
}

/// Names under which our own runtime is known.
pub(crate) const RUNTIMES: &[&str] = &["runc", "rorqual", "io.containerd.runc.v2"];

/// COMPAT: -1 waits without end; so many seconds are one.
fn shutdown_timeout(settings: &Settings) -> Result<Duration, ConfigError> {
    let seconds = settings.int("shutdown-timeout", 15, -1)?;
    Ok(Duration::from_secs(u64::from(u32::try_from(seconds).unwrap_or(u32::MAX))))
}

fn is_json(settings: &Settings) -> Result<bool, ConfigError> {
    match settings.text("log-format").as_deref() {
        None | Some("text") => Ok(false),
        Some("json") => Ok(true),
        // COMPAT: dockerd's text.
        Some(other) => Err(ConfigError::Setting {
            key: "log-format",
            why: format!("invalid log format: {other}: need text or json"),
        }),
    }
}

fn level(settings: &Settings, debug: bool) -> Result<tracing::Level, ConfigError> {
    let level = match settings.text("log-level").as_deref() {
        Some("trace") => tracing::Level::TRACE,
        Some("debug") => tracing::Level::DEBUG,
        None | Some("info") => tracing::Level::INFO,
        Some("warn" | "warning") => tracing::Level::WARN,
        Some("error" | "fatal" | "panic") => tracing::Level::ERROR,
        // COMPAT: dockerd's text.
        Some(other) => {
            return Err(ConfigError::Setting {
                key: "log-level",
                why: format!("invalid logging level: {other}: need debug, info, warn or error"),
            });
        }
    };
    Ok(if debug { level.max(tracing::Level::DEBUG) } else { level })
}

fn labels(settings: &Settings) -> Result<Vec<String>, ConfigError> {
    let labels = settings.list("labels");
    match labels.iter().find(|label| label.split_once('=').is_none_or(|(key, _)| key.is_empty())) {
        // COMPAT: dockerd's text.
        Some(label) => Err(ConfigError::Setting {
            key: "labels",
            why: format!("bad attribute format: {label}"),
        }),
        None => Ok(labels),
    }
}

fn tls(settings: &Settings) -> Result<Option<TlsFiles>, ConfigError> {
    let verify = settings.bool("tlsverify", false);
    if !verify && !settings.bool("tls", false) {
        return Ok(None);
    }
    let folder = std::env::var("DOCKER_CERT_PATH").ok().filter(|folder| !folder.is_empty());
    let folder = folder.map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
                .join(".docker")
        },
        PathBuf::from,
    );
    let file =
        |key: &str, name: &str| settings.text(key).map_or_else(|| folder.join(name), PathBuf::from);
    Ok(Some(TlsFiles {
        cert: file("tlscert", "cert.pem"),
        key: file("tlskey", "key.pem"),
        client_ca: verify.then(|| file("tlscacert", "ca.pem")),
    }))
}

fn bridge(settings: &Settings) -> Result<BridgeConfig, ConfigError> {
    let mtu = settings.int("mtu", 1500, 68)?;
    Ok(BridgeConfig {
        name: settings.text("bridge"),
        bip: settings.text("bip"),
        fixed_cidr: settings.text("fixed-cidr"),
        mtu: u32::try_from(mtu).unwrap_or(u32::MAX),
        icc: settings.bool("icc", true),
        ip_masq: settings.bool("ip-masq", true),
        ip_forward: settings.bool("ip-forward", true),
        firewall: settings.bool("iptables", true),
        relay: match (
            settings.bool("respect-input-policy", false),
            settings.bool("userland-proxy", true),
        ) {
            (true, _) => Relay::All,
            (false, true) => Relay::WhereNeeded,
            (false, false) => Relay::Off,
        },
        publish_on: settings.parsed::<std::net::IpAddr>("ip")?.filter(|ip| !ip.is_unspecified()),
        pools: pools(settings)?,
    })
}

/// LIMIT: a pool is searched from its beginning, so it has at most so many networks (as a power of two).
const POOL_BITS: u8 = 16;

/// Reads `default-address-pools`: objects in the file, `base=…,size=…` on the command line.
fn pools(settings: &Settings) -> Result<Vec<SubnetPool>, ConfigError> {
    let key = "default-address-pools";
    let mistake = |why: String| ConfigError::Setting { key, why };
    let list = settings.0.get(key).and_then(Value::as_array).into_iter().flatten();
    list.map(|pool| {
        let text = |name: &str| match pool {
            Value::String(line) => {
                let pairs = line.split(',').filter_map(|pair| pair.split_once('='));
                pairs.rev().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            }
            object => match object.get(name) {
                Some(Value::String(text)) => Some(text.clone()),
                Some(Value::Number(number)) => Some(number.to_string()),
                _ => None,
            },
        };
        let (Some(base), Some(size)) = (text("base"), text("size")) else {
            return Err(mistake(format!(
                "{pool} needs a base (like 10.10.0.0/16) and a size (like 24)"
            )));
        };
        let base: Cidr4 = base.parse().map_err(|error| mistake(format!("{base}: {error}")))?;
        let size: u8 = size.parse().map_err(|error| mistake(format!("size {size}: {error}")))?;
        let base = base.subnet();
        if size < base.prefix || size > 30 || size - base.prefix > POOL_BITS {
            return Err(mistake(format!(
                "size {size} does not fit {base}: need {} to {}",
                base.prefix,
                (base.prefix + POOL_BITS).min(30)
            )));
        }
        Ok(SubnetPool { base, size })
    })
    .collect()
}

fn defaults(settings: &Settings) -> Result<Defaults, ConfigError> {
    let cgroup_namespace = match settings.one_of("default-cgroupns-mode", &["host", "private"])? {
        Some("host") => Some(Ownership::Host),
        Some(_) => Some(Ownership::Private),
        None => None,
    };
    let ipc = match settings.one_of("default-ipc-mode", &["private", "shareable"])? {
        Some("shareable") => IpcMode::Shareable,
        _ => IpcMode::Private,
    };
    let drivers = &["json-file", "local", "none", "journald", "syslog"];
    let log_options = settings.0.get("log-opts").and_then(Value::as_object).into_iter().flatten();
    Ok(Defaults {
        cgroup_driver: cgroup_driver(settings)?,
        cgroup_parent: settings.text("cgroup-parent"),
        cgroup_namespace,
        ipc,
        runtime: settings.text("default-runtime").unwrap_or_else(|| "runc".to_owned()),
        shm_size: shm_size(settings)?,
        stop_timeout: Duration::from_secs(settings.int("default-stop-timeout", 10, 0)? as u64),
        ulimits: ulimits(settings)?,
        dns: settings.parsed_list("dns")?,
        dns_options: settings.list("dns-opts"),
        dns_search: settings.list("dns-search"),
        init: settings.bool("init", false),
        log_driver: settings.one_of("log-driver", drivers)?.unwrap_or("json-file").to_owned(),
        log_options: log_options
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        no_new_privileges: settings.bool("no-new-privileges", false),
        selinux: settings.bool("selinux-enabled", false),
        userns_remap: settings.text("userns-remap"),
        idmap_binds: settings.bool("idmap-binds", false),
        seccomp_profile: settings.text("seccomp-profile").unwrap_or_else(|| "builtin".to_owned()),
    })
}

fn shm_size(settings: &Settings) -> Result<u64, ConfigError> {
    let bad = |why: String| ConfigError::Setting { key: "default-shm-size", why };
    match settings.0.get("default-shm-size") {
        None => Ok(64 << 20),
        Some(Value::String(text)) => {
            rorqual_core::units::parse_size(text).map_err(|error| bad(error.to_string()))
        }
        Some(number) => number.as_u64().ok_or_else(|| bad("need a size".to_owned())),
    }
}

/// Reads `{"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}`, or `nofile=1:2` from a flag.
fn ulimits(settings: &Settings) -> Result<Vec<Ulimit>, ConfigError> {
    let bad = |why: String| ConfigError::Setting { key: "default-ulimits", why };
    let map = settings.0.get("default-ulimits").and_then(Value::as_object).into_iter().flatten();
    map.map(|(name, value)| {
        let (soft, hard) = match value {
            Value::String(text) => {
                let (soft, hard) = text.split_once(':').unwrap_or((text, text));
                (soft.parse::<i64>().ok(), hard.parse::<i64>().ok())
            }
            value => {
                let number = |key: &str| value.get(key).and_then(Value::as_i64);
                (number("Soft").or(number("soft")), number("Hard").or(number("hard")))
            }
        };
        match (soft, hard) {
            (Some(soft), Some(hard)) => Ulimit::new(name.clone(), soft, hard)
                .map_err(|error| bad(format!("{name}: {error}"))),
            _ => Err(bad(format!("{name}: need soft and hard limits"))),
        }
    })
    .collect()
}

/// Describes the flags, a line each.
pub(crate) fn describe() -> Vec<String> {
    let own = [
        (
            "    --allow-insecure-tcp",
            "Listen on TCP beyond this host without TLS (whoever reaches it is root)",
        ),
        ("    --config-file string", "Configuration file (default \"/etc/docker/daemon.json\")"),
        ("    --help", "Print usage"),
        ("    --validate", "Check the configuration and exit"),
        ("-v, --version", "Print version information and exit"),
    ];
    let rows = ROWS.iter().filter(|row| !row.flag.is_empty()).map(|row| {
        let letter = row.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let value = match row.kind {
            Kind::Bool => "",
            Kind::Int => " int",
            Kind::Text => " string",
            Kind::List | Kind::Objects => " list",
            Kind::Map | Kind::Object => " map",
            Kind::Size => " bytes",
        };
        let fate = match row.fate {
            Fate::Works => String::new(),
            Fate::Reloads => "(read again on SIGHUP)".to_owned(),
            Fate::Meaningless(reason) => format!("(no effect: {reason})"),
            Fate::Later(reason) => format!("(no effect yet: {reason})"),
            Fate::Refused(reason) => format!("(refused: {reason})"),
        };
        format!("  {:<38} {fate}", format!("{letter}--{}{value}", row.flag)).trim_end().to_owned()
    });
    let own = own.iter().map(|(flag, what)| format!("  {flag:<38} {what}"));
    own.chain(rows).collect()
}

#[cfg(test)]
mod tests;

//! Flags → the document of `POST /containers/create`, field by field as docker's client sends it.

use serde_json::{Map, Value as Json, json};

use super::mounts::{self, Volume};
use super::ports::{Ports, WithPorts};
use super::values::{self, object};
use super::{list_or_null, network};
use crate::cli::Cli;
use crate::failure::{Failure, open_failure};
use crate::flag::Matches;

/// Which of the container's streams the client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command) struct Streams {
    /// Standard input.
    pub(in crate::command) input: bool,
    /// Standard output.
    pub(in crate::command) output: bool,
    /// Standard error.
    pub(in crate::command) error: bool,
}

impl Streams {
    /// Reads `--attach`, `--interactive` and, for `run`, `--detach`.
    pub(in crate::command) fn of(matches: &Matches) -> Result<Self, Failure> {
        let mut streams = Self { input: false, output: false, error: false };
        for value in matches.list("attach") {
            match value.to_ascii_lowercase().as_str() {
                "stdin" => streams.input = true,
                "stdout" => streams.output = true,
                "stderr" => streams.error = true,
                _ => {
                    return Err(Failure::new(format!(
                        "invalid argument {value:?} for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                    )));
                }
            }
        }
        if matches.list("attach").is_empty() {
            (streams.output, streams.error) = (true, true);
            streams.input = matches.on("interactive");
        }
        Ok(streams)
    }
}

/// Refuses what names no stream.
pub(super) fn check_stream(text: &str) -> Result<(), String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// What the daemon is asked for.
pub(in crate::command) struct NewContainer {
    /// The document, but for the ports.
    pub(in crate::command) document: Json,
    ports: Ports,
}

impl NewContainer {
    /// Writes the whole document.
    pub(in crate::command) fn text(&self) -> Result<String, Failure> {
        serde_json::to_string(&WithPorts(&self.document, &self.ports))
            .map_err(|error| Failure::new(error.to_string()))
    }
}

/// Builds the document.
pub(in crate::command) fn request(cli: &Cli, matches: &Matches) -> Result<NewContainer, Failure> {
    let proxies = cli.config.proxy_variables(&cli.client()?.host().to_string());
    let streams = Streams::of(matches)?;
    let (mode, endpoints) = network::networks(matches).map_err(Failure::new)?;
    let volumes = volumes(matches).map_err(Failure::new)?;
    let ports = ports(matches).map_err(Failure::new)?;
    let mut document = configuration(matches, streams, &proxies)?;
    if !ports.exposed.is_empty() {
        insert_after(&mut document, "AttachStderr", "ExposedPorts", json!({}));
    }
    let anonymous = volumes.1.into_iter().map(|path| (path, json!({})));
    document.insert("Volumes".to_owned(), Json::Object(anonymous.collect()));
    let host = host_configuration(matches, &mode, &volumes.0)?;
    document.insert("HostConfig".to_owned(), Json::Object(host));
    document.insert("NetworkingConfig".to_owned(), json!({ "EndpointsConfig": endpoints }));
    Ok(NewContainer { document: Json::Object(document), ports })
}

fn insert_after(document: &mut Map<String, Json>, place: &str, key: &str, value: Json) {
    let at = document.keys().position(|name| name == place).map_or(0, |at| at + 1);
    document.shift_insert(at, key.to_owned(), value);
}

fn ports(matches: &Matches) -> Result<Ports, String> {
    let mut ports = Ports::default();
    for value in matches.list("publish") {
        ports.publish(value)?;
    }
    for value in matches.list("expose") {
        ports.expose(value)?;
    }
    Ok(ports)
}

/// Binds, and paths with volumes of their own.
fn volumes(matches: &Matches) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
    for value in matches.list("volume") {
        match mounts::volume(value)? {
            Volume::Bind(bind) if !binds.contains(&bind) => binds.push(bind),
            Volume::Bind(_) => {}
            Volume::Anonymous(path) => anonymous.push(path),
        }
    }
    anonymous.sort();
    anonymous.dedup();
    Ok((binds, anonymous))
}

fn environment(matches: &Matches, proxies: &[(String, String)]) -> Result<Vec<String>, Failure> {
    let own = |name: &str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    let mut all = values::read_variables(matches.list("env-file"), &[], own)?;
    // COMPAT: a flag's name that we have no variable of takes the image's variable away.
    let or_bare = |name: &str| own(name).or_else(|| Some(name.to_owned()));
    all.extend(values::read_variables(&[], matches.list("env"), or_bare)?);
    for (name, value) in proxies {
        let set = |variable: &String| variable.split('=').next() == Some(name.as_str());
        if !all.iter().any(set) {
            all.push(format!("{name}={value}"));
        }
    }
    Ok(all)
}

fn labels(matches: &Matches) -> Result<Json, Failure> {
    let none = |name: &str| Some(name.to_owned());
    let pairs = values::read_variables(matches.list("label-file"), &[], none)?;
    Ok(object(&[pairs.as_slice(), matches.list("label")].concat()))
}

fn configuration(
    matches: &Matches,
    streams: Streams,
    proxies: &[(String, String)],
) -> Result<Map<String, Json>, Failure> {
    let entrypoint = match matches.given("entrypoint") {
        true => json!([matches.text("entrypoint")]),
        false => Json::Null,
    };
    let open = matches.on("interactive");
    let document = json!({
        "Hostname": matches.text("hostname"),
        "Domainname": matches.text("domainname"),
        "User": matches.text("user"),
        "AttachStdin": streams.input,
        "AttachStdout": streams.output,
        "AttachStderr": streams.error,
        "Tty": matches.on("tty"),
        "OpenStdin": open,
        "StdinOnce": open && streams.input,
        "Env": list_or_null(&environment(matches, proxies)?),
        "Cmd": list_or_null(matches.words.get(1..).unwrap_or_default()),
        "Image": matches.word(0),
        "Volumes": {},
        "WorkingDir": matches.text("workdir"),
        "Entrypoint": entrypoint,
        "OnBuild": null,
        "Labels": labels(matches)?,
    });
    let Json::Object(mut document) = document else { return Ok(Map::new()) };
    if let Some(health) = health(matches)? {
        insert_after(&mut document, "Cmd", "Healthcheck", health);
    }
    if !matches.text("stop-signal").is_empty() {
        document.insert("StopSignal".to_owned(), matches.text("stop-signal").into());
    }
    if matches.given("stop-timeout") {
        document.insert("StopTimeout".to_owned(), matches.int("stop-timeout").into());
    }
    Ok(document)
}

fn nanos(matches: &Matches, flag: &str) -> Result<i64, Failure> {
    let text = matches.text(flag);
    if text.starts_with('-') {
        return Err(Failure::new(format!("--{flag} cannot be negative")));
    }
    let duration = rorqual_core::units::parse_duration(text);
    let duration = duration.map_err(|error| Failure::new(error.to_string()))?;
    Ok(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn health(matches: &Matches) -> Result<Option<Json>, Failure> {
    const TIMES: [(&str, &str); 4] = [
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
    ];
    let mut health = Map::new();
    if !matches.text("health-cmd").is_empty() {
        health.insert("Test".to_owned(), json!(["CMD-SHELL", matches.text("health-cmd")]));
    }
    for (flag, key) in TIMES {
        let value = nanos(matches, flag)?;
        if value != 0 {
            health.insert(key.to_owned(), value.into());
        }
    }
    let retries = matches.int("health-retries");
    if retries < 0 {
        return Err(Failure::new("--health-retries cannot be negative"));
    }
    if retries != 0 {
        health.insert("Retries".to_owned(), retries.into());
    }
    match (matches.on("no-healthcheck"), health.is_empty()) {
        (true, false) => Err(Failure::new("--no-healthcheck conflicts with --health-* options")),
        (true, true) => Ok(Some(json!({ "Test": ["NONE"] }))),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(Json::Object(health))),
    }
}

/// `no`, `always`, `unless-stopped`, `on-failure[:n]`
pub(in crate::command) fn restart_policy(text: &str) -> Result<Json, Failure> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => {
            let count: i64 = count.parse().map_err(|_| {
                Failure::new(
                    "invalid restart policy format: maximum retry count must be an integer",
                )
            })?;
            (name, count)
        }
        None => (text, 0),
    };
    if name.is_empty() && text.contains(':') {
        return Err(Failure::new("invalid restart policy format: no policy provided before colon"));
    }
    Ok(json!({ "Name": name, "MaximumRetryCount": count }))
}

fn each(
    values: &[String],
    read: impl Fn(&str) -> Result<Json, String>,
) -> Result<Vec<Json>, Failure> {
    values.iter().map(|value| read(value).map_err(Failure::new)).collect()
}

fn check_modes(matches: &Matches) -> Result<(), Failure> {
    let host = |text: &str| matches!(text, "" | "host");
    let container = |text: &str| text.strip_prefix("container:").is_some_and(|id| !id.is_empty());
    let pid = matches.text("pid");
    let checks = [
        (host(pid) || container(pid), "--pid: invalid PID mode"),
        (host(matches.text("uts")), "--uts: invalid UTS mode"),
        (host(matches.text("userns")), "--userns: invalid USER mode"),
        (
            matches!(matches.text("cgroupns"), "" | "host" | "private"),
            "--cgroupns: invalid CGROUP mode",
        ),
    ];
    for (valid, text) in checks {
        if !valid {
            return Err(Failure::new(text));
        }
    }
    let swappiness = matches.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(Failure::new(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        )));
    }
    if matches.on("rm") && !matches!(matches.text("restart"), "no" | "") {
        return Err(Failure::new("conflicting options: cannot specify both --restart and --rm"));
    }
    Ok(())
}

/// Returns the options, and whether the system's paths are not to be hidden.
fn security_options(values: &[String]) -> Result<(Vec<String>, bool), Failure> {
    let (mut all, mut bare) = (Vec::new(), false);
    for value in values {
        if value == "systempaths=unconfined" {
            bare = true;
            continue;
        }
        if !value.contains(['=', ':']) && value != "no-new-privileges" {
            return Err(Failure::new(format!("Invalid --security-opt: {value:?}")));
        }
        let profile = value.strip_prefix("seccomp=").or_else(|| value.strip_prefix("seccomp:"));
        match profile {
            Some(path) if path != "unconfined" && path != "builtin" => {
                all.push(format!("seccomp={}", seccomp_profile(path)?));
            }
            _ => all.push(value.clone()),
        }
    }
    Ok((all, bare))
}

fn seccomp_profile(path: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let reason = open_failure(path, &error).text;
        Failure::new(format!("opening seccomp profile ({path}) failed: {reason}"))
    })?;
    let document: Json = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("compacting json for seccomp profile ({path}) failed: {error}"))
    })?;
    Ok(document.to_string())
}

/// `name:address` or `name=address`
pub(super) fn extra_host(text: &str) -> Result<Json, String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bracketed.unwrap_or(address);
    if name.is_empty() {
        return Err(bad());
    }
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}").into())
}

fn log_configuration(matches: &Matches) -> Result<Json, Failure> {
    let (driver, options) = (matches.text("log-driver"), matches.list("log-opt"));
    if driver == "none" && !options.is_empty() {
        return Err(Failure::new(format!("invalid logging opts for driver {driver}")));
    }
    Ok(json!({ "Type": driver, "Config": object(options) }))
}

fn host_configuration(
    matches: &Matches,
    mode: &str,
    binds: &[String],
) -> Result<Map<String, Json>, Failure> {
    check_modes(matches)?;
    let (security, bare) = security_options(matches.list("security-opt"))?;
    let hosts = each(matches.list("add-host"), extra_host)?;
    let text = |flag| matches.text(flag);
    let list = |flag| list_or_null(matches.list(flag));
    let mut all = Map::new();
    let mut put = |key: &str, value: Json| {
        all.insert(key.to_owned(), value);
    };
    put("Binds", list_or_null(binds));
    put("ContainerIDFile", text("cidfile").into());
    put("LogConfig", log_configuration(matches)?);
    put("NetworkMode", mode.into());
    put("PortBindings", json!({}));
    put("RestartPolicy", restart_policy(text("restart"))?);
    put("AutoRemove", matches.on("rm").into());
    put("VolumeDriver", text("volume-driver").into());
    put("VolumesFrom", list("volumes-from"));
    put("ConsoleSize", json!([0, 0]));
    if matches.given("annotation") {
        put("Annotations", object(matches.list("annotation")));
    }
    put("CapAdd", values::capabilities(matches.list("cap-add")));
    put("CapDrop", values::capabilities(matches.list("cap-drop")));
    put("CgroupnsMode", text("cgroupns").into());
    put("Dns", json!(matches.list("dns")));
    put("DnsOptions", json!(matches.list("dns-option")));
    put("DnsSearch", json!(matches.list("dns-search")));
    put("ExtraHosts", if hosts.is_empty() { Json::Null } else { Json::Array(hosts) });
    put("GroupAdd", list("group-add"));
    put("IpcMode", text("ipc").into());
    put("Cgroup", "".into());
    put("Links", list("link"));
    put("OomScoreAdj", matches.int("oom-score-adj").into());
    put("PidMode", text("pid").into());
    put("Privileged", matches.on("privileged").into());
    put("PublishAllPorts", matches.on("publish-all").into());
    put("ReadonlyRootfs", matches.on("read-only").into());
    put("SecurityOpt", list_or_null(&security));
    if matches.given("storage-opt") {
        put("StorageOpt", object(matches.list("storage-opt")));
    }
    if matches.given("tmpfs") {
        put("Tmpfs", tmpfs(matches.list("tmpfs")));
    }
    put("UTSMode", text("uts").into());
    put("UsernsMode", text("userns").into());
    put("ShmSize", matches.bytes("shm-size").into());
    if matches.given("sysctl") {
        put("Sysctls", object(matches.list("sysctl")));
    }
    if !text("runtime").is_empty() {
        put("Runtime", text("runtime").into());
    }
    put("Isolation", text("isolation").into());
    resources(matches, &mut all)?;
    let mounts = each(matches.list("mount"), mounts::mount)?;
    if !mounts.is_empty() {
        all.insert("Mounts".to_owned(), Json::Array(mounts));
    }
    let paths = if bare { json!([]) } else { Json::Null };
    all.insert("MaskedPaths".to_owned(), paths.clone());
    all.insert("ReadonlyPaths".to_owned(), paths);
    if matches.given("init") {
        all.insert("Init".to_owned(), matches.on("init").into());
    }
    Ok(all)
}

fn tmpfs(values: &[String]) -> Json {
    let pair = |value: &String| {
        let (path, options) = value.split_once(':').unwrap_or((value, ""));
        (path.to_owned(), options.into())
    };
    values::sorted(values.iter().map(pair).collect())
}

fn resources(matches: &Matches, all: &mut Map<String, Json>) -> Result<(), Failure> {
    let bytes = |flag| each(matches.list(flag), values::byte_rate);
    let plain = |flag| each(matches.list(flag), values::plain_rate);
    let weights = each(matches.list("blkio-weight-device"), values::weight)?;
    let mut ulimits = each(matches.list("ulimit"), values::ulimit)?;
    // COMPAT: docker's client sends them by name.
    ulimits.sort_by_key(|limit| limit["Name"].as_str().unwrap_or_default().to_owned());
    let (cdi, devices): (Vec<String>, Vec<String>) =
        matches.list("device").iter().cloned().partition(|text| values::is_cdi(text));
    let mut requests = Vec::new();
    for text in matches.list("gpus") {
        requests.push(values::gpus(text).map_err(Failure::new)?);
    }
    if !cdi.is_empty() {
        requests.push(json!({
            "Driver": "cdi", "Count": 0, "DeviceIDs": cdi, "Capabilities": null, "Options": null,
        }));
    }
    let mut put = |key: &str, value: Json| {
        all.insert(key.to_owned(), value);
    };
    put("CpuShares", matches.int("cpu-shares").into());
    put("Memory", matches.bytes("memory").into());
    put("NanoCpus", cpus(matches)?.into());
    put("CgroupParent", matches.text("cgroup-parent").into());
    put("BlkioWeight", matches.int("blkio-weight").into());
    put("BlkioWeightDevice", Json::Array(weights));
    put("BlkioDeviceReadBps", bytes("device-read-bps")?.into());
    put("BlkioDeviceWriteBps", bytes("device-write-bps")?.into());
    put("BlkioDeviceReadIOps", plain("device-read-iops")?.into());
    put("BlkioDeviceWriteIOps", plain("device-write-iops")?.into());
    put("CpuPeriod", matches.int("cpu-period").into());
    put("CpuQuota", matches.int("cpu-quota").into());
    put("CpuRealtimePeriod", matches.int("cpu-rt-period").into());
    put("CpuRealtimeRuntime", matches.int("cpu-rt-runtime").into());
    put("CpusetCpus", matches.text("cpuset-cpus").into());
    put("CpusetMems", matches.text("cpuset-mems").into());
    put("Devices", each(&devices, values::device)?.into());
    put("DeviceCgroupRules", list_or_null(matches.list("device-cgroup-rule")));
    put("DeviceRequests", if requests.is_empty() { Json::Null } else { requests.into() });
    put("MemoryReservation", matches.bytes("memory-reservation").into());
    put("MemorySwap", matches.bytes("memory-swap").into());
    put("MemorySwappiness", matches.int("memory-swappiness").into());
    put("OomKillDisable", matches.on("oom-kill-disable").into());
    put("PidsLimit", matches.int("pids-limit").into());
    put("Ulimits", ulimits.into());
    for key in ["CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"] {
        // Only of use on Windows; sent because docker's client sends them.
        put(key, 0.into());
    }
    Ok(())
}

/// Returns `--cpus` in billionths.
pub(in crate::command) fn cpus(matches: &Matches) -> Result<i64, Failure> {
    match matches.text("cpus") {
        "" => Ok(0),
        text => crate::flag::nano_cpus(text).map_err(Failure::new),
    }
}

//! What a container really runs: the request over the image's defaults. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rorqual_content::{HealthConfig, ImageConfig};
use rorqual_core::ContainerId;
use rorqual_core::selinux::Labels;
use rorqual_network::PortProtocol;

use crate::error::{Error, Result};
use crate::spec::{ContainerSpec, HealthSpec, HealthTest, StopTimeout};
use crate::view::{Effective, HealthPlan};

// LIMIT: Docker's defaults of health checks.
const INTERVAL: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Merges the image's defaults into `spec` (labels, exposed ports) and returns what runs.
pub(crate) fn merge(
    spec: &mut ContainerSpec,
    image: &ImageConfig,
    id: &ContainerId,
) -> Result<Effective> {
    for (key, value) in image.labels.iter().flatten() {
        spec.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for key in image.exposed_ports.iter().flatten().map(|(key, _)| key) {
        let port = parse_port(key)?;
        if !spec.network.exposed.contains(&port) {
            spec.network.exposed.push(port);
        }
    }
    let process = &spec.process;
    // An entrypoint of the request takes the image's arguments away.
    let entrypoint = process.entrypoint.clone().or_else(|| image.entrypoint.clone());
    let cmd = match (&process.cmd, &process.entrypoint) {
        (Some(cmd), _) if !cmd.is_empty() => Some(cmd.clone()),
        (_, Some(_)) => process.cmd.clone(),
        (_, None) => image.cmd.clone(),
    };
    let entrypoint = entrypoint.filter(|words| !(words.len() == 1 && words[0].is_empty()));
    let command: Vec<String> = entrypoint.iter().chain(&cmd).flatten().cloned().collect();
    if command.first().is_none_or(String::is_empty) {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    let or_image = |own: &str, inherited: &str| {
        if own.is_empty() { inherited.to_owned() } else { own.to_owned() }
    };
    let mut volumes: Vec<String> = spec.storage.anonymous.clone();
    let inherited = image.volumes.iter().flatten().map(|(path, _)| path);
    volumes.extend(inherited.filter(|path| !spec.storage.anonymous.contains(path)).cloned());
    let image_signal =
        Some(&image.stop_signal).filter(|text| !text.is_empty()).map(|text| text.parse());
    let health_asked = health_asked(spec.healthcheck.as_ref(), image.healthcheck.as_ref());
    Ok(Effective {
        command,
        env: merged_env(&process.env, image.env.as_deref().unwrap_or_default()),
        user: or_image(&process.user, &image.user),
        working_dir: or_image(&process.working_dir, &image.working_dir),
        entrypoint,
        cmd,
        stop_signal: process
            .stop_signal
            .map_or_else(|| image_signal.transpose(), |s| Ok(Some(s)))?,
        stop_timeout: process.stop_timeout.or_else(|| image.stop_timeout.map(stop_timeout)),
        health: health_plan(health_asked.as_ref()),
        health_asked,
        hostname: spec.network.hostname.clone().unwrap_or_else(|| id.short()),
        volumes,
        shell: process.shell.clone().or_else(|| image.shell.clone()),
        on_build: image.on_build.clone(),
        labels: Labels::default(),
    })
}

fn stop_timeout(seconds: i64) -> StopTimeout {
    u64::try_from(seconds)
        .map_or(StopTimeout::Never, |s| StopTimeout::After(Duration::from_secs(s)))
}

/// Reads `80/tcp`; the protocol may be left out.
pub(crate) fn parse_port(text: &str) -> Result<(u16, PortProtocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Some(PortProtocol::Tcp),
        "udp" => Some(PortProtocol::Udp),
        "sctp" => Some(PortProtocol::Sctp),
        _ => None,
    };
    let number = number.parse::<u16>().ok();
    match (number, protocol) {
        (Some(number), Some(protocol)) => Ok((number, protocol)),
        // COMPAT: dockerd's text.
        _ => Err(Error::Invalid(format!(
            "Invalid containerPort: {}",
            text.split('/').next().unwrap_or_default()
        ))),
    }
}

/// The request's variables, then those of the image that it does not set.
fn merged_env(own: &[String], image: &[String]) -> Vec<String> {
    let set: HashSet<&str> = own.iter().map(|variable| name_of(variable)).collect();
    let missing = image.iter().filter(|variable| !set.contains(name_of(variable)));
    own.iter().chain(missing).cloned().collect()
}

fn name_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

/// The environment a process gets: what `inspect` shows over Docker's own variables.
pub(crate) fn process_env(effective: &Effective, tty: bool) -> Vec<String> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", effective.hostname),
    ];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    overlay_env(&mut env, &effective.env);
    env
}

/// Lays `over` on `env`: a known name is replaced in place, a name without `=` is taken away.
pub(crate) fn overlay_env(env: &mut Vec<String>, over: &[String]) {
    // Looked up by name, because an image may bring any number of variables.
    let mut slots: Vec<Option<String>> = std::mem::take(env).into_iter().map(Some).collect();
    let mut places: HashMap<String, usize> = HashMap::with_capacity(slots.len() + over.len());
    for (at, known) in slots.iter().flatten().enumerate() {
        places.entry(name_of(known).to_owned()).or_insert(at);
    }
    for variable in over {
        let name = name_of(variable);
        match (places.get(name).copied(), variable.contains('=')) {
            (Some(at), true) => slots[at] = Some(variable.clone()),
            (Some(at), false) => {
                slots[at] = None;
                places.remove(name);
            }
            (None, true) => {
                places.insert(name.to_owned(), slots.len());
                slots.push(Some(variable.clone()));
            }
            (None, false) => {}
        }
    }
    env.extend(slots.into_iter().flatten());
}

/// Reads an image's health check; `None` when it says nothing about a test.
fn image_test(test: &[String]) -> Option<HealthSpec> {
    let check = |test| HealthSpec::Check {
        test: Some(test),
        interval: None,
        timeout: None,
        start_period: None,
        start_interval: None,
        retries: None,
    };
    match test {
        [word] if word == "NONE" => Some(HealthSpec::Disabled),
        [word, line] if word == "CMD-SHELL" => Some(check(HealthTest::Shell(line.clone()))),
        [word, command @ ..] if word == "CMD" && !command.is_empty() => {
            Some(check(HealthTest::Command(command.to_vec())))
        }
        _ => None,
    }
}

/// What the request says of the health check over what the image says of it, without defaults.
fn health_asked(own: Option<&HealthSpec>, image: Option<&HealthConfig>) -> Option<HealthSpec> {
    let inherited = match image.and_then(|config| image_test(&config.test)) {
        Some(HealthSpec::Check { test, .. }) => test,
        _ => None,
    };
    let from_image = |value: fn(&HealthConfig) -> i64| {
        let nanos = image.map(value).filter(|nanos| *nanos > 0)?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    };
    let none = HealthSpec::Check {
        test: None,
        interval: None,
        timeout: None,
        start_period: None,
        start_interval: None,
        retries: None,
    };
    let HealthSpec::Check { test, interval, timeout, start_period, start_interval, retries } =
        own.unwrap_or(&none)
    else {
        return Some(HealthSpec::Disabled);
    };
    let image_retries =
        image.and_then(|config| u32::try_from(config.retries).ok()).filter(|count| *count > 0);
    Some(HealthSpec::Check {
        test: Some(test.clone().or(inherited)?),
        interval: interval.or_else(|| from_image(|c| c.interval)),
        timeout: timeout.or_else(|| from_image(|c| c.timeout)),
        start_period: start_period.or_else(|| from_image(|c| c.start_period)),
        start_interval: start_interval.or_else(|| from_image(|c| c.start_interval)),
        retries: retries.or(image_retries),
    })
}

/// Applies the defaults; `None` where nothing is to be run.
fn health_plan(asked: Option<&HealthSpec>) -> Option<HealthPlan> {
    let Some(HealthSpec::Check { test, interval, timeout, start_period, start_interval, retries }) =
        asked
    else {
        return None;
    };
    Some(HealthPlan {
        test: test.clone()?,
        interval: interval.unwrap_or(INTERVAL),
        timeout: timeout.unwrap_or(INTERVAL),
        start_period: start_period.unwrap_or_default(),
        start_interval: start_interval.unwrap_or(START_INTERVAL),
        retries: retries.unwrap_or(RETRIES),
    })
}

#[cfg(test)]
mod tests;

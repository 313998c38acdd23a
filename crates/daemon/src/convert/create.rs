//! `POST /containers/create` → [`ContainerSpec`].

use std::time::Duration;

use rorqual_api::container::{Config, CreateRequest, HealthConfig};
use rorqual_engine::spec::{
    ContainerSpec, HealthSpec, HealthTest, ProcessSpec, RequestEcho, StopTimeout,
};
use rorqual_network::{PortProtocol, PublishedPort};
use rorqual_shim::WindowSize;

use crate::convert::host::{self, HostParts};
use crate::convert::{network, platform as platforms};
use crate::error::{BadRequest, invalid};

/// Reads a request to create a container.
#[expect(clippy::too_many_lines, reason = "one line per field, taken apart in one place")]
pub(crate) fn container_spec(
    mut request: CreateRequest,
    name: &str,
    platform: &str,
) -> Result<ContainerSpec, BadRequest> {
    if request.config.image.is_empty() {
        // COMPAT: dockerd's text.
        return Err(invalid("no command specified"));
    }
    let ports = Ports::take(&mut request)?;
    let echo =
        RequestEcho(serde_json::to_value(&request).map_err(|error| invalid(error.to_string()))?);
    let CreateRequest { config, host_config, networking_config } = request;
    let Config {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports: _, // Taken above.
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck,
        args_escaped: _, // Windows only.
        image,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        mac_address,
        on_build: _, // Of the image; a request's own has no meaning for a container.
        labels,
        stop_signal,
        stop_timeout,
        shell,
    } = config;
    if hostname.len() > 63 || domainname.len() > 255 {
        return Err(invalid(format!("invalid hostname format: {hostname}")));
    }
    if !working_dir.is_empty() && !working_dir.starts_with('/') {
        return Err(invalid(format!(
            "the working directory '{working_dir}' is invalid, it needs to be an absolute path"
        )));
    }
    let env = env.unwrap_or_default();
    if let Some(pair) = env.iter().find(|pair| pair.is_empty() || pair.starts_with('=')) {
        // COMPAT: dockerd's text.
        return Err(invalid(format!("invalid environment variable: {pair}")));
    }
    let host = host_config.unwrap_or_default();
    let HostParts {
        mut storage,
        mut network,
        resources,
        security,
        namespaces,
        annotations,
        restart,
        auto_remove,
        log,
        runtime,
        window,
        init,
        groups,
        oom_score_adj,
    } = host::parts(host)?;
    storage.anonymous = volumes.unwrap_or_default().into_keys().collect();
    network.exposed = ports.exposed;
    network.published = ports.published;
    network.hostname = crate::convert::non_empty(hostname);
    network.domainname = domainname;
    if network_disabled {
        network.mode = rorqual_engine::spec::NetworkMode::None;
    }
    network.endpoints = network::endpoints(networking_config, &network.mode, mac_address)?;
    let process = ProcessSpec {
        entrypoint: entrypoint.map(|words| words.0),
        cmd: cmd.map(|words| words.0),
        env,
        user,
        working_dir,
        tty,
        open_stdin,
        stdin_once,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        stop_signal: signal(&stop_signal)?,
        stop_timeout: stop_timeout.map(timeout),
        shell: shell.map(|words| words.0),
        window,
        init,
        groups,
        oom_score_adj,
    };
    Ok(ContainerSpec {
        name: match name {
            "" => None,
            name => Some(
                name.parse()
                    .map_err(|error: rorqual_core::InvalidName| invalid(error.to_string()))?,
            ),
        },
        image,
        platform: platforms::words(platform)?,
        process,
        labels: labels.unwrap_or_default(),
        annotations,
        healthcheck: healthcheck.map(health).transpose()?.flatten(),
        storage,
        network,
        resources,
        security,
        namespaces,
        restart,
        auto_remove,
        log,
        runtime,
        echo,
    })
}

/// The ports of a request, of which there may be tens of thousands.
struct Ports {
    exposed: Vec<(u16, PortProtocol)>,
    published: Vec<PublishedPort>,
}

impl Ports {
    /// Takes them out of the request, so that they are kept once: `inspect` writes them from what was read, unless they were
    /// spelt in another way than we would.
    fn take(request: &mut CreateRequest) -> Result<Self, BadRequest> {
        let exposed = std::mem::take(&mut request.config.exposed_ports);
        let exposed = network::exposed(exposed.into_keys())?;
        let mut published = Vec::new();
        let bindings = request.host_config.as_mut().map(|host| &mut host.port_bindings);
        if let Some(bindings @ Some(_)) = bindings
            && let Some(asked) = bindings.take()
        {
            published = network::published(&asked)?;
            if published.is_empty() || network::bindings(&published) != asked {
                *bindings = Some(asked);
            }
        }
        Ok(Self { exposed, published })
    }
}

fn signal(text: &str) -> Result<Option<rorqual_core::Signal>, BadRequest> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: rorqual_core::InvalidSignal| invalid(error.to_string())),
    }
}

/// Reads seconds to wait; negative is for ever.
pub(crate) fn timeout(seconds: i64) -> StopTimeout {
    u64::try_from(seconds)
        .map_or(StopTimeout::Never, |seconds| StopTimeout::After(Duration::from_secs(seconds)))
}

/// Reads `[height, width]`.
pub(crate) fn window(size: [u32; 2]) -> WindowSize {
    let [height, width] = size.map(|number| u16::try_from(number).unwrap_or(u16::MAX));
    WindowSize { width, height }
}

/// Reads a health check; nothing given at all inherits the image's (`None`).
fn health(document: HealthConfig) -> Result<Option<HealthSpec>, BadRequest> {
    let HealthConfig { test, interval, timeout, start_period, start_interval, retries } = document;
    let duration = |name: &str, nanos: i64| match u64::try_from(nanos) {
        Ok(0) => Ok(None),
        Ok(nanos) if nanos >= 1_000_000 => Ok(Some(Duration::from_nanos(nanos))),
        // COMPAT: dockerd's text.
        _ => Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms"))),
    };
    let retries = match u32::try_from(retries) {
        Ok(0) => None,
        Ok(retries) => Some(retries),
        Err(_) => return Err(invalid("Retries in Healthcheck cannot be negative")),
    };
    let mut words = test.into_iter();
    let test = match words.next().as_deref() {
        None => None,
        Some("NONE") => return Ok(Some(HealthSpec::Disabled)),
        Some("CMD") => Some(HealthTest::Command(words.collect())),
        Some("CMD-SHELL") => Some(HealthTest::Shell(words.next().unwrap_or_default())),
        Some(other) => {
            return Err(invalid(format!("Unknown healthcheck type '{other}' (expected 'CMD')")));
        }
    };
    let check = HealthSpec::Check {
        test,
        interval: duration("Interval", interval)?,
        timeout: duration("Timeout", timeout)?,
        start_period: duration("StartPeriod", start_period)?,
        start_interval: duration("StartInterval", start_interval)?,
        retries,
    };
    let nothing = HealthSpec::Check {
        test: None,
        interval: None,
        timeout: None,
        start_period: None,
        start_interval: None,
        retries: None,
    };
    Ok((check != nothing).then_some(check))
}

#[cfg(test)]
mod tests;

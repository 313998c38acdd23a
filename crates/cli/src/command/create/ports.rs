//! `--publish` and `--expose`: texts → ports and bindings.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

/// Ports of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// `80/tcp`
    pub(super) exposed: BTreeSet<String>,
    /// Host addresses and ports by exposed port.
    pub(super) bindings: BTreeMap<String, Vec<(String, String)>>,
}

impl Ports {
    /// Adds a value of `--publish`: `[[ip:][hostPort]:]containerPort[/proto]`, ports may be ranges.
    pub(super) fn publish(&mut self, text: &str) -> Result<(), String> {
        let long = if text.contains('=') { Some(long_form(text)?) } else { None };
        let text = long.as_deref().unwrap_or(text);
        let (rest, protocol) = protocol(text)?;
        let (ip, host, inside) = split(rest)?;
        if inside.is_empty() {
            return Err(format!("no port specified: {text}<empty>"));
        }
        let inner = range(inside).ok_or_else(|| format!("invalid containerPort: {inside}"))?;
        let outer = match host {
            "" => None,
            host => Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
        };
        let size = |(low, high): (u16, u16)| high - low;
        for offset in 0..=size(inner) {
            let port = format!("{}/{protocol}", inner.0 + offset);
            let host_port = match outer {
                None => String::new(),
                Some(outer) if size(outer) == size(inner) => (outer.0 + offset).to_string(),
                // One port inside may take any of several outside.
                Some(outer) if size(inner) == 0 => format!("{}-{}", outer.0, outer.1),
                Some(_) => {
                    return Err(format!(
                        "invalid ranges specified for container and host Ports: {inside} and {host}"
                    ));
                }
            };
            self.exposed.insert(port.clone());
            self.bindings.entry(port).or_default().push((ip.to_owned(), host_port));
        }
        Ok(())
    }

    /// Adds a value of `--expose`: `port[-port][/proto]`.
    pub(super) fn expose(&mut self, text: &str) -> Result<(), String> {
        let invalid = || {
            let port = text.split(['-', '/']).next().unwrap_or_default();
            format!(
                "invalid range format for --expose: {text}, error: strconv.ParseUint: parsing {port:?}: invalid syntax"
            )
        };
        if text.contains(':') {
            return Err(format!("invalid port format for --expose: {text}"));
        }
        let (ports, protocol) = protocol(text).map_err(|_| invalid())?;
        let (low, high) = range(ports).ok_or_else(invalid)?;
        for port in low..=high {
            self.exposed.insert(format!("{port}/{protocol}"));
        }
        Ok(())
    }

    /// `ExposedPorts`
    pub(super) fn exposed_document(&self) -> Json {
        Json::Object(self.exposed.iter().map(|port| (port.clone(), json!({}))).collect())
    }

    /// `PortBindings`
    pub(super) fn bindings_document(&self) -> Json {
        let binding = |(ip, port): &(String, String)| json!({ "HostIp": ip, "HostPort": port });
        Json::Object(
            self.bindings
                .iter()
                .map(|(port, all)| (port.clone(), all.iter().map(binding).collect()))
                .collect(),
        )
    }
}

/// `target=80,published=8080,protocol=tcp,mode=host` → the short form.
fn long_form(text: &str) -> Result<String, String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("invalid field: {field}"))?;
        match key {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "mode" if matches!(value, "host" | "ingress") => {}
            "mode" => {
                return Err(format!(
                    "invalid publish mode value (must be either 'ingress' or 'host'): {value}"
                ));
            }
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn protocol(text: &str) -> Result<(&str, String), String> {
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok((ports, protocol)),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

/// Address, port of the host, port of the container.
fn split(text: &str) -> Result<(&str, &str, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let invalid = || format!("invalid IP address: {text}");
        let (ip, rest) = rest.split_once(']').ok_or_else(invalid)?;
        let (host, inside) = rest.trim_start_matches(':').rsplit_once(':').unwrap_or(("", rest));
        ip.parse::<std::net::Ipv6Addr>().map_err(|_| invalid())?;
        return Ok((ip, host, inside));
    }
    let Some((rest, inside)) = text.rsplit_once(':') else { return Ok(("", "", text)) };
    let Some((ip, host)) = rest.rsplit_once(':') else { return Ok(("", rest, inside)) };
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    Ok((ip, host, inside))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok();
    match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((low, high)) => {
            let (low, high) = (port(low)?, port(high)?);
            (low <= high).then_some((low, high))
        }
    }
}

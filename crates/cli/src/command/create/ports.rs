//! `--publish` and `--expose`: texts → ports and bindings.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value as Json;

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
}

/// A request, or its `HostConfig`, with the ports in their places.
///
/// They are written as they are: tens of thousands as JSON values would take tens of megabytes.
pub(super) struct WithPorts<'a>(pub(super) &'a Json, pub(super) &'a Ports);

impl Serialize for WithPorts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(document, ports) = self;
        let Json::Object(fields) = document else { return document.serialize(serializer) };
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (key, value) in fields {
            match key.as_str() {
                "HostConfig" => map.serialize_entry(key, &WithPorts(value, ports))?,
                "ExposedPorts" => map.serialize_entry(key, &Exposed(ports))?,
                "PortBindings" => map.serialize_entry(key, &Bindings(ports))?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

/// `ExposedPorts`
struct Exposed<'a>(&'a Ports);

impl Serialize for Exposed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Nothing {}
        serializer.collect_map(self.0.exposed.iter().map(|port| (port, Nothing {})))
    }
}

/// `PortBindings`
pub(super) struct Bindings<'a>(pub(super) &'a Ports);

impl Serialize for Bindings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Binding<'a> {
            host_ip: &'a str,
            host_port: &'a str,
        }
        fn each(all: &[(String, String)]) -> Vec<Binding<'_>> {
            all.iter().map(|(host_ip, host_port)| Binding { host_ip, host_port }).collect()
        }
        serializer.collect_map(self.0.bindings.iter().map(|(port, all)| (port, each(all))))
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

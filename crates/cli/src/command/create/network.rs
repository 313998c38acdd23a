//! `--network` in its two forms, and the flags that describe the endpoint of the first.

use serde_json::{Map, Value as Json, json};

use super::values::csv;
use crate::flag::Matches;

/// A network to connect to.
#[derive(Debug, Default)]
struct Attachment {
    target: String,
    aliases: Vec<String>,
    links: Vec<String>,
    driver_options: Map<String, Json>,
    addresses: Map<String, Json>,
    mac: String,
    priority: i64,
}

/// Returns `NetworkMode` and `EndpointsConfig`.
pub(super) fn networks(matches: &Matches) -> Result<(String, Json), String> {
    let mut all = Vec::new();
    for value in matches.list("network") {
        all.push(attachment(value)?);
    }
    if all.is_empty() {
        all.push(Attachment { target: "default".to_owned(), ..Attachment::default() });
    }
    let simple = matches.list("network").iter().all(|value| !value.contains('='));
    from_flags(matches, &mut all[0], simple)?;
    let mode = all[0].target.clone();
    let mut endpoints = Map::new();
    for one in &all {
        // COMPAT: docker's text.
        if !one.aliases.is_empty() && (is_exclusive(&one.target) || one.target == "bridge") {
            return Err(
                "network-scoped aliases are only supported for user-defined networks".to_owned()
            );
        }
        let special = matches!(one.target.as_str(), "host" | "none");
        // COMPAT: docker sends nothing for the host's and no network.
        if special && all.len() == 1 {
            continue;
        }
        if endpoints.insert(one.target.clone(), document(one)).is_some() {
            return Err(format!("network {:?} is specified multiple times", one.target));
        }
    }
    if all.len() > 1 && all.iter().any(|one| is_exclusive(&one.target)) {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                .to_owned(),
        );
    }
    Ok((mode, Json::Object(endpoints)))
}

fn is_exclusive(target: &str) -> bool {
    matches!(target, "host" | "none" | "default") || target.starts_with("container:")
}

fn attachment(text: &str) -> Result<Attachment, String> {
    if !text.contains('=') {
        return Ok(Attachment { target: text.to_owned(), ..Attachment::default() });
    }
    let mut one = Attachment::default();
    for field in csv(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => one.target = value.to_owned(),
            "alias" => one.aliases.push(value.to_owned()),
            "ip" => address(&mut one, "IPv4Address", value)?,
            "ip6" => address(&mut one, "IPv6Address", value)?,
            "mac-address" => one.mac = mac(value)?,
            "link-local-ip" => link_local(&mut one, value),
            "driver-opt" => {
                let (name, value) = value
                    .split_once('=')
                    .ok_or_else(|| "invalid key value pair format in driver options".to_owned())?;
                one.driver_options.insert(name.to_owned(), value.into());
            }
            "gw-priority" => {
                one.priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({value}): not a number"))?;
            }
            other => return Err(format!("invalid field key {other}")),
        }
    }
    if one.target.is_empty() {
        return Err("network name is required".to_owned());
    }
    Ok(one)
}

fn address(one: &mut Attachment, key: &str, value: &str) -> Result<(), String> {
    value.parse::<std::net::IpAddr>().map_err(|_| format!("invalid IP address: {value}"))?;
    one.addresses.insert(key.to_owned(), value.into());
    Ok(())
}

fn link_local(one: &mut Attachment, value: &str) {
    let list = one.addresses.entry("LinkLocalIPs").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(value.into());
    }
}

fn mac(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let valid = parts.len() == 6
        && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
    if valid { Ok(text.to_owned()) } else { Err(format!("{text} is not a valid mac address")) }
}

/// Flags such as `--ip` describe the first network.
fn from_flags(matches: &Matches, first: &mut Attachment, simple: bool) -> Result<(), String> {
    let conflict = |flag: &str, own: bool| match own && matches.given(flag) && !simple {
        true => Err(format!(
            "conflicting options: cannot specify both --{flag} and per-network {}",
            match flag {
                "network-alias" => "alias",
                "ip" => "IPv4 address",
                "ip6" => "IPv6 address",
                _ => "MAC address",
            }
        )),
        false => Ok(()),
    };
    conflict("network-alias", !first.aliases.is_empty())?;
    conflict("ip", first.addresses.contains_key("IPv4Address"))?;
    conflict("ip6", first.addresses.contains_key("IPv6Address"))?;
    conflict("mac-address", !first.mac.is_empty())?;
    first.aliases.extend_from_slice(matches.list("network-alias"));
    // Links of the default network are the container's own, not an endpoint's.
    if !is_exclusive(&first.target) && first.target != "bridge" {
        first.links.extend(matches.list("link").iter().cloned());
    }
    for (flag, key) in [("ip", "IPv4Address"), ("ip6", "IPv6Address")] {
        if !matches.text(flag).is_empty() {
            address(first, key, matches.text(flag))?;
        }
    }
    for value in matches.list("link-local-ip") {
        link_local(first, value);
    }
    if !matches.text("mac-address").is_empty() {
        first.mac = mac(matches.text("mac-address"))?;
    }
    Ok(())
}

/// All fields, also those of answers, as docker's client sends them.
fn document(one: &Attachment) -> Json {
    let addresses = if one.addresses.is_empty() { Json::Null } else { json!(one.addresses) };
    let options =
        if one.driver_options.is_empty() { Json::Null } else { json!(one.driver_options) };
    json!({
        "IPAMConfig": addresses,
        "Links": super::list_or_null(&one.links),
        "Aliases": super::list_or_null(&one.aliases),
        "MacAddress": one.mac,
        "DriverOpts": options,
        "GwPriority": one.priority,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    })
}

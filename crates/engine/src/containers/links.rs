//! Legacy links of the default network: names and variables of containers that run, given to one that starts. Pure.
//!
//! Networks of one's own have names without links; nothing here concerns them.

use rorqual_network::PortProtocol;

use crate::container::Container;
use crate::error::{Error, Result};
use crate::records::ContainerRecord;
use crate::spec::NetworkMode;
use crate::world::World;

/// What links give to a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Linked {
    /// `name:address` for the hosts file.
    pub(super) hosts: Vec<String>,
    /// Variables.
    pub(super) env: Vec<String>,
}

/// Looks the linked containers up; each must run.
pub(super) fn find(world: &World, definition: &ContainerRecord) -> Result<Linked> {
    let mut linked = Linked::default();
    if definition.spec.network.mode != NetworkMode::Default {
        return Ok(linked);
    }
    for (target, alias) in &definition.spec.network.links {
        let target = world.index.find(target)?;
        let source = Source::of(&target).ok_or_else(|| {
            let (name, owner) = (target.definition().name.clone(), &definition.name);
            // COMPAT: dockerd's text.
            let text =
                format!("Cannot link to a non running container: /{name} AS /{owner}/{alias}");
            Error::Conflict(text)
        })?;
        linked.hosts.extend(source.hosts_lines(alias));
        linked.env.extend(source.variables(definition.name.as_str(), alias));
    }
    Ok(linked)
}

/// A container that others link to.
struct Source {
    name: String,
    hostname: String,
    address: String,
    ports: Vec<(u16, PortProtocol)>,
    env: Vec<String>,
}

impl Source {
    fn of(container: &Container) -> Option<Self> {
        let (definition, state) = (container.definition(), container.state());
        let endpoint = state.endpoints.iter().find(|endpoint| endpoint.network_name == "bridge")?;
        let (address, _) = endpoint.ipv4.filter(|_| state.pid != 0)?;
        let mut ports = definition.spec.network.exposed.clone();
        ports.sort_by_key(|(port, protocol)| (*port, word(*protocol)));
        Some(Self {
            name: definition.name.to_string(),
            hostname: definition.effective.hostname.clone(),
            address: address.to_string(),
            ports,
            env: definition.effective.env.clone(),
        })
    }

    fn hosts_lines(&self, alias: &str) -> Vec<String> {
        let mut names = vec![alias, &self.hostname];
        if self.name != alias {
            names.push(&self.name);
        }
        names.iter().map(|name| format!("{name}:{}", self.address)).collect()
    }

    /// COMPAT: the variables of dockerd, prefixed with the alias.
    fn variables(&self, owner: &str, alias: &str) -> Vec<String> {
        let prefix = alias.replace('-', "_").to_uppercase();
        let address = &self.address;
        let mut env = vec![format!("{prefix}_NAME=/{owner}/{alias}")];
        if let Some((port, protocol)) = self.ports.first() {
            env.push(format!("{prefix}_PORT={}://{address}:{port}", word(*protocol)));
        }
        for (port, protocol) in &self.ports {
            let protocol = word(*protocol);
            let prefix = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
            env.push(format!("{prefix}={protocol}://{address}:{port}"));
            env.push(format!("{prefix}_ADDR={address}"));
            env.push(format!("{prefix}_PORT={port}"));
            env.push(format!("{prefix}_PROTO={protocol}"));
        }
        for variable in &self.env {
            let Some((name, value)) = variable.split_once('=') else { continue };
            if !matches!(name, "HOME" | "PATH") {
                env.push(format!("{prefix}_ENV_{name}={value}"));
            }
        }
        env
    }
}

const fn word(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
        PortProtocol::Sctp => "sctp",
    }
}

#[cfg(test)]
mod tests;

//! `EXPOSE`: ports, ranges, protocols.

use std::net::IpAddr;

use super::Converter;
use super::dispatch::Scope;
use super::label::{Layer, go_list};
use crate::Error;
use crate::dockerfile::Dialect;
use crate::dockerfile::fault::invalid;
use crate::dockerfile::lint::Rule;

/// A port as it was written.
struct Written<'a> {
    address: &'a str,
    host: &'a str,
    ports: &'a str,
    protocol: &'a str,
}

impl Converter<'_> {
    pub(super) fn expose(&mut self, scope: &Scope, ports: &[String]) -> Result<(), Error> {
        let (mut exposed, mut words) = (Vec::new(), Vec::new());
        for port in ports {
            let lexer = self.lexer;
            for word in self.expand_with(scope, lexer, port)?.1 {
                self.expose_one(scope, &word, &mut exposed)?;
                words.push(word);
            }
        }
        let known = self.stages[scope.number].image.config.exposed_ports.get_or_insert_default();
        for port in &exposed {
            known.insert(port.clone(), serde_json::Map::new());
        }
        // COMPAT: the classic builder tells the words, in order, not the ports.
        let told = if self.request.options.dialect == Dialect::Classic {
            words.sort_unstable();
            words.join(" ")
        } else {
            go_list(&exposed)
        };
        self.commit(scope.number, &format!("EXPOSE {told}"), Layer::None);
        Ok(())
    }

    fn expose_one(
        &mut self,
        scope: &Scope,
        text: &str,
        exposed: &mut Vec<String>,
    ) -> Result<(), Error> {
        let written = Written::read(text)?;
        let protocol = written.protocol.to_lowercase();
        if protocol != written.protocol {
            let message =
                format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
            self.linter.report(&scope.lint, Rule::ExposeProtoCasing, &scope.place, message);
        }
        if !written.address.is_empty() || !written.host.is_empty() {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
            );
            self.linter.report(&scope.lint, Rule::ExposeInvalidFormat, &scope.place, message);
        }
        let (first, last) = written.check()?;
        exposed.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        Ok(())
    }
}

impl<'a> Written<'a> {
    fn read(text: &'a str) -> Result<Self, Error> {
        let mut parts = text.rsplitn(3, ':');
        let inner = parts.next().unwrap_or_default();
        let host = parts.next().unwrap_or_default();
        let address = parts.next().unwrap_or_default();
        let (ports, protocol) = inner.split_once('/').unwrap_or((inner, ""));
        if ports.is_empty() {
            return Err(invalid(format!("invalid port: {text:?}: no port specified")));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !["tcp", "udp", "sctp"].contains(&&*protocol.to_lowercase()) {
            return Err(invalid(format!("invalid port: {text:?}: invalid proto: {protocol}")));
        }
        Ok(Self { address, host, ports, protocol })
    }

    /// Checks all parts; returns the range.
    fn check(&self) -> Result<(u16, u16), Error> {
        let address = self.address.trim_start_matches('[').trim_end_matches(']');
        if !address.is_empty() && address.parse::<IpAddr>().is_err() {
            return Err(invalid(format!("invalid IP address: {}", self.address)));
        }
        let (first, last) = range(self.ports)
            .ok_or_else(|| invalid(format!("invalid containerPort: {}", self.ports)))?;
        if !self.host.is_empty() {
            let (low, high) = range(self.host)
                .ok_or_else(|| invalid(format!("invalid hostPort: {}", self.host)))?;
            if high - low != last - first && last != first {
                return Err(invalid(format!(
                    "invalid ranges specified for container and host Ports: {} and {}",
                    self.ports, self.host
                )));
            }
        }
        Ok((first, last))
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim_start_matches('+').parse::<u16>().ok();
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

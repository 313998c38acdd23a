//! Which host ports are whose. Decides and remembers; binding them is up to the caller's `hold`.

use std::net::{IpAddr, Ipv4Addr};

use crate::{Error, PortProtocol, PublishedPort};

/// First and last port given out when the user leaves the choice open: the kernel's own default range.
// COMPAT: dockerd starts at the bottom of that range and goes up.
const DYNAMIC: (u16, u16) = (32768, 60999);

/// Why a port cannot be had.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Somebody else on this host has it; the next of a range may be free.
    Busy(std::io::Error),
}

/// Ports in use, with what keeps others of the host away from them.
#[derive(Debug)]
pub(crate) struct PortTable<H> {
    held: Vec<(PublishedPort, H)>,
    next_dynamic: u16,
}

impl<H> Default for PortTable<H> {
    fn default() -> Self {
        Self { held: Vec::new(), next_dynamic: DYNAMIC.0 }
    }
}

impl<H> PortTable<H> {
    /// Takes the first port of what `wanted` allows that is free here and that `hold` gets hold of.
    ///
    /// Returns it with its single host port.
    ///
    /// # Errors
    /// `PortTaken` with Docker's texts; `InvalidArgument` for an upside-down range or a container port of zero.
    pub(crate) fn acquire(
        &mut self,
        wanted: &PublishedPort,
        mut hold: impl FnMut(&PublishedPort) -> Result<H, Refusal>,
    ) -> Result<PublishedPort, Error> {
        let (first, last) = wanted.host;
        if wanted.container == 0 || first > last || (first == 0 && last != 0) {
            return Err(Error::InvalidArgument(format!(
                "invalid port specification: {first}-{last}:{}",
                wanted.container
            )));
        }
        let mut refusal = None;
        for port in self.candidates(wanted.host) {
            let candidate = PublishedPort { host: (port, port), ..wanted.clone() };
            if self.is_taken(&candidate) {
                refusal.get_or_insert_with(|| allocated(&candidate));
                continue;
            }
            match hold(&candidate) {
                Ok(holder) => {
                    self.held.push((candidate.clone(), holder));
                    if wanted.host == (0, 0) {
                        self.next_dynamic = if port == DYNAMIC.1 { DYNAMIC.0 } else { port + 1 };
                    }
                    return Ok(candidate);
                }
                Err(Refusal::Busy(cause)) => {
                    refusal.get_or_insert_with(|| busy(&candidate, &cause));
                }
            }
        }
        Err(refusal.unwrap_or_else(|| {
            // COMPAT: dockerd's words.
            Error::PortTaken("all ports are allocated".to_owned())
        }))
    }

    fn candidates(&self, host: (u16, u16)) -> impl Iterator<Item = u16> + use<H> {
        let (first, second) = if host == (0, 0) {
            (self.next_dynamic..=DYNAMIC.1, Some(DYNAMIC.0..=self.next_dynamic - 1))
        } else {
            (host.0..=host.1, None)
        };
        first.chain(second.into_iter().flatten())
    }

    fn is_taken(&self, port: &PublishedPort) -> bool {
        self.held.iter().any(|(held, _)| {
            held.host.0 == port.host.0
                && held.protocol == port.protocol
                && overlap(held.host_ip, port.host_ip)
        })
    }

    /// Gives ports back; what keeps others away is dropped.
    pub(crate) fn release(&mut self, ports: &[PublishedPort]) {
        self.held.retain(|(held, _)| !ports.contains(held));
    }
}

fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.is_unspecified() || b.is_unspecified() || a == b,
        _ => true,
    }
}

fn shown_ip(port: &PublishedPort) -> IpAddr {
    port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

// COMPAT: clients look for these two texts.
fn allocated(port: &PublishedPort) -> Error {
    let (ip, number) = (shown_ip(port), port.host.0);
    Error::PortTaken(format!("Bind for {ip}:{number} failed: port is already allocated"))
}

fn busy(port: &PublishedPort, cause: &std::io::Error) -> Error {
    let (ip, number) = (shown_ip(port), port.host.0);
    let cause = match cause.raw_os_error() {
        Some(code) if code == rustix::io::Errno::ADDRINUSE.raw_os_error() => {
            "address already in use".to_owned()
        }
        _ => cause.to_string(),
    };
    let protocol = protocol_name(port.protocol);
    Error::PortTaken(format!("failed to bind host port {ip}:{number}/{protocol}: {cause}"))
}

/// Returns `tcp`, `udp` or `sctp`.
pub(crate) const fn protocol_name(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
        PortProtocol::Sctp => "sctp",
    }
}

/// Returns the number in the IP header.
pub(crate) const fn protocol_number(protocol: PortProtocol) -> u8 {
    match protocol {
        PortProtocol::Tcp => 6,
        PortProtocol::Udp => 17,
        PortProtocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests;

//! Which host ports are whose. Decides and remembers; binding them is up to the caller's `hold`.
//!
//! Ports that lie side by side and lead to ports side by side are one [`Run`], however many they are.

use std::net::{IpAddr, Ipv4Addr};

use rorqual_core::ContainerId;

use crate::{Error, PortProtocol, PublishedPort};

/// First and last port given out when the user leaves the choice open: the kernel's own default range.
// COMPAT: dockerd starts at the bottom of that range and goes up.
const DYNAMIC: (u16, u16) = (32768, 60999);

/// LIMIT: ports of one run that are held by sockets, some 4 KiB of the kernel's memory each.
pub(crate) const HELD_BY_SOCKETS: usize = 16;

/// Why a port cannot be had.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Somebody else on this host has this port; the next of a range may be free.
    Busy(u16, std::io::Error),
}

/// Ports of the host, one after the other, that lead to as many ports of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) protocol: PortProtocol,
    /// Host address; `None`: all.
    pub(crate) host_ip: Option<IpAddr>,
    /// First port of the host.
    pub(crate) host: u16,
    /// Last port of the host.
    pub(crate) last: u16,
    /// First port of the container.
    pub(crate) container: u16,
}

impl Run {
    /// Makes one of a single port.
    pub(crate) fn single(port: &PublishedPort, host: u16) -> Self {
        let PublishedPort { container, protocol, host_ip, .. } = *port;
        Self { protocol, host_ip, host, last: host, container }
    }

    /// The ports one by one.
    pub(crate) fn ports(&self) -> impl Iterator<Item = PublishedPort> + use<> {
        let Self { protocol, host_ip, host: first, last, container } = *self;
        (first..=last).map(move |host| PublishedPort {
            container: container + (host - first),
            protocol,
            host_ip,
            host: (host, host),
        })
    }

    /// Number of ports.
    pub(crate) const fn len(&self) -> usize {
        self.last as usize - self.host as usize + 1
    }

    /// Tells whether each port leads to the same port inside.
    pub(crate) const fn keeps_numbers(&self) -> bool {
        self.host == self.container
    }

    /// Tells whether a relay could serve them, where one is needed: it has a socket for each, and none of its own for SCTP.
    pub(crate) const fn may_be_relayed(&self) -> bool {
        self.len() <= HELD_BY_SOCKETS && !matches!(self.protocol, PortProtocol::Sctp)
    }

    /// Tells whether the ports of another run are among these.
    pub(crate) fn has(&self, other: &Self) -> bool {
        (self.protocol, self.host_ip) == (other.protocol, other.host_ip)
            && (self.host..=self.last).contains(&other.host)
            && other.last <= self.last
    }

    /// Returns the first port that both would have.
    fn shared(&self, other: &Self) -> Option<u16> {
        let first = self.host.max(other.host);
        let same = self.protocol == other.protocol && overlap(self.host_ip, other.host_ip);
        (same && first <= self.last.min(other.last)).then_some(first)
    }
}

/// Puts ports with a single host port together; those that leave a choice are passed over.
pub(crate) fn runs<'a>(ports: impl Iterator<Item = &'a PublishedPort>) -> Vec<Run> {
    let fixed = |port: &&PublishedPort| port.host.0 == port.host.1 && port.host.0 != 0;
    let mut singles =
        ports.filter(fixed).map(|port| Run::single(port, port.host.0)).collect::<Vec<_>>();
    singles.sort_by_key(|run| (run.protocol, run.host_ip, run.host, run.container));
    let mut all = Vec::<Run>::new();
    for single in singles {
        match all.last_mut() {
            Some(run)
                if (run.protocol, run.host_ip) == (single.protocol, single.host_ip)
                    && run.last.checked_add(1) == Some(single.host)
                    && single.container.checked_sub(run.container)
                        == single.host.checked_sub(run.host) =>
            {
                run.last = single.host;
            }
            _ => all.push(single),
        }
    }
    all
}

#[derive(Debug)]
struct Held<H> {
    owner: ContainerId,
    run: Run,
    /// Is dropped when the ports are given back.
    holder: H,
}

/// Ports in use, with what keeps others of the host away from them.
#[derive(Debug)]
pub(crate) struct PortTable<H> {
    held: Vec<Held<H>>,
    next_dynamic: u16,
}

impl<H> Default for PortTable<H> {
    fn default() -> Self {
        Self { held: Vec::new(), next_dynamic: DYNAMIC.0 }
    }
}

impl<H> PortTable<H> {
    /// Takes ports for `owner`, all or none: of what leaves a choice, the first that is free here and that `hold` gets
    /// hold of.
    ///
    /// Returns them in the same order, each with its single host port.
    ///
    /// # Errors
    /// `PortTaken` with Docker's texts; `InvalidArgument` for an upside-down range or a container port of zero.
    pub(crate) fn acquire(
        &mut self,
        owner: ContainerId,
        wanted: &[PublishedPort],
        mut hold: impl FnMut(&Run) -> Result<H, Refusal>,
    ) -> Result<Vec<PublishedPort>, Error> {
        let before = self.held.len();
        let taken = self.acquire_each(owner, wanted, &mut hold);
        taken.inspect_err(|_| self.held.truncate(before))
    }

    fn acquire_each(
        &mut self,
        owner: ContainerId,
        wanted: &[PublishedPort],
        hold: &mut impl FnMut(&Run) -> Result<H, Refusal>,
    ) -> Result<Vec<PublishedPort>, Error> {
        wanted.iter().try_for_each(check)?;
        for run in runs(wanted.iter()) {
            self.take(owner, run, hold)?;
        }
        let chosen = wanted.iter().map(|port| match port.host {
            (first, last) if first == last && first != 0 => Ok(port.clone()),
            _ => self.choose(owner, port, hold),
        });
        chosen.collect()
    }

    /// Takes one port of those that `wanted` allows.
    fn choose(
        &mut self,
        owner: ContainerId,
        wanted: &PublishedPort,
        hold: &mut impl FnMut(&Run) -> Result<H, Refusal>,
    ) -> Result<PublishedPort, Error> {
        let mut refusal = None;
        for host in self.candidates(wanted.host) {
            match self.take(owner, Run::single(wanted, host), hold) {
                Ok(()) => {
                    if wanted.host == (0, 0) {
                        self.next_dynamic = if host == DYNAMIC.1 { DYNAMIC.0 } else { host + 1 };
                    }
                    return Ok(PublishedPort { host: (host, host), ..wanted.clone() });
                }
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        Err(refusal.unwrap_or_else(|| {
            // COMPAT: dockerd's words.
            Error::PortTaken("all ports are allocated".to_owned())
        }))
    }

    fn take(
        &mut self,
        owner: ContainerId,
        run: Run,
        hold: &mut impl FnMut(&Run) -> Result<H, Refusal>,
    ) -> Result<(), Error> {
        if let Some(port) = self.held.iter().filter_map(|held| held.run.shared(&run)).min() {
            return Err(allocated(&run, port));
        }
        let held = hold(&run);
        let holder = held.map_err(|Refusal::Busy(port, cause)| busy(&run, port, &cause))?;
        self.held.push(Held { owner, run, holder });
        Ok(())
    }

    fn candidates(&self, host: (u16, u16)) -> impl Iterator<Item = u16> + use<H> {
        let (first, second) = if host == (0, 0) {
            (self.next_dynamic..=DYNAMIC.1, Some(DYNAMIC.0..=self.next_dynamic - 1))
        } else {
            (host.0..=host.1, None)
        };
        first.chain(second.into_iter().flatten())
    }

    /// Returns what keeps others away from a container's ports.
    pub(crate) fn held(&self, owner: &ContainerId) -> impl Iterator<Item = (&Run, &H)> {
        let theirs = self.held.iter().filter(|held| held.owner == *owner);
        theirs.map(|held| (&held.run, &held.holder))
    }

    /// The same, to be changed.
    pub(crate) fn held_mut(&mut self, owner: &ContainerId) -> impl Iterator<Item = (&Run, &mut H)> {
        let theirs = self.held.iter_mut().filter(|held| held.owner == *owner);
        theirs.map(|held| (&held.run, &mut held.holder))
    }

    /// Gives all ports of a container back; what keeps others away is dropped.
    pub(crate) fn release(&mut self, owner: &ContainerId) {
        self.held.retain(|held| held.owner != *owner);
    }
}

fn check(wanted: &PublishedPort) -> Result<(), Error> {
    let (first, last) = wanted.host;
    if wanted.container == 0 || first > last || (first == 0 && last != 0) {
        return Err(Error::InvalidArgument(format!(
            "invalid port specification: {first}-{last}:{}",
            wanted.container
        )));
    }
    Ok(())
}

fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.is_unspecified() || b.is_unspecified() || a == b,
        _ => true,
    }
}

fn shown_ip(run: &Run) -> IpAddr {
    run.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Says why the kernel refused, as Go's library does.
// COMPAT: dockerd passes its words on.
fn as_docker(cause: &std::io::Error) -> String {
    let text = cause.to_string();
    text.split(" (os error").next().unwrap_or_default().to_ascii_lowercase()
}

// COMPAT: clients look for these two texts.
fn allocated(run: &Run, port: u16) -> Error {
    Error::PortTaken(format!("Bind for {}:{port} failed: port is already allocated", shown_ip(run)))
}

fn busy(run: &Run, port: u16, cause: &std::io::Error) -> Error {
    let ip = shown_ip(run);
    let cause = match cause.raw_os_error() {
        Some(code) if code == rustix::io::Errno::ADDRINUSE.raw_os_error() => {
            "address already in use".to_owned()
        }
        _ => as_docker(cause),
    };
    let protocol = protocol_name(run.protocol);
    Error::PortTaken(format!("failed to bind host port {ip}:{port}/{protocol}: {cause}"))
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

/// How the record of an attachment keeps ports, which leave no choice: a run as one entry with the first port inside and both ends of the host's.
pub(crate) mod attached {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{PublishedPort, Run, runs};

    pub(crate) fn serialize<S: Serializer>(
        ports: &[PublishedPort],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let each = runs(ports.iter()).into_iter().map(|run| {
            let Run { protocol, host_ip, host, last, container } = run;
            PublishedPort { container, protocol, host_ip, host: (host, last) }
        });
        each.collect::<Vec<_>>().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PublishedPort>, D::Error> {
        let kept = Vec::<PublishedPort>::deserialize(deserializer)?;
        let each = kept.into_iter().flat_map(|port| {
            let PublishedPort { container, protocol, host_ip, host: (host, last) } = port;
            // LIMIT: a damaged record must not lead beyond the last port there is.
            let last = last.min(host.saturating_add(u16::MAX - container));
            Run { protocol, host_ip, host, last, container }.ports()
        });
        Ok(each.collect())
    }
}

/// How records keep ports: those side by side that lead to ports side by side as one entry.
///
/// For `#[serde(with = …)]`. What is read back has the ports of one address and protocol together, which need not be the
/// order they were written in; the ports of one port inside keep theirs.
pub mod recorded {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::PublishedPort;

    /// LIMIT: entries that a port is compared with: one for each address that ports are usually published on.
    const LOOKED_BACK: usize = 4;

    /// A port, with the number of those that follow it.
    #[derive(Serialize, Deserialize)]
    struct Entry {
        #[serde(flatten)]
        first: PublishedPort,
        #[serde(default, skip_serializing_if = "is_zero")]
        more: u16,
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
    const fn is_zero(more: &u16) -> bool {
        *more == 0
    }

    impl Entry {
        /// Returns the port that is `offset` behind the first, if there is such a port.
        fn at(&self, offset: u16) -> Option<PublishedPort> {
            let PublishedPort { container, protocol, host_ip, host: (first, last) } = self.first;
            let container = container.checked_add(offset)?;
            // One that leaves a choice stands alone.
            let host = first.checked_add(offset).filter(|_| offset == 0 || first == last)?;
            let last = if offset == 0 { last } else { host };
            Some(PublishedPort { container, protocol, host_ip, host: (host, last) })
        }

        fn takes(&mut self, port: &PublishedPort) -> bool {
            let next = self.more.checked_add(1);
            let fits =
                next.filter(|next| self.first.host.0 != 0 && self.at(*next).as_ref() == Some(port));
            fits.map(|next| self.more = next).is_some()
        }
    }

    /// Writes ports.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        ports: &[PublishedPort],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut entries = Vec::<Entry>::new();
        for port in ports {
            if !entries.iter_mut().rev().take(LOOKED_BACK).any(|entry| entry.takes(port)) {
                entries.push(Entry { first: port.clone(), more: 0 });
            }
        }
        entries.serialize(serializer)
    }

    /// Reads ports, also those that were written one by one.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PublishedPort>, D::Error> {
        let entries = Vec::<Entry>::deserialize(deserializer)?;
        // LIMIT: a damaged record does not lead beyond the last port there is.
        let each = entries.iter().flat_map(|entry| (0..=entry.more).map_while(|at| entry.at(at)));
        Ok(each.collect())
    }
}

/// The same for ports that are merely exposed.
pub mod recorded_exposed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::PortProtocol;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Entry {
        Several(u16, PortProtocol, u16),
        One(u16, PortProtocol),
    }

    /// Writes ports.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        ports: &[(u16, PortProtocol)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut entries = Vec::<(u16, PortProtocol, u16)>::new();
        for (port, protocol) in ports {
            // Those of two protocols may come in turn.
            let next = |entry: &&mut (u16, PortProtocol, u16)| {
                entry.1 == *protocol && entry.2.checked_add(1) == Some(*port)
            };
            match entries.iter_mut().rev().take(3).find(next) {
                Some((.., last)) => *last = *port,
                None => entries.push((*port, *protocol, *port)),
            }
        }
        serializer.collect_seq(entries.into_iter().map(|(first, protocol, last)| {
            if first == last {
                Entry::One(first, protocol)
            } else {
                Entry::Several(first, protocol, last)
            }
        }))
    }

    /// Reads ports, also those that were written one by one.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(u16, PortProtocol)>, D::Error> {
        let entries = Vec::<Entry>::deserialize(deserializer)?;
        let each = entries.into_iter().flat_map(|entry| {
            let (first, protocol, last) = match entry {
                Entry::Several(first, protocol, last) => (first, protocol, last),
                Entry::One(port, protocol) => (port, protocol, port),
            };
            (first..=last).map(move |port| (port, protocol))
        });
        Ok(each.collect())
    }
}

#[cfg(test)]
mod tests;

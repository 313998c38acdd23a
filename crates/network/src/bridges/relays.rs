//! What the relay is told of published ports.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rorqual_core::ContainerId;

use super::holding::{self, Door, Families};
use super::join::{self, Networks};
use super::{Inner, State, lock};
use crate::book::Attached;
use crate::relay::{Destination, Relayed};
use crate::{Endpoint, Error, PortProtocol, Relay, Traffic};

/// What is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relaying {
    /// Nothing.
    Off,
    /// What the firewall cannot lead.
    WhereNeeded,
    /// All, so that clients meet the host's own rules for what comes in.
    All {
        /// The host has IPv6.
        ipv6: bool,
    },
}

impl Relaying {
    pub(super) fn new(traffic: Traffic) -> Self {
        match (traffic.relay, traffic.firewall) {
            (_, false) | (Relay::Off, _) => Self::Off,
            (Relay::All, _) => Self::All { ipv6: holding::has_ipv6() },
            (Relay::WhereNeeded, _) if holding::has_ipv6() => Self::WhereNeeded,
            (Relay::WhereNeeded, _) => Self::Off,
        }
    }
}

/// Copies of what clients come by, with the protocol and the port inside.
type Doors = Vec<((PortProtocol, u16), OwnedFd)>;

fn copies<'a>(doors: impl Iterator<Item = &'a Door>) -> Result<Doors, Error> {
    let copy = |door: &Door| Ok(((door.protocol, door.container), door.socket.try_clone()?));
    let copied = doors.map(copy).collect::<std::io::Result<_>>();
    copied.map_err(|source| Error::Os {
        action: "keep published ports for the relay".to_owned(),
        source: source.into(),
    })
}

/// Finds the addresses that clients are relayed to.
fn destination(networks: &Networks, endpoints: &[Endpoint]) -> Option<Destination> {
    let to = join::target(networks, endpoints);
    Some(Destination { ipv4: to.ipv4, ipv6: to.ipv6 }).filter(|to| !to.is_none())
}

impl Inner {
    /// Tells who leads clients of published ports to a container.
    pub(super) fn families(&self, networks: &Networks, endpoints: &[Endpoint]) -> Families {
        join::families(networks, endpoints, self.relays)
    }

    fn relayed(&self, state: &State, attached: &Attached) -> bool {
        let families = self.families(&state.bridges, &attached.endpoints);
        crate::ports::runs(attached.ports.iter()).iter().any(|run| families.relays(run))
    }

    /// Has the ports relayed that a container has taken.
    pub(super) fn relay(&self, container: &ContainerId) -> Result<(), Error> {
        let (doors, to) = {
            let state = lock(&self.state);
            let attached = state.book.attached(container)?;
            let held = state.ports.held(container).flat_map(|(_, held)| &held.doors);
            (copies(held)?, destination(&state.bridges, &attached.endpoints))
        };
        match to.filter(|_| !doors.is_empty()) {
            Some(to) => self.tell_relay(container, to, &doors).map(drop),
            None => Ok(()),
        }
    }

    fn tell_relay(
        &self,
        container: &ContainerId,
        to: Destination,
        doors: &Doors,
    ) -> Result<bool, Error> {
        let ports = doors.iter().map(|(port, _)| *port).collect();
        let sockets =
            doors.iter().map(|(_, socket)| socket.as_fd()).collect::<Vec<BorrowedFd<'_>>>();
        let relayed = Relayed { container: container.to_string(), to, ports };
        let mut resolver = lock(&self.resolver);
        self.replace_lost(&mut resolver);
        resolver.relay(relayed, &sockets)
    }

    /// Tells the relay where connections go from now on.
    pub(super) fn relay_elsewhere(&self, container: &ContainerId) -> Result<(), Error> {
        let to = {
            let state = lock(&self.state);
            let attached = state.book.attached(container)?;
            let relayed = self.relayed(&state, attached);
            destination(&state.bridges, &attached.endpoints).filter(|_| relayed)
        };
        to.map_or(Ok(()), |to| self.tell_relay(container, to, &Vec::new()).map(drop))
    }

    /// Has nothing relayed to a container any more, so that its ports are free.
    pub(super) fn relay_no_more(&self, container: &ContainerId, attached: &Attached) {
        if self.relays == Relaying::Off || attached.ports.is_empty() {
            return;
        }
        if let Err(error) = lock(&self.resolver).end_relay(container) {
            let error = rorqual_core::full_message(&error);
            tracing::warn!(container = container.short(), error, "its ports may still be relayed");
        }
    }

    /// Hands ports to a relay that does not have them: the earlier one has ended with its daemon, or alone.
    pub(super) fn relay_again(&self) {
        let all = lock(&self.state).book.attached.keys().copied().collect::<Vec<_>>();
        for container in all {
            let again = self.relay(&container).and_then(|()| self.relay_elsewhere(&container));
            if let Err(error) = again {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(container = container.short(), error, "its ports are not relayed");
            }
        }
    }

    /// Lists the relayed ports of all containers for a relay that takes another one's place.
    pub(super) fn relayed_ports(&self) -> Vec<(Relayed, Vec<OwnedFd>)> {
        let mut state = lock(&self.state);
        let State { book, ports, bridges, joining: _ } = &mut *state;
        let mut all = Vec::new();
        for (container, attached) in &book.attached {
            let families = self.families(bridges, &attached.endpoints);
            for (run, held) in ports.held_mut(container) {
                // One that was taken over from an earlier daemon is held by nobody now.
                if held.doors.is_empty() && families.relays(run) {
                    held.doors = holding::open_again(run, families);
                }
            }
            let doors = copies(ports.held(container).flat_map(|(_, held)| &held.doors));
            let to = destination(bridges, &attached.endpoints);
            if let (Ok(doors), Some(to)) = (doors, to)
                && !doors.is_empty()
            {
                let (ports, sockets) = doors.into_iter().unzip();
                all.push((Relayed { container: container.to_string(), to, ports }, sockets));
            }
        }
        all
    }

    /// Has nothing relayed that no record owns.
    pub(super) fn keep_relayed(&self) -> Result<(), Error> {
        let known = lock(&self.state).book.attached.keys().map(ToString::to_string).collect();
        lock(&self.resolver).keep_relays(known)
    }
}

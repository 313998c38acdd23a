//! Keeping the firewall's table owned while there is no daemon, as long as there are containers.
//!
//! The resolver's process, which outlives the daemon, has a descriptor of the socket that owns the table; it does nothing with
//! it, and lacks the right to. The next daemon has it let go, and takes the table over in the same breath.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Inner, State, lock};
use crate::Error;

/// Whether the firewall's socket is kept, for those who only want to know if that should change.
#[derive(Debug, Default)]
pub(super) struct Kept(AtomicBool);

impl Kept {
    /// Tells whether it is kept.
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, kept: bool) {
        self.0.store(kept, Ordering::Release);
    }
}

/// Tells whether the table protects anybody.
fn has_guests(state: &State) -> bool {
    state.book.attached.values().any(|attached| !attached.endpoints.is_empty())
}

impl Inner {
    /// Has the table kept from now on, if the container stays: starting the resolver is nothing that it should wait for.
    pub(super) fn keep_firewall_soon(&self) {
        if self.firewall.is_some() && !self.kept.is() {
            self.bell.ring();
        }
    }

    /// Tells whether there are containers and nothing kept for them yet.
    pub(super) fn wants_to_keep(&self) -> bool {
        self.firewall.is_some() && !self.kept.is() && has_guests(&lock(&self.state))
    }

    /// Has the table kept no longer when the last container is gone.
    pub(super) fn keep_firewall_no_more(&self) {
        if self.kept.is() && !has_guests(&lock(&self.state)) {
            self.keep_firewall();
        }
    }

    /// Has the table kept exactly while there are containers.
    pub(super) fn keep_firewall(&self) {
        let Some(firewall) = &self.firewall else { return };
        let mut resolver = lock(&self.resolver);
        loop {
            let held = resolver.holds_firewall();
            // ORDER: told before the containers are counted, so that whoever changes their number meanwhile comes here as well.
            self.kept.set(held);
            let wanted = has_guests(&lock(&self.state));
            let changed = match (held, wanted) {
                (true, true) | (false, false) => return,
                (true, false) => resolver.let_go_firewall(),
                (false, true) => match lock(firewall).owner() {
                    // An older kernel, whose tables anybody may change.
                    None => return,
                    Some(Err(source)) => Err(Error::Os {
                        action: "copy the firewall's socket".to_owned(),
                        source: source.into(),
                    }),
                    Some(Ok(socket)) => resolver.hold_firewall(socket.as_fd()),
                },
            };
            if let Err(error) = changed {
                let error = rorqual_core::full_message(&error);
                tracing::warn!(error, "the firewall's table is not kept while no daemon runs");
                return;
            }
        }
    }
}

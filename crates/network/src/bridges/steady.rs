//! Networks that stay while somebody joins or leaves them.
//!
//! A plugin may take half a minute for one container. Others of the same network and of all others do not wait for it;
//! only who removes that very network does.

use std::sync::PoisonError;

use rorqual_core::NetworkId;

use super::{Inner, State, lock};

/// Keeps networks from being removed as long as it lives.
pub(super) struct Steady<'a> {
    inner: &'a Inner,
    networks: Vec<NetworkId>,
}

impl Inner {
    /// Keeps these networks; they must be known under this very lock.
    pub(super) fn keep(
        &self,
        state: &mut State,
        networks: impl Iterator<Item = NetworkId>,
    ) -> Steady<'_> {
        let networks = networks.collect::<Vec<_>>();
        for network in &networks {
            *state.joining.entry(*network).or_default() += 1;
        }
        Steady { inner: self, networks }
    }

    /// Waits until nobody is just joining or leaving a network.
    pub(super) fn wait_for_joiners(&self, network: &NetworkId) {
        let busy = |state: &mut State| state.joining.contains_key(network);
        let waited = self.joined.wait_while(lock(&self.state), busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Steady<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.inner.state);
        for network in &self.networks {
            let left = state.joining.get(network).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                state.joining.remove(network);
            } else {
                state.joining.insert(*network, left);
            }
        }
        drop(state);
        self.inner.joined.notify_all();
    }
}

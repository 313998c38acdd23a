//! How kernel objects say whose they are: names of links and tables carry the daemon's tag, aliases the container's id.

use std::path::Path;

use rorqual_core::ContainerId;

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Tells one daemon of a host from another: five digits made from where it keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag(String);

impl Tag {
    /// Derives the tag; the same state gives the same tag after a restart, whatever else is configured.
    pub(crate) fn of(state: &Path) -> Self {
        // FNV-1a: names are no secret, they only have to differ.
        let start = 0xcbf2_9ce4_8422_2325_u64;
        let hash = state
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Self(digits(hash ^ hash >> 32, 5))
    }

    /// Returns the name of the firewall table.
    pub(crate) fn table(&self) -> String {
        format!("rorqual-{}", self.0)
    }

    /// Makes the name of a link from random bits.
    // LIMIT: an interface's name has 15 characters: 2 + 5 + 8.
    pub(crate) fn link(&self, random: u64) -> String {
        format!("{}{}", self.link_prefix(), digits(random, 8))
    }

    /// Returns what all links' names start with.
    pub(crate) fn link_prefix(&self) -> String {
        format!("rq{}", self.0)
    }

    /// Makes the alias of a container's link.
    pub(crate) fn alias(&self, container: &ContainerId) -> String {
        format!("rorqual:{}:{container}", self.0)
    }

    /// Makes the alias of the bridge.
    pub(crate) fn bridge_alias(&self) -> String {
        format!("rorqual:{}", self.0)
    }

    /// Reads the container from a link's alias, if it is one of ours.
    pub(crate) fn container_of(&self, alias: &str) -> Option<ContainerId> {
        let rest = alias.strip_prefix("rorqual:")?.strip_prefix(&self.0)?;
        rest.strip_prefix(':')?.parse().ok()
    }
}

fn digits(mut bits: u64, count: usize) -> String {
    let mut text = String::with_capacity(count);
    for _ in 0..count {
        text.push(char::from(DIGITS[(bits % 32) as usize]));
        bits /= 32;
    }
    text
}

/// Draws random bits.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "there is no way on without random bits")]
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    bytes
}

//! Detach keys as requests name them.

use rorqual_core::detach;

use crate::error::{BadRequest, invalid};

/// What dockerd uses where nothing is asked for: Ctrl-P, Ctrl-Q.
const DEFAULT: [u8; 2] = [16, 17];

/// Reads `ctrl-p,ctrl-q` or `a,b`; empty is the default.
pub(crate) fn keys(text: &str) -> Result<Vec<u8>, BadRequest> {
    if text.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    // COMPAT: dockerd's text.
    detach::keys(text).map_err(|_| invalid(format!("Invalid escape keys ({text}) provided")))
}

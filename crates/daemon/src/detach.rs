//! Detach keys: the sequence with which a user leaves a terminal without ending the program.

use crate::error::{BadRequest, invalid};

/// What dockerd uses where nothing is asked for: Ctrl-P, Ctrl-Q.
pub(crate) const DEFAULT: [u8; 2] = [16, 17];

/// Reads `ctrl-p,ctrl-q` or `a,b`; empty is the default.
pub(crate) fn keys(text: &str) -> Result<Vec<u8>, BadRequest> {
    if text.is_empty() {
        return Ok(DEFAULT.to_vec());
    }
    let key = |word: &str| match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([byte], _) => Some(*byte),
        (_, Some([letter @ b'a'..=b'z'])) => Some(letter - b'a' + 1),
        (_, Some(b"@")) => Some(0),
        (_, Some(b"[")) => Some(27),
        (_, Some(b"\\")) => Some(28),
        (_, Some(b"]")) => Some(29),
        (_, Some(b"^")) => Some(30),
        (_, Some(b"_")) => Some(31),
        _ => None,
    };
    // COMPAT: dockerd's text.
    let unknown = || invalid(format!("Invalid escape keys ({text}) provided"));
    text.split(',').map(|word| key(word).ok_or_else(unknown)).collect()
}

/// Watches input for the keys; what turns out not to be them is passed on.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

impl Watch {
    pub(crate) const fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Appends to `out` what is to be passed on; true once the whole sequence was typed (the rest is dropped).
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        for byte in input {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if self.keys.first() == Some(byte) {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;

//! Detach keys: the sequence with which a user leaves a terminal without ending the program.

#[cfg(test)]
mod tests;

/// A word that names no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown character: '{0}'")]
pub struct InvalidKey(pub String);

/// Reads `ctrl-p,ctrl-q` or `a,ctrl-[` into the bytes that a terminal sends for it.
///
/// # Errors
/// [`InvalidKey`], also for no text at all.
pub fn keys(text: &str) -> Result<Vec<u8>, InvalidKey> {
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
    text.split(',').map(|word| key(word).ok_or_else(|| InvalidKey(word.to_owned()))).collect()
}

/// Watches input for the keys; holds back what may be their start, and passes on what turns out not to be.
#[derive(Debug)]
pub struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

impl Watch {
    /// Looks for `keys`; none are never found.
    pub const fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Appends to `out` what is to be passed on; true once the whole sequence was typed (the rest is dropped).
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
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

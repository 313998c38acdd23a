//! File modes on the wire are those of Go's `os.FileMode`, not those of stat(2).

const GO_KINDS: [(u32, u32); 4] = [
    (1 << 31, 0o040_000), // directory
    (1 << 27, 0o120_000), // symbolic link
    (1 << 25, 0o010_000), // named pipe
    (1 << 24, 0o140_000), // socket
];
const GO_DEVICE: u32 = 1 << 26;
const GO_CHAR: u32 = 1 << 21;
const GO_BITS: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];

/// `st_mode` of a mode on the wire.
pub(super) fn to_unix(mode: u32) -> u32 {
    let kind = if mode & GO_DEVICE == 0 {
        let kind = GO_KINDS.iter().find(|(bit, _)| mode & bit != 0);
        kind.map_or(0o100_000, |(_, kind)| *kind)
    } else if mode & GO_CHAR == 0 {
        0o060_000
    } else {
        0o020_000
    };
    let bits = GO_BITS.iter().filter(|(bit, _)| mode & bit != 0);
    bits.fold(kind | (mode & 0o777), |sum, (_, bit)| sum | bit)
}

/// The mode on the wire of a `st_mode`.
pub(super) fn to_wire(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o060_000 => GO_DEVICE,
        0o020_000 => GO_DEVICE | GO_CHAR,
        kind => GO_KINDS.iter().find(|(_, unix)| *unix == kind).map_or(0, |(bit, _)| *bit),
    };
    let bits = GO_BITS.iter().filter(|(_, bit)| mode & bit != 0);
    bits.fold(kind | (mode & 0o777), |sum, (bit, _)| sum | bit)
}

#[cfg(test)]
mod tests;

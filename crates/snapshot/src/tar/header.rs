//! One 512-byte header block. Knows no extension headers.

use super::{Extent, InvalidTar, invalid};

/// Size of a block.
pub(super) const BLOCK: usize = 512;

/// A header block.
pub(super) type Block = [u8; BLOCK];

/// Returns the bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// Reads a number: octal digits, or base 256 with the top bit set (two's complement).
pub(super) fn number(field: &[u8]) -> Result<i64, InvalidTar> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        // LIMIT: at most twelve bytes, which fit.
        let first = i128::from(field[0] & 0x7f) - if negative { 0x80 } else { 0 };
        let value = field[1..].iter().fold(first, |sum, byte| (sum << 8) | i128::from(*byte));
        return i64::try_from(value).map_err(|_| invalid("a number in a header is too large"));
    }
    let digits = text(field);
    let digits = std::str::from_utf8(digits).map_err(|_| invalid("a header holds no number"))?;
    let digits = digits.trim_matches(' ');
    if digits.is_empty() {
        return Ok(0);
    }
    i64::from_str_radix(digits, 8).map_err(|_| invalid("a header holds no octal number"))
}

/// Reads a size or offset.
pub(super) fn size(field: &[u8]) -> Result<u64, InvalidTar> {
    u64::try_from(number(field)?).map_err(|_| invalid("a header holds a negative size"))
}

/// Checks the sum over a header (unsigned, or signed as some old programs wrote it).
pub(super) fn check_sum(block: &Block) -> Result<(), InvalidTar> {
    let expected = number(&block[148..156])?;
    let blank = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
    let unsigned: i64 = block.iter().enumerate().map(|pair| i64::from(blank(pair))).sum();
    let signed: i64 = block.iter().enumerate().map(|pair| i64::from(blank(pair) as i8)).sum();
    if expected == unsigned || expected == signed {
        Ok(())
    } else {
        Err(invalid("a header has a wrong checksum"))
    }
}

/// Returns the name with its prefix, where the format has one.
pub(super) fn path(block: &Block) -> Vec<u8> {
    let name = text(&block[..100]);
    let prefix = match &block[257..265] {
        b"ustar\x0000" if &block[508..512] == b"tar\0" => text(&block[345..476]),
        [b'u', b's', b't', b'a', b'r', 0, ..] => text(&block[345..500]),
        _ => &[],
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// Returns the link target.
pub(super) fn link(block: &Block) -> Vec<u8> {
    text(&block[157..257]).to_vec()
}

/// Reads extents of GNU's old sparse format from a header or one of its extensions.
pub(super) fn extents(field: &[u8], into: &mut Vec<Extent>) -> Result<(), InvalidTar> {
    for pair in field.chunks_exact(24) {
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        into.push(Extent { offset: size(&pair[..12])?, len: size(&pair[12..])? });
    }
    Ok(())
}

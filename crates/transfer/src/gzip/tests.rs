//! What comes out is gzip, and always the same.

use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;

use super::{BLOCK, Gzip};

fn packed(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut gzip = Gzip::new(Vec::new()).unwrap();
    for piece in bytes.chunks(piece.max(1)) {
        gzip.write_all(piece).unwrap();
    }
    gzip.finish().unwrap()
}

/// Bytes of which some repeat and some do not.
fn mixed(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let noise = |at: usize| {
        if at % 4096 < 2048 {
            return (at / 4096) as u8;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(noise).collect()
}

#[test]
fn any_length_unpacks_to_itself() {
    for len in [0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77] {
        let bytes = mixed(len);
        let gzip = packed(&bytes, 64 * 1024);
        let mut back = Vec::new();
        MultiGzDecoder::new(gzip.as_slice()).read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{len}");
    }
}

#[test]
fn pieces_make_no_difference() {
    let bytes = mixed(3 * BLOCK + 5);
    assert!(packed(&bytes, 1000) == packed(&bytes, 10 * BLOCK));
}

#[test]
fn the_same_bytes_are_packed_the_same_everywhere() {
    use sha2::{Digest as _, Sha256};
    // INVARIANT: blobs that registries have are found again by this; whoever changes it makes all layers new.
    let digest = Sha256::digest(packed(&mixed(2 * BLOCK + 5), BLOCK));
    let text = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(text, "8e7a33bee188f7237cbc5c81a4086de0f170a5139e67f2d3d9d98130c69374db");
}

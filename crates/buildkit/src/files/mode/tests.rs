use super::*;

#[test]
fn every_kind_survives_the_way() {
    for kind in [0o040_000, 0o100_000, 0o120_000, 0o010_000, 0o140_000, 0o060_000, 0o020_000] {
        for bits in [0o644, 0o7777, 0o4755, 0o1777] {
            assert_eq!(to_unix(to_wire(kind | bits)), kind | bits);
        }
    }
    assert_eq!(to_wire(0o040_755), 0x8000_01ed);
}

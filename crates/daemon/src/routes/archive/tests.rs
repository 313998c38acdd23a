//! Mode bits as dockerd printed them.

use super::go_mode;

#[test]
fn modes() {
    for (mode, want) in [
        (0o100_755, 493),
        (0o040_755, 2_147_484_141),
        (0o120_777, 0o777 | 1 << 27),
        (0o041_777, 0o777 | 1 << 31 | 1 << 20),
        (0o104_755, 0o755 | 1 << 23),
        (0o020_666, 0o666 | 1 << 26 | 1 << 21),
    ] {
        assert_eq!(go_mode(mode), want, "{mode:o}");
    }
}

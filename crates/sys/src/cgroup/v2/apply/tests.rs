use super::{io_weight, swap_alone, weight_of_shares};

#[test]
fn shares_become_weights() {
    for (shares, weight) in [
        (0, 1),
        (2, 1),
        (3, 2),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ] {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
}

#[test]
fn io_weights_span_both_ranges() {
    assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
}

#[test]
fn swap_is_what_the_sum_leaves() {
    for (limit, is_new, sum, expected) in [
        (100, true, Some(300), Some(200)),
        (100, true, Some(100), Some(0)),
        (100, true, Some(-1), Some(-1)),
        (100, true, None, None),
        (-1, true, None, Some(-1)),
        (-1, false, None, None),
    ] {
        assert_eq!(swap_alone(limit, is_new, sum).ok(), Some(expected), "{limit} {sum:?}");
    }
    assert!(swap_alone(100, true, Some(99)).is_err());
    assert!(swap_alone(-1, false, Some(99)).is_err());
}

use super::*;

#[test]
fn rests_once_after_each_flow_of_requests() {
    let mut times = Times::default();
    let seen = [0, 0, 3, 3, 3, 4, 9, 9];
    let rested = seen.map(|so_far| times.is_one(so_far));
    assert_eq!(rested, [true, false, false, true, false, false, false, true]);
}

#[test]
fn what_is_given_back_is_still_there() {
    let before = (0..1000).map(|n| n.to_string()).collect::<Vec<_>>();
    fork::trim_heap();
    process::release_code();
    assert!(before.iter().enumerate().all(|(n, text)| *text == n.to_string()));
}

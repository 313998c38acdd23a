use super::{Share, State};

/// What is written and used at a moment, of 1000 bytes.
fn at(written: u64, used: u64) -> State {
    State { written, used, source: 1000, ..State::default() }
}

#[test]
fn what_is_sent_is_told_in_bytes_of_the_source() {
    let mut share = Share::default();
    // Half of what is written is sent, then all.
    assert_eq!(share.of(50, &at(100, 400)), 200);
    assert_eq!(share.of(100, &at(300, 900)), 400, "what was seen counts until it is sent");
    // From there on the bytes are packed less.
    assert_eq!(share.of(200, &at(300, 900)), 650);
    assert_eq!(share.of(300, &at(310, 1000)), 900);
    assert_eq!(share.of(310, &at(310, 1000)), 1000);
}

#[test]
fn it_never_goes_back_and_ends_at_the_source() {
    let moments = [at(10, 300), at(400, 310), at(410, 990), at(900, 1200)];
    let (mut share, mut before) = (Share::default(), 0);
    for sent in 1..=900 {
        let now = moments.iter().find(|moment| moment.written >= sent).unwrap();
        let share = share.of(sent, now);
        assert!(share >= before && share <= 1000, "{sent}: {before}, then {share}");
        before = share;
    }
    assert_eq!(before, 1000);
}

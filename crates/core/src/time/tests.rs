//! Timestamps against known dates.

use super::*;

#[test]
fn known_dates_read_and_write() {
    let cases = [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1_700_000_000_100_000_000, "2023-11-14T22:13:20.1Z"),
        (4_102_444_799_000_000_000, "2099-12-31T23:59:59Z"),
    ];
    for (nanos, text) in cases {
        assert_eq!(Timestamp::from_nanos(nanos).to_string(), text);
        assert_eq!(text.parse(), Ok(Timestamp::from_nanos(nanos)));
    }
}

#[test]
fn offsets_and_unix_times_are_understood() {
    let base = Timestamp::from_nanos(1_700_000_000_000_000_000);
    for text in
        ["2023-11-15T00:13:20+02:00", "2023-11-14T20:43:20-01:30", "1700000000", "1700000000.0"]
    {
        assert_eq!(text.parse(), Ok(base), "{text}");
    }
    assert_eq!("5.000000007".parse(), Ok(Timestamp::from_nanos(5_000_000_007)));
    for text in
        ["", "yesterday", "2023-13-01T00:00:00Z", "2023-01-01", "1969-12-31T23:59:59Z", "-5", "1.x"]
    {
        assert!(text.parse::<Timestamp>().is_err(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn every_timestamp_reads_back(nanos in 0_u64..u64::MAX) {
        let time = Timestamp::from_nanos(nanos);
        proptest::prop_assert_eq!(time.to_string().parse(), Ok(time));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<Timestamp>();
    }
}

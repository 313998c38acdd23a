//! Sizes and durations against values that Docker's tools print.

use super::*;

#[test]
fn sizes_are_read_as_powers_of_1024() {
    let cases = [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("1k", 1024),
        ("1KB", 1024),
        ("1KiB", 1024),
        ("64m", 64 << 20),
        ("1.5g", 3 << 29),
        ("1 GiB", 1 << 30),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
    ];
    for (text, bytes) in cases {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "m", "-1", "1x", "1e3", "0x10", "9999999999p", "1..5m", "nan"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_are_written_as_docker_writes_them() {
    let cases = [
        (0, "0B", "0B"),
        (1, "1B", "1B"),
        (999, "999B", "999B"),
        (1000, "1kB", "1kB"),
        (12_345, "12.35kB", "12.3kB"),
        (1_093_484, "1.093MB", "1.09MB"),
        (4_270_000, "4.27MB", "4.27MB"),
        (123_456_789, "123.5MB", "123MB"),
        (10_000_000_000, "10GB", "10GB"),
    ];
    for (bytes, long, short) in cases {
        assert_eq!((human_size(bytes).as_str(), human_size_short(bytes).as_str()), (long, short));
    }
    assert_eq!(binary_size(63 * 1024 * 1024 + 768 * 1024), "63.75MiB");
    assert_eq!(binary_size(1 << 40), "1TiB");
}

#[test]
fn durations_are_read_as_go_reads_them() {
    let cases = [
        ("0", 0),
        ("300ms", 300_000_000),
        ("1.5s", 1_500_000_000),
        ("1m30s", 90_000_000_000),
        ("1h2m3.5s", 3_723_500_000_000),
        ("10us", 10_000),
        ("10µs", 10_000),
    ];
    for (text, nanos) in cases {
        assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
    }
    for text in ["", "5", "-5s", "s", "1d", "1h-2m", "99999999999h", ".s"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn durations_are_written_as_go_writes_them() {
    let cases = [
        (0, "0s"),
        (17, "17ns"),
        (1_500, "1.5µs"),
        (300_000_000, "300ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
    ];
    for (nanos, text) in cases {
        assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
    }
}

#[test]
fn durations_are_rounded_for_people() {
    let cases = [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3_599, "59 minutes"),
        (3_600, "About an hour"),
        (7_200, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86_400, "2 weeks"),
        (60 * 86_400, "2 months"),
        (730 * 86_400, "2 years"),
    ];
    for (secs, text) in cases {
        assert_eq!(human_duration(Duration::from_secs(secs)), text, "{secs}");
    }
}

proptest::proptest! {
    #[test]
    fn a_written_duration_reads_back(nanos in 0_u64..1 << 52) {
        let duration = Duration::from_nanos(nanos);
        let back = parse_duration(&go_duration(duration)).expect("own output");
        proptest::prop_assert!(back.abs_diff(duration) <= Duration::from_nanos(1));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in ".{0,24}") {
        let _ = parse_size(&text);
        let _ = parse_duration(&text);
    }
}

//! Signal names and numbers.

use super::*;

#[test]
fn names_and_numbers_agree() {
    for (text, number) in [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigkill", 9),
        ("9", 9),
        ("IO", 29),
        ("POLL", 29),
        ("SYS", 31),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX", 64),
        ("RTMAX-1", 63),
    ] {
        assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
    }
    for text in ["", "0", "65", "-1", "SIG", "FOO", "RTMIN+31", "RTMAX-31", "15 "] {
        assert!(text.parse::<Signal>().is_err(), "{text}");
    }
    for number in 1..=64 {
        let signal = Signal::from_number(number).expect("in range");
        if (32..34).contains(&number) {
            continue; // kept by the C library, without names
        }
        assert_eq!(signal.to_string().parse(), Ok(signal));
    }
}

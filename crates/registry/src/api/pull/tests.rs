use super::*;

#[test]
fn ranges() {
    for (text, expected) in [
        ("bytes=0-0", Wanted::Part(0..1)),
        ("bytes=2-5", Wanted::Part(2..6)),
        ("bytes=2-", Wanted::Part(2..10)),
        ("bytes=-3", Wanted::Part(7..10)),
        ("bytes=-30", Wanted::Part(0..10)),
        ("bytes=5-99999999999999999999999", Wanted::Part(5..10)),
        ("bytes=10-", Wanted::Nothing),
        ("bytes=10-20", Wanted::Nothing),
        ("bytes=-0", Wanted::Nothing),
        ("bytes=5-2", Wanted::All),
        ("bytes=0-1,3-4", Wanted::All),
        ("bytes=a-b", Wanted::All),
        ("lines=0-1", Wanted::All),
        ("bytes=", Wanted::All),
        ("bytes=-", Wanted::All),
        ("bytes=+1-2", Wanted::All),
    ] {
        assert_eq!(range(text, 10), expected, "{text}");
    }
    assert_eq!(range("bytes=0-", 0), Wanted::Nothing);
}

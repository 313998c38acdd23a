use super::*;

/// Runs chunks through the splitter and prints what comes out.
fn split(chunks: &[&[u8]]) -> Vec<(usize, Option<(u32, bool)>)> {
    let mut lines = Lines::default();
    let mut out = Vec::new();
    let mut emit = |record: &Record<'_>| {
        out.push((record.line.len(), record.part.map(|part| (part.ordinal, part.last))));
    };
    for chunk in chunks {
        lines.push(LogStream::Stdout, chunk, Timestamp::from_nanos(1), &mut emit);
    }
    lines.finish(LogStream::Stdout, Timestamp::from_nanos(2), &mut emit);
    out
}

#[test]
fn lines_are_split_at_feeds_and_at_16_kib() {
    assert_eq!(split(&[b"a\nbc\n"]), [(1, None), (2, None)]);
    assert_eq!(split(&[b"a", b"b", b"\n\n"]), [(2, None), (0, None)]);
    // Without a line feed at the very end there is a part that no other part follows.
    assert_eq!(split(&[b"a"]), [(1, Some((1, false)))]);
    let long = vec![b'x'; PART + 3];
    assert_eq!(split(&[&long, b"\n"]), [(PART, Some((1, false))), (3, Some((2, true)))]);
    // A line of exactly one part is followed by an empty one.
    assert_eq!(split(&[&long[..PART], b"\n"]), [(PART, Some((1, false))), (0, Some((2, true)))]);
    assert_eq!(split(&[&long, &long]).iter().map(|(size, _)| size).sum::<usize>(), 2 * PART + 6);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn no_byte_is_lost_however_output_is_cut(
        content in proptest::collection::vec(proptest::prop_oneof![9 => b'a'..=b'z', 1 => proptest::strategy::Just(b'\n')], 0..40_000),
        cut in 1_usize..20_000,
    ) {
        let mut lines = Lines::default();
        let mut joined = Vec::new();
        let mut emit = |record: &Record<'_>| {
            assert!(record.line.len() <= PART);
            joined.extend_from_slice(record.line);
            if record.ends_line() {
                joined.push(b'\n');
            }
        };
        for chunk in content.chunks(cut) {
            lines.push(LogStream::Stderr, chunk, Timestamp::from_nanos(1), &mut emit);
        }
        lines.finish(LogStream::Stderr, Timestamp::from_nanos(1), &mut emit);
        proptest::prop_assert_eq!(joined, content);
    }
}

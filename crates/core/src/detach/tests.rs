//! Sequences and how they are found in what is typed.

use super::{InvalidKey, Watch, keys};

#[test]
fn reads_sequences() {
    assert_eq!(keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
    assert_eq!(keys("ctrl-a,x,ctrl-@,ctrl-_"), Ok(vec![1, b'x', 0, 31]));
    for (text, word) in
        [("", ""), ("ctrl-", "ctrl-"), ("ctrl-A", "ctrl-A"), ("a,bc", "bc"), ("ctrl-p,", "")]
    {
        assert_eq!(keys(text), Err(InvalidKey(word.to_owned())), "{text}");
    }
}

#[test]
fn finds_the_sequence_across_reads() {
    let run = |inputs: &[&[u8]]| {
        let (mut watch, mut out) = (Watch::new(vec![16, 17]), Vec::new());
        let left = inputs.iter().any(|input| watch.feed(input, &mut out));
        (left, out)
    };
    assert_eq!(run(&[b"a\x10", b"\x11b"]), (true, b"a".to_vec()));
    assert_eq!(run(&[b"a\x10b\x11"]), (false, b"a\x10b\x11".to_vec()));
    assert_eq!(run(&[b"\x10\x10\x11"]), (true, b"\x10".to_vec()));
    assert_eq!(run(&[b"plain"]), (false, b"plain".to_vec()));
}

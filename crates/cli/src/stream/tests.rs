use super::*;

fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![stream, 0, 0, 0];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn frames_are_found_however_they_are_cut() {
    let wire = [frame(1, b"out"), frame(2, b"err"), frame(1, b""), frame(1, b"more")].concat();
    for size in 1..wire.len() {
        let mut streams = Demultiplexer::new(Framing::Frames);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for part in wire.chunks(size) {
            streams
                .feed(part, |stream, bytes| {
                    if stream == 2 { &mut err } else { &mut out }.extend_from_slice(bytes);
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!((out.as_slice(), err.as_slice()), (&b"outmore"[..], &b"err"[..]), "{size}");
    }
}

#[test]
fn what_is_no_frame_is_an_error() {
    let mut streams = Demultiplexer::new(Framing::Frames);
    assert!(streams.feed(b"plain text", |_, _| Ok(())).is_err());
    let mut streams = Demultiplexer::new(Framing::Frames);
    assert!(streams.feed(&frame(3, b"broken"), |_, _| Ok(())).is_err());
}

#[test]
fn detach_keys_that_are_none_are_named() {
    assert_eq!(detach_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
    let error = detach_keys("a,x-y").unwrap_err();
    assert_eq!(error.text, "invalid detach keys: Unknown character: 'x-y'");
}

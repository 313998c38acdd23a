use std::io::{self, BufRead as _, Cursor, Read as _, Write as _};
use std::sync::mpsc::channel;

use super::{PIECE, PIECES, produce};

#[test]
fn what_is_written_is_read() {
    let text: Vec<u8> = (0..3 * PIECE + 7).map(|at| at as u8).collect();
    let written = text.clone();
    let mut feed = produce("test", move |sink| sink.write_all(&written)).unwrap();
    let mut read = Vec::new();
    feed.read_to_end(&mut read).unwrap();
    assert!(read == text);
}

#[test]
fn a_failure_comes_behind_what_was_written() {
    let mut feed = produce("test", |sink| {
        sink.write_all(b"begin")?;
        sink.flush()?;
        Err(io::Error::other("the disk burns"))
    })
    .unwrap();
    let mut read = [0; 5];
    feed.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"begin");
    assert_eq!(feed.fill_buf().unwrap_err().to_string(), "the disk burns");
    assert_eq!(feed.fill_buf().unwrap(), b"", "told once");
}

#[test]
fn a_source_is_pumped_piece_by_piece() {
    let text = vec![7; PIECE + 1];
    let mut source = Cursor::new(text.clone());
    let (sizes, seen) = channel();
    let mut feed = produce("test", move |sink| {
        while sink.pump(&mut source, |piece| sizes.send(piece.len()).unwrap())? {}
        Ok(())
    })
    .unwrap();
    let mut read = Vec::new();
    feed.read_to_end(&mut read).unwrap();
    assert!(read == text);
    assert_eq!(seen.iter().collect::<Vec<_>>(), [PIECE, 1, 0]);
}

#[test]
fn the_thread_ends_with_its_reader() {
    let (ended, end) = channel();
    let feed = produce("test", move |sink| {
        let result = sink.write_all(&vec![0; 2 * PIECE * PIECES]);
        ended.send(result.as_ref().map_err(io::Error::kind).err()).unwrap();
        result
    })
    .unwrap();
    drop(feed);
    assert_eq!(end.recv(), Ok(Some(io::ErrorKind::BrokenPipe)));
}

use std::io::{Cursor, Write};
use std::process::{Command, Stdio};

use super::*;

fn unpack(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decompress(Box::new(Cursor::new(bytes)))?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// Packs with the usual program; `None` where it is not installed.
fn pack(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    Some(child.wait_with_output().unwrap().stdout)
}

#[test]
fn all_formats_also_in_several_members() {
    let text = b"some text that repeats, some text that repeats ".repeat(200);
    assert_eq!(unpack(text.clone()).unwrap(), text);
    assert_eq!(unpack(Vec::new()).unwrap(), b"");
    for program in ["gzip", "zstd", "bzip2", "xz"] {
        let Some(packed) = pack(program, &text) else { continue };
        assert!(packed.len() < text.len() && detect(&packed) != Compression::Plain, "{program}");
        assert_eq!(unpack(packed.clone()).unwrap(), text, "{program}");
        assert_eq!(
            unpack([packed.clone(), packed.clone()].concat()).unwrap().len(),
            2 * text.len()
        );
        assert!(unpack(packed[..packed.len() - 5].to_vec()).is_err(), "{program}, cut off");
    }
}

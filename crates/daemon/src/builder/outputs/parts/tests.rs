//! What several archives are as one.

use super::*;

fn archive(files: &[(&str, &[u8])]) -> Source {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        if content.is_empty() {
            let mut entry = Entry::new(*name, Kind::HardLink, 0o644);
            entry.link = b"d/one".to_vec();
            writer.header(&entry).unwrap();
        } else {
            writer.file(Entry::new(*name, Kind::File, 0o644), content).unwrap();
        }
    }
    Box::new(io::Cursor::new(writer.finish().unwrap()))
}

#[test]
fn each_lies_below_its_own_directory() {
    let large = vec![7; 3 * PIECE + 5];
    let parts = vec![
        ("linux_amd64".to_owned(), archive(&[("d/one", b"1"), ("d/same", b"")])),
        ("linux_arm64".to_owned(), archive(&[("large", &large)])),
        ("none".to_owned(), archive(&[])),
    ];
    let mut bytes = Vec::new();
    Parts::new(parts, Some(5)).read_to_end(&mut bytes).unwrap();
    assert!(bytes.ends_with(&[0; 1024]));
    let mut reader = Reader::new(bytes.as_slice());
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let data = reader.read_all(1 << 20).unwrap();
        assert!(entry.kind != Kind::Directory || entry.mtime == (5, 0));
        found.push((text(&entry.path), text(&entry.link), data.len()));
    }
    let wanted = [
        ("linux_amd64/", "", 0),
        ("linux_amd64/d/one", "", 1),
        ("linux_amd64/d/same", "linux_amd64/d/one", 0),
        ("linux_arm64/", "", 0),
        ("linux_arm64/large", "", large.len()),
        ("none/", "", 0),
    ];
    let wanted = wanted.map(|(path, link, size)| (path.to_owned(), link.to_owned(), size));
    assert_eq!(found, wanted);
}

#[test]
fn a_broken_one_is_no_archive() {
    let broken: Source = Box::new(io::Cursor::new(vec![b'x'; 512]));
    let mut parts = Parts::new(vec![("p".to_owned(), broken)], None);
    assert!(parts.read_to_end(&mut Vec::new()).is_err());
}

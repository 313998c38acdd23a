use super::*;

#[test]
fn a_tar_is_walked_in_order_and_read_back() {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in [("b.txt", "two"), ("a/x", "one"), ("a-b", "three")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, data.as_bytes()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    builder.append_data(&mut header, "a/", io::empty()).unwrap();
    let tar = builder.into_inner().unwrap();
    let spooled = Spooled::new(&tar[..], &std::env::temp_dir()).unwrap();
    let mut seen = Vec::new();
    spooled
        .walk(&mut |entry| {
            seen.push(entry.path);
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, ["a", "a/x", "a-b", "b.txt"]);
    let mut text = String::new();
    spooled.open("a-b").unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "three");
    assert!(spooled.open("c").unwrap().is_none());
}

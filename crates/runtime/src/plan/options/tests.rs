use super::*;

fn check(options: &[&str], expected: &str) {
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    let parsed = MountOptions::parse(&options);
    let (a, r) = (parsed.attributes, parsed.recursive);
    let text = format!(
        "bind {:?} +{:#x} -{:#x} rec +{:#x} -{:#x} {:?} {:?}",
        parsed.bind, a.set, a.clear, r.set, r.clear, parsed.propagation, parsed.data
    );
    assert_eq!(text, expected);
}

#[test]
fn sorts_options() {
    check(&["ro", "nosuid"], "bind None +0x3 -0x0 rec +0x0 -0x0 None []");
    check(&["rbind", "rro"], "bind Some(true) +0x0 -0x0 rec +0x1 -0x0 None []");
    check(&["ro", "rw"], "bind None +0x0 -0x1 rec +0x0 -0x0 None []");
    check(&["noatime", "strictatime"], "bind None +0x20 -0x70 rec +0x0 -0x0 None []");
    check(&["relatime"], "bind None +0x0 -0x70 rec +0x0 -0x0 None []");
    check(
        &["rslave", "mode=755", "nr_inodes"],
        "bind None +0x0 -0x0 rec +0x0 -0x0 Some((Slave, true)) [(\"mode\", Some(\"755\")), (\"nr_inodes\", None)]",
    );
}

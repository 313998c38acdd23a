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

fn parse(options: &[&str]) -> MountOptions {
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    MountOptions::parse(&options)
}

/// The options that the specification lists, by what becomes of them.
const ATTRIBUTES: &str = "atime dev diratime exec noatime nodev nodiratime noexec norelatime nostrictatime nosuid \
    nosymfollow relatime ro rw strictatime suid symfollow";
const RECURSIVE: &str = "ratime rdev rdiratime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime \
    rnosuid rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow";
const PROPAGATION: &str = "private rprivate shared rshared slave rslave unbindable runbindable";
const SWITCHES: &str =
    "async dirsync iversion lazytime loud mand noiversion nolazytime nomand silent sync";

#[test]
fn knows_every_option_of_the_specification() {
    for option in ATTRIBUTES.split(' ') {
        assert_ne!(parse(&[option]).attributes, MountAttributes::default(), "{option}");
    }
    for option in RECURSIVE.split(' ') {
        assert_ne!(parse(&[option]).recursive, MountAttributes::default(), "{option}");
    }
    for option in PROPAGATION.split(' ') {
        assert!(parse(&[option]).propagation.is_some(), "{option}");
    }
    for option in SWITCHES.split(' ') {
        assert_eq!(parse(&[option]).switches.len(), 1, "{option}");
    }
    assert_eq!(parse(&["bind"]).bind, Some(false));
    assert_eq!(parse(&["rbind"]).bind, Some(true));
    assert_eq!(parse(&["idmap"]).idmap, Some(false));
    assert_eq!(parse(&["ridmap"]).idmap, Some(true));
    assert!(parse(&["remount"]).remount && parse(&["tmpcopyup"]).copy_up);
    assert_eq!(parse(&["defaults"]), MountOptions::default());
}

#[test]
fn switches_reach_the_file_system() {
    let name = |name: &str| (name.to_owned(), None);
    let parsed = parse(&["sync", "lazytime", "async", "iversion", "quiet"]);
    assert_eq!(parsed.for_new(), (vec![name("lazytime"), name("quiet")], 1 << 23));
    assert_eq!(parsed.for_change(), [name("lazytime"), name("async"), name("quiet")]);
    assert_eq!(parse(&["silent", "loud"]).for_new(), (vec![], 0));
    let bind = parse(&["rbind", "ro", "async", "dirsync", "size=1m", "tmpcopyup"]);
    assert_eq!(bind.without_effect_on_binds(), ["size=1m", "dirsync", "tmpcopyup"]);
}

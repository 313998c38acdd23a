use super::*;

fn options(pairs: &[(&str, &str)]) -> VolumeOptions {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    MountPlan::parse(&options(pairs)).unwrap_err().to_string()
}

#[test]
fn words_become_flags_and_the_rest_goes_to_the_file_system() {
    for (words, flags, data) in [
        ("", 0, ""),
        ("ro,nosuid", 0x3, ""),
        ("ro,rw", 0, ""),
        ("bind", 0x1000, ""),
        ("rbind,ro", 0x5001, ""),
        ("size=1m,uid=1000", 0, "size=1m,uid=1000"),
        ("addr=10.0.0.1,,rw,nfsvers=4", 0, "addr=10.0.0.1,nfsvers=4"),
    ] {
        let given = options(&[("type", "x"), ("device", "/d"), ("o", words)]);
        let plan = MountPlan::parse(&given).unwrap().unwrap();
        assert_eq!((plan.flags, plan.data.join(",")), (flags, data.to_owned()), "{words}");
    }
    assert_eq!(MountPlan::parse(&VolumeOptions::new()).unwrap(), None);
}

#[test]
fn what_makes_no_mount_is_refused() {
    assert_eq!(refusal(&[("type", "tmpfs")]), "missing required option: \"device\"");
    assert_eq!(refusal(&[("device", "tmpfs")]), "missing required option: \"type\"");
    assert_eq!(refusal(&[("device", "")]), "missing required option: \"device\"");
    assert_eq!(refusal(&[("colour", "red")]), "invalid option: \"colour\"");
    assert_eq!(quota_size(&options(&[("size", "1g")])).unwrap(), Some(1 << 30));
    assert_eq!(quota_size(&options(&[("size", "0")])).unwrap(), None);
    let bad = quota_size(&options(&[("size", "much")])).unwrap_err();
    assert_eq!(bad.to_string(), "invalid size: 'much'");
    let relative = refusal(&[("type", "none"), ("device", "data"), ("o", "bind")]);
    assert!(relative.contains("absolute"), "{relative}");
    let long = "x".repeat(5000);
    assert!(refusal(&[("type", "x"), ("device", "/d"), ("o", &long)]).contains("4096"));
}

#[test]
fn words_of_a_mount_hide_passwords() {
    let given =
        options(&[("type", "cifs"), ("device", "//a/b"), ("o", "ro,username=me,password=secret")]);
    let plan = MountPlan::parse(&given).unwrap().unwrap();
    assert_eq!(plan.words("/v"), "mount //a/b:/v, flags: 0x1, data: username=me,password=********");
}

#[test]
fn servers_are_given_to_the_kernel_by_address() {
    let given = options(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=127.0.0.1,ro")]);
    let mut plan = MountPlan::parse(&given).unwrap().unwrap();
    plan.resolve_server().unwrap();
    assert_eq!(plan.data, ["addr=127.0.0.1"]);
}

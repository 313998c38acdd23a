use super::*;

const MOUNTS: &str = "25 1 0:21 / /sys rw shared:7 - sysfs sysfs rw
44 25 0:38 / /sys/fs/resctrl rw,relatime shared:19 - resctrl resctrl rw,mba_MBps
";

#[test]
fn where_it_is_mounted() {
    let found = Resctrl::among(MOUNTS, "").unwrap();
    assert_eq!((found.root.as_path(), found.in_megabytes), (Path::new("/sys/fs/resctrl"), true));
    let plain = Resctrl::among(&MOUNTS.replace(",mba_MBps", ""), "").unwrap();
    assert!(!plain.in_megabytes);
    let missing =
        |kinds| Resctrl::among("25 1 0:21 / /sys rw - sysfs sysfs rw\n", kinds).unwrap_err();
    assert!(matches!(missing("nodev\tsysfs\nnodev\tresctrl\n"), Error::NotMounted));
    assert!(matches!(missing("nodev\tsysfs\n\text4\n"), Error::Absent));
}

#[test]
fn names_stay_in_the_file_system() {
    let control = Resctrl::at("/sys/fs/resctrl");
    for name in ["", ".", "..", "a/b", "/", "info", "mon_groups", "mon_data", "a\nb"] {
        assert!(matches!(control.class(name), Err(Error::Name(_))), "{name:?}");
    }
    let group = control.class("gold").unwrap();
    assert_eq!(group.directory(), Path::new("/sys/fs/resctrl/gold"));
    assert!(matches!(group.monitor("../x"), Err(Error::Name(_))));
    let monitor = group.monitor("c1").unwrap();
    assert_eq!(monitor.directory(), Path::new("/sys/fs/resctrl/gold/mon_groups/c1"));
}

#[test]
fn schemata_that_mean_the_same_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let info = folder.path().join("info/MB");
    fs::create_dir_all(&info).unwrap();
    fs::write(info.join("min_bandwidth"), "10\n").unwrap();
    fs::write(info.join("bandwidth_gran"), "10\n").unwrap();
    let control = Resctrl::at(folder.path());
    for (one, other, same) in [
        ("L3:0=7f0;1=1f", " L3:1=01f;0=0007f0", true),
        ("L3:0=7f0", "L3:0=7f", false),
        ("MB:0=21;1=70", "    MB:0=30;1=70", true),
        ("MB:0=1", "MB:0=10", true),
        ("MB:0=20", "MB:0=30", false),
        ("L2:0=f", "L3:0=f", false),
    ] {
        let equal = control.normalise(one).unwrap() == control.normalise(other).unwrap();
        assert_eq!(equal, same, "{one} {other}");
    }
    for bad in ["", "L3", "L3:0", "L3:x=f", "L3:0=g", "MB:0=f"] {
        assert!(control.normalise(bad).is_none(), "{bad:?}");
    }
    let megabytes = Resctrl { in_megabytes: true, ..control };
    assert_eq!(megabytes.normalise("MB:0=1021").unwrap().1[&0], 1021);
}

#[test]
fn a_refusal_says_what_the_kernel_says() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("info")).unwrap();
    fs::write(folder.path().join("info/last_cmd_status"), "Out of CLOSIDs\n").unwrap();
    let control = Resctrl::at(folder.path());
    let group = control.class("gold").unwrap();
    let error = group.schemata().unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read ") && error.ends_with("/gold/schemata (Out of CLOSIDs)"),
        "{error}"
    );
    fs::write(folder.path().join("info/last_cmd_status"), "ok\n").unwrap();
    assert!(group.schemata().unwrap_err().to_string().ends_with("/gold/schemata"));
    group.remove().unwrap();
}

#[test]
fn monitors_count_by_cache() {
    let folder = tempfile::tempdir().unwrap();
    for (cache, count) in [("mon_L3_01", "7\n"), ("mon_L3_00", "5\n"), ("mon_PERF_00", "1\n")] {
        let data = folder.path().join("gold/mon_data").join(cache);
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("llc_occupancy"), count).unwrap();
    }
    let group = Resctrl::at(folder.path()).class("gold").unwrap();
    assert_eq!(group.counts("llc_occupancy"), [5, 7]);
    assert!(group.counts("mbm_total_bytes").is_empty());
}

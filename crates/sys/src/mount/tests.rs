use super::*;

#[test]
fn releases_compare_as_numbers() {
    let cases = [
        ("6.5.0", true),
        ("6.18.44-fc-v595", true),
        ("6.12", true),
        ("7.0-rc1", true),
        ("6.4.16-amd64", false),
        ("5.14.0-503.el9", false),
        ("4.19", false),
        ("6", false),
        ("", false),
        ("99999999999.1", false),
    ];
    for (release, expected) in cases {
        assert_eq!(release_is_at_least(release.as_bytes(), (6, 5)), expected, "{release}");
    }
}

#[test]
fn attributes_become_the_older_flags() {
    assert_eq!(classic_flags(RDONLY | NOSUID | NODEV | NOEXEC), 0xf);
    assert_eq!(classic_flags(NOATIME), libc::MS_NOATIME);
    assert_eq!(classic_flags(NODIRATIME), libc::MS_NODIRATIME);
    assert_eq!(classic_flags(STRICTATIME), libc::MS_STRICTATIME);
    assert_eq!(classic_flags(NOSYMFOLLOW), libc::MS_NOSYMFOLLOW);
}

use super::*;

#[test]
fn repository_names() {
    for good in ["a", "a/b", "library/debian", "a-b/c.d/e_f/g__h/i---j", "0/1", &"a".repeat(255)] {
        assert!(good.parse::<Name>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a/_b",
        "a_",
        ".",
        "..",
        "a/..",
        "a/../b",
        "a..b",
        "a.-b",
        "a___b",
        "a b",
        "a%2fb",
        "ä",
        "a\0",
        "_catalog",
        "a,b",
        &"a".repeat(256),
    ] {
        let error = bad.parse::<Name>().unwrap_err();
        assert_eq!(error.wire().0, "NAME_INVALID", "{bad:?}");
    }
}

#[test]
fn references() {
    let hex = "a".repeat(64);
    assert!(matches!(format!("sha256:{hex}").parse(), Ok(Reference::Digest(_))));
    assert!(matches!("v1.0_x-Y".parse(), Ok(Reference::Tag(_))));
    for (bad, code) in [
        ("", "TAG_INVALID"),
        (".x", "TAG_INVALID"),
        ("-x", "TAG_INVALID"),
        ("a/b", "TAG_INVALID"),
        ("sha256:abc", "DIGEST_INVALID"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", "DIGEST_INVALID"),
        ("sha256:../../../../etc/passwd", "DIGEST_INVALID"),
    ] {
        assert_eq!(bad.parse::<Reference>().unwrap_err().wire().0, code, "{bad:?}");
    }
    assert!("a".repeat(129).parse::<Reference>().is_err());
}

#[test]
fn keys_come_back() {
    let digest: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    assert_eq!(key::unflat(&key::flat(&digest)), Some(digest));
    assert_eq!(key::unflat("session"), None);
}

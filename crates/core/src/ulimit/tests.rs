use super::{InvalidUlimit, Ulimit};

fn limit(name: &str, soft: i64, hard: i64) -> Ulimit {
    Ulimit { name: name.to_owned(), soft, hard }
}

#[test]
fn limits_are_read() {
    for (text, expected) in [
        ("nofile=1024", limit("nofile", 1024, 1024)),
        ("nofile=1024:2048", limit("nofile", 1024, 2048)),
        ("core=-1", limit("core", -1, -1)),
        ("memlock=5:-1", limit("memlock", 5, -1)),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for (text, expected) in [
        ("nofile", InvalidUlimit::Form("nofile".to_owned())),
        ("files=1", InvalidUlimit::Name("files".to_owned())),
        ("as=1", InvalidUlimit::Name("as".to_owned())),
        ("nofile=", InvalidUlimit::Number(String::new())),
        ("nofile=1:2:3", InvalidUlimit::Number("2:3".to_owned())),
        ("nofile=many", InvalidUlimit::Number("many".to_owned())),
        ("nofile=3:2", InvalidUlimit::Order { soft: 3, hard: 2 }),
        ("nofile=-1:2", InvalidUlimit::Order { soft: -1, hard: 2 }),
    ] {
        assert_eq!(text.parse::<Ulimit>(), Err(expected), "{text}");
    }
}

#[test]
fn resources_have_the_kernels_names() {
    assert_eq!(limit("nofile", 1, 1).resource(), Ok("RLIMIT_NOFILE".to_owned()));
    assert_eq!(limit("as", 1, 1).resource(), Ok("RLIMIT_AS".to_owned()));
    assert!(limit("files", 1, 1).resource().is_err());
}

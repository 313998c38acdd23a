use super::*;

#[test]
fn only_addresses_elsewhere_are_fetched_from() {
    for (text, host, is_ssh, site) in [
        ("https://me:pw@host:8443/x.git", "host", false, Some("https://host:8443/")),
        ("http://[::1]:80/x", "[::1]", false, Some("http://[::1]:80/")),
        ("git://host/x", "host", false, None),
        ("ssh://git@host:22/x", "host", true, None),
        ("git@host:x/y.git", "host", true, None),
    ] {
        let wanted = Remote { host: host.to_owned(), is_ssh, site: site.map(str::to_owned) };
        assert_eq!(Remote::parse(text).unwrap(), wanted, "{text}");
    }
    for text in [
        "file:///etc",
        "/srv/x.git",
        "ext::sh -c id",
        "--upload-pack=x",
        "ssh://-oProxyCommand=x/y",
        "ssh://-oProxyCommand=x@host/y",
        "-oProxyCommand=x:y",
        "./x:y",
        "https:///x",
        "https://host/a\nb",
    ] {
        Remote::parse(text).unwrap_err();
    }
}

#[test]
fn references_are_names() {
    for name in ["", "main", "v1.0", "refs/pull/1/head", "feature/x"] {
        check_reference(name).unwrap();
    }
    for name in ["--upload-pack=x", "a..b", "a b", "a:b", "a*", "a\n"] {
        check_reference(name).unwrap_err();
    }
}

#[test]
fn a_branch_comes_before_a_tag_and_a_commit_before_its_tag() {
    let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
    let listed = format!(
        "{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/tags/main\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n"
    );
    for (name, commit, whole) in [
        ("HEAD", &a, "HEAD"),
        ("main", &a, "refs/heads/main"),
        ("refs/tags/main", &b, "refs/tags/main"),
        ("v1", &c, "refs/tags/v1"),
    ] {
        let wanted = Advertised { name: whole.to_owned(), commit: commit.clone() };
        assert_eq!(choose(&listed, name), Some(wanted), "{name}");
    }
    assert_eq!(choose(&listed, "v2"), None);
    assert_eq!(choose("fatal: no\tHEAD\n", "HEAD"), None);
}

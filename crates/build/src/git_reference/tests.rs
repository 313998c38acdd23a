use super::GitReference;

fn git(text: &str) -> Option<GitReference> {
    GitReference::parse(text).unwrap()
}

#[test]
fn what_is_no_repository_is_told_apart() {
    for text in [
        "https://example.com/",
        "https://example.com/foo",
        "https://example.com/foo.git/",
        "https://example.com/foo.git.bar",
        "https://github.com/moby/buildkit",
        "custom.xyz/moby/buildkit.git",
        "./foo.git",
        "../git@host:x",
        ".git",
        "file.tar.gz",
        "ftp://example.com/foo.git",
    ] {
        assert_eq!(git(text), None, "{text}");
    }
}

#[test]
fn references_are_taken_apart() {
    for (text, remote, reference, subdir) in [
        ("https://example.com/foo.git", "https://example.com/foo.git", "", ""),
        ("https://example.com/foo.git#deadbeef", "https://example.com/foo.git", "deadbeef", ""),
        ("https://e.com/foo.git#release/1.2", "https://e.com/foo.git", "release/1.2", ""),
        ("https://e.com/foo.git#v1:a/../b/", "https://e.com/foo.git", "v1", "b"),
        ("https://e.com/foo.git#:sub", "https://e.com/foo.git", "", "sub"),
        ("git://example.com/foo", "git://example.com/foo", "", ""),
        ("git@github.com:moby/buildkit#main", "git@github.com:moby/buildkit", "main", ""),
        ("ssh://root@sub.domain/root/x.git", "ssh://root@sub.domain/root/x.git", "", ""),
        ("github.com/moby/buildkit#master", "github.com/moby/buildkit", "master", ""),
        ("https://e.com/f.git?tag=v1&subdir=d", "https://e.com/f.git", "refs/tags/v1", "d"),
        ("https://e.com/f.git?branch=x%2Fy", "https://e.com/f.git", "refs/heads/x/y", ""),
        ("https://e.com/f.git?ref=v1#v1", "https://e.com/f.git", "v1", ""),
    ] {
        let found = git(text).unwrap_or_else(|| panic!("{text}"));
        let parts = (&*found.remote, &*found.reference, &*found.subdir);
        assert_eq!(parts, (remote, reference, subdir), "{text}");
    }
    assert!(git("github.com/moby/buildkit").unwrap().like_local);
    assert_eq!(git("github.com/a/b").unwrap().source(None).remote, "https://github.com/a/b");
}

#[test]
fn queries_say_more() {
    let found = git("https://e.com/f.git?keep-git-dir&submodules=false&checksum=abc&mtime=commit");
    let found = found.unwrap();
    assert_eq!((found.keep_git_dir, found.submodules), (Some(true), Some(false)));
    assert!(found.commit_times && found.checksum == "abc");
    let source = found.source(Some(false));
    assert!(source.keep_git_dir && source.skip_submodules && source.commit_times);
}

#[test]
fn bad_queries_are_refused() {
    for (query, message) in [
        ("ref", r#"query "ref" has no value"#),
        ("tag=", r#"query "tag" has no value"#),
        ("ref=a&ref=b", r#"query "ref" has multiple values"#),
        ("ref=a#b", r#"ref conflicts: "b" vs "a""#),
        ("tag=a&branch=b", "branch conflicts with tag"),
        ("submodules=maybe", r#"invalid submodules value: "maybe""#),
        ("mtime=x", r#"invalid mtime value: "x" (must be "checkout" or "commit")"#),
        ("depth=1", r#"unexpected query "depth""#),
    ] {
        let refused = GitReference::parse(&format!("https://e.com/f.git?{query}")).unwrap_err();
        assert_eq!(refused.to_string(), message, "{query}");
    }
}

use super::{base, clean, dir, join};

#[test]
fn paths_are_cleaned_as_go_does() {
    for (input, expected) in [
        ("", "."),
        ("abc", "abc"),
        ("abc/def/", "abc/def"),
        ("/", "/"),
        ("..", ".."),
        ("../..", "../.."),
        ("/..", "/"),
        ("abc//def//ghi", "abc/def/ghi"),
        ("abc/./def", "abc/def"),
        ("abc/def/ghi/../jkl", "abc/def/jkl"),
        ("abc/../../def", "../def"),
        ("/../../abc", "/abc"),
        ("abc/./../def", "def"),
        ("./", "."),
    ] {
        assert_eq!(clean(input), expected, "{input}");
    }
}

#[test]
fn joined_and_taken_apart() {
    assert_eq!(join("a", "/b"), "a/b");
    assert_eq!(join("", ""), "");
    assert_eq!(join("/a", "../../b"), "/b");
    assert_eq!((base("/a/b/"), base("/"), base(""), base("x")), ("b", "/", ".", "x"));
    assert_eq!((dir("a/b"), dir("/a"), dir("a")), ("a".into(), "/".into(), ".".into()));
}

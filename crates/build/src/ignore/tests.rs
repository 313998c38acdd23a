use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn matches(patterns: &[&str], path: &str) -> bool {
    PatternMatcher::new(patterns).unwrap().matches(path)
}

#[test]
fn single_patterns_match_as_docker_s() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**/", "file", true),
        ("**", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**file", "file", true),
        ("**file", "dir/dir/otherfile", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "dir/otherfile", false),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("a\\\\", "a\\", true),
        ("a\\*b", "a*b", true),
        ("abc/**", "abc", false),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("*", "a/b/c", true),
        ("foo", "foo/bar", true),
        ("foo", "foobar", false),
        ("a?b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[a-ζ]*", "α", true),
    ] {
        assert_eq!(matches(&[pattern], path), expected, "{pattern} on {path}");
    }
}

#[test]
fn the_last_pattern_decides_and_parents_count() {
    for (patterns, path, expected) in [
        (&["**", "!util/docker/web"][..], "util/docker/web/foo", false),
        (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
        (&["**", "!dist/*.whl"], "dist/a.whl", false),
        (&["!fileutils.go", "*.go"], "fileutils.go", true),
        (&["docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "  !docs/README.md"], "docs/README.md", false),
        (&["*.go", "!fileutils.go"], "fileutils.go", false),
        (&["*", "!a/b"], "a/c", true),
        (&["*", "!a/b"], "a/b/d", false),
    ] {
        assert_eq!(matches(patterns, path), expected, "{patterns:?} on {path}");
    }
}

#[test]
fn bad_patterns_are_refused() {
    for bad in ["[", "[^", "[^bc", "a[", "[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]"] {
        let refused = PatternMatcher::new(&[bad]).unwrap_err();
        assert_eq!(refused, InvalidPattern::Syntax(bad.into()), "{bad}");
    }
    let lone = PatternMatcher::new(&["!"]).unwrap_err();
    assert_eq!(lone.to_string(), "illegal exclusion pattern: \"!\"");
}

#[test]
fn globs_match_as_go_s() {
    for (pattern, name, expected) in [
        ("*c", "abc", true),
        ("a*", "ab/c", false),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("[\\]a]", "]", true),
        ("[\\-x]", "a", false),
        ("a?b", "a/b", false),
        ("**", "a/b", false),
    ] {
        assert_eq!(glob_matches(pattern, name), Ok(expected), "{pattern} on {name}");
    }
    assert!(has_wildcard("a*") && has_wildcard("a[b]") && !has_wildcard("a\\*b"));
}

#[test]
fn an_ignore_file_is_read() {
    let text = "\u{feff}# comment\ntest1\n/test2\n/a/file/here\n\nlastfile\n #indented\n! /test4\n!\t\n.\n/\na/../b/\r\n";
    let expected =
        ["test1", "test2", "a/file/here", "lastfile", "#indented", "!test4", "!", ".", "/", "b"];
    assert_eq!(read_ignore_file(text), expected);
}

/// Walks a list of paths (directories end in a slash) and returns what is taken, with the directories that lead there.
fn walk(include: &[&str], exclude: &[&str], entries: &[&str]) -> Vec<String> {
    let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let filter = TreeFilter::new(&owned(include), &owned(exclude)).unwrap();
    let mut states = BTreeMap::from([(String::new(), (Verdict::Enter, DirState::default()))]);
    let mut taken = Vec::new();
    for entry in entries {
        let path = entry.trim_end_matches('/');
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let (of_parent, state) = states[parent].clone();
        if of_parent == Verdict::Skip {
            states.insert(path.to_owned(), (Verdict::Skip, state));
            continue;
        }
        let (verdict, state) = filter.decide(path, entry.ends_with('/'), &state);
        if verdict == Verdict::Take {
            taken.push(path.to_owned());
        }
        states.insert(path.to_owned(), (verdict, state));
    }
    taken
}

#[test]
fn a_walk_takes_what_is_wanted_and_enters_only_what_may_hold_it() {
    let tree = ["a/", "a/b/", "a/b/c", "a/d", "ab/", "ab/x", "e"];
    assert_eq!(walk(&[], &[], &tree), ["a", "a/b", "a/b/c", "a/d", "ab", "ab/x", "e"]);
    assert_eq!(walk(&["a/b"], &[], &tree), ["a/b", "a/b/c"]);
    assert_eq!(walk(&[], &["a"], &tree), ["ab", "ab/x", "e"]);
    assert_eq!(walk(&[], &["a", "!a/b/c"], &tree), ["a/b/c", "ab", "ab/x", "e"]);
    assert_eq!(walk(&["**/c", "e"], &["e"], &tree), ["a/b/c"]);
    assert_eq!(walk(&[], &["*"], &tree), Vec::<String>::new());

    let filter = TreeFilter::new(&["a/b".into()], &[]).unwrap();
    let of = |path| filter.decide(path, true, &DirState::default()).0;
    assert_eq!((of("a"), of("ab"), of("e")), (Verdict::Enter, Verdict::Skip, Verdict::Skip));
}

struct Tree(BTreeMap<&'static str, Option<&'static str>>);

impl Links for Tree {
    fn read_link(&self, path: &str) -> Option<String> {
        self.0.get(path).copied().flatten().map(str::to_owned)
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let in_it = |path: &&&str| gopath::dir(path) == directory;
        self.0.keys().filter(in_it).map(|path| gopath::base(path).to_owned()).collect()
    }
}

#[test]
fn links_are_followed_inside_the_root() {
    let tree = Tree(BTreeMap::from([
        ("dir", None),
        ("dir/l1", Some("/foo")),
        ("dir/l2", Some("../../../bar")),
        ("foo", Some("baz")),
        ("loop", Some("loop")),
        ("d", Some("dir")),
        ("plain", None),
    ]));
    let follow = |paths: &[&str]| {
        follow_links(&tree, &paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(follow(&["plain"]), ["plain"]);
    assert_eq!(follow(&["dir/l1"]), ["baz", "dir/l1", "foo"]);
    assert_eq!(follow(&["d/l2"]), ["bar", "d", "dir/l2"]);
    assert_eq!(follow(&["dir/l*"]), ["bar", "baz", "dir/l*", "dir/l1", "dir/l2", "foo"]);
    assert_eq!(follow(&["loop"]), ["loop"]);
    assert_eq!(follow(&["plain", "/"]), Vec::<String>::new());
}

proptest! {
    #[test]
    fn no_pattern_panics_and_walks_agree_with_single_questions(
        pattern in "[ab*?/!\\[\\]\\\\^.-]{1,12}", path in "[ab.]{1,3}(/[ab.]{1,3}){0,3}",
    ) {
        let Ok(matcher) = PatternMatcher::new(&[pattern, "b/a".to_owned(), "!a/b".to_owned()]) else { return Ok(()) };
        let path = gopath::clean(&path);
        prop_assume!(!path.starts_with('.'));
        let mut state = None;
        let mut last = false;
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            let (matched, below) = matcher.matches_below(&path[..end], state.as_ref());
            (last, state) = (matched, Some(below));
        }
        prop_assert_eq!(last, matcher.matches(&path));
    }
}

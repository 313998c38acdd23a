//! Go's name patterns, and what selections pick of a tree in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn patterns_match_as_gos_do() {
    let table = [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*b*c*d*e*", "axbxcxdxe", true),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "aäb", true),
        ("[a-ζ]*", "α", true),
        ("[a-ζ]", "ω", false),
        ("*[a-", "b", false),
        ("[", "a", false),
        ("*x", "xxx", true),
        ("?", "", false),
    ];
    for (pattern, name, wanted) in table {
        assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
    }
}

proptest! {
    #[test]
    fn no_pattern_makes_it_panic(pattern: Vec<u8>, name: Vec<u8>) {
        matches(&pattern, &name);
    }

    #[test]
    fn a_name_matches_itself_and_the_star(name in "[a-z.]{1,12}") {
        prop_assert!(matches(name.as_bytes(), name.as_bytes()));
        prop_assert!(matches(b"*", name.as_bytes()));
    }
}

/// A tree by paths: a content, `-> target`, or a directory at the end of which stands a slash.
struct Memory(BTreeMap<Vec<u8>, (Node, Vec<u8>)>);

impl Memory {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut all = BTreeMap::new();
        all.insert(Vec::new(), (Node { mode: 0o040_755, ..Node::default() }, Vec::new()));
        for (path, content) in files {
            let node = match content.strip_prefix("-> ") {
                Some(link) => Node { mode: 0o120_777, link: link.into(), ..Node::default() },
                None if path.ends_with('/') => Node { mode: 0o040_755, ..Node::default() },
                None => Node { mode: 0o100_644, ..Node::default() },
            };
            let path = path.trim_end_matches('/').as_bytes().to_vec();
            all.insert(path, (node, content.as_bytes().to_vec()));
        }
        Self(all)
    }
}

impl Listing for Memory {
    fn find(&self, path: &[u8]) -> io::Result<Option<Node>> {
        Ok(self.0.get(path).map(|(node, _)| node.clone()))
    }

    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let below = self.0.keys().filter_map(|known| {
            let rest = match path {
                b"" => known.as_slice(),
                path => known.strip_prefix(path)?.strip_prefix(b"/")?,
            };
            (!rest.is_empty() && !rest.contains(&b'/')).then(|| rest.to_vec())
        });
        Ok(below.collect())
    }

    fn content(&self, path: &[u8]) -> io::Result<[u8; 32]> {
        let (_, bytes) = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Sha256::digest(bytes).into())
    }
}

fn selection(source: &str) -> Selection {
    Selection {
        source: source.to_owned(),
        wildcard: true,
        allow_empty: false,
        follow: true,
        parents: false,
        filter: None,
        owners: false,
    }
}

fn picked(tree: &Memory, selection: &Selection) -> Vec<String> {
    let shown = |pick: Pick| {
        format!("{}={}", String::from_utf8_lossy(&pick.path), String::from_utf8_lossy(&pick.kept))
    };
    pick(tree, selection).map(|all| all.into_iter().map(shown).collect()).unwrap_or_default()
}

#[test]
fn links_lead_nowhere_but_inside() {
    let tree = Memory::new(&[
        ("d/", ""),
        ("d/f", "x"),
        ("up", "-> ../../../d"),
        ("abs", "-> /d/f"),
        ("out", "-> /etc/shadow"),
        ("round", "-> round"),
    ]);
    assert_eq!(picked(&tree, &selection("/up/f")), ["d/f=up/f"]);
    assert_eq!(picked(&tree, &selection("/abs")), ["d/f=abs"]);
    assert_eq!(picked(&tree, &selection("/../../d/f")), ["d/f=d/f"]);
    assert!(matches!(pick(&tree, &selection("/out")), Err(Error::NoSuchSource(_))));
    assert!(pick(&tree, &selection("/round")).is_err());
}

#[test]
fn wildcards_and_parents_pick_by_name() {
    let tree = Memory::new(&[
        ("a/", ""),
        ("a/x.c", "1"),
        ("a/y.h", "2"),
        ("a/b/", ""),
        ("a/b/z.c", "3"),
        ("top.c", "4"),
    ]);
    assert_eq!(picked(&tree, &selection("/*.c")), ["top.c=top.c"]);
    assert_eq!(picked(&tree, &selection("/a/?.[ch]")), ["a/x.c=a/x.c", "a/y.h=a/y.h"]);
    let parents = |source| Selection { parents: true, ..selection(source) };
    assert_eq!(picked(&tree, &parents("/a/./**/*.c")), ["a/x.c=x.c", "a/b/z.c=b/z.c"]);
    assert!(picked(&tree, &selection("/nothing*")).is_empty());
}

#[test]
fn a_digest_is_of_what_is_there_and_of_nothing_else() {
    let first = Memory::new(&[("d/", ""), ("d/a", "1"), ("d/b", "2"), ("other", "x")]);
    let same = Memory::new(&[("d/", ""), ("d/a", "1"), ("d/b", "2"), ("other", "y")]);
    let of = |tree: &Memory| contents(tree, &selection("/d")).unwrap();
    assert_eq!(of(&first), of(&same));
    for files in [
        [("d/", ""), ("d/a", "1"), ("d/b", "3")],
        [("d/", ""), ("d/a", "1"), ("d/c", "2")],
        [("d/", ""), ("d/a", "1"), ("d/b", "-> a")],
        // What is one name here is two there.
        [("d/", ""), ("d/a/", ""), ("d/a/b", "2")],
    ] {
        assert_ne!(of(&first).digest, of(&Memory::new(&files)).digest, "{files:?}");
    }
    let changed = Memory::new(&[("d/", ""), ("d/a", "1"), ("d/b", "3")]);
    let (before, after) = (of(&first).entries, of(&changed).entries);
    let differ = before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| a.0.clone());
    assert_eq!(differ.collect::<Vec<_>>(), ["d/b"]);
}

#[test]
fn a_link_to_nowhere_leads_to_the_place_that_it_names() {
    let tree = Memory::new(&[
        ("up", "-> missing"),
        ("deep", "-> /no/such/../place"),
        ("out", "-> ../../../etc/outside"),
        ("first", "-> second"),
        ("second", "-> third"),
        ("around", "-> around"),
        ("file", "x"),
    ]);
    let landing = |path: &str| landing(&tree, path.as_bytes()).map(|path| text(&path));
    let text = [
        ("up", "missing"),
        ("up/below", "missing/below"),
        ("deep", "no/place"),
        ("out", "etc/outside"),
        ("first", "third"),
        ("file", "file"),
        ("new/name", "new/name"),
    ];
    for (path, wanted) in text {
        assert_eq!(landing(path).unwrap(), wanted, "{path}");
    }
    assert!(landing("around").is_err());
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

//! Challenges as servers write them.

use proptest::prelude::*;

use super::{Bearer, Challenge, parse};

fn bearer(realm: &str, service: &str, scope: &str) -> Option<Challenge> {
    let [realm, service, scope] = [realm, service, scope].map(str::to_owned);
    Some(Challenge::Bearer(Bearer { realm, service, scope }))
}

#[test]
fn challenges_are_read() {
    let cases = [
        (
            r#"Bearer realm="https://a.test/token",service="r",scope="repository:x/y:pull,push""#,
            bearer("https://a.test/token", "r", "repository:x/y:pull,push"),
        ),
        (
            r#"bearer  Realm=https://a.test/t , service = "a \"b\"""#,
            bearer("https://a.test/t", "a \"b\"", ""),
        ),
        (r#"Basic realm="x""#, Some(Challenge::Basic)),
        (r#"Basic realm="x", Bearer realm="https://t""#, bearer("https://t", "", "")),
        (r#"Bearer service="x""#, None),
        ("Negotiate", None),
        ("", None),
        (r#"Bearer realm="https://open"#, bearer("https://open", "", "")),
    ];
    for (header, expected) in cases {
        assert_eq!(parse([header].into_iter()), expected, "{header}");
    }
    let two = ["Negotiate", "Basic realm=\"x\""];
    assert_eq!(parse(two.into_iter()), Some(Challenge::Basic));
}

proptest! {
    #[test]
    fn no_header_breaks_it(text in ".{0,200}") {
        let _ = parse([text.as_str()].into_iter());
    }
}

//! Both spellings of filters.

use super::*;

#[test]
fn lists_and_sets_mean_the_same() {
    let list = Filters::from_json(r#"{"label":["a=b"],"status":["exited","dead"]}"#);
    let set = Filters::from_json(
        r#"{"label":{"a=b":true},"status":{"exited":true,"dead":true,"x":false}}"#,
    );
    let (list, set) = (list.expect("list"), set.expect("set"));
    assert_eq!(list.values("label"), set.values("label"));
    assert_eq!(set.values("status"), ["dead", "exited"]);
    assert!(list.has("status") && !list.has("name"));
    assert_eq!(Filters::from_json(""), Ok(Filters::default()));
    for text in ["[]", "{", r#"{"a":1}"#, r#"{"a":"b"}"#, "null"] {
        assert_eq!(Filters::from_json(text), Err(InvalidFilter::Malformed), "{text}");
    }
}

#[test]
fn labels_must_all_hold_and_unknown_keys_are_named() {
    let filters = Filters::from_json(r#"{"label":["a","b=2"]}"#).expect("valid");
    let with = |b: &'static str| {
        move |name: &str| match name {
            "a" => Some("1"),
            "b" => Some(b),
            _ => None,
        }
    };
    assert!(filters.labels_match("label", with("2")));
    assert!(!filters.labels_match("label", with("3")));
    let unknown = filters.check_keys(&["status"]).expect_err("label is not listed");
    assert_eq!(unknown.to_string(), "invalid filter 'label'");
    let dangling = Filters::from_json(r#"{"dangling":["maybe"]}"#).expect("valid");
    assert!(dangling.bool("dangling").is_err());
}

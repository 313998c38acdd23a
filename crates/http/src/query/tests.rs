//! Queries as clients write them.

use super::Query;

#[test]
fn reads_queries() {
    let query = Query::parse("a=1&b=x%20y+z&b=2&bad=%&flag&=e&c=a=b");
    assert_eq!(query.text("a"), "1");
    assert_eq!(query.all("b").collect::<Vec<_>>(), ["x y z", "2"]);
    assert_eq!(query.find("bad"), None);
    assert_eq!((query.find("flag"), query.text("c"), query.text("none")), (Some(""), "a=b", ""));
}

#[test]
fn reads_switches_as_docker_does() {
    for (value, want) in [
        ("1", true),
        ("true", true),
        ("True", true),
        ("yes", true),
        ("anything", true),
        ("0", false),
        ("false", false),
        ("FALSE", false),
        ("no", false),
        ("none", false),
        ("", false),
        ("%20", false),
    ] {
        assert_eq!(Query::parse(&format!("x={value}")).flag("x"), want, "{value}");
    }
    assert!(Query::parse("").switch("stream", true));
    assert!(!Query::parse("stream=0").switch("stream", true));
}

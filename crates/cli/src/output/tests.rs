use super::text::{ellipsis, encoded, filters, short_id};
use super::*;

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let text = "A\tB\tC\nlong name here\tx\ty\n";
    let expected = "A                B         C\nlong name here   x         y\n";
    assert_eq!(aligned(text, 10, 3), expected);
    // A line without cells ends a column.
    assert_eq!(
        aligned("a\tb\nplain\nlonger than ten\tb", 10, 3),
        "a         b\nplain\nlonger than ten   b"
    );
    assert_eq!(aligned("é…\tx", 4, 1), "é…  x");
}

const LISTING: Listing = Listing::new("{{.ID}}\t{{.Name}}", &[("ID", "THE ID"), ("Name", "NAME")]);

fn rendered(format: &str) -> String {
    let row = Record::row("t.row", vec![("ID", "<1>".into()), ("Name", "n".into())])
        .with_labels(&serde_json::json!({"a.b-c": "v"}));
    LISTING.render(vec![row], format).unwrap_or_else(|failure| failure.text)
}

#[test]
fn formats_are_those_of_docker() {
    let cases = [
        ("table", "THE ID    NAME\n<1>       n\n"),
        ("table {{.Name}}\\t{{upper .ID}}", "NAME      THE ID\nn         <1>\n"),
        ("table {{.Label \"a.b-c\"}}", "b c\nv\n"),
        ("json", "{\"ID\":\"\\u003c1\\u003e\",\"Name\":\"n\"}\n"),
        ("{{.ID}}\\n{{.Name}}", "<1>\nn\n"),
        ("{{.Label \"none\"}}|", "|\n"),
        (
            "{{.Foo}}",
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *t.row",
        ),
    ];
    for (format, expected) in cases {
        assert_eq!(rendered(format), expected, "{format}");
    }
}

#[test]
fn small_texts() {
    assert_eq!(ellipsis("abcdef", 4), "abc…");
    assert_eq!(ellipsis("abc", 3), "abc");
    assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    assert_eq!(encoded("a/b c?é"), "a/b%20c%3F%C3%A9");
    let given = ["label=a=b".to_owned(), "label=c".to_owned(), "Status=x".to_owned()];
    assert_eq!(filters(&given).unwrap(), r#"{"label":{"a=b":true,"c":true},"status":{"x":true}}"#);
}

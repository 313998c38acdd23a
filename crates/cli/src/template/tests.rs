use serde_json::json;

use super::*;

fn rendered(text: &str) -> String {
    let data = json!({
        "Name": "x<y", "Count": 3, "Ratio": 0.5, "On": true, "List": ["a", "b"], "Nothing": null,
        "Map": {"k": "v", "a": 1}, "Words": "one two", "Empty": [],
    });
    match Template::parse("", text).and_then(|t| t.render(&Value::from(&data), Mode::Rows)) {
        Ok(text) => text,
        Err(error) => format!("! {error}"),
    }
}

// What docker 28 prints for the same templates.
const CASES: &[(&str, &str)] = &[
    ("{{.Name}} {{.Count}} {{.Ratio}} {{.On}}", "x<y 3 0.5 true"),
    ("{{.List}} {{.Map}}", "[a b] map[a:1 k:v]"),
    ("{{.Missing}}", "<no value>"),
    ("{{json .Map}} {{json .Name}}", "{\"a\":1,\"k\":\"v\"} \"x<y\""),
    ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
    ("{{range $i, $v := .List}}{{$i}}={{$v}};{{end}}", "0=a;1=b;"),
    ("{{range $k, $v := .Map}}{{$k}}:{{$v}},{{end}}", "a:1,k:v,"),
    ("{{range .Empty}}x{{else}}none{{end}}", "none"),
    ("{{range .List}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
    ("{{range .List}}{{if eq . \"a\"}}{{continue}}{{end}}{{.}}{{end}}", "b"),
    ("{{if and .On (gt .Count 2)}}yes{{else if .On}}some{{else}}no{{end}}", "yes"),
    ("{{with .Missing}}x{{else}}y{{end}}", "y"),
    ("{{with $x := .Count}}{{$x}}{{end}}", "3"),
    ("{{$x := 1}}{{range .List}}{{$x = .}}{{end}}{{$x}}", "b"),
    ("a {{- \"b\" -}} c", "abc"),
    ("{{/* nothing */}}x", "x"),
    (
        "{{printf \"%q %5d|%-5s|%05d %x %v %t\" .Name 7 \"ab\" 42 255 .List true}}",
        "\"x<y\"     7|ab   |00042 ff [a b] true",
    ),
    ("{{printf \"%s\" 1}} {{printf \"%d\"}}", "%!s(int=1) %!d(MISSING)"),
    ("{{printf \"%.2f %e %g\" 1.5 1.5 1e21}}", "1.50 1.500000e+00 1e+21"),
    ("{{index .List 1}} {{index .Map \"k\"}} {{len .Name}}", "b v 3"),
    ("{{slice .Name 1 2}} {{slice .List 1}}", "< [b]"),
    ("{{split .Words \" \" | len}} {{join .List \"-\"}}", "2 a-b"),
    ("{{upper .Name}} {{lower \"AB\"}} {{title .Words}}", "X<Y ab One Two"),
    ("{{pad .Name 1 2}}| {{truncate .Name 2}}", " x<y  | x<"),
    ("{{html .Name}} {{js \"a'b\"}} {{urlquery \"a b&\"}}", "x&lt;y a\\'b a+b%26"),
    ("{{print 1 2 \"x\" 3}} {{println \"a\" 1}}", "1 2x3 a 1\n"),
    ("{{or .Missing \"z\"}} {{and .On \"w\"}} {{not .On}}", "z w false"),
    ("{{eq .Count 1 3}} {{ne .Count 3}} {{le 1 1}}", "true false true"),
    ("{{define \"t\"}}[{{.}}]{{end}}{{template \"t\" .Count}}", "[3]"),
    ("{{.Count | printf \"%d-%d\" 1}}", "1-3"),
    ("{{'a'}} {{0x10}} {{1_000}}", "97 16 1000"),
    ("{{", "! template: :1: unclosed action"),
    ("{{.Name", "! template: :1: unclosed action"),
    ("{{.Name | foo}}", "! template: :1: function \"foo\" not defined"),
    ("{{if .On}}", "! template: :1: unexpected EOF"),
    ("{{end}}", "! template: :1: unexpected {{end}}"),
    (
        "{{.Name.Foo}}",
        "! template: :1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string",
    ),
    (
        "{{index .List 9}}",
        "! template: :1:2: executing \"\" at <index .List 9>: error calling index: index out of range: 9",
    ),
    (
        "{{lt 1 \"a\"}}",
        "! template: :1:2: executing \"\" at <lt 1 \"a\">: error calling lt: incompatible types for comparison",
    ),
];

#[test]
fn templates_print_what_go_prints() {
    for (text, expected) in CASES {
        assert_eq!(rendered(text), *expected, "{text}");
    }
}

#[test]
fn a_missing_key_is_an_error_where_asked_for() {
    let mut template = Template::parse("", "{{.A.B}}").unwrap();
    template.missing = MissingKey::Error;
    let error = template.render(&Value::from(&json!({"A": {}})), Mode::Rows).unwrap_err();
    let text = "template: :1:4: executing \"\" at <.A.B>: map has no entry for key \"B\"";
    assert_eq!(error.to_string(), text);
}

#[test]
fn deep_nesting_is_refused_and_does_not_exhaust_the_stack() {
    let deep = "{{if 1}}".repeat(5000);
    assert!(Template::parse("", &deep).is_err());
    let parentheses = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(Template::parse("", &parentheses).is_err());
    let recursion = "{{define \"t\"}}{{template \"t\" .}}{{end}}{{template \"t\" .}}";
    let template = Template::parse("", recursion).unwrap();
    assert!(template.render(&Value::Nil, Mode::Rows).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[{}\\.a-z\"`'$:=|() \\-/*0-9\\\\]{0,40}") {
        let _ = rendered(&text);
    }
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn file(name: &str, text: &str) -> File {
    File { name: name.to_owned(), text: text.to_owned() }
}

fn value(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn printed(text: &str, request: &Request) -> serde_json::Value {
    let done = plan(&[file("docker-bake.hcl", text)], request);
    value(&done.unwrap_or_else(|error| panic!("{error}\n{text}")).json())
}

fn refused(text: &str, request: &Request) -> String {
    plan(&[file("docker-bake.hcl", text)], request).unwrap_err().to_string()
}

/// The expectations were printed by buildx 0.29.
#[test]
fn plans_are_printed_as_buildx_does() {
    let text = fixture("docker-bake.hcl");
    assert_eq!(printed(&text, &Request::default()), value(&fixture("expect.json")));
    let request = Request {
        targets: vec!["app".into()],
        overrides: ["*.args.Z=9", "app.platform=linux/s390x", "m*.tags=q"].map(String::from).into(),
        environment: BTreeMap::from([("TAG".into(), "env".into())]),
        ..Request::default()
    };
    assert_eq!(printed(&text, &request), value(&fixture("expect2.json")));
    let composed = plan(&[file("compose.yml", &fixture("compose.yml"))], &Request::default());
    assert_eq!(value(&composed.unwrap().json()), value(&fixture("expect3.json")));
}

#[test]
fn a_printed_plan_is_a_bake_file_with_the_same_plan() {
    let first = plan(&[file("a.hcl", &fixture("docker-bake.hcl"))], &Request::default()).unwrap();
    let again = plan(&[file("b.json", &first.json())], &Request::default()).unwrap();
    assert_eq!(again.targets, first.targets);
}

#[test]
fn later_files_add_to_earlier_ones() {
    let first = file(
        "a.hcl",
        "target \"a\" {\n tags = [\"x\"]\n args = { A = 1, B = 2 }\n annotations = [\"p\"]\n}\n",
    );
    let second = file(
        "b.json",
        r#"{"target": {"a": {"tags": ["y"], "args": {"B": "${1 + 2}"}, "annotations": ["q"]}}}"#,
    );
    let request = Request { targets: vec!["a".into()], ..Request::default() };
    let target = &plan(&[first, second], &request).unwrap().targets["a"];
    assert_eq!(target.list("tags"), ["y"]);
    assert_eq!(target.map("args"), [("A", "1"), ("B", "3")]);
    assert_eq!(target.list("annotations"), ["p", "q"]);
}

#[test]
fn expressions_have_their_values() {
    for (expression, expected) in [
        ("1 + 2 * 3", "7"),
        ("10 / 4", "2.5"),
        ("7 % 3 == 1 && !false", "true"),
        ("\"a${1 + 1}b\"", "a2b"),
        ("\"%{ if true }yes%{ else }no%{ endif }\"", "yes"),
        ("\"%{ for x in [1, 2] }<${x}>%{ endfor }\"", "<1><2>"),
        ("join(\",\", [for k, v in { b = 2, a = 1 } : \"${k}${v}\"])", "a1,b2"),
        ("{ a = { b = [5] } }.a.b[0]", "5"),
        ("join(\",\", [{ n = \"x\" }, { n = \"y\" }][*].n)", "x,y"),
        ("upper(\"x\") == \"X\" ? \"t\" : \"f\"", "t"),
        ("sha256(\"a\")", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("format(\"%03d-%s-%q\", 7, \"x\", \"y\")", "007-x-\"y\""),
        ("regex_replace(\"a1b2\", \"[0-9]\", \"-\")", "a-b-"),
        ("join(\"-\", regex(\"(\\\\d+)\\\\.(\\\\d+)\", \"v1.2\"))", "1-2"),
        ("replace(\"1.2.3\", \".\", \"-\")", "1-2-3"),
        ("join(\",\", reverselist(split(\".\", \"a.b\")))", "b,a"),
        ("length(setproduct([1, 2], [3, 4]))", "4"),
        ("join(\",\", distinct(concat([\"a\"], [\"a\", \"b\"])))", "a,b"),
        ("lookup({ a = \"x\" }, \"b\", \"none\")", "none"),
        ("try(nothing.at.all, \"else\")", "else"),
        ("can(1 + \"x\")", "false"),
        ("jsondecode(\"{\\\"a\\\": 4}\").a", "4"),
        ("base64decode(base64encode(\"hi\"))", "hi"),
        ("timestamp()", "2023-11-14T22:13:20Z"),
        ("title(\"a bc\")", "A Bc"),
        ("substr(\"hello\", 1, 3)", "ell"),
        ("max(3, 9, 2)", "9"),
        ("coalesce(null, \"x\")", "x"),
        ("element([\"a\", \"b\"], 3)", "b"),
        ("join(\",\", chunklist([\"a\", \"b\", \"c\"], 2)[1])", "c"),
        ("trimprefix(\"v1\", \"v\")", "1"),
        ("join(\",\", keys({ b = 1, a = 2 }))", "a,b"),
        ("parseint(\"ff\", 16)", "255"),
        ("sanitize(\"a/b c\")", "a_b_c"),
    ] {
        let text = format!("target \"t\" {{\n  args = {{ V = {expression} }}\n}}\n");
        let request =
            Request { targets: vec!["t".into()], now: 1_700_000_000, ..Request::default() };
        assert_eq!(printed(&text, &request)["target"]["t"]["args"]["V"], expected, "{expression}");
    }
}

#[test]
fn variables_come_from_outside_with_their_type() {
    let text = "variable \"N\" { default = 1 }\nvariable \"B\" { default = false }\nvariable \"L\" { default = [\"a\"] }\n\
        variable \"T\" {\n  type = list(string)\n}\nvariable \"S\" {\n  default = \"s\"\n  validation {\n    condition = S != \"bad\"\n    error_message = \"not bad\"\n  }\n}\n\
        target \"default\" {\n  args = { N = N + 1, B = B ? \"on\" : \"off\", L = length(L), T = join(\"+\", T) }\n}\n";
    let mut request = Request {
        environment: [("N", "41"), ("B", "true"), ("L", "x,y,z"), ("T", "[\"p\", \"q\"]")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..Request::default()
    };
    let args = &printed(text, &request)["target"]["default"]["args"];
    assert_eq!(*args, serde_json::json!({"N": "42", "B": "on", "L": "3", "T": "p+q"}));
    request.environment.insert("S".into(), "bad".into());
    assert_eq!(refused(text, &request), "variable \"S\": Validation failed; not bad");
}

#[test]
fn overrides_change_what_they_name() {
    let text =
        "target \"a\" {\n  output = [\"type=image\"]\n  tags = [\"x\"]\n}\ntarget \"b\" {}\n";
    let set = |overrides: &[&str]| {
        let request = Request {
            targets: vec!["a".into()],
            overrides: overrides.iter().map(|&text| text.to_owned()).collect(),
            ..Request::default()
        };
        plan(&[file("x.hcl", text)], &request).map(|plan| plan.targets["a"].clone())
    };
    let target = set(&[
        "a.push=true",
        "a.tags+=y",
        "a.no-cache=true",
        "*.contexts.c=dir",
        "a.cache-from=u/v",
    ])
    .unwrap();
    assert_eq!(target.entries("output")[0]["push"], "true");
    assert_eq!(target.list("tags"), ["x", "y"]);
    assert_eq!(target.switch("no-cache"), Some(true));
    assert_eq!(target.map("contexts"), [("c", "dir")]);
    assert_eq!(target.entries("cache-from")[0]["ref"], "u/v");
    for (change, message) in [
        ("a.foo=1", "unknown key: foo"),
        ("a.pull=maybe", "invalid value maybe for boolean key pull"),
        ("a.args=1", "invalid format for args, expecting args.<name>=<value>"),
        ("nope.tags=1", "could not find any target matching 'nope'"),
        ("a", "invalid override key a, expected target.name"),
        ("a.tags", "invalid override a.tags, expected target.name=value"),
    ] {
        assert_eq!(set(&[change]).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_target_becomes_flags_of_build() {
    let text = "target \"default\" {\n  tags = [\"a\", \"b\"]\n  args = { A = \"1 2\" }\n  output = [\"type=local,dest=o\"]\n  no-cache = true\n  \
        secret = [\"id=s,src=/x\"]\n  ssh = [\"k=/a,/b\"]\n  contexts = { c = \"target:other\", d = \"dir\" }\n}\ntarget \"other\" {}\n";
    let done = plan(&[file("x.hcl", text)], &Request::default()).unwrap();
    let target = &done.targets["default"];
    let flags = target.build_flags().join(" ");
    assert_eq!(
        flags,
        "--build-arg A=1 2 --tag a --tag b --secret id=s,src=/x --output dest=o,type=local --ssh k=/a,/b --no-cache"
    );
    assert_eq!(target.links(), [("c", "other")]);
}

#[test]
fn mistakes_are_named() {
    let request = Request { targets: vec!["a".into()], ..Request::default() };
    for (text, message) in [
        ("target \"b\" {}\n", "failed to find target a"),
        (
            "target \"a\" {\n  foo = 1\n}\n",
            "target \"a\": Unsupported argument; An argument named \"foo\" is not expected here.",
        ),
        (
            "target \"a\" {\n  tags = [x]\n}\n",
            "target \"a\": Unknown variable; There is no variable named \"x\".",
        ),
        (
            "x = y\ny = x\ntarget \"a\" {\n  tags = [x]\n}\n",
            "target \"a\": variable cycle not allowed for x",
        ),
        (
            "target \"a\" {\n  tags = [foo()]\n}\n",
            "target \"a\": Call to unknown function; There is no function named \"foo\".",
        ),
        (
            "target \"a\" {\n  tags = [bcrypt(\"x\")]\n}\n",
            "target \"a\": the function \"bcrypt\" of bake files is not available here",
        ),
        ("target \"a b\" {}\n", "invalid name \"a b\": only \"a-zA-Z0-9_-\" are allowed"),
        (
            "target \"a\" {\n  contexts = { x = \"target:a\" }\n}\n",
            "target a cannot link to itself",
        ),
        (
            "target \"a\" {\n  contexts = { x = \"target:b\" }\n}\ntarget \"b\" {\n  contexts = { x = \"target:a\" }\n}\n",
            "infinite loop from b to a",
        ),
        ("target \"a\" {\n  inherits = [\"z\"]\n}\n", "failed to find target z"),
        ("target \"a\" {\n  name = \"x\"\n}\n", "target \"a\": name requires matrix"),
        (
            "foo \"a\" {}\n",
            "docker-bake.hcl: Unsupported block type; Blocks of type \"foo\" are not expected here.",
        ),
    ] {
        assert_eq!(refused(text, &request), message);
    }
    assert!(refused("target \"a\" {", &request).starts_with("docker-bake.hcl: "));
}

#[test]
fn hostile_files_end() {
    let request = Request { targets: vec!["a".into()], ..Request::default() };
    for (text, message) in [
        (
            "function \"f\" {\n  params = [x]\n  result = f(x)\n}\ntarget \"a\" {\n  tags = [f(1)]\n}\n",
            "nest deeper",
        ),
        (
            "target \"a\" {\n  tags = [for x in range(100000) : [for y in range(100000) : \"\"][0]]\n}\n",
            "steps",
        ),
        (
            "target \"a\" {\n  name = \"a${x}-${y}\"\n  matrix = { x = range(100), y = range(100) }\n}\n",
            "1000 targets",
        ),
        ("target \"a\" {\n  tags = [range(1e12)]\n}\n", "elements"),
    ] {
        let found = refused(text, &request);
        assert!(found.contains(message), "{found}");
    }
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\n\
        d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\nservices: {}\n";
    let found = plan(&[file("c.yaml", bomb)], &request).unwrap_err().to_string();
    assert!(found.contains("too large"), "{found}");
}

#[test]
fn compose_files_with_more() {
    let text = "x-b: &b\n  args: { A: \"0755\", B: }\nservices:\n  a.b:\n    build:\n      <<: *b\n      context: https://e.com/x.git\n      additional_contexts: [ \"c=service:d\", e=f ]\n      \
        secrets: [ s ]\n      ulimits: { nofile: { soft: 1, hard: 2 }, nproc: 3 }\n      extra_hosts: [ \"h:1.2.3.4\" ]\n      provenance: mode=max\n      shm_size: 64m\n  d: { build: . }\nsecrets:\n  s: { file: ./f }\n";
    let request =
        Request { environment: BTreeMap::from([("B".into(), "b".into())]), ..Request::default() };
    let done = plan(&[file("c.yml", text)], &request).unwrap();
    let target = &done.targets["a_b"];
    assert_eq!(target.map("args"), [("A", "0755"), ("B", "b")]);
    assert_eq!(target.map("contexts"), [("c", "target:d"), ("e", "f")]);
    assert_eq!(target.list("ulimits"), ["nofile=1:2", "nproc=3:3"]);
    assert_eq!(target.map("extra-hosts"), [("h", "1.2.3.4")]);
    assert_eq!(target.entries("secret")[0]["src"], "./f");
    assert_eq!(target.entries("attest")[0]["mode"], "max");
    assert_eq!(done.groups["default"].targets, ["a_b", "d"]);
}

proptest! {
    #[test]
    fn nothing_panics(text in "[a-c${}=\\[\\]\" \n:*&<>()+-]{0,60}") {
        let _ = plan(&[file("x.hcl", &format!("target \"default\" {{\n tags = [\"{text}\"]\n}}\n"))], &Request::default());
        let _ = plan(&[file("x.hcl", &text)], &Request::default());
        let _ = plan(&[file("x.yml", &text)], &Request::default());
    }
}

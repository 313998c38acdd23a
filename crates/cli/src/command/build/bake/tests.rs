use super::*;

fn plan(text: &str) -> Plan {
    let file = File { name: "docker-bake.hcl".to_owned(), text: text.to_owned() };
    rorqual_bake::plan(&[file], &Request::default()).unwrap()
}

fn given(words: &[&str]) -> Matches {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    flag::parse(&BAKE, "rorqual bake".to_owned(), &words).unwrap()
}

#[test]
fn a_target_is_a_command_line_of_build() {
    let plan = plan(
        "target \"default\" {\n  context = \"dir\"\n  dockerfile = \"D\"\n  tags = [\"t\"]\n  shm-size = \"64m\"\n  \
         contexts = { x = \"target:other\", y = \"docker-image://z\" }\n}\ntarget \"other\" {\n  dockerfile-inline = \"FROM scratch\"\n}\n",
    );
    let names = BTreeMap::from([("other".to_owned(), "rorqual-bake/1:abc".to_owned())]);
    let (line, inline) =
        words(&given(&["--progress=plain", "--check"]), &plan.targets["default"], None, &names)
            .unwrap();
    assert!(inline.is_none());
    let built = flag::parse(&BUILD, "rorqual build".to_owned(), &line).unwrap();
    assert_eq!(built.words, ["dir"]);
    assert_eq!((built.text("file"), built.text("call")), ("dir/D", "check"));
    assert_eq!(built.bytes("shm-size"), 64 << 20);
    let contexts = ["x=docker-image://rorqual-bake/1:abc", "y=docker-image://z"];
    assert_eq!(built.list("build-context"), contexts);

    let name = Some("rorqual-bake/1:abc");
    let (line, inline) = words(&given(&[]), &plan.targets["other"], name, &names).unwrap();
    let built = flag::parse(&BUILD, "rorqual build".to_owned(), &line).unwrap();
    assert_eq!(built.list("tag"), ["rorqual-bake/1:abc"]);
    assert_eq!(built.list("output"), ["type=cacheonly", "type=image"]);
    let file = built.text("file").to_owned();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "FROM scratch");
    drop(inline);
    assert!(!Path::new(&file).exists());
}

#[test]
fn flags_become_overrides() {
    let words = ["--push", "--no-cache", "--set", "a.tags=b", "--var", "X=1", "one"];
    let request = request(&given(&words)).unwrap();
    assert_eq!(request.overrides, ["a.tags=b", "*.push=true", "*.no-cache=true"]);
    assert_eq!(request.environment["X"], "1");
    assert_eq!(request.targets, ["one"]);
}

//! The Dockerfiles that are built for comparison: all are understood, and as another parser sees them.

use std::path::Path;

use super::*;

fn scenes() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        let file = entry.path().join("Dockerfile");
        if let Ok(text) = std::fs::read_to_string(&file) {
            found.push((entry.file_name().to_string_lossy().into_owned(), text));
        }
    }
    found.sort();
    found
}

#[test]
fn all_are_understood() {
    let scenes = scenes();
    assert!(scenes.len() >= 20, "{}", scenes.len());
    for (name, text) in scenes {
        let result = build(&text);
        assert!(!result.platforms[0].document.history.is_empty(), "{name}");
        assert_eq!(result.warnings, [], "{name}");
    }
}

#[test]
fn another_parser_sees_the_same_instructions() {
    // The other one does not know heredocs behind a command.
    for (name, text) in scenes().into_iter().filter(|(name, _)| name != "heredocs") {
        let source = SourceFile { name: name.clone(), text: text.clone() };
        let ours = lines::parse(&source).unwrap();
        let theirs =
            parse_dockerfile::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ours.nodes.len(), theirs.instructions.len(), "{name}");
        for (node, other) in ours.nodes.iter().zip(&theirs.instructions) {
            let span = keyword(other);
            assert_eq!(node.name, text[span.clone()], "{name}");
            let line = text[..span.start].matches('\n').count() + 1;
            assert_eq!(node.place().first_line as usize, line, "{name}: {}", node.name);
        }
    }
}

fn keyword(instruction: &parse_dockerfile::Instruction<'_>) -> std::ops::Range<usize> {
    use parse_dockerfile::Instruction as I;
    let keyword = match instruction {
        I::Add(i) => &i.add,
        I::Arg(i) => &i.arg,
        I::Cmd(i) => &i.cmd,
        I::Copy(i) => &i.copy,
        I::Entrypoint(i) => &i.entrypoint,
        I::Env(i) => &i.env,
        I::Expose(i) => &i.expose,
        I::From(i) => &i.from,
        I::Healthcheck(i) => &i.healthcheck,
        I::Label(i) => &i.label,
        I::Maintainer(i) => &i.maintainer,
        I::Onbuild(i) => &i.onbuild,
        I::Run(i) => &i.run,
        I::Shell(i) => &i.shell,
        I::Stopsignal(i) => &i.stopsignal,
        I::User(i) => &i.user,
        I::Volume(i) => &i.volume,
        I::Workdir(i) => &i.workdir,
        other => panic!("not known: {other:?}"),
    };
    keyword.span.clone()
}

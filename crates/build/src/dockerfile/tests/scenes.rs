//! The Dockerfiles that are built for comparison: all are understood, and as another parser sees them.

use std::path::Path;

use super::*;

fn scenes() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap().flatten() {
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

/// The base image of the comparison, as Docker has it.
struct Recorded(ImageDocument);

#[async_trait]
impl Resolver for Recorded {
    async fn image(&self, query: ImageQuery<'_>) -> Result<ResolvedImage, Error> {
        assert_eq!(query.reference, "docker.io/library/debian:sid");
        Ok(ResolvedImage {
            reference: query.reference.to_owned(),
            digest: None,
            document: self.0.clone(),
            config: Vec::new(),
        })
    }

    async fn read_files(
        &self,
        _: FileSource,
        names: &[&str],
        _: &str,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(vec![None; names.len()])
    }
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn recorded(path: &Path) -> ImageDocument {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// `docker.json` and `steps.txt` were written by dockerd 28.5 with buildx 0.29.
#[test]
fn configs_histories_and_names_are_docker_s() {
    let resolver = Recorded(recorded(&fixtures().join("base.json")));
    let mut compared = 0;
    for (name, text) in scenes() {
        let folder = fixtures().join(&name);
        if !folder.join("docker.json").exists() {
            continue;
        }
        let result = run(build_graph(&request(&text), &resolver)).unwrap();
        let ours = &result.platforms[0].document;
        let theirs = recorded(&folder.join("docker.json"));
        let plain = |document: &ImageDocument| {
            let config = serde_json::to_value(&document.config).unwrap();
            (config, document.history.clone(), document.author.clone(), document.os.clone())
        };
        pretty_eq(&name, &plain(ours), &plain(&theirs));

        let steps = std::fs::read_to_string(folder.join("steps.txt")).unwrap();
        let mut theirs: Vec<String> =
            steps.lines().filter(|name| is_step(name)).map(str::to_owned).collect();
        let mut ours: Vec<String> = result
            .graph
            .vertices()
            .map(|(_, vertex)| vertex.name.replace('\n', " "))
            .filter(|name| is_step(name))
            .collect();
        theirs.sort();
        ours.sort();
        ours.dedup();
        pretty_eq(&name, &ours, &theirs);
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}

/// What the front end itself names: reading the Dockerfile is named by who reads it, and a client of Docker shows the merge
/// of `--link` together with its copy, and an image once, by the name of whichever stage was first.
fn is_step(name: &str) -> bool {
    !name.starts_with("[internal] load ") && !name.contains("] LINK ") && !name.contains("] FROM ")
}

fn pretty_eq<T: PartialEq + std::fmt::Debug>(name: &str, ours: &T, theirs: &T) {
    assert!(ours == theirs, "{name}\nours   {ours:#?}\ntheirs {theirs:#?}");
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

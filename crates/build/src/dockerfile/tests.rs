//! The front end as a whole: snapshots of graphs and configs, and what is refused.

mod bounds;
mod checks;
mod graphs;
mod refused;
mod scenes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use async_trait::async_trait;
use rorqual_content::{ImageConfig, ImageDocument, RootFs};

use super::*;
use crate::{Error, FileAction, Graph, Input, MountKind, Op, ResolvedImage, Vertex};

/// Answers from a table; images that are not in it are made up.
#[derive(Default)]
struct Fake {
    images: BTreeMap<&'static str, ImageDocument>,
    files: BTreeMap<&'static str, &'static str>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Resolver for Fake {
    async fn image(&self, query: ImageQuery<'_>) -> Result<ResolvedImage, Error> {
        self.asked.lock().unwrap().push(query.label.to_owned());
        if query.reference.contains("missing") {
            let message = "pull access denied".to_owned();
            return Err(Error::NotFound { message, location: None });
        }
        let known = self.images.get(query.reference).cloned();
        let mut document = known.unwrap_or_else(base_image);
        if document.architecture.is_empty() {
            document.architecture.clone_from(&query.platform.architecture);
        }
        let digest: rorqual_core::Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        Ok(ResolvedImage {
            reference: format!("{}@{digest}", query.reference),
            digest: Some(digest),
            document,
            config: Vec::new(),
        })
    }

    async fn read_files(
        &self,
        _: FileSource,
        names: &[&str],
        label: &str,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.asked.lock().unwrap().push(label.to_owned());
        Ok(names
            .iter()
            .map(|name| self.files.get(name).map(|text| text.as_bytes().to_vec()))
            .collect())
    }
}

fn base_image() -> ImageDocument {
    ImageDocument {
        os: "linux".to_owned(),
        config: ImageConfig {
            env: Some(vec!["PATH=/usr/bin:/bin".to_owned(), "BASE=1".to_owned()]),
            cmd: Some(vec!["sh".to_owned()]),
            ..ImageConfig::default()
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![format!("sha256:{}", "cd".repeat(32)).parse().unwrap()],
        },
        ..ImageDocument::default()
    }
}

fn request(text: &str) -> FrontendRequest {
    let options =
        Options { build_platform: Some("linux/amd64".parse().unwrap()), ..Options::default() };
    let source = SourceFile { name: "Dockerfile".to_owned(), text: text.to_owned() };
    FrontendRequest { source, options, ..FrontendRequest::default() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn build_with(request: &FrontendRequest, fake: &Fake) -> Result<FrontendResult, Error> {
    run(build_graph(request, fake))
}

fn build(text: &str) -> FrontendResult {
    let done = build_with(&request(text), &Fake::default());
    done.unwrap_or_else(|error| panic!("{error}: {:?}\n{text}", error.location()))
}

fn refusal(text: &str) -> String {
    match build_with(&request(text), &Fake::default()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => match error.location() {
            Some(place) => format!("{}: {error}", place.first_line),
            None => error.to_string(),
        },
    }
}

/// Everything that matters of a result, as text.
fn show(result: &FrontendResult) -> String {
    let mut text = show_graph(&result.graph);
    for platform in &result.platforms {
        let document = &platform.document;
        let config = serde_json::to_string(&document.config).unwrap();
        let _ = writeln!(text, "{} -> {}", platform.id, show_input(platform.output));
        let _ = writeln!(text, "  config {config}");
        for step in &document.history {
            let empty = if step.empty_layer { " (empty)" } else { "" };
            let _ = writeln!(text, "  | {}{empty}", step.created_by);
        }
    }
    for warning in &result.warnings {
        let _ = writeln!(text, "! {}", warning.short());
    }
    text
}

fn show_input(input: Input) -> String {
    match input {
        Input::Scratch => "scratch".to_owned(),
        Input::Output(output) if output.index == 0 => format!("#{}", output.vertex.0),
        Input::Output(output) => format!("#{}.{}", output.vertex.0, output.index),
    }
}

fn show_graph(graph: &Graph) -> String {
    let mut text = String::new();
    for (id, vertex) in graph.vertices() {
        let cache = if vertex.ignore_cache { " no-cache" } else { "" };
        let _ = writeln!(text, "#{} {}{cache}", id.0, vertex.name);
        let _ = write!(text, "{}", show_op(vertex));
    }
    text
}

fn show_op(vertex: &Vertex) -> String {
    let mut text = String::new();
    match &vertex.op {
        Op::Image(image) => {
            let _ = writeln!(
                text,
                "    image {} {}",
                image.reference.split('@').next().unwrap(),
                vertex.platform
            );
        }
        Op::Local(local) => {
            let _ = writeln!(
                text,
                "    local {} follow {:?} exclude {:?}",
                local.name, local.follow, local.exclude
            );
        }
        Op::Git(git) => {
            let _ = writeln!(
                text,
                "    git {} ref {:?} subdir {:?} checksum {:?} keep {}",
                git.remote, git.reference, git.subdir, git.checksum, git.keep_git_dir
            );
        }
        Op::Http(http) => {
            let _ = writeln!(
                text,
                "    http {} as {:?} checksum {}",
                http.url,
                http.filename,
                http.checksum.is_some()
            );
        }
        Op::Merge(inputs) => {
            let inputs: Vec<_> = inputs.iter().map(|input| show_input(*input)).collect();
            let _ = writeln!(text, "    merge {}", inputs.join(" "));
        }
        Op::Diff { lower, upper } => {
            let _ = writeln!(text, "    diff {} {}", show_input(*lower), show_input(*upper));
        }
        Op::Exec(exec) => {
            let _ = writeln!(text, "    exec {:?}", exec.args);
            let _ = writeln!(
                text,
                "      env {:?} in {} as {:?} {:?} {:?}",
                exec.env, exec.cwd, exec.user, exec.network, exec.security
            );
            for mount in &exec.mounts {
                let from = mount.input.map_or_else(|| "-".to_owned(), show_input);
                let access = if mount.readonly { "ro" } else { "rw" };
                let kind = match &mount.kind {
                    MountKind::Bind => "bind".to_owned(),
                    other => format!("{other:?}"),
                };
                let output = mount.output.map(|output| format!(" ={output}")).unwrap_or_default();
                let _ = writeln!(
                    text,
                    "      mount {} {from}:{} {access} {kind}{output}",
                    mount.target, mount.selector
                );
            }
            if !exec.secret_env.is_empty() {
                let _ = writeln!(text, "      secrets {:?}", exec.secret_env);
            }
        }
        Op::File(file) => {
            let _ = writeln!(text, "    file on {}", show_input(file.base));
            for action in &file.actions {
                let _ = writeln!(text, "      {}", show_action(action));
            }
        }
    }
    text
}

fn show_action(action: &FileAction) -> String {
    match action {
        FileAction::Copy(copy) => {
            let mut text =
                format!("copy {}:{} to {}", show_input(copy.from), copy.source, copy.target);
            for (set, name) in [
                (copy.follow_link, "follow"),
                (copy.contents_only, "contents"),
                (copy.unpack, "unpack"),
                (copy.wildcard, "wildcard"),
                (copy.make_parents, "parents"),
            ] {
                if set {
                    let _ = write!(text, " {name}");
                }
            }
            if copy.owner != crate::FileOwner::Keep {
                let _ = write!(text, " {:?}", copy.owner);
            }
            if let Some(mode) = &copy.mode {
                let _ = write!(text, " mode {mode}");
            }
            for (list, name) in [
                (&copy.include, "include"),
                (&copy.exclude, "exclude"),
                (&copy.required, "required"),
            ] {
                if !list.is_empty() {
                    let _ = write!(text, " {name} {list:?}");
                }
            }
            text
        }
        FileAction::MakeFile { path, data, mode, .. } => {
            format!("file {path} {mode:o} {:?}", String::from_utf8_lossy(data))
        }
        FileAction::MakeDir { path, mode, parents, owner } => {
            format!("dir {path} {mode:o} parents {parents} {owner:?}")
        }
        other => format!("{other:?}"),
    }
}

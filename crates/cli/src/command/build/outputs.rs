//! Where results go: the engine, a registry, files of this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use rorqual_buildkit::{Export, OutputTarget};

use super::options::Plan;
use super::{caches, csv};
use crate::failure::Failure;
use crate::flag::Matches;

fn wrong(text: String) -> Failure {
    Failure::new(format!("ERROR: {text}"))
}

/// Adds the outputs to a plan.
pub(super) fn add(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    let mut exports = Vec::new();
    for text in matches.list("output") {
        exports.push(parse(text)?);
    }
    let of = |kind: &str, attrs: &[(&str, &str)]| Export {
        id: 0,
        kind: kind.to_owned(),
        attrs: attrs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    if matches.on("push") {
        push(&mut exports, &of("image", &[("push", "true")]));
    }
    if matches.on("load") && !exports.iter().any(|export| export.kind == "docker") {
        exports.push(of("docker", &[]));
    }
    if exports.is_empty() {
        exports.push(of("image", &[]));
    }
    exports.retain(|export| export.kind != "cacheonly");
    for (id, export) in exports.iter_mut().enumerate() {
        export.id = id;
        complete(plan, export, matches)?;
    }
    plan.request.exports = exports;
    Ok(())
}

/// `--push` changes the image that is wanted anyway.
fn push(exports: &mut Vec<Export>, wanted: &Export) {
    match exports.iter_mut().find(|export| export.kind == "image") {
        Some(image) => {
            image.attrs.insert("push".to_owned(), "true".to_owned());
        }
        None => exports.push(wanted.clone()),
    }
}

fn parse(text: &str) -> Result<Export, Failure> {
    // A path alone: files into a directory, or a tar on standard output.
    if !text.contains('=') && !text.contains(',') {
        let kind = if text == "-" { "tar" } else { "local" };
        let attrs = BTreeMap::from([("dest".to_owned(), text.to_owned())]);
        return Ok(Export { id: 0, kind: kind.to_owned(), attrs });
    }
    let mut attrs: BTreeMap<String, String> =
        csv::pairs(text).map_err(wrong)?.into_iter().collect();
    let Some(mut kind) = attrs.remove("type") else {
        return Err(wrong(format!("type is required for output {text:?}")));
    };
    if kind == "registry" {
        kind = "image".to_owned();
        attrs.entry("push".to_owned()).or_insert_with(|| "true".to_owned());
    }
    Ok(Export { id: 0, kind, attrs })
}

fn complete(plan: &mut Plan, export: &mut Export, matches: &Matches) -> Result<(), Failure> {
    let names = matches.list("tag").join(",");
    if matches!(export.kind.as_str(), "image" | "docker" | "oci") {
        if !names.is_empty() {
            export.attrs.insert("name".to_owned(), names);
        }
        for annotation in matches.list("annotation") {
            let Some((name, value)) = annotation.split_once('=') else {
                return Err(wrong(format!(
                    "invalid annotation {annotation:?}, expected key=value"
                )));
            };
            for name in annotation_keys(name)? {
                export.attrs.insert(name, value.to_owned());
            }
        }
    }
    let is_pushed = export.attrs.get("push").is_some_and(|push| push == "true");
    if is_pushed && export.attrs.get("name").is_none_or(String::is_empty) {
        return Err(wrong("tag is needed when pushing to registry".to_owned()));
    }
    let destination = export.attrs.remove("dest");
    let target = match (export.kind.as_str(), destination) {
        ("local", Some(path)) => Some(OutputTarget::Directory(PathBuf::from(path))),
        ("oci" | "docker", destination)
            if export.attrs.get("tar").is_some_and(|tar| tar == "false") =>
        {
            let Some(path) = destination else {
                return Err(wrong(format!(
                    "dest is required for {} output with tar=false",
                    export.kind
                )));
            };
            let name = export.attrs.get("tag").map_or("latest", String::as_str);
            caches::lend_layout(plan, &path, name)?;
            None
        }
        ("local", None) => return Err(wrong("dest is required for local output".to_owned())),
        ("tar" | "oci" | "docker", Some(path)) => Some(stream(&export.kind, &path)?),
        ("tar" | "oci", None) => Some(stream(&export.kind, "-")?),
        ("docker" | "image", None) => {
            // The engine is the builder's own.
            export.kind = "moby".to_owned();
            None
        }
        ("image", Some(_)) => {
            return Err(wrong(
                "dest is not supported for image output: use type=docker or type=oci".to_owned(),
            ));
        }
        (other, _) => return Err(wrong(format!("unsupported output type {other:?}"))),
    };
    if let Some(target) = target {
        plan.lending.outputs.insert(export.id, target);
    }
    Ok(())
}

/// Which documents an annotation is for: `[LEVEL[[PLATFORM]],…:]NAME`.
fn annotation_keys(text: &str) -> Result<Vec<String>, Failure> {
    let Some((levels, name)) = text.split_once(':') else {
        return Ok(vec![format!("annotation.{text}")]);
    };
    let key = |level: &str| {
        let kind = level.split_once('[').map_or(level, |(kind, _)| kind);
        match kind {
            "manifest" | "index" | "manifest-descriptor" | "index-descriptor" => {
                Ok(format!("annotation-{level}.{name}"))
            }
            _ => Err(wrong(format!("unknown annotation type {kind:?}"))),
        }
    };
    levels.split(',').map(key).collect()
}

fn stream(kind: &str, path: &str) -> Result<OutputTarget, Failure> {
    if path == "-" {
        if io::stdout().is_terminal() {
            return Err(wrong(format!(
                "dest file is required for {kind} exporter. refusing to write to console"
            )));
        }
        let open = |_| Ok(Box::new(io::stdout()) as Box<dyn Write + Send>);
        return Ok(OutputTarget::Stream(Box::new(open)));
    }
    let path = PathBuf::from(path);
    if path.is_dir() {
        return Err(wrong(format!("destination file {} is a directory", path.display())));
    }
    Ok(OutputTarget::Stream(Box::new(move |_| {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        Ok(Box::new(Replacing::new(&path)?) as Box<dyn Write + Send>)
    })))
}

/// A file that takes its name once it is whole.
struct Replacing {
    file: File,
    part: PathBuf,
    path: PathBuf,
    is_done: bool,
}

impl Replacing {
    fn new(path: &Path) -> io::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        Ok(Self { file: File::create(&part)?, part, path: path.to_owned(), is_done: false })
    }
}

impl Write for Replacing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Called once, when everything has come.
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()?;
        std::fs::rename(&self.part, &self.path)?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        if !self.is_done {
            std::fs::remove_file(&self.part).ok();
        }
    }
}

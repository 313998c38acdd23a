//! What becomes of a build's states: images of the engine, archives, files at the client.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::SystemTime;

use rorqual_build::solver::{self, ImageExport};
use rorqual_build::{Error, Session as _};
use rorqual_buildkit::{CacheEntry, Export, ExportRequest, Outcome, Refs, Scope};
use rorqual_content::ImageDocument;
use rorqual_core::{Classify, ErrorKind, ImageId, Platform, Reference, full_message};
use rorqual_transfer::PushRequest;

use super::buildkit::{BASE_LAYERS, BuildKit, EPOCH};
use super::images::authentication;
use super::lookup::Task;

type Told = BTreeMap<String, String>;

/// A state with its image config.
struct Made {
    state: Option<solver::State>,
    document: ImageDocument,
    base_layers: usize,
}

fn other<E: Classify + std::error::Error + Send + Sync + 'static>(
    action: impl Into<String>,
) -> impl FnOnce(E) -> Error {
    let action = action.into();
    move |error| Error::Other { action, kind: error.kind(), source: error.into() }
}

fn unsupported<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Unsupported(text.into()))
}

/// The foreign caches that the options of a front end name.
pub(super) fn imports(options: &BTreeMap<String, String>) -> Vec<CacheEntry> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        r#type: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let listed = options.get("cache-imports");
    let listed: Option<Vec<Entry>> = listed.and_then(|json| serde_json::from_str(json).ok());
    let entries = listed.unwrap_or_default().into_iter();
    entries.map(|entry| CacheEntry { kind: entry.r#type, attrs: entry.attrs }).collect()
}

/// Says that a foreign cache is not read. As at BuildKit, that is no failure: the build goes on without it.
pub(super) fn import_cache(entry: &CacheEntry, scope: &Scope) {
    let from = entry.attrs.get("ref").or(entry.attrs.get("src")).map_or("", String::as_str);
    let task = Task::begin(scope, &format!("importing cache manifest from {from}"));
    let text = format!("caches of the kind {:?} are not read by this builder", entry.kind);
    drop(task.end(unsupported::<()>(text)));
}

/// Makes what is left to make, and hands it out.
pub(super) async fn export(
    kit: &BuildKit,
    outcome: &Outcome,
    request: ExportRequest,
    scope: &Scope,
) -> Result<Told, Error> {
    if request.options.contains_key("requestid") {
        return Ok(Told::new());
    }
    check(&request)?;
    let mut made = make(kit, outcome, scope).await?;
    let mut told = Told::new();
    if request.exports.is_empty() {
        return Ok(told);
    }
    if made.len() > 1 {
        return unsupported(
            "images for several platforms at once are not supported by this builder: build one platform at a time",
        );
    }
    let Some(made) = made.pop() else { return Ok(told) };
    let epoch = epoch(outcome, &request);
    for export in &request.exports {
        match export.kind.as_str() {
            "moby" | "image" => image(kit, &made, export, epoch, (scope, &mut told)).await?,
            "docker" | "oci" => archive(kit, &made, export, epoch, (scope, &mut told)).await?,
            "tar" | "local" => files(kit, &made, export, epoch, scope).await?,
            other => return unsupported(format!("exporter {other:?} could not be found")),
        }
    }
    Ok(told)
}

fn check(request: &ExportRequest) -> Result<(), Error> {
    if let Some(entry) = request.cache_exports.first() {
        let hint = match entry.kind.as_str() {
            "inline" => "; build without --cache-to type=inline and BUILDKIT_INLINE_CACHE",
            _ => "; build without --cache-to",
        };
        return unsupported(format!(
            "cache exports of the kind {:?} are not supported by this builder: results stay in its own cache{hint}",
            entry.kind
        ));
    }
    let mut attests = request.options.keys().filter_map(|name| name.strip_prefix("attest:"));
    if let Some(kind) = attests.next() {
        return unsupported(format!(
            "attestations ({kind}) are not supported by this builder: build with --provenance=false --sbom=false"
        ));
    }
    for export in &request.exports {
        for name in ["compression", "force-compression", "oci-artifact"] {
            let value = export.attrs.get(name).map(String::as_str);
            if !matches!(value, None | Some("" | "false" | "gzip" | "uncompressed")) {
                return unsupported(format!(
                    "the option {name} of the output {:?} is not supported by this builder",
                    export.kind
                ));
            }
        }
        if export.attrs.keys().any(|name| name.starts_with("annotation")) {
            return unsupported("annotations are not supported by this builder: use labels");
        }
    }
    Ok(())
}

/// When files and image are to be from, as the build or its output says.
fn epoch(outcome: &Outcome, request: &ExportRequest) -> Option<i64> {
    let of_build = outcome.metadata.get(EPOCH).and_then(|text| std::str::from_utf8(text).ok());
    let of_output = request.exports.iter().find_map(|export| export.attrs.get("source-date-epoch"));
    let of_argument = request.options.get("build-arg:SOURCE_DATE_EPOCH");
    let all = [of_build, of_output.map(String::as_str), of_argument.map(String::as_str)];
    all.into_iter().flatten().find_map(|text| text.parse().ok())
}

async fn make(kit: &BuildKit, outcome: &Outcome, scope: &Scope) -> Result<Vec<Made>, Error> {
    let wanted: Vec<(String, Option<&rorqual_buildkit::State>)> = match &outcome.refs {
        Refs::One(state) => vec![(String::new(), state.as_ref())],
        Refs::Many(states) => {
            states.iter().map(|(id, state)| (format!("/{id}"), state.as_ref())).collect()
        }
    };
    let mut made = Vec::new();
    for (suffix, state) in wanted {
        let config = outcome.metadata.get(&format!("containerimage.config{suffix}"));
        let document = match config {
            Some(json) => serde_json::from_slice(json).map_err(|error| Error::Invalid {
                message: format!("the image config of the build is wrong: {error}"),
                location: None,
            })?,
            None => plain_document(),
        };
        let base = outcome.metadata.get(&format!("{BASE_LAYERS}{suffix}"));
        let base = base.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let state = match state {
            Some(state) => kit.solve(state, scope).await?,
            None => None,
        };
        made.push(Made { state, document, base_layers: base.unwrap_or_default() });
    }
    Ok(made)
}

/// The config of a result without one: it can be run when somebody says what.
fn plain_document() -> ImageDocument {
    let platform = Platform::host();
    ImageDocument {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..ImageDocument::default()
    }
}

fn names(export: &Export) -> Result<Vec<Reference>, Error> {
    let text = export.attrs.get("name").map_or("", String::as_str);
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let parsed = names.map(|name| {
        name.parse::<Reference>().map(Reference::or_latest).map_err(|_| Error::Invalid {
            message: format!("failed to parse {name}: invalid reference format"),
            location: None,
        })
    });
    parsed.collect()
}

async fn record(
    kit: &BuildKit,
    made: &Made,
    names: Vec<Reference>,
    export: &Export,
    epoch: Option<i64>,
) -> Result<ImageId, Error> {
    let is_rewritten = export.attrs.get("rewrite-timestamp").is_some_and(|value| value == "true");
    let document = made.document.clone();
    match &made.state {
        Some(state) => {
            let export = ImageExport {
                document,
                names,
                epoch,
                rewrite_timestamps: is_rewritten,
                base_layers: made.base_layers,
            };
            kit.builder.solver.export_image(state, export).await
        }
        // The empty file system has no layer at all.
        None => {
            let mut document = document;
            document.rootfs.kind = "layers".to_owned();
            document.rootfs.diff_ids.clear();
            if document.created.is_empty() {
                document.created = rorqual_core::Timestamp::from(SystemTime::now()).to_string();
            }
            let transfer = &kit.builder.images.transfer;
            transfer.make(document, names).await.map_err(other("record the image"))
        }
    }
}

fn tell(id: &ImageId, names: &[Reference], told: &mut Told) {
    told.insert("containerimage.config.digest".to_owned(), id.to_string());
    told.insert("containerimage.digest".to_owned(), id.to_string());
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        told.insert("image.name".to_owned(), names.join(","));
    }
}

async fn image(
    kit: &BuildKit,
    made: &Made,
    export: &Export,
    epoch: Option<i64>,
    (scope, told): (&Scope, &mut Told),
) -> Result<(), Error> {
    let names = names(export)?;
    let task = Task::begin(scope, "exporting to image");
    let started = SystemTime::now();
    let recorded = record(kit, made, names.clone(), export, epoch).await;
    if let Ok(id) = &recorded {
        task.part("exporting layers", 0, started);
        task.part(&format!("writing image {id}"), 0, started);
        for name in &names {
            task.part(&format!("naming to {name}"), 0, started);
        }
    }
    let id = task.end(recorded)?;
    tell(&id, &names, told);
    if export.attrs.get("push").is_some_and(|push| push == "true") {
        for name in &names {
            push(kit, &id, name, scope).await?;
        }
    }
    Ok(())
}

async fn push(kit: &BuildKit, id: &ImageId, name: &Reference, scope: &Scope) -> Result<(), Error> {
    let task = Task::begin(scope, &format!("pushing {name}"));
    let pushed = async {
        let session = scope.lender();
        let auth = authentication(session.as_deref(), name).await?;
        let request = PushRequest { image: id.clone(), name: name.clone(), platform: None, auth };
        let transfer = &kit.builder.images.transfer;
        let sent = transfer.push(request, std::sync::Arc::new(|_| {})).await;
        sent.map(drop).map_err(other(format!("push {name}")))
    };
    task.end(pushed.await)
}

/// Feeds an asynchronous receiver from threads that block.
struct Pipe(tokio::sync::mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(bytes.to_vec());
        sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// LIMIT: pieces on their way to a client.
const QUEUE: usize = 8;

fn client(
    scope: &Scope,
    export: &Export,
) -> Result<std::sync::Arc<rorqual_buildkit::RemoteSession>, Error> {
    scope.session.clone().ok_or_else(|| Error::Invalid {
        message: format!("the output {:?} needs a session of the client", export.kind),
        location: None,
    })
}

async fn archive(
    kit: &BuildKit,
    made: &Made,
    export: &Export,
    epoch: Option<i64>,
    (scope, told): (&Scope, &mut Told),
) -> Result<(), Error> {
    let format = if export.kind == "oci" { "oci" } else { "docker" };
    if export.attrs.get("tar").is_some_and(|tar| tar == "false") {
        return unsupported("tar=false: images are written as one archive by this builder");
    }
    let names = names(export)?;
    let session = client(scope, export)?;
    let task = Task::begin(scope, &format!("exporting to {format} image format"));
    let images = &kit.builder.images.images;
    let before = images.list().await.map_err(other("list images"))?;
    let work = async {
        let id = record(kit, made, Vec::new(), export, epoch).await?;
        let saved = save(kit, &id, names.clone(), export, &session).await;
        // The archive is what was wanted: the engine keeps no image of it.
        if !before.iter().any(|image| image.id == id) {
            images.remove(&id).await.map_err(other("forget the image of an archive"))?;
        }
        saved.map(|()| id)
    };
    let id = task.end(work.await)?;
    tell(&id, &names, told);
    Ok(())
}

async fn save(
    kit: &BuildKit,
    id: &ImageId,
    names: Vec<Reference>,
    export: &Export,
    session: &rorqual_buildkit::RemoteSession,
) -> Result<(), Error> {
    let mut sink = session.output(&export.id.to_string()).await?;
    let (sender, mut pieces) = tokio::sync::mpsc::channel(QUEUE);
    let transfer = &kit.builder.images.transfer;
    let writer = Box::new(std::io::BufWriter::with_capacity(1 << 18, Pipe(sender)));
    let writing = transfer.save(vec![(id.clone(), names)], None, writer);
    let sending = async {
        while let Some(piece) = pieces.recv().await {
            sink.write(&piece).await?;
        }
        Ok::<_, Error>(sink)
    };
    tokio::pin!(writing, sending);
    // Either may be over first: the receiver fails while the writer still works, or has taken the last piece before the
    // writer is seen to be done.
    let sink = tokio::select! {
        written = &mut writing => {
            written.map_err(other("write the archive"))?;
            sending.await?
        }
        sent = &mut sending => {
            let sink = sent?;
            writing.await.map_err(other("write the archive"))?;
            sink
        }
    };
    sink.finish().await
}

async fn files(
    kit: &BuildKit,
    made: &Made,
    export: &Export,
    epoch: Option<i64>,
    scope: &Scope,
) -> Result<(), Error> {
    let name = match export.kind.as_str() {
        "tar" => "sending tarball",
        _ => "copying files",
    };
    let task = Task::begin(
        scope,
        &format!(
            "exporting to client {}",
            if export.kind == "tar" { "tarball" } else { "directory" }
        ),
    );
    let started = SystemTime::now();
    let work = async {
        let session = client(scope, export)?;
        let id = export.id.to_string();
        let mut tar: Box<dyn Read + Send> = match &made.state {
            Some(state) => kit.builder.solver.tar(state, epoch).await?,
            // Two blocks of nothing end an archive.
            None => Box::new(std::io::Cursor::new(vec![0; 1024])),
        };
        if export.kind == "local" {
            return session.send_tree(&id, tar).await;
        }
        let mut sink = session.output(&id).await?;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = Vec::new();
                let read = (&mut tar).take(1 << 20).read_to_end(&mut piece);
                read.map(|_| (piece, tar))
            });
            let read = read.await.map_err(|_| Error::Cancelled)?;
            let (piece, rest) = read.map_err(|error| Error::Other {
                action: "pack the files of a state".to_owned(),
                kind: ErrorKind::Internal,
                source: error.into(),
            })?;
            tar = rest;
            if piece.is_empty() {
                return sink.finish().await;
            }
            sink.write(&piece).await?;
        }
    };
    let done = work.await;
    match &done {
        Ok(()) => task.part(name, 0, started),
        Err(error) => tracing::debug!(error = full_message(error), "an output failed"),
    }
    task.end(done)
}

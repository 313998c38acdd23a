//! What becomes of a build's states: images of the engine, archives, files at the client.

mod annotations;
mod client;
mod layout;
mod parts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rorqual_build::Error;
use rorqual_build::solver::{self, ImageExport, Recorder};
use rorqual_buildkit::{Export, ExportRequest, Outcome, Refs, Scope};
use rorqual_content::{Descriptor, ImageDocument};
use rorqual_core::{Classify, ImageId, Platform, Reference};
use rorqual_transfer::{Component, Composition, Predicate, PushRequest};

use super::buildkit::{BASE_LAYERS, BuildKit, EPOCH};
use super::images::authentication;
use super::lookup::Task;
use super::{attest, caches};

use annotations::{Annotations, Level};

pub(super) type Told = BTreeMap<String, String>;

/// A state with its image config.
pub(super) struct Made {
    /// Name of the platform, as the client knows it.
    id: String,
    pub(super) platform: Platform,
    /// What was asked for.
    pub(super) wanted: Option<rorqual_buildkit::State>,
    pub(super) state: Option<solver::State>,
    pub(super) document: ImageDocument,
    base_layers: usize,
    /// Records of the build's cache, for the config.
    cache: String,
    /// What is said of it.
    pub(super) predicates: Vec<Predicate>,
}

/// All that a build made.
pub(super) struct All {
    pub(super) made: Vec<Made>,
    /// It is a list of platforms, also when there is one.
    is_indexed: bool,
}

pub(super) fn other<E: Classify + std::error::Error + Send + Sync + 'static>(
    action: impl Into<String>,
) -> impl FnOnce(E) -> Error {
    let action = action.into();
    move |error| Error::Other { action, kind: error.kind(), source: error.into() }
}

pub(super) fn unsupported<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Unsupported(text.into()))
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
    let wishes = attest::wishes(&request.options)?;
    let recorder = Arc::new(Recorder::default());
    let mut scope = scope.clone();
    if !request.cache_exports.is_empty() {
        scope.recorder = Some(Arc::clone(&recorder));
    }
    let scope = &scope;
    let mut all = make(kit, outcome, scope).await?;
    if request.cache_exports.iter().any(|entry| entry.kind == "inline") {
        for made in &mut all.made {
            if let Some(state) = &made.state {
                made.cache = caches::inline(&kit.builder, &recorder, state).await?;
            }
        }
    }
    let is_image = |export: &Export| !matches!(export.kind.as_str(), "tar" | "local");
    let statements = match request.exports.is_empty() {
        true => attest::Wishes::default(),
        false => wishes,
    };
    attest::attest(kit, &mut all, (&request, &statements), scope).await?;
    let mut told = Told::new();
    let epoch = epoch(outcome, &request);
    for export in &request.exports {
        let names = names(export)?;
        let annotations = Annotations::parse(&export.attrs)?;
        if is_image(export) {
            annotations.check(&all)?;
        }
        let output = Output { all: &all, export, epoch, names, annotations };
        match export.kind.as_str() {
            "moby" | "image" => image(kit, &output, (scope, &mut told)).await?,
            "docker" | "oci" if layout::is_wanted(export) => {
                layout::write(kit, &output, (scope, &mut told)).await?;
            }
            "docker" | "oci" => client::archive(kit, &output, (scope, &mut told)).await?,
            "tar" | "local" => client::files(kit, &output, scope).await?,
            other => return unsupported(format!("exporter {other:?} could not be found")),
        }
    }
    let states = all.made.iter().filter_map(|made| made.state.clone()).collect::<Vec<_>>();
    for entry in &request.cache_exports {
        caches::export(&kit.builder, entry, (&recorder, &states), (scope, &mut told)).await?;
    }
    Ok(told)
}

/// An output that is wanted of what was made.
pub(super) struct Output<'o> {
    pub(super) all: &'o All,
    pub(super) export: &'o Export,
    pub(super) epoch: Option<i64>,
    pub(super) names: Vec<Reference>,
    annotations: Annotations,
}

fn check(request: &ExportRequest) -> Result<(), Error> {
    request.cache_exports.iter().try_for_each(caches::check)?;
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

async fn make(kit: &BuildKit, outcome: &Outcome, scope: &Scope) -> Result<All, Error> {
    let wanted: Vec<(String, Option<&rorqual_buildkit::State>)> = match &outcome.refs {
        Refs::One(state) => vec![(String::new(), state.as_ref())],
        Refs::Many(states) => {
            states.iter().map(|(id, state)| (format!("/{id}"), state.as_ref())).collect()
        }
    };
    // All at once: what several of them need is made once.
    let solving = wanted.iter().map(|(_, state)| async move {
        match state {
            Some(state) => kit.solve(state, scope).await,
            None => Ok(None),
        }
    });
    let states = futures_util::future::try_join_all(solving).await?;
    let mut made = Vec::new();
    for ((suffix, wanted), state) in wanted.into_iter().zip(states) {
        let config = outcome.metadata.get(&format!("containerimage.config{suffix}"));
        let document: ImageDocument = match config {
            Some(json) => serde_json::from_slice(json).map_err(|error| Error::Invalid {
                message: format!("the image config of the build is wrong: {error}"),
                location: None,
            })?,
            None => plain_document(),
        };
        let base = outcome.metadata.get(&format!("{BASE_LAYERS}{suffix}"));
        let base = base.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let platform = Platform {
            os: document.os.clone(),
            architecture: document.architecture.clone(),
            variant: document.variant.clone(),
        };
        let id = match suffix.trim_start_matches('/') {
            "" => platform.to_string(),
            id => id.to_owned(),
        };
        made.push(Made {
            id,
            platform,
            wanted: wanted.cloned(),
            state,
            document,
            base_layers: base.unwrap_or_default(),
            cache: String::new(),
            predicates: Vec::new(),
        });
    }
    Ok(All { made, is_indexed: matches!(outcome.refs, Refs::Many(_)) })
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

/// Completes the config of an image; the layers that only it has are kept until it is recorded.
async fn document(
    kit: &BuildKit,
    made: &Made,
    output: &Output<'_>,
) -> Result<(ImageDocument, Option<solver::Exported>), Error> {
    let is_rewritten = output.export.attrs.get("rewrite-timestamp");
    let is_rewritten = is_rewritten.is_some_and(|value| value == "true");
    let document = made.document.clone();
    if let Some(state) = &made.state {
        let export = ImageExport {
            document,
            names: Vec::new(),
            epoch: output.epoch,
            rewrite_timestamps: is_rewritten,
            base_layers: made.base_layers,
            cache: made.cache.clone(),
        };
        let exported = kit.builder.solver.export_document(state, export).await?;
        return Ok((exported.document.clone(), Some(exported)));
    }
    // The empty file system has no layer at all.
    let mut document = document;
    document.rootfs.kind = "layers".to_owned();
    document.rootfs.diff_ids.clear();
    document.build_cache.clear();
    if document.created.is_empty() {
        document.created = rorqual_core::Timestamp::from(SystemTime::now()).to_string();
    }
    Ok((document, None))
}

/// An image in the engine.
pub(super) struct Recorded {
    pub(super) id: ImageId,
    /// What its names lead to, where the image has documents of its own.
    pub(super) target: Option<Descriptor>,
}

/// Records what was made as an image: as it lies here, or packed where its manifest must say more than layers.
pub(super) async fn record(
    kit: &BuildKit,
    output: &Output<'_>,
    names: Vec<Reference>,
) -> Result<Recorded, Error> {
    let Output { all, annotations, .. } = output;
    let images = &kit.builder.images;
    let is_plain = !all.is_indexed
        && annotations.is_empty()
        && all.made.iter().all(|made| made.predicates.is_empty());
    if let ([made], true) = (all.made.as_slice(), is_plain) {
        let (document, held) = document(kit, made, output).await?;
        let id = images.transfer.make(document, names).await.map_err(other("record the image"))?;
        drop(held);
        return Ok(Recorded { id, target: None });
    }
    compose(kit, output, names).await
}

/// Records what was made as an image with packed layers and documents of its own.
async fn compose(
    kit: &BuildKit,
    output: &Output<'_>,
    names: Vec<Reference>,
) -> Result<Recorded, Error> {
    let Output { all, annotations, .. } = output;
    let images = &kit.builder.images;
    let (mut components, mut held) = (Vec::new(), Vec::new());
    for made in &all.made {
        let (document, kept) = document(kit, made, output).await?;
        held.push(kept);
        components.push(Component {
            document,
            platform: made.platform.clone(),
            annotations: annotations.of(Level::Manifest, Some(&made.platform)),
            descriptor_annotations: annotations.of(Level::ManifestDescriptor, Some(&made.platform)),
            predicates: made.predicates.clone(),
        });
    }
    let composition = Composition {
        components,
        names,
        subjects: output.names.clone(),
        index: all.is_indexed,
        index_annotations: annotations.of(Level::Index, None),
        index_descriptor_annotations: annotations.of(Level::IndexDescriptor, None),
    };
    let composed = images.artifacts.compose(composition).await;
    let composed = composed.map_err(other("record the image"))?;
    drop(held);
    Ok(Recorded { id: composed.id, target: Some(composed.target) })
}

pub(super) fn tell(recorded: &Recorded, names: &[Reference], told: &mut Told) {
    let Recorded { id, target } = recorded;
    told.insert("containerimage.config.digest".to_owned(), id.to_string());
    let digest = target.as_ref().map_or_else(|| id.to_string(), |target| target.digest.to_string());
    told.insert("containerimage.digest".to_owned(), digest);
    if let Some(json) = target.as_ref().and_then(|target| serde_json::to_vec(target).ok()) {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(json);
        told.insert("containerimage.descriptor".to_owned(), text);
    }
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        told.insert("image.name".to_owned(), names.join(","));
    }
}

async fn image(
    kit: &BuildKit,
    output: &Output<'_>,
    (scope, told): (&Scope, &mut Told),
) -> Result<(), Error> {
    let names = &output.names;
    let task = Task::begin(scope, "exporting to image");
    let started = SystemTime::now();
    let recorded = record(kit, output, names.clone()).await;
    if let Ok(Recorded { id, target }) = &recorded {
        task.part("exporting layers", 0, started);
        if let Some(target) = target {
            task.part(&format!("exporting manifest {}", target.digest), target.size, started);
        }
        task.part(&format!("writing image {id}"), 0, started);
        for name in names {
            task.part(&format!("naming to {name}"), 0, started);
        }
    }
    let recorded = task.end(recorded)?;
    tell(&recorded, names, told);
    if output.export.attrs.get("push").is_some_and(|push| push == "true") {
        for name in names {
            push(kit, &recorded.id, name, scope).await?;
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

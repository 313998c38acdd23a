//! What is said about an image beside it: how it was made (SLSA provenance), and of what (SPDX).
//!
//! Secrets are in none of it: of those that steps use the ids are told, addresses lose their credentials, proxies are left out.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rorqual_build::solver::vertex_digests;
use rorqual_build::{
    Error, ExecOp, Graph, ImageResolver as _, Input, MountKind, Op, ResolveMode, Vertex, sbom,
};
use rorqual_buildkit::{ExportRequest, Scope};
use rorqual_core::{Digest, ErrorKind, Platform, Reference, Timestamp};
use rorqual_transfer::Predicate;
use serde_json::{Map, Value, json};

use super::buildkit::BuildKit;
use super::lookup::Task;
use super::outputs::{All, Made, unsupported};

const SLSA_02: &str = "https://slsa.dev/provenance/v0.2";
const SLSA_1: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";
/// COMPAT: BuildKit's, so that what reads its provenance reads ours.
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";
const BUILD_TYPE_1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// What is to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    provenance: Option<Provenance>,
    sbom: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Provenance {
    is_max: bool,
    is_reproducible: bool,
    builder: String,
    is_v1: bool,
}

fn invalid<T>(message: String) -> Result<T, Error> {
    Err(Error::Invalid { message, location: None })
}

/// Reads what the options of a build ask for.
pub(super) fn wishes(options: &BTreeMap<String, String>) -> Result<Wishes, Error> {
    let mut wishes = Wishes::default();
    for (name, value) in options {
        let Some(kind) = name.strip_prefix("attest:") else { continue };
        let pairs = value.split(',').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "true")));
        let pairs = pairs.collect::<BTreeMap<_, _>>();
        let is_on = |name: &str| pairs.get(name).is_some_and(|value| *value == "true");
        if is_on("disabled") {
            continue;
        }
        match kind {
            // Clients ask for these unasked, for images that are handed on; here they are made for whoever wants them.
            "provenance" if is_on("inline-only") => {}
            "provenance" => wishes.provenance = Some(provenance(&pairs)?),
            "sbom" => {
                if let Some(generator) = pairs.get("generator").filter(|text| !text.is_empty()) {
                    return unsupported(format!(
                        "the SBOM generator {generator:?} cannot be used: this builder looks for packages itself; leave generator out"
                    ));
                }
                wishes.sbom = true;
            }
            other => {
                return unsupported(format!(
                    "attestations of the type {other:?} are not known to this builder: provenance, sbom"
                ));
            }
        }
    }
    Ok(wishes)
}

fn provenance(pairs: &BTreeMap<&str, &str>) -> Result<Provenance, Error> {
    let mut wish = Provenance::default();
    for (name, value) in pairs {
        match (*name, *value) {
            ("mode", "" | "min") | ("inline-only", _) | ("version", "" | "v0.2") => {}
            ("mode", "max") => wish.is_max = true,
            ("version", "v1") => wish.is_v1 = true,
            ("reproducible", value) => wish.is_reproducible = value == "true",
            ("builder-id", id) => wish.builder = id.to_owned(),
            // Without options it is a mere word.
            ("true" | "type", _) => {}
            (name, value) => {
                return invalid(format!("provenance: {name}={value} is not known"));
            }
        }
    }
    Ok(wish)
}

fn time(at: SystemTime) -> String {
    Timestamp::from(at).to_string()
}

/// Takes credentials out of an address.
fn without_login(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
            format!("{scheme}://{host}{}", &rest[end..])
        }
        None => address.to_owned(),
    }
}

/// Says what is to be said of all that was made.
pub(super) async fn attest(
    kit: &BuildKit,
    all: &mut All,
    (request, wishes): (&ExportRequest, &Wishes),
    scope: &Scope,
) -> Result<(), Error> {
    for made in &mut all.made {
        if let Some(wish) = &wishes.provenance {
            made.predicates.push(origin(kit, made, (request, wish), scope).await?);
        }
        if wishes.sbom {
            made.predicates.push(contents(kit, made, request, scope).await?);
        }
    }
    Ok(())
}

fn digests(digest: &Digest) -> Value {
    json!({ digest.algorithm().name(): digest.hex() })
}

/// A source as a material: what it is called, and its digest where it is known.
async fn material(kit: &BuildKit, vertex: &Vertex) -> Option<Value> {
    let (uri, digest) = match &vertex.op {
        Op::Image(image) if image.layout.is_none() => {
            let platform = &vertex.platform;
            let images = &kit.builder.images;
            let found = images.resolve(&image.reference, platform, ResolveMode::Local, None).await;
            let digest = found.ok().and_then(|found| found.digest);
            let name = image.reference.parse::<Reference>().ok()?;
            let tag = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
            let platform = platform.to_string().replace('/', "%2F");
            let familiar = name.repository().familiar();
            (format!("pkg:docker/{familiar}{tag}?platform={platform}"), digest)
        }
        Op::Git(git) => {
            let reference = match git.reference.as_str() {
                "" => String::new(),
                reference => format!("#{reference}"),
            };
            let uri = format!("{}{reference}", without_login(&git.remote));
            let commit = git.checksum.as_ref().filter(|sum| sum.len() == 40);
            return Some(match commit {
                Some(commit) => json!({ "uri": uri, "digest": { "sha1": commit } }),
                None => json!({ "uri": uri }),
            });
        }
        Op::Http(http) => (without_login(&http.url), http.checksum.clone()),
        _ => return None,
    };
    Some(match digest {
        Some(digest) => json!({ "uri": uri, "digest": digests(&digest) }),
        None => json!({ "uri": uri }),
    })
}

/// The graph of what was made, without what is not needed for it.
fn needed(made: &Made) -> Graph {
    let mut graph = Graph::default();
    if let Some(wanted) = &made.wanted {
        // What was solved is in its graph.
        graph.import(&wanted.graph, &[wanted.output]).ok();
    }
    graph
}

/// Ids of what steps borrow from the client.
fn borrowed(graph: &Graph, is_wanted: impl Fn(&ExecOp) -> Vec<(String, bool)>) -> Vec<Value> {
    let mut all = BTreeMap::new();
    for (_, vertex) in graph.vertices() {
        if let Op::Exec(exec) = &vertex.op {
            all.extend(is_wanted(exec));
        }
    }
    let entry = |(id, optional)| match optional {
        true => json!({ "id": id, "optional": true }),
        false => json!({ "id": id }),
    };
    all.into_iter().map(entry).collect()
}

/// The options of a build that its provenance may show.
fn shown(options: &BTreeMap<String, String>) -> Map<String, Value> {
    const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    let is_shown = |name: &str| {
        let argument = name.strip_prefix("build-arg:").map(str::to_ascii_lowercase);
        let is_proxy = argument.is_some_and(|name| PROXIES.contains(&name.as_str()));
        !is_proxy
            && !name.starts_with("attest:")
            && !name.starts_with("local-sessionid:")
            && !matches!(name, "cache-imports" | "rorqual.why" | "image-resolve-mode")
    };
    let shown = options.iter().filter(|(name, _)| is_shown(name));
    shown.map(|(name, value)| (name.clone(), Value::from(without_login(value)))).collect()
}

/// The request of a build, as its provenance tells it.
fn parameters(
    graph: &Graph,
    options: &BTreeMap<String, String>,
    is_max: bool,
) -> Map<String, Value> {
    let mut parameters = Map::new();
    parameters.insert("frontend".to_owned(), "dockerfile.v0".into());
    let mut arguments = shown(options);
    if !is_max {
        // Values that a user gave may be nobody else's business.
        arguments.retain(|name, _| {
            !["build-arg:", "label:", "context:"].iter().any(|prefix| name.starts_with(prefix))
        });
    }
    parameters.insert("args".to_owned(), arguments.into());
    let locals = graph.vertices().filter_map(|(_, vertex)| match &vertex.op {
        Op::Local(local) => Some(local.name.clone()),
        _ => None,
    });
    let mut locals = locals.collect::<Vec<_>>();
    locals.sort();
    locals.dedup();
    let locals = locals.into_iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
    parameters.insert("locals".to_owned(), locals.into());
    let secrets = borrowed(graph, |exec| {
        let mounts = exec.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Secret(spec) => Some((spec.id.clone(), spec.optional)),
            _ => None,
        });
        let variables = exec.secret_env.iter().map(|(_, spec)| (spec.id.clone(), spec.optional));
        mounts.chain(variables).collect()
    });
    let agents = borrowed(graph, |exec| {
        let mounts = exec.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Ssh(spec) => Some((spec.id.clone(), spec.optional)),
            _ => None,
        });
        mounts.collect()
    });
    for (name, list) in [("secrets", secrets), ("ssh", agents)] {
        if !list.is_empty() {
            parameters.insert(name.to_owned(), list.into());
        }
    }
    parameters
}

/// The steps of a build, by their identities.
fn steps(graph: &Graph) -> Value {
    let digests = vertex_digests(graph);
    let name = |input: Input| match input {
        Input::Scratch => None,
        Input::Output(output) => {
            let digest = digests.get(output.vertex.0 as usize)?;
            Some(format!("{digest}:{}", output.index))
        }
    };
    let steps = graph.vertices().map(|(id, vertex)| {
        let inputs = vertex.op.inputs().into_iter().filter_map(name).collect::<Vec<_>>();
        let mut step = json!({
            "id": digests.get(id.0 as usize).map(ToString::to_string),
            "name": vertex.name,
            "platform": vertex.platform.to_string(),
            "inputs": inputs,
        });
        if let Op::Exec(exec) = &vertex.op {
            step["exec"] = json!({ "args": exec.args, "cwd": exec.cwd, "user": exec.user });
        }
        if let Some(location) = &vertex.location {
            step["location"] = json!({ "file": location.file, "line": location.first_line });
        }
        step
    });
    Value::from(steps.collect::<Vec<_>>())
}

/// The Dockerfile and what else was read, for whoever wants to see it.
fn sources(scope: &Scope) -> Value {
    use base64::Engine as _;
    let infos = scope.sources().into_iter().map(|(file, text)| {
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        json!({ "filename": file, "data": data })
    });
    json!({ "infos": infos.collect::<Vec<_>>() })
}

/// Tells how an image was made.
async fn origin(
    kit: &BuildKit,
    made: &Made,
    (request, wish): (&ExportRequest, &Provenance),
    scope: &Scope,
) -> Result<Predicate, Error> {
    let graph = needed(made);
    let mut materials = Vec::new();
    for (_, vertex) in graph.vertices() {
        if let Some(material) = material(kit, vertex).await
            && !materials.contains(&material)
        {
            materials.push(material);
        }
    }
    let options = &request.options;
    let entry = options.get("filename").map_or("Dockerfile", String::as_str);
    let mut source = json!({ "entryPoint": entry });
    if let Some(context) = options.get("context").filter(|context| context.contains("://")) {
        source["uri"] = without_login(context).into();
    }
    let vcs = options.iter().filter_map(|(name, value)| {
        Some((name.strip_prefix("vcs:")?.to_owned(), Value::from(without_login(value))))
    });
    let vcs = vcs.collect::<Map<_, _>>();
    let mut details = Map::new();
    if !vcs.is_empty() {
        details.insert("vcs".to_owned(), vcs.into());
    }
    if wish.is_max {
        details.insert("source".to_owned(), sources(scope));
    }
    let facts = Facts {
        materials,
        source,
        parameters: parameters(&graph, options, wish.is_max),
        steps: wish.is_max.then(|| steps(&graph)),
        details,
        started: time(scope.started),
        finished: time(SystemTime::now()),
        id: scope.id.clone(),
    };
    let (kind, body) =
        if wish.is_v1 { (SLSA_1, facts.v1(wish)) } else { (SLSA_02, facts.v02(wish)) };
    Ok(Predicate { kind: kind.to_owned(), body })
}

/// What provenance tells, in whatever version.
struct Facts {
    materials: Vec<Value>,
    source: Value,
    parameters: Map<String, Value>,
    steps: Option<Value>,
    details: Map<String, Value>,
    started: String,
    finished: String,
    id: String,
}

impl Facts {
    fn v02(self, wish: &Provenance) -> Value {
        let mut body = json!({
            "builder": { "id": wish.builder },
            "buildType": BUILD_TYPE,
            "materials": self.materials,
            "invocation": {
                "configSource": self.source,
                "parameters": self.parameters,
                "environment": { "platform": Platform::host().to_string() },
            },
            "metadata": {
                "buildInvocationID": self.id,
                "buildStartedOn": self.started,
                "buildFinishedOn": self.finished,
                "completeness": {
                    "parameters": wish.is_max,
                    "environment": true,
                    "materials": false,
                },
                "reproducible": wish.is_reproducible,
                format!("{BUILD_TYPE}#metadata"): self.details,
            },
        });
        if let Some(steps) = self.steps {
            body["buildConfig"] = json!({ "steps": steps });
        }
        body
    }

    fn v1(self, wish: &Provenance) -> Value {
        let mut internal = json!({ "builderPlatform": Platform::host().to_string() });
        if let Some(steps) = self.steps {
            internal["buildConfig"] = json!({ "steps": steps });
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE_1,
                "externalParameters": {
                    "configSource": self.source,
                    "request": self.parameters,
                },
                "internalParameters": internal,
                "resolvedDependencies": self.materials,
            },
            "runDetails": {
                "builder": { "id": wish.builder },
                "metadata": {
                    "invocationId": self.id,
                    "startedOn": self.started,
                    "finishedOn": self.finished,
                    "buildkit_metadata": self.details,
                    "buildkit_completeness": {
                        "request": wish.is_max,
                        "resolvedDependencies": false,
                    },
                    "buildkit_reproducible": wish.is_reproducible,
                },
            },
        })
    }
}

/// Tells what is in an image.
async fn contents(
    kit: &BuildKit,
    made: &Made,
    request: &ExportRequest,
    scope: &Scope,
) -> Result<Predicate, Error> {
    let task = Task::begin(scope, &format!("[{}] generating sbom", made.platform));
    let work = async {
        let Some(state) = &made.state else { return Ok(sbom::Scan::default()) };
        let tar = kit.builder.solver.tar(state, None).await?;
        let scratch = kit.builder.contexts().to_owned();
        let scan = rorqual_store::blocking(move || sbom::scan(tar, &scratch)).await;
        scan.map_err(|error: std::io::Error| Error::Other {
            action: "look for packages in the image".to_owned(),
            kind: ErrorKind::Internal,
            source: error.into(),
        })
    };
    let scan = task.end(work.await)?;
    let name = request.exports.iter().find_map(|export| export.attrs.get("name"));
    let name = name.map_or("image", |names| names.split(',').next().unwrap_or_default());
    let epoch = request.options.get("build-arg:SOURCE_DATE_EPOCH");
    let epoch = epoch.and_then(|text| text.parse::<u64>().ok());
    let at = epoch.map_or_else(SystemTime::now, |seconds| {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
    });
    // SPDX has whole seconds.
    let created = time(at);
    let created = created.split('.').next().unwrap_or_default().trim_end_matches('Z').to_owned();
    let subject = sbom::Subject {
        name: name.to_owned(),
        created: format!("{created}Z"),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(Predicate { kind: SPDX.to_owned(), body: sbom::spdx(&scan, &subject) })
}

/// Writes statements as files of a tar, without its end, for outputs that are files.
pub(super) fn files(predicates: &[Predicate], latest: Option<i64>) -> Result<Vec<u8>, Error> {
    let mut tar = Vec::new();
    for predicate in predicates {
        // COMPAT: BuildKit's names.
        let name = if predicate.kind == SPDX { "sbom.spdx.json" } else { "provenance.json" };
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": predicate.kind,
            "subject": [],
            "predicate": predicate.body,
        });
        let bytes = statement.to_string().into_bytes();
        let entry = rorqual_snapshot::tar::Entry {
            mtime: (latest.unwrap_or_default(), 0),
            ..rorqual_snapshot::tar::Entry::new(name, rorqual_snapshot::tar::Kind::File, 0o644)
        };
        let mut writer = rorqual_snapshot::tar::Writer::new(&mut tar);
        writer.file(entry, &bytes).map_err(|error| Error::Other {
            action: "write what is said of the files".to_owned(),
            kind: ErrorKind::Internal,
            source: error.into(),
        })?;
    }
    Ok(tar)
}

#[cfg(test)]
mod tests;

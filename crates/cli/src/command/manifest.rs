//! `manifest`: lists of images for several machines, made and looked at without the daemon.
//!
//! A list under construction lies in the settings directory, as docker's client keeps it: `manifests/LIST/IMAGE`.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rorqual_client::credentials;
use rorqual_content::{Descriptor, Index, Manifest, media_type};
use rorqual_core::{Digest, Platform, Reference};
use rorqual_transfer::{Proxies, RegistryAuth, RegistryOptions, Remote};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::cli::Cli;
use crate::command::task;
use crate::failure::{Failure, Outcome, joined};
use crate::flag::{Args, Command, Flag, Kind, Matches};

/// LIMIT: an image config; real ones have some ten KiB.
const MAX_CONFIG: u64 = 8 << 20;

const INSECURE: Flag = Flag::new(
    "insecure",
    Kind::Bool,
    "Don't check certificates, and speak plain HTTP where there is no TLS",
);

/// `manifest`
pub(super) static GROUP: Command = Command {
    name: "manifest",
    usage: "COMMAND",
    about: "Manage lists of images for several machines",
    children: &[&ANNOTATE, &CREATE, &INSPECT, &PUSH, &RM],
    ..Command::EMPTY
};

static ANNOTATE: Command = Command {
    name: "annotate",
    usage: "[OPTIONS] MANIFEST_LIST MANIFEST",
    about: "Say what machine an image of a local list is for",
    flags: &[&[
        Flag::new("arch", Kind::Text("string"), "Architecture"),
        Flag::new("os", Kind::Text("string"), "Operating system"),
        Flag::new("os-features", Kind::Commas("strings"), "Features of the operating system"),
        Flag::new("os-version", Kind::Text("string"), "Version of the operating system"),
        Flag::new("variant", Kind::Text("string"), "Variant of the architecture"),
    ]],
    args: Args::Exactly(2),
    run: task!(annotate),
    ..Command::EMPTY
};

static CREATE: Command = Command {
    name: "create",
    usage: "MANIFEST_LIST MANIFEST [MANIFEST...]",
    about: "Begin a local list of images",
    flags: &[&[Flag::new("amend", Kind::Bool, "Add to a list that exists").short('a'), INSECURE]],
    args: Args::AtLeast(2),
    run: task!(create),
    ..Command::EMPTY
};

static INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    about: "Show a manifest, or a list of them",
    flags: &[&[
        INSECURE,
        Flag::new(
            "verbose",
            Kind::Bool,
            "Show what the list leads to, and what machines it is for",
        )
        .short('v'),
    ]],
    args: Args::Between(1, 2),
    run: task!(inspect),
    ..Command::EMPTY
};

static PUSH: Command = Command {
    name: "push",
    usage: "[OPTIONS] MANIFEST_LIST",
    about: "Send a local list to its registry",
    flags: &[&[
        INSECURE,
        Flag::new("purge", Kind::Bool, "Remove the local list afterwards").short('p'),
    ]],
    args: Args::Exactly(1),
    run: task!(push),
    ..Command::EMPTY
};

static RM: Command = Command {
    name: "rm",
    usage: "MANIFEST_LIST [MANIFEST_LIST...]",
    about: "Remove local lists",
    args: Args::AtLeast(1),
    run: task!(remove),
    ..Command::EMPTY
};

/// An image of a list, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "Ref")]
    name: String,
    descriptor: Descriptor,
    /// The manifest, base64.
    raw: String,
}

fn name(text: &str) -> Result<Reference, Failure> {
    let parsed = text.parse::<Reference>().map_err(|error| Failure::new(error.to_string()))?;
    Ok(parsed.or_latest())
}

impl From<rorqual_transfer::Error> for Failure {
    fn from(error: rorqual_transfer::Error) -> Self {
        Self::new(rorqual_core::full_message(&error))
    }
}

/// The registry, with what is known of the user there.
struct Asked {
    remote: Remote,
    auth: RegistryAuth,
}

fn asked(cli: &Cli, name: &Reference, insecure: bool) -> Result<Asked, Failure> {
    let host = name.repository().host();
    let options = RegistryOptions {
        insecure: if insecure { vec![host.to_owned()] } else { Vec::new() },
        proxies: Proxies::from_environment(),
        ..RegistryOptions::default()
    };
    let found = credentials::find(&cli.config, host)?.unwrap_or_default();
    let auth = if found.is_token {
        RegistryAuth { identity_token: found.secret, ..RegistryAuth::default() }
    } else {
        RegistryAuth { username: found.username, password: found.secret, ..RegistryAuth::default() }
    };
    Ok(Asked { remote: Remote::new(options), auth })
}

fn is_index(kind: &str) -> bool {
    matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST)
}

fn broken(what: &str) -> impl Fn(serde_json::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::new(format!("{what} is broken: {error}"))
}

/// Fetches an image's manifest and finds out what machine it is for.
async fn fetch(cli: &Cli, name: &Reference, insecure: bool) -> Result<Entry, Failure> {
    let Asked { remote, auth } = asked(cli, name, insecure)?;
    let (mut descriptor, bytes) = remote.manifest(name, &auth).await?;
    if is_index(&descriptor.media_type) {
        // COMPAT: docker's text.
        return Err(Failure::new(format!("{name} is a manifest list")));
    }
    let manifest = serde_json::from_slice::<Manifest>(&bytes).map_err(broken(&name.to_string()))?;
    let config = remote.blob(name, &manifest.config, MAX_CONFIG, &auth).await?;
    let config: Json = serde_json::from_slice(&config).map_err(broken("the config"))?;
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    descriptor.platform = Some(Platform {
        os: text("os"),
        architecture: text("architecture"),
        variant: text("variant"),
    });
    Ok(Entry { name: name.to_string(), descriptor, raw: STANDARD.encode(&bytes) })
}

/// COMPAT: docker's client names the files so.
fn file_name(name: &Reference) -> String {
    name.to_string().replace(':', "-").replace('/', "_")
}

fn folder(cli: &Cli, list: &Reference) -> PathBuf {
    cli.config.directory().join("manifests").join(file_name(list))
}

fn entries(folder: &Path) -> Result<Vec<Entry>, Failure> {
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut paths = listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, io::Error>>()?;
    paths.sort();
    let read = |path: &PathBuf| {
        serde_json::from_slice(&std::fs::read(path)?).map_err(broken(&path.display().to_string()))
    };
    paths.iter().map(read).collect()
}

fn keep(folder: &Path, image: &Reference, entry: &Entry) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let text = serde_json::to_vec(entry).map_err(broken("the entry"))?;
    Ok(std::fs::write(folder.join(file_name(image)), text)?)
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let list = name(matches.word(0))?;
    let folder = folder(cli, &list);
    if folder.exists() && !matches.on("amend") {
        // COMPAT: docker's text.
        return Err(Failure::new(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    let mut fetched = Vec::new();
    for text in &matches.words[1..] {
        let image = name(text)?;
        fetched.push((image.clone(), fetch(cli, &image, matches.on("insecure")).await?));
    }
    for (image, entry) in &fetched {
        keep(&folder, image, entry)?;
    }
    cli.line(&format!("Created manifest list {list}"))?;
    Ok(0)
}

async fn annotate(cli: &Cli, matches: &Matches) -> Outcome {
    let (list, image) = (name(matches.word(0))?, name(matches.word(1))?);
    let folder = folder(cli, &list);
    let path = folder.join(file_name(&image));
    let bytes = std::fs::read(path).map_err(|_| {
        // COMPAT: docker's text.
        Failure::new(format!(
            "manifest for image {} does not exist in {}",
            matches.word(1),
            matches.word(0)
        ))
    })?;
    let mut entry: Entry = serde_json::from_slice(&bytes).map_err(broken("the entry"))?;
    let host = Platform { os: String::new(), architecture: String::new(), variant: String::new() };
    let platform = entry.descriptor.platform.get_or_insert(host);
    for (flag, field) in [
        ("arch", &mut platform.architecture),
        ("os", &mut platform.os),
        ("variant", &mut platform.variant),
    ] {
        if matches.given(flag) {
            matches.text(flag).clone_into(field);
        }
    }
    if matches.given("os-version") || matches.given("os-features") {
        return Err(Failure::new(
            "--os-version and --os-features are for Windows images, which are not supported",
        ));
    }
    keep(&folder, &image, &entry)?;
    Ok(0)
}

async fn push(cli: &Cli, matches: &Matches) -> Outcome {
    let list = name(matches.word(0))?;
    let folder = folder(cli, &list);
    let entries = entries(&folder)?;
    if entries.is_empty() {
        // COMPAT: docker's text.
        return Err(Failure::new(format!("{list} not found")));
    }
    let Asked { remote, auth } = asked(cli, &list, matches.on("insecure"))?;
    for entry in &entries {
        let image = name(&entry.name)?;
        if image.repository().host() != list.repository().host() {
            return Err(Failure::new(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                image.repository().host(),
                list.repository().host()
            )));
        }
        if entry
            .descriptor
            .platform
            .as_ref()
            .is_none_or(|platform| platform.os.is_empty() || platform.architecture.is_empty())
        {
            // COMPAT: docker's text.
            return Err(Failure::new(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                entry.name
            )));
        }
        if image.repository() != list.repository() {
            let exact = format!("{}@{}", image.repository(), entry.descriptor.digest);
            remote.mount(&name(&exact)?, list.repository(), &auth).await?;
            cli.line(&format!(
                "Pushed ref {}@{} with digest: {}",
                list.repository(),
                entry.descriptor.digest,
                entry.descriptor.digest
            ))?;
        }
    }
    let oci = entries.iter().all(|entry| entry.descriptor.media_type == media_type::OCI_MANIFEST);
    let kind = if oci { media_type::OCI_INDEX } else { media_type::DOCKER_LIST };
    let index = Index {
        schema_version: 2,
        media_type: kind.to_owned(),
        manifests: entries.into_iter().map(|entry| entry.descriptor).collect(),
        annotations: std::collections::BTreeMap::new(),
    };
    let bytes = serde_json::to_vec_pretty(&index).map_err(broken("the list"))?;
    remote.put(&list, kind, &bytes, &auth).await?;
    cli.line(&digest_of(&bytes).to_string())?;
    if matches.on("purge") {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(0)
}

fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::sha256(sha2::Sha256::digest(bytes).into())
}

async fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let mut errors = Vec::new();
    for text in &matches.words {
        let folder = folder(cli, &name(text)?);
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                errors.push(format!("No such manifest: {text}"));
            }
            result => result?,
        }
    }
    joined(&errors)
}

fn show(cli: &Cli, document: &Json) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    document.serialize(&mut serializer).map_err(broken("the manifest"))?;
    cli.line(&String::from_utf8_lossy(&bytes))
}

/// What `--verbose` shows of an image.
fn verbose(entry: &Entry) -> Result<Json, Failure> {
    let raw = STANDARD.decode(&entry.raw).map_err(|error| Failure::new(error.to_string()))?;
    let manifest: Json = serde_json::from_slice(&raw).map_err(broken(&entry.name))?;
    let key = match entry.descriptor.media_type.as_str() {
        media_type::OCI_MANIFEST => "OCIManifest",
        _ => "SchemaV2Manifest",
    };
    Ok(json!({"Ref": entry.name, "Descriptor": entry.descriptor, "Raw": entry.raw, key: manifest}))
}

async fn inspect(cli: &Cli, matches: &Matches) -> Outcome {
    let insecure = matches.on("insecure");
    if let [list, image] = matches.words.as_slice() {
        let (list, image) = (name(list)?, name(image)?);
        let entries = entries(&folder(cli, &list))?;
        let entry = entries.iter().find(|entry| entry.name == image.to_string());
        let entry = entry.ok_or_else(|| Failure::new(format!("No such manifest: {image}")))?;
        show(cli, &verbose(entry)?)?;
        return Ok(0);
    }
    let wanted = name(matches.word(0))?;
    let local = entries(&folder(cli, &wanted))?;
    if !local.is_empty() {
        if matches.on("verbose") {
            let all = local.iter().map(verbose).collect::<Result<Vec<_>, _>>()?;
            show(cli, &Json::Array(all))?;
            return Ok(0);
        }
        let manifests = local.into_iter().map(|entry| entry.descriptor).collect::<Vec<_>>();
        show(
            cli,
            &json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": manifests}),
        )?;
        return Ok(0);
    }
    let Asked { remote, auth } = asked(cli, &wanted, insecure)?;
    let (descriptor, bytes) = remote.manifest(&wanted, &auth).await.map_err(|error| {
        // COMPAT: clients look for this text.
        match rorqual_core::Classify::kind(&error) {
            rorqual_core::ErrorKind::NotFound => {
                Failure::new(format!("no such manifest: {wanted}"))
            }
            _ => error.into(),
        }
    })?;
    let document: Json = serde_json::from_slice(&bytes).map_err(broken(&wanted.to_string()))?;
    if !matches.on("verbose") {
        show(cli, &document)?;
        return Ok(0);
    }
    if !is_index(&descriptor.media_type) {
        show(cli, &verbose(&fetch(cli, &wanted, insecure).await?)?)?;
        return Ok(0);
    }
    let index: Index = serde_json::from_slice(&bytes).map_err(broken(&wanted.to_string()))?;
    let mut all = Vec::new();
    for listed in index.manifests {
        let exact = name(&format!("{}@{}", wanted.repository(), listed.digest))?;
        let (_, bytes) = remote.manifest(&exact, &auth).await?;
        let entry =
            Entry { name: exact.to_string(), descriptor: listed, raw: STANDARD.encode(&bytes) };
        all.push(verbose(&entry)?);
    }
    show(cli, &Json::Array(all))?;
    Ok(0)
}

//! Where results are taken from and go to beside the builder's own cache: registries, images, directories of this machine.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rorqual_buildkit::CacheEntry;
use serde_json::{Value as Json, json};

use super::options::Plan;
use super::{csv, warn};
use crate::failure::{Failure, open_failure};
use crate::flag::Matches;

/// LIMIT: the list of what a directory of blobs holds.
const LARGEST_INDEX: u64 = 8 << 20;
/// Annotation with the name of a manifest.
const NAME: &str = "org.opencontainers.image.ref.name";

fn wrong(text: String) -> Failure {
    Failure::new(format!("ERROR: {text}"))
}

/// A directory of blobs and the name of a cache in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    directory: PathBuf,
    name: String,
}

fn parse(text: &str) -> Result<CacheEntry, Failure> {
    if !text.contains('=') {
        let attrs = BTreeMap::from([("ref".to_owned(), text.to_owned())]);
        return Ok(CacheEntry { kind: "registry".to_owned(), attrs });
    }
    let mut attrs: BTreeMap<String, String> =
        csv::pairs(text).map_err(wrong)?.into_iter().collect();
    let kind = attrs.remove("type");
    let kind = kind.ok_or_else(|| wrong(format!("type required form> {text:?}")))?;
    Ok(CacheEntry { kind, attrs })
}

/// Adds the caches to a plan.
pub(super) fn add(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    for text in matches.list("cache-from") {
        let entry = parse(text)?;
        if let Some(entry) = import(plan, entry)? {
            plan.request.cache_imports.push(entry);
        }
    }
    for text in matches.list("cache-to") {
        let entry = parse(text)?;
        export(plan, entry)?;
    }
    if plan.request.options.get("build-arg:BUILDKIT_INLINE_CACHE").is_some_and(|v| v == "1") {
        export(plan, CacheEntry { kind: "inline".to_owned(), attrs: BTreeMap::new() })?;
    }
    Ok(())
}

/// Tells what of an entry names a directory of this machine.
fn place(entry: &CacheEntry, attribute: &str) -> Result<Option<Place>, Failure> {
    if entry.kind != "local" {
        return Ok(None);
    }
    let Some(directory) = entry.attrs.get(attribute).filter(|path| !path.is_empty()) else {
        return Err(wrong(format!("local cache requires {attribute}")));
    };
    let name = entry.attrs.get("tag").filter(|tag| !tag.is_empty());
    let name = name.map_or("latest", String::as_str).to_owned();
    Ok(Some(Place { directory: PathBuf::from(directory), name }))
}

fn lend(plan: &mut Plan, place: &Place) {
    let store = format!("local:{}", place.directory.display());
    plan.lending.stores.insert(store, place.directory.clone());
}

fn import(plan: &mut Plan, mut entry: CacheEntry) -> Result<Option<CacheEntry>, Failure> {
    let Some(place) = place(&entry, "src")? else { return Ok(Some(entry)) };
    if !entry.attrs.contains_key("digest") {
        let found = read(&place.directory).map(|index| find(&index, &place.name));
        let digest = match found {
            Ok(Some(digest)) => digest,
            // COMPAT: as with buildx, a cache that is not there yet is no failure.
            Ok(None) => {
                warn(&format!("no cache {:?} in {}", place.name, place.directory.display()));
                return Ok(None);
            }
            Err(error) => {
                let directory = place.directory.display();
                warn(&format!("local cache import at {directory} not found: {error}"));
                return Ok(None);
            }
        };
        entry.attrs.insert("digest".to_owned(), digest);
    }
    lend(plan, &place);
    Ok(Some(entry))
}

fn export(plan: &mut Plan, entry: CacheEntry) -> Result<(), Failure> {
    if let Some(place) = place(&entry, "dest")? {
        std::fs::create_dir_all(&place.directory)
            .map_err(|error| open_failure(&place.directory.display().to_string(), &error))?;
        lend(plan, &place);
        plan.after.caches.push(place);
    }
    plan.request.cache_exports.push(entry);
    Ok(())
}

/// Lends a directory for an image as an OCI layout.
pub(super) fn lend_layout(plan: &mut Plan, path: &str, name: &str) -> Result<(), Failure> {
    let directory = PathBuf::from(path);
    std::fs::create_dir_all(&directory).map_err(|error| open_failure(path, &error))?;
    // COMPAT: builders know it by this name, so there is one.
    if plan.lending.stores.insert("export".to_owned(), directory.clone()).is_some() {
        return Err(wrong("only one output can have tar=false".to_owned()));
    }
    plan.after.layouts.push(Place { directory, name: name.to_owned() });
    Ok(())
}

/// Lists in its directory the image that the builder has written there.
pub(super) fn finish_layouts(places: &[Place], descriptor: Option<&Json>) -> Result<(), Failure> {
    if places.is_empty() {
        return Ok(());
    }
    let Some(descriptor) = descriptor else {
        return Err(wrong("the builder did not say which image it has written".to_owned()));
    };
    list(places, descriptor)
}

/// Reads the list of what a directory of blobs holds.
pub(super) fn read(directory: &Path) -> std::io::Result<Json> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(directory.join("index.json"))?;
    file.take(LARGEST_INDEX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Finds the digest that a name leads to.
pub(super) fn find(index: &Json, name: &str) -> Option<String> {
    let manifests = index["manifests"].as_array()?;
    let named = manifests.iter().find(|one| one["annotations"][NAME] == name)?;
    Some(named["digest"].as_str()?.to_owned())
}

/// Lends an OCI layout as a context: `PATH[:TAG][@DIGEST]`.
pub(super) fn layout(plan: &mut Plan, text: &str) -> Result<String, Failure> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_owned())),
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (rest, "latest"),
    };
    let directory = PathBuf::from(path);
    let failed = |why: String| wrong(format!("invalid context oci-layout://{text}: {why}"));
    let digest = match digest {
        Some(digest) => digest,
        None => {
            let index = read(&directory).map_err(|error| failed(error.to_string()))?;
            let found = find(&index, tag).or_else(|| only(&index));
            found.ok_or_else(|| failed(format!("it holds no image of the name {tag:?}")))?
        }
    };
    let store = rorqual_buildkit::new_id();
    plan.lending.stores.insert(format!("oci:{store}"), directory);
    Ok(format!("oci-layout://{store}@{digest}"))
}

/// The digest of a layout's only image.
fn only(index: &Json) -> Option<String> {
    match index["manifests"].as_array()?.as_slice() {
        [one] => Some(one["digest"].as_str()?.to_owned()),
        _ => None,
    }
}

/// Lists in its directory what the builder has written there.
pub(super) fn finish(places: &[Place], told: &BTreeMap<String, String>) -> Result<(), Failure> {
    let Some(manifest) = told.get("cache.manifest") else { return Ok(()) };
    let manifest = serde_json::from_str::<Json>(manifest);
    let manifest = manifest.map_err(|error| wrong(format!("the builder's answer: {error}")))?;
    list(places, &manifest)
}

fn list(places: &[Place], manifest: &Json) -> Result<(), Failure> {
    for place in places {
        record(place, manifest).map_err(|error| {
            open_failure(&place.directory.join("index.json").display().to_string(), &error)
        })?;
    }
    Ok(())
}

fn record(place: &Place, manifest: &Json) -> std::io::Result<()> {
    let mut index = match read(&place.directory) {
        Ok(index) if index["manifests"].is_array() => index,
        Ok(_) => json!({ "schemaVersion": 2, "manifests": [] }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] })
        }
        Err(error) => return Err(error),
    };
    let mut manifest = manifest.clone();
    manifest["annotations"][NAME] = Json::from(place.name.as_str());
    if let Some(manifests) = index["manifests"].as_array_mut() {
        manifests.retain(|one| one["annotations"][NAME] != place.name.as_str());
        manifests.push(manifest);
    }
    replace(&place.directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    replace(&place.directory.join("index.json"), index.to_string().as_bytes())
}

/// Writes a file that takes its name once it is whole.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = std::fs::File::create(&part)?;
    file.write_all(bytes)?;
    std::fs::rename(part, path)
}

#[cfg(test)]
mod tests;

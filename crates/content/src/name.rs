//! Names of images: which image a text means, and what giving or taking a name changes. No I/O.

use std::collections::BTreeMap;

use rorqual_core::{Digest, ImageId, InvalidReference, Reference, Timestamp};

use crate::{Error, ImageRecord};

/// Finds the image that `text` means among `images`: a name, a name with a digest, an id, or the start of an id.
pub(crate) fn resolve<'i>(
    text: &str,
    images: impl Iterator<Item = &'i ImageRecord> + Clone,
) -> Result<&'i ImageRecord, Error> {
    if let Some(image) = by_digest(text, images.clone()) {
        return Ok(image);
    }
    // COMPAT: a name wins over an id prefix of the same letters, as in dockerd.
    if let Ok(reference) = text.parse::<Reference>()
        && let Some(image) = by_reference(&reference, images.clone())
    {
        return Ok(image);
    }
    by_prefix(text, images)
}

fn by_digest<'i>(
    text: &str,
    mut images: impl Iterator<Item = &'i ImageRecord> + Clone,
) -> Option<&'i ImageRecord> {
    let digest = text.parse::<Digest>().or_else(|_| format!("sha256:{text}").parse()).ok()?;
    let id = images.clone().find(|image| image.id.0 == digest);
    id.or_else(|| images.find(|image| leads_to(image, &digest)))
}

fn leads_to(image: &ImageRecord, digest: &Digest) -> bool {
    image.id.0 == *digest || image.target.digest == *digest || image.manifest.digest == *digest
}

fn by_reference<'i>(
    reference: &Reference,
    mut images: impl Iterator<Item = &'i ImageRecord>,
) -> Option<&'i ImageRecord> {
    let Some(digest) = reference.digest() else {
        let tagged = reference.clone().or_latest();
        return images.find(|image| image.tags.contains(&tagged));
    };
    // COMPAT: with a digest the tag is not looked at.
    let same_repository = |name: &Reference| name.repository() == reference.repository();
    images.find(|image| {
        image.digests.iter().any(|name| same_repository(name) && name.digest() == Some(digest))
            || (leads_to(image, digest)
                && image.tags.iter().chain(&image.digests).any(same_repository))
    })
}

fn by_prefix<'i>(
    text: &str,
    images: impl Iterator<Item = &'i ImageRecord>,
) -> Result<&'i ImageRecord, Error> {
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let hex = !prefix.is_empty()
        && prefix.len() <= 64
        && prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut found = images.filter(|image| hex && image.id.0.hex().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(image), None) => Ok(image),
        (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
        (None, _) => Err(missing(text)),
    }
}

/// Says that there is no such image, in Docker's words: names are completed with `latest`, ids stay as they are.
pub(crate) fn missing(text: &str) -> Error {
    match text.parse::<Reference>() {
        Ok(reference) => Error::NoSuchImage(reference.or_latest().familiar()),
        // COMPAT: dockerd says so of capital letters; of other texts, that there is no such image.
        Err(error @ InvalidReference::Uppercase(_)) => error.into(),
        Err(_) => Error::NoSuchImage(text.to_owned()),
    }
}

/// Says that there is no image with this id.
pub(crate) fn missing_id(id: &ImageId) -> Error {
    Error::NoSuchImage(id.to_string())
}

/// Merges a new record into the one of the same id: names add up, the rest is replaced.
fn merge(mut image: ImageRecord, old: Option<&ImageRecord>) -> ImageRecord {
    if let Some(old) = old {
        image.tags.extend(old.tags.iter().cloned());
        image.digests.extend(old.digests.iter().cloned());
        image.tagged_at = image.tagged_at.max(old.tagged_at);
    }
    sort(&mut image.tags);
    sort(&mut image.digests);
    image
}

fn sort(names: &mut Vec<Reference>) {
    names.sort();
    names.dedup();
}

/// Takes `names` away from every image but `keep`; returns who had one of them.
fn take(
    images: &mut BTreeMap<ImageId, ImageRecord>,
    names: &[Reference],
    keep: &ImageId,
) -> Option<ImageId> {
    let mut before = None;
    for image in images.values_mut().filter(|image| image.id != *keep) {
        let had = image.tags.len();
        image.tags.retain(|tag| !names.contains(tag));
        if image.tags.len() < had {
            before = Some(image.id.clone());
        }
    }
    before
}

/// Records an image; its tags leave the images that had them.
pub(crate) fn put(images: &mut BTreeMap<ImageId, ImageRecord>, image: ImageRecord) {
    take(images, &image.tags, &image.id);
    let old = images.get(&image.id).cloned();
    let image = merge(image, old.as_ref());
    images.insert(image.id.clone(), image);
}

/// Gives an image a name; returns who had it.
pub(crate) fn tag(
    images: &mut BTreeMap<ImageId, ImageRecord>,
    id: &ImageId,
    name: &Reference,
    at: Timestamp,
) -> Result<Option<ImageId>, Error> {
    let image = images.get_mut(id).ok_or_else(|| missing_id(id))?;
    let names = if name.tag().is_some() { &mut image.tags } else { &mut image.digests };
    names.push(name.clone());
    sort(names);
    image.tagged_at = Some(at);
    Ok(take(images, std::slice::from_ref(name), id))
}

/// Takes a name away; returns whether it was there.
pub(crate) fn untag(
    images: &mut BTreeMap<ImageId, ImageRecord>,
    id: &ImageId,
    name: &Reference,
) -> Result<bool, Error> {
    let image = images.get_mut(id).ok_or_else(|| missing_id(id))?;
    let had = image.tags.len() + image.digests.len();
    image.tags.retain(|tag| tag != name);
    image.digests.retain(|digest| digest != name);
    Ok(image.tags.len() + image.digests.len() < had)
}

#[cfg(test)]
mod tests;

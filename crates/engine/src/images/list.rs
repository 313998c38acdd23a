//! `images` and `history`.

use std::collections::HashMap;

use rorqual_content::ImageRecord;
use rorqual_core::{DiffId, Filters, Reference, Timestamp};
use rorqual_transfer::ManifestSummary;

use crate::containers::until;
use crate::error::Result;
use crate::request::{HistoryLine, ImageListRequest, ImageSummary, ManifestUse};
use crate::world::World;

const KEYS: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

pub(super) async fn list(world: &World, request: &ImageListRequest) -> Result<Vec<ImageSummary>> {
    let filters = &request.filters;
    filters.check_keys(&KEYS)?;
    let dangling = filters.bool("dangling")?;
    let until = until(filters, world.options.clock.now())?;
    let before = bound(world, filters, "before").await?;
    let since = bound(world, filters, "since").await?;
    let mut all = world.parts.images.list().await?;
    let shared = if request.shared_size { Some(Shared::new(world, &all).await?) } else { None };
    all.sort_by_key(|image| std::cmp::Reverse(created(image)));
    let wanted = |image: &ImageRecord| {
        let at = created(image);
        let labels = image.document.config.labels.as_ref();
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        dangling.is_none_or(|wanted| wanted == image.tags.is_empty())
            && until.is_none_or(|until| at < until)
            && before.is_none_or(|before| at < before)
            && since.is_none_or(|since| at > since)
            && filters.labels_match("label", label)
            && !(filters.has("label!") && filters.labels_match("label!", label))
            && filters.any("reference", |pattern| {
                image.tags.iter().any(|tag| reference_matches(tag, pattern))
            })
    };
    let mut found = Vec::new();
    for mut record in all.into_iter().filter(wanted) {
        // COMPAT: only the names that were looked for are shown.
        record
            .tags
            .retain(|tag| filters.any("reference", |pattern| reference_matches(tag, pattern)));
        let users = || world.index.users_of_image(&record.id).len() as u64;
        found.push(ImageSummary {
            shared_size: shared.as_ref().map(|shared| shared.of(&record)),
            containers: shared.as_ref().map(|_| users()),
            manifests: match request.manifests {
                true => Some(manifests(world, &record).await?),
                false => None,
            },
            record,
        });
    }
    Ok(found)
}

/// Lists the manifests that an image's name leads to, with their containers.
pub(super) async fn manifests(world: &World, image: &ImageRecord) -> Result<Vec<ManifestUse>> {
    let manifests = world.parts.transfer.manifests(image).await?.into_iter();
    let with_users = |manifest: ManifestSummary| {
        let users = manifest.image.as_ref().map(|id| world.index.users_of_image(id));
        let containers = users.into_iter().flatten().map(|user| user.id).collect();
        ManifestUse { manifest, containers }
    };
    Ok(manifests.map(with_users).collect())
}

/// Returns when an image was made.
pub(super) fn created(image: &ImageRecord) -> Timestamp {
    image.document.created.parse().unwrap_or_default()
}

async fn bound(world: &World, filters: &Filters, key: &str) -> Result<Option<Timestamp>> {
    match filters.values(key).first() {
        Some(text) => Ok(Some(created(&world.parts.images.resolve(text).await?))),
        None => Ok(None),
    }
}

/// Sizes of layers that several images have.
struct Shared {
    layers: HashMap<DiffId, (u64, u32)>,
}

impl Shared {
    async fn new(world: &World, images: &[ImageRecord]) -> Result<Self> {
        let mut layers: HashMap<DiffId, (u64, u32)> = HashMap::new();
        for image in images {
            for layer in &image.document.rootfs.diff_ids {
                if let Some((_, uses)) = layers.get_mut(layer) {
                    *uses += 1;
                    continue;
                }
                let known = world.parts.snapshots.find_layer(layer).await?;
                layers.insert(layer.clone(), (known.map_or(0, |known| known.size), 1));
            }
        }
        Ok(Self { layers })
    }

    fn of(&self, image: &ImageRecord) -> u64 {
        let layers = image.document.rootfs.diff_ids.iter();
        layers
            .filter_map(|l| self.layers.get(l))
            .filter(|(_, uses)| *uses > 1)
            .map(|(s, _)| s)
            .sum()
    }
}

/// Matches `name`, `name:tag` or shell patterns of them.
fn reference_matches(tag: &Reference, pattern: &str) -> bool {
    let full = tag.familiar();
    let repository = tag.repository().familiar();
    glob(pattern, &full) || glob(pattern, &repository)
}

/// Shell patterns as Go's `path.Match` has them: `*` and `?` do not cross a slash.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = letters.as_str();
            let reach = text.find('/').unwrap_or(text.len());
            (0..=reach).filter(|at| text.is_char_boundary(*at)).any(|at| glob(rest, &text[at..]))
        }
        Some('?') => {
            let mut given = text.chars();
            given.next().is_some_and(|letter| letter != '/')
                && glob(letters.as_str(), given.as_str())
        }
        Some('\\') => {
            let mut given = text.chars();
            letters.next().is_some_and(|letter| given.next() == Some(letter))
                && glob(letters.as_str(), given.as_str())
        }
        Some(letter) => {
            let mut given = text.chars();
            given.next() == Some(letter) && glob(letters.as_str(), given.as_str())
        }
    }
}

pub(super) async fn history(world: &World, image: &ImageRecord) -> Result<Vec<HistoryLine>> {
    let mut layers = image.document.rootfs.diff_ids.iter();
    let mut lines = Vec::new();
    for step in &image.document.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        let size = match layer {
            Some(layer) => {
                world.parts.snapshots.find_layer(layer).await?.map_or(0, |layer| layer.size)
            }
            None => 0,
        };
        lines.push(HistoryLine {
            id: None,
            created: step.created.parse().ok(),
            created_by: step.created_by.clone(),
            tags: Vec::new(),
            size,
            comment: step.comment.clone(),
        });
    }
    lines.reverse();
    if let Some(newest) = lines.first_mut() {
        newest.id = Some(image.id.clone());
        newest.tags = image.tags.iter().map(Reference::familiar).collect();
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    //! Tests of patterns.

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("deb*", "debian", true),
            ("deb*", "a/debian", false),
            ("*/deb?an", "a/debian", true),
            ("*:1*", "x:12", true),
            ("", "x", false),
            ("a", "a", true),
        ] {
            assert_eq!(super::glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}

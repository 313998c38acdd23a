//! Annotations of an image's documents, as outputs ask for them: `annotation[-LEVEL][[PLATFORM]].NAME=VALUE`.

use std::collections::BTreeMap;

use rorqual_build::Error;
use rorqual_core::Platform;

use super::All;

/// LIMIT: annotations of one output, and bytes of all of them.
const MOST: usize = 1000;
const MOST_BYTES: usize = 1 << 20;

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Annotation {
    level: Level,
    /// Of the image for this one only.
    platform: Option<Platform>,
    name: String,
    value: String,
}

/// What is annotated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations(Vec<Annotation>);

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid { message: message.into(), location: None }
}

fn parse(key: &str, value: &str) -> Result<Option<Annotation>, Error> {
    let Some(rest) = key.strip_prefix("annotation") else { return Ok(None) };
    // COMPAT: BuildKit's text.
    let wrong = || invalid(format!("unrecognized annotation type for {key:?}"));
    let at = match rest.find('[') {
        Some(open) if !rest[..open].contains('.') => {
            rest[open..].find("].").map(|close| open + close + 1).ok_or_else(wrong)?
        }
        _ => rest.find('.').ok_or_else(wrong)?,
    };
    let (kind, name) = (&rest[..at], &rest[at + 1..]);
    let (kind, platform) = match kind.split_once('[') {
        Some((kind, platform)) => {
            let platform = platform.trim_end_matches(']').parse::<Platform>();
            let platform = platform
                .map_err(|_| invalid(format!("failed to parse platform of annotation {key:?}")))?;
            (kind, Some(platform))
        }
        None => (kind, None),
    };
    let level = match kind {
        "" | "-manifest" => Level::Manifest,
        "-manifest-descriptor" => Level::ManifestDescriptor,
        "-index" => Level::Index,
        "-index-descriptor" => Level::IndexDescriptor,
        _ => return Err(wrong()),
    };
    if name.is_empty() {
        return Err(wrong());
    }
    let (name, value) = (name.to_owned(), value.to_owned());
    Ok(Some(Annotation { level, platform, name, value }))
}

impl Annotations {
    /// Reads the options of an output.
    pub(super) fn parse(attrs: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut all = Vec::new();
        for (key, value) in attrs {
            all.extend(parse(key, value)?);
        }
        let bytes = all.iter().map(|one| one.name.len() + one.value.len()).sum::<usize>();
        if all.len() > MOST || bytes > MOST_BYTES {
            return Err(invalid(format!(
                "an output has more than {MOST} annotations or {MOST_BYTES} bytes of them"
            )));
        }
        Ok(Self(all))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses annotations of documents that there will not be.
    pub(super) fn check(&self, all: &All) -> Result<(), Error> {
        let is_indexed = all.is_indexed || all.made.iter().any(|made| !made.predicates.is_empty());
        for one in &self.0 {
            if one.level == Level::Index && !is_indexed {
                // COMPAT: BuildKit's text.
                return Err(invalid("index annotations not supported for single platform export"));
            }
            if one.level == Level::IndexDescriptor && !is_indexed {
                return Err(invalid(
                    "index-descriptor annotations not supported for single platform export",
                ));
            }
        }
        Ok(())
    }

    /// Lists those of a document.
    pub(super) fn of(&self, level: Level, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let is_meant = |one: &&Annotation| {
            one.level == level && (one.platform.is_none() || one.platform.as_ref() == platform)
        };
        let mut all = BTreeMap::new();
        // What is said of one platform is more than what is said of all.
        let (special, general) =
            self.0.iter().filter(is_meant).partition::<Vec<_>, _>(|one| one.platform.is_some());
        for one in general.into_iter().chain(special) {
            all.insert(one.name.clone(), one.value.clone());
        }
        all
    }
}

#[cfg(test)]
mod tests;

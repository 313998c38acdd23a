//! Names from requests: repositories, tags, and where they lead in the storage. Whatever becomes part of a storage key
//! passes here, so no key can leave its folder.

use std::fmt;
use std::str::FromStr;

use rorqual_core::Digest;

use crate::error::{Code, Error};

/// A repository's name: path components of lower-case letters, digits and single separators.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(Box<str>);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // LIMIT: 255 letters, as Docker's registry and the longest name of a file have it.
        if text.len() <= 255 && text.split('/').all(is_component) {
            return Ok(Self(text.into()));
        }
        Err(Error::refused(Code::NameInvalid, format!("invalid repository name {text:?}")))
    }
}

/// `[a-z0-9]+` runs, joined by one dot, one or two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alnum)
        && text.ends_with(alnum)
        && text.split(alnum).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(Box<str>);

impl Tag {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        // LIMIT: 128 letters, by the distribution specification.
        let is_tag = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
        if is_tag {
            return Ok(Self(text.into()));
        }
        Err(Error::refused(Code::TagInvalid, format!("invalid tag {text:?}")))
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            return digest(text).map(Self::Digest);
        }
        text.parse().map(Self::Tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// Reads a digest from a request.
pub(crate) fn digest(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|error: rorqual_core::InvalidDigest| {
        Error::refused(Code::DigestInvalid, error.to_string())
    })
}

/// Where things are kept.
pub(crate) mod key {
    use super::{Digest, Name, Tag};

    pub(crate) const CATALOG: &str = "catalog";
    pub(crate) const UPLOADS: &str = "uploads";
    pub(crate) const PINS: &str = "pins";
    pub(crate) const CONDEMNED: &str = "condemned";
    pub(crate) const BLOBS: &str = "blobs";

    /// The bytes of a blob; two digits in front keep folders short.
    pub(crate) fn blob(digest: &Digest) -> String {
        let hex = digest.hex();
        format!("{BLOBS}/{}/{}/{hex}", digest.algorithm().name(), &hex[..2])
    }

    /// Says that somebody has just begun to use a blob.
    pub(crate) fn pin(digest: &Digest) -> String {
        format!("{PINS}/{}", flat(digest))
    }

    /// Says that a collector is about to remove a blob.
    pub(crate) fn condemned(digest: &Digest) -> String {
        format!("{CONDEMNED}/{}", flat(digest))
    }

    /// An entry of the list of repositories. A comma stands for the slash: names have none.
    pub(crate) fn catalog(name: &Name) -> String {
        format!("{CATALOG}/{}", name.as_str().replace('/', ","))
    }

    /// The folder of one kind of a repository's things. No component of a name begins with an underscore.
    pub(crate) fn folder(name: &Name, kind: &str) -> String {
        format!("repos/{name}/_{kind}")
    }

    /// Says that a blob belongs to a repository.
    pub(crate) fn link(name: &Name, digest: &Digest) -> String {
        format!("{}/{}", folder(name, "blobs"), flat(digest))
    }

    /// Says that a collector is about to remove a link.
    pub(crate) fn condemned_link(name: &Name, digest: &Digest) -> String {
        format!("{}/blob-{}", folder(name, "condemned"), flat(digest))
    }

    /// Says that a collector is about to remove a manifest.
    pub(crate) fn condemned_manifest(name: &Name, digest: &Digest) -> String {
        format!("{}/manifest-{}", folder(name, "condemned"), flat(digest))
    }

    pub(crate) fn manifest(name: &Name, digest: &Digest) -> String {
        format!("{}/{}", folder(name, "manifests"), flat(digest))
    }

    pub(crate) fn tag(name: &Name, tag: &Tag) -> String {
        format!("{}/{tag}", folder(name, "tags"))
    }

    /// The folder of what refers to a manifest.
    pub(crate) fn referrers(name: &Name, subject: &Digest) -> String {
        format!("{}/{}", folder(name, "referrers"), flat(subject))
    }

    pub(crate) fn referrer(name: &Name, subject: &Digest, digest: &Digest) -> String {
        format!("{}/{}", referrers(name, subject), flat(digest))
    }

    pub(crate) fn session(upload: &str) -> String {
        format!("{UPLOADS}/{upload}/session")
    }

    /// A digest as one word of a key.
    pub(crate) fn flat(digest: &Digest) -> String {
        format!("{}-{}", digest.algorithm().name(), digest.hex())
    }

    /// Reads what [`flat`] wrote; strangers' files are nothing.
    pub(crate) fn unflat(text: &str) -> Option<Digest> {
        text.replacen('-', ":", 1).parse().ok()
    }
}

#[cfg(test)]
mod tests;

//! Which endpoint a path below `/v2/` is. Names contain slashes, so the path is read from its end.

use http::Method;
use rorqual_core::Digest;

use crate::error::{Code, Error, Result};
use crate::name::{Name, Reference, digest};

/// An endpoint with what its path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/_oci/ext/discover`, of the registry or of a repository.
    Extensions(Option<Name>),
    Tags(Name),
    Manifest(Name, Reference),
    Blob(Name, Digest),
    /// Where uploads begin.
    Uploads(Name),
    Upload(Name, String),
    Referrers(Name, Digest),
}

impl Route {
    /// Reads a path, encoded as it came.
    pub(crate) fn parse(path: &str) -> Result<Self> {
        let unknown = || Error::refused(Code::NotFound, format!("no such endpoint: {path:?}"));
        // Nothing in these paths ever needs encoding but the colon of a digest.
        let decoded = path.replace("%3A", ":").replace("%3a", ":");
        let rest = decoded.strip_prefix("/v2").ok_or_else(unknown)?;
        let rest = match rest {
            "" | "/" => return Ok(Self::Base),
            "/_catalog" => return Ok(Self::Catalog),
            "/_oci/ext/discover" => return Ok(Self::Extensions(None)),
            _ => rest.strip_prefix('/').ok_or_else(unknown)?,
        };
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return name.parse().map(Self::Tags);
        }
        if let Some(name) = rest.strip_suffix("/_oci/ext/discover") {
            return name.parse().map(|name| Self::Extensions(Some(name)));
        }
        let uploads =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"));
        if let Some(name) = uploads {
            return name.parse().map(Self::Uploads);
        }
        let (head, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        let (name, kind) = head.rsplit_once('/').ok_or_else(unknown)?;
        match kind {
            "manifests" => Ok(Self::Manifest(name.parse()?, last.parse()?)),
            "referrers" => Ok(Self::Referrers(name.parse()?, digest(last)?)),
            "uploads" => {
                let name = name.strip_suffix("/blobs").ok_or_else(unknown)?.parse()?;
                let is_id = last.len() == 32 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
                if is_id {
                    return Ok(Self::Upload(name, last.to_owned()));
                }
                Err(Error::refused(Code::BlobUploadUnknown, "no such upload"))
            }
            "blobs" => Ok(Self::Blob(name.parse()?, digest(last)?)),
            _ => Err(unknown()),
        }
    }

    /// The repository that the path names.
    pub(crate) const fn name(&self) -> Option<&Name> {
        match self {
            Self::Base | Self::Catalog | Self::Extensions(None) => None,
            Self::Extensions(Some(name))
            | Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }

    /// What must be allowed for a method.
    pub(crate) fn action(&self, method: &Method) -> &'static str {
        match (self, method) {
            (Self::Manifest(..) | Self::Blob(..), &Method::DELETE) => "delete",
            (Self::Uploads(_) | Self::Upload(..), _) | (_, &Method::PUT) => "push",
            _ => "pull",
        }
    }

    /// A word for metrics, the same for all repositories.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Extensions(_) => "extensions",
            Self::Tags(_) => "tags",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::Uploads(_) | Self::Upload(..) => "upload",
            Self::Referrers(..) => "referrers",
        }
    }
}

#[cfg(test)]
mod tests;

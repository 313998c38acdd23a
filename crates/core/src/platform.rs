//! `os/architecture[/variant]`, as in the OCI image index.

use std::fmt;
use std::str::FromStr;

/// A text that is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: need os/architecture[/variant], as in linux/amd64")]
pub struct InvalidPlatform(pub String);

/// What machine an image is made for.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// Go's name: `amd64`, `arm64`, …
    pub architecture: String,
    /// `v8`, `v7`, …; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// Returns the platform this binary was built for.
    pub fn host() -> Self {
        let (architecture, variant) = normal_architecture(std::env::consts::ARCH);
        Self { os: "linux".to_owned(), architecture, variant }
    }

    /// Returns the form that Docker shows: `linux/arm64` also for its only variant.
    pub fn familiar(&self) -> String {
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("arm64", "v8") => format!("{}/arm64", self.os),
            _ => self.to_string(),
        }
    }

    /// Tells whether an image for `image` runs on `self` without emulation.
    pub fn runs(&self, image: &Self) -> bool {
        self.os == image.os
            && self.architecture == image.architecture
            && (image.variant.is_empty()
                || self.variant.is_empty()
                || self.variant == image.variant)
    }
}

fn normal_architecture(name: &str) -> (String, String) {
    let (architecture, variant) = match name {
        "x86_64" | "x86-64" | "amd64" => ("amd64", ""),
        "aarch64" | "arm64" => ("arm64", "v8"),
        "x86" | "i386" | "i686" | "386" => ("386", ""),
        "arm" | "armhf" => ("arm", "v7"),
        "powerpc64" => ("ppc64le", ""),
        other => (other, ""),
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// Reads `os/arch[/variant]`; a lone architecture or `linux` is completed as Docker does.
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if !parts.iter().all(word) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        let host = Self::host();
        let lower: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
        match lower.as_slice() {
            [os] if os == "linux" => Ok(host),
            [architecture] => {
                let (architecture, variant) = normal_architecture(architecture);
                Ok(Self { os: host.os, architecture, variant })
            }
            [os, architecture] => {
                let (architecture, variant) = normal_architecture(architecture);
                Ok(Self { os: os.clone(), architecture, variant })
            }
            [os, architecture, variant] => {
                let (architecture, _) = normal_architecture(architecture);
                Ok(Self { os: os.clone(), architecture, variant: variant.clone() })
            }
            _ => Err(InvalidPlatform(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;

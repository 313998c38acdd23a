//! `os/architecture[/variant]`, as in the OCI image index.

use std::fmt;
use std::str::FromStr;

/// What may stand alone for an operating system: Go's names.
const SYSTEMS: [&str; 18] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];

/// What may stand alone for an architecture: Go's names.
const ARCHITECTURES: [&str; 26] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
    "wasm32",
    "wasm64",
];

/// A text that is not a platform.
// COMPAT: dockerd's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlatform {
    /// A lone word that names neither an operating system nor an architecture.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    Form(String),
    /// One platform is needed, not a pattern.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// An operating system that is no word.
    #[error(
        "{part:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match \"^[A-Za-z0-9_-]+$\": invalid argument"
    )]
    System {
        /// The first part.
        part: String,
        /// All of it.
        text: String,
    },
    /// An architecture or variant that is no word.
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component {
        /// The part at fault.
        part: String,
        /// All of it.
        text: String,
    },
}

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
        "armel" => ("arm", "v6"),
        "powerpc64" => ("ppc64le", ""),
        other => (other, ""),
    };
    (architecture.to_owned(), variant.to_owned())
}

/// Arm's versions are written with and without their letter.
fn normal_variant(architecture: &str, variant: &str) -> String {
    let is_number = !variant.is_empty() && variant.bytes().all(|byte| byte.is_ascii_digit());
    match architecture {
        "arm" | "arm64" if is_number => format!("v{variant}"),
        _ => variant.to_owned(),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// Reads `os/arch[/variant]`; a lone architecture or operating system is completed as Docker does.
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts = parts(text)?;
        let host = Self::host();
        let of = |os: &str, architecture: &str, variant: Option<&String>| {
            let os = if os == "macos" { "darwin" } else { os };
            let (architecture, usual) = normal_architecture(architecture);
            let variant = variant.map_or(usual, |own| normal_variant(&architecture, own));
            Self { os: os.to_owned(), architecture, variant }
        };
        match parts.as_slice() {
            [os] if os == &host.os => Ok(host),
            [os] if SYSTEMS.contains(&os.as_str()) || os == "macos" => {
                Ok(of(os, &host.architecture, None))
            }
            [architecture] => match normal_architecture(architecture) {
                (known, _) if ARCHITECTURES.contains(&known.as_str()) => {
                    Ok(of(&host.os, architecture, None))
                }
                _ => Err(InvalidPlatform::Unknown(text.to_owned())),
            },
            [os, architecture, variant @ ..] => Ok(of(os, architecture, variant.first())),
            [] => Err(InvalidPlatform::Form(text.to_owned())),
        }
    }
}

/// Splits a platform into one to three words, in lower case.
fn parts(text: &str) -> Result<Vec<String>, InvalidPlatform> {
    if text.contains('*') {
        return Err(InvalidPlatform::Wildcard(text.to_owned()));
    }
    let word = |part: &str, marks: &[u8]| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
    };
    let parts: Vec<&str> = text.split('/').collect();
    for (at, part) in parts.iter().enumerate() {
        let (part, text) = ((*part).to_owned(), text.to_owned());
        if at == 0 && !word(&part, b"_-") {
            return Err(InvalidPlatform::System { part, text });
        }
        if at > 0 && !word(&part, b"_-.") {
            return Err(InvalidPlatform::Component { part, text });
        }
    }
    if parts.len() > 3 {
        return Err(InvalidPlatform::Form(text.to_owned()));
    }
    Ok(parts.into_iter().map(str::to_ascii_lowercase).collect())
}

#[cfg(test)]
mod tests;

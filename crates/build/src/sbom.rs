//! What a file system is made of: the packages whose databases and metadata are in it, as an SPDX document.
//!
//! Read are the databases of dpkg, apk and rpm, the metadata of Python distributions, and the packages below
//! `node_modules`; one pass over a tar of the files, each of which is bounded. All of it comes from an image and is believed
//! in nothing but its words.

mod read;
mod rpm;
mod spdx;

use std::io::{self, Read};
use std::path::Path;

pub use spdx::{Subject, spdx};

/// LIMIT: one database or metadata file; Debian's largest status files have some MiB.
const MAX_FILE: u64 = 64 << 20;
/// LIMIT: an rpm database.
const MAX_RPM: u64 = 512 << 20;
/// LIMIT: packages of one image.
const MAX_PACKAGES: usize = 200_000;

/// Who manages a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manager {
    /// dpkg
    Deb,
    /// apk
    Apk,
    /// rpm
    Rpm,
    /// Python
    Pypi,
    /// Node
    Npm,
}

impl Manager {
    /// Its name in a package URL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
        }
    }
}

/// A package that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Who manages it.
    pub manager: Manager,
    /// Name.
    pub name: String,
    /// Version, with its release.
    pub version: String,
    /// Architecture, may be empty.
    pub architecture: String,
    /// Licence as it says itself, may be empty.
    pub license: String,
    /// The file that says so.
    pub found_in: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Sorted, each once.
    pub packages: Vec<Package>,
    /// `ID` and `VERSION_ID` of the system's `os-release`.
    pub system: (String, String),
    /// What could not be read, for the user.
    pub remarks: Vec<String>,
}

/// Looks through a tar of files. `scratch` is a directory of ours for a database that has to be a file. Blocking.
///
/// # Errors
///
/// When the tar breaks off.
pub fn scan(tar: impl Read, scratch: &Path) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./").trim_start_matches('/').to_owned();
        let Some(kind) = Kind::of(&path) else { continue };
        let limit = if matches!(kind, Kind::RpmSqlite) { MAX_RPM } else { MAX_FILE };
        if entry.size() > limit {
            scan.remarks.push(format!("{path} has more than {limit} bytes and was not read"));
            continue;
        }
        take(&mut scan, kind, &path, entry, scratch)?;
        if scan.packages.len() > MAX_PACKAGES {
            scan.packages.truncate(MAX_PACKAGES);
            scan.remarks.push(format!("only the first {MAX_PACKAGES} packages are listed"));
            break;
        }
    }
    scan.packages.sort();
    scan.packages.dedup();
    Ok(scan)
}

fn take(
    scan: &mut Scan,
    kind: Kind,
    path: &str,
    mut entry: impl Read,
    scratch: &Path,
) -> io::Result<()> {
    if kind == Kind::RpmSqlite {
        match rpm::packages(entry, scratch, path) {
            Ok(found) => scan.packages.extend(found),
            Err(error) => scan.remarks.push(format!("{path} cannot be read: {error}")),
        }
        return Ok(());
    }
    if kind == Kind::RpmOther {
        scan.remarks.push(format!("{path} is an rpm database of a kind that is not read"));
        return Ok(());
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    match kind {
        Kind::System => scan.system = read::system(&text),
        Kind::Dpkg => scan.packages.extend(read::dpkg(&text, path)),
        Kind::Apk => scan.packages.extend(read::apk(&text, path)),
        Kind::Python => scan.packages.extend(read::python(&text, path)),
        Kind::Node => scan.packages.extend(read::node(&bytes, path)),
        Kind::RpmSqlite | Kind::RpmOther => {}
    }
    Ok(())
}

/// What a file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    System,
    Dpkg,
    Apk,
    RpmSqlite,
    RpmOther,
    Python,
    Node,
}

impl Kind {
    fn of(path: &str) -> Option<Self> {
        match path {
            "etc/os-release" | "usr/lib/os-release" => return Some(Self::System),
            "var/lib/dpkg/status" => return Some(Self::Dpkg),
            "lib/apk/db/installed" | "usr/lib/apk/db/installed" => return Some(Self::Apk),
            "var/lib/rpm/rpmdb.sqlite" | "usr/lib/sysimage/rpm/rpmdb.sqlite" => {
                return Some(Self::RpmSqlite);
            }
            "var/lib/rpm/Packages"
            | "var/lib/rpm/Packages.db"
            | "usr/lib/sysimage/rpm/Packages.db" => return Some(Self::RpmOther),
            _ => {}
        }
        // Images without a package manager have a file for each package.
        if let Some(name) = path.strip_prefix("var/lib/dpkg/status.d/") {
            let is_status = !name.contains('/') && !name.ends_with(".md5sums");
            return is_status.then_some(Self::Dpkg);
        }
        let mut parts = path.rsplit('/');
        let (file, above) = (parts.next()?, parts.next().unwrap_or_default());
        if (file == "METADATA" && above.ends_with(".dist-info"))
            || (file == "PKG-INFO" && above.ends_with(".egg-info"))
            || file.ends_with(".egg-info")
        {
            return Some(Self::Python);
        }
        if file != "package.json" {
            return None;
        }
        let over = parts.next().unwrap_or_default();
        let is_package = over == "node_modules" && !above.starts_with('@')
            || over.starts_with('@') && parts.next() == Some("node_modules");
        is_package.then_some(Self::Node)
    }
}

#[cfg(test)]
mod tests;

//! rpm's database: rows with one header each, an index of tags in front of their data.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{Manager, Package};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCHITECTURE: u32 = 1022;

/// LIMIT: tags of one package, and bytes of its header.
const MAX_TAGS: usize = 65_536;
const MAX_HEADER: usize = 64 << 20;

/// A copy of the database that goes away.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays is swept with the directory.
        std::fs::remove_file(&self.0).ok();
    }
}

/// Reads a database.
pub(super) fn packages(
    mut database: impl Read,
    scratch: &Path,
    path: &str,
) -> io::Result<Vec<Package>> {
    let name = crate::contract::new_snapshot_id().map_err(io::Error::other)?;
    let copy = Copy(scratch.join(format!("rpm-{name}")));
    io::copy(&mut database, &mut std::fs::File::create_new(&copy.0)?)?;
    rows(&copy.0, path).map_err(io::Error::other)
}

fn rows(copy: &Path, path: &str) -> rusqlite::Result<Vec<Package>> {
    // ORDER: immutable, so that no journal beside the file is looked for.
    let address = format!("file:{}?immutable=1", copy.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(address, flags)?;
    let mut query = connection.prepare("SELECT blob FROM Packages")?;
    let mut rows = query.query([])?;
    let mut packages = Vec::new();
    while let Some(row) = rows.next()? {
        let header: Vec<u8> = row.get(0)?;
        packages.extend(package(&header, path));
        if packages.len() > super::MAX_PACKAGES {
            break;
        }
    }
    Ok(packages)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// Reads a header; `None` for one that is broken.
pub(super) fn package(header: &[u8], path: &str) -> Option<Package> {
    let (tags, size) = (number(header, 0)? as usize, number(header, 4)? as usize);
    if tags > MAX_TAGS || size > MAX_HEADER {
        return None;
    }
    let data = header.get(8 + tags * 16..)?;
    let place = |wanted: u32| {
        (0..tags).map(|tag| 8 + tag * 16).find_map(|at| {
            (number(header, at)? == wanted).then_some(number(header, at + 8)? as usize)
        })
    };
    let text = |wanted: u32| {
        let rest = data.get(place(wanted)?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    let (name, version) = (text(NAME)?, text(VERSION)?);
    let release = text(RELEASE).map(|release| format!("-{release}")).unwrap_or_default();
    let epoch = place(EPOCH).and_then(|at| number(data, at)).filter(|epoch| *epoch > 0);
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    Some(Package {
        manager: Manager::Rpm,
        name,
        version: format!("{epoch}{version}{release}"),
        architecture: text(ARCHITECTURE).unwrap_or_default(),
        license: text(LICENSE).unwrap_or_default(),
        found_in: path.to_owned(),
    })
}

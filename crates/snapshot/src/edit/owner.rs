//! Whose a file becomes: names are looked up in the tree that is changed, by reading its tables and nothing else.

use std::io::Read;
use std::path::Path;

use rorqual_sys::path::Root;

use crate::Error;
use crate::workbench::Owner;

/// LIMIT: as much of a table of users or groups is read.
const MAX_TABLE: u64 = 4 << 20;

/// Returns the numbers of an owner; `None` keeps those of the source.
pub(super) fn ids(root: &Root, owner: &Owner) -> Result<Option<(u32, u32)>, Error> {
    match owner {
        Owner::Keep => Ok(None),
        Owner::Ids(user, group) => Ok(Some((*user, *group))),
        Owner::Named(text) => named(root, text).map(Some),
    }
}

fn named(root: &Root, text: &str) -> Result<(u32, u32), Error> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let (uid, primary) = match user.parse::<u32>() {
        // COMPAT: without a group, a number stands for both.
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let line = find(root, "etc/passwd", user)?;
            (number(&line, 2), number(&line, 3))
        }
    };
    let gid = match group {
        "" => primary,
        group => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => number(&find(root, "etc/group", group)?, 2),
        },
    };
    Ok((uid, gid))
}

fn number(line: &str, field: usize) -> u32 {
    line.split(':').nth(field).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn find(root: &Root, table: &str, name: &str) -> Result<String, Error> {
    let mut text = Vec::new();
    if let Ok(file) = root.open_file(Path::new(table)) {
        // A table that cannot be read holds nobody.
        file.take(MAX_TABLE).read_to_end(&mut text).ok();
    }
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().find(|line| line.split(':').next() == Some(name));
    found.map(str::to_owned).ok_or_else(|| {
        let kind = if table.ends_with("passwd") { "user" } else { "group" };
        // COMPAT: as dockerd says it of a container's user.
        let file = table.trim_start_matches("etc/");
        Error::InvalidArgument(format!(
            "unable to find {kind} {name}: no matching entries in {file} file"
        ))
    })
}

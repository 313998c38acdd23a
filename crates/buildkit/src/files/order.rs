//! Checks that a peer's entries come clean and in the order of a depth-first walk, so that a path can neither leave the
//! tree nor pass through something that is no directory.

use std::collections::HashSet;

use rorqual_build::{Error, TreeEntry};

/// LIMIT: as long as the kernel takes paths.
const LONGEST_PATH: usize = 4096;
/// LIMIT: entries of one tree; several times the largest monorepos, and each costs some hundred bytes.
const MOST_ENTRIES: usize = 4_000_000;

#[derive(Debug, Default)]
struct Directory {
    path: String,
    last: String,
}

/// The walk so far.
#[derive(Debug)]
pub(super) struct Order {
    open: Vec<Directory>,
    files: HashSet<Box<str>>,
    count: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self { open: vec![Directory::default()], files: HashSet::new(), count: 0 }
    }
}

impl Order {
    /// Takes the next entry.
    pub(super) fn check(&mut self, entry: &TreeEntry) -> Result<(), Error> {
        self.count += 1;
        if self.count > MOST_ENTRIES {
            return Err(invalid(format!("the directory has more than {MOST_ENTRIES} entries")));
        }
        let path = entry.path.as_str();
        check_path(path)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        while self.open.last().is_some_and(|open| open.path != parent) && self.open.len() > 1 {
            self.open.pop();
        }
        let Some(open) = self.open.last_mut().filter(|open| open.path == parent) else {
            return Err(invalid(format!("{path:?} came without its directory")));
        };
        if open.last.as_str() >= name {
            let before = &open.last;
            return Err(invalid(format!("{path:?} came after {before:?}: changes out of order")));
        }
        open.last = name.to_owned();
        self.check_kind(entry)
    }

    fn check_kind(&mut self, entry: &TreeEntry) -> Result<(), Error> {
        let path = entry.path.as_str();
        if entry.link.contains('\0') || entry.link.len() > LONGEST_PATH {
            return Err(invalid(format!("the link {path:?} has an impossible target")));
        }
        match entry.mode & 0o170_000 {
            0o040_000 => {
                self.open.push(Directory { path: path.to_owned(), last: String::new() });
            }
            0o120_000 => {}
            _ if entry.link.is_empty() => {
                self.files.insert(path.into());
            }
            _ if !self.files.contains(entry.link.as_str()) => {
                let link = &entry.link;
                return Err(invalid(format!(
                    "{path:?} repeats {link:?}, which did not come before it"
                )));
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_path(path: &str) -> Result<(), Error> {
    let is_clean = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    if path.len() > LONGEST_PATH || path.contains('\0') || !path.split('/').all(is_clean) {
        return Err(invalid(format!("{path:?} is no clean relative path")));
    }
    Ok(())
}

fn invalid(what: String) -> Error {
    Error::Invalid { message: format!("the client sent a wrong directory: {what}"), location: None }
}

#[cfg(test)]
mod tests;

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
mod tests {
    use super::*;

    fn entry(path: &str, mode: u32, link: &str) -> TreeEntry {
        TreeEntry {
            path: path.to_owned(),
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: link.to_owned(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn walk(paths: &[(&str, char, &str)]) -> Result<(), String> {
        let mut order = Order::default();
        for (path, kind, link) in paths {
            let mode = match kind {
                'd' => 0o040_755,
                'l' => 0o120_777,
                _ => 0o100_644,
            };
            order.check(&entry(path, mode, link)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    #[test]
    fn a_walk_is_taken() {
        let walked = walk(&[
            ("a", 'd', ""),
            ("a/b", 'd', ""),
            ("a/b/c", 'f', ""),
            ("a/z", 'l', "/etc/passwd"),
            ("a-b", 'f', ""),
            ("b", 'f', "a/b/c"),
        ]);
        assert_eq!(walked, Ok(()));
    }

    #[test]
    fn hostile_walks_are_refused() {
        let cases: [&[(&str, char, &str)]; 12] = [
            &[("..", 'd', "")],
            &[("../x", 'f', "")],
            &[("/etc", 'd', "")],
            &[("a/../b", 'f', "")],
            &[("a", 'd', ""), ("a/./b", 'f', "")],
            &[("", 'f', "")],
            &[("b", 'f', ""), ("a", 'f', "")],
            &[("a", 'f', ""), ("a", 'd', "")],
            &[("a", 'l', "/etc"), ("a/passwd", 'f', "")],
            &[("a", 'f', ""), ("a/b", 'f', "")],
            &[("a", 'f', "/etc/shadow")],
            &[("x\0y", 'f', "")],
        ];
        for case in cases {
            assert!(walk(case).is_err(), "{case:?}");
        }
        let long = "x".repeat(300);
        assert!(walk(&[(&long, 'f', "")]).is_err());
    }

    #[test]
    fn a_directory_that_was_left_is_not_entered_again() {
        let walked = walk(&[("a", 'd', ""), ("b", 'f', ""), ("a/x", 'f', "")]);
        assert!(walked.is_err());
    }
}

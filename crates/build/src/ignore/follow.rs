//! Which further paths a list of paths needs, because symbolic links lie on the way.

use std::collections::BTreeSet;

use super::glob;
use crate::gopath;

/// Most paths that following links may lead to.
///
/// LIMIT: a loop of links with growing names would never end.
const MAX_FOLLOWED: usize = 10_000;

/// What following links asks of a directory tree. Paths are relative to its root and clean.
pub trait Links {
    /// Returns the target of a symbolic link; `None` for anything else, also for nothing.
    fn read_link(&self, path: &str) -> Option<String>;
    /// Lists the names in a directory (`.` for the root); empty for anything else.
    fn names(&self, directory: &str) -> Vec<String>;
}

/// Returns the paths themselves and every path that a link in one of them leads to, as include patterns, sorted; empty
/// when the root itself is needed. Links out of the tree end at its root, as in a chroot.
pub fn follow_links(tree: &dyn Links, paths: &[String]) -> Vec<String> {
    let mut follow = Follow { tree, found: BTreeSet::new() };
    for path in paths {
        follow.path(&gopath::clean(&format!("/{path}"))[1..]);
    }
    let found = follow.found;
    if found.contains("") {
        return Vec::new();
    }
    // What lies below another path of the list comes with it.
    let covered = |path: &str| path.match_indices('/').any(|(at, _)| found.contains(&path[..at]));
    found.iter().filter(|path| !covered(path)).cloned().collect()
}

struct Follow<'a> {
    tree: &'a dyn Links,
    found: BTreeSet<String>,
}

impl Follow<'_> {
    fn path(&mut self, path: &str) {
        // A list instead of recursion: links may chain.
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            if self.found.len() >= MAX_FOLLOWED || !self.found.insert(path.clone()) {
                continue;
            }
            let mut walked = vec![String::new()];
            for part in path.split('/') {
                walked = self.step(&walked, part, &path, &mut open);
            }
        }
    }

    /// Goes one name further from all places reached so far; notes what links on the way lead to.
    fn step(
        &mut self,
        places: &[String],
        part: &str,
        whole: &str,
        open: &mut Vec<String>,
    ) -> Vec<String> {
        let mut next = Vec::new();
        for place in places {
            for name in self.candidates(place, part) {
                let path = if place.is_empty() { name } else { format!("{place}/{name}") };
                if let Some(target) = self.tree.read_link(&path) {
                    let joined = match target.strip_prefix('/') {
                        Some(absolute) => format!("/{absolute}"),
                        None => format!("/{place}/{target}"),
                    };
                    let rest = rest_of(whole, &path);
                    open.push(gopath::clean(&format!("{joined}/{rest}"))[1..].to_owned());
                    self.found.insert(path);
                    continue;
                }
                if next.len() < MAX_FOLLOWED {
                    next.push(path);
                }
            }
        }
        next
    }

    fn candidates(&self, place: &str, part: &str) -> Vec<String> {
        if !glob::has_wildcard(part) {
            return vec![part.to_owned()];
        }
        let directory = if place.is_empty() { "." } else { place };
        let names = self.tree.names(directory).into_iter();
        names.filter(|name| glob::matches(part, name).unwrap_or(false)).collect()
    }
}

/// What of the whole path comes after as many names as `walked` has.
fn rest_of<'a>(whole: &'a str, walked: &str) -> &'a str {
    let depth = walked.split('/').count();
    whole.splitn(depth + 1, '/').nth(depth).unwrap_or("")
}

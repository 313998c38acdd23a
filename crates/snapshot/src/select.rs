//! Picking files of a tree by name, and the digest of what was picked. Reads only; links never lead out of the tree.

use std::collections::VecDeque;
use std::io;

use rorqual_core::Digest;
use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::workbench::{Contents, Selection};

/// LIMIT: links on one way, as in the kernel.
const MAX_LINKS: usize = 40;
/// LIMIT: what a wildcard may match.
const MAX_PICKED: usize = 1_000_000;
/// LIMIT: directories inside each other that are walked.
const MAX_DEPTH: usize = 400;
/// LIMIT: entries whose own digests are kept, to tell later which of them changed.
const MAX_TOLD: usize = 20_000;

/// An entry of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `st_mode`, with the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Target of a symbolic link.
    pub link: Vec<u8>,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes that travel with a file.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Node {
    /// Returns what it is.
    pub const fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// A tree of files that can be looked at. Paths are clean, relative to its root, and hold no links but at their end.
pub trait Listing {
    /// Describes a path, `None` when it is not there. The empty path is the root.
    fn find(&self, path: &[u8]) -> io::Result<Option<Node>>;
    /// Lists the names in a directory, sorted.
    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>>;
    /// Returns the SHA-256 of a file's bytes.
    fn content(&self, path: &[u8]) -> io::Result<[u8; 32]>;
}

/// The tree without files.
pub(crate) struct Nothing;

impl Listing for Nothing {
    fn find(&self, path: &[u8]) -> io::Result<Option<Node>> {
        let root = Node { mode: 0o040_755, ..Node::default() };
        Ok(path.is_empty().then_some(root))
    }

    fn children(&self, _path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn content(&self, _path: &[u8]) -> io::Result<[u8; 32]> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Something that was picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Where it is: relative to the root, without links on the way.
    pub path: Vec<u8>,
    /// Its last name as it was picked, which a link may have; empty for the root.
    pub name: Vec<u8>,
    /// Its path from where the kept part of the source begins.
    pub kept: Vec<u8>,
}

fn missing(selection: &Selection) -> Error {
    // COMPAT: clients show it as it is.
    let path = selection.source.replace("/./", "/");
    Error::NoSuchSource(path)
}

/// Lists what a selection picks, in the order of the names.
pub fn pick(listing: &dyn Listing, selection: &Selection) -> Result<Vec<Pick>, Error> {
    let failed = |source| Error::Io { action: format!("look for {:?}", selection.source), source };
    let (before, after) = match selection.source.find("/./") {
        Some(at) if selection.parents => selection.source.split_at(at),
        _ => ("", selection.source.as_str()),
    };
    let base = names(before);
    let mut found = Vec::new();
    let mut expansion = Expansion { listing, selection, found: &mut found, base: base.len() };
    let mut all = base;
    all.extend(names(after));
    expansion.expand(&mut Vec::new(), &all).map_err(failed)?;
    // Without a wildcard in it, a name stands for one thing, which must be there.
    let open = selection.wildcard && all.iter().any(|name| has_wildcard(name));
    if found.is_empty() && !(open && selection.allow_empty) {
        return Err(missing(selection));
    }
    Ok(found)
}

/// Splits a path into its names; `..` stays inside the root.
fn names(path: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(all.pop()),
            name => all.push(name.as_bytes().to_vec()),
        }
    }
    all
}

fn join(names: &[Vec<u8>]) -> Vec<u8> {
    names.join(&b'/')
}

struct Expansion<'a> {
    listing: &'a dyn Listing,
    selection: &'a Selection,
    found: &'a mut Vec<Pick>,
    /// How many names lie before the kept part.
    base: usize,
}

impl Expansion<'_> {
    fn expand(&mut self, before: &mut Vec<Vec<u8>>, rest: &[Vec<u8>]) -> io::Result<()> {
        if self.found.len() >= MAX_PICKED {
            return Err(io::Error::other("a wildcard matches too many files"));
        }
        let Some((name, rest)) = rest.split_first() else { return self.found(before) };
        if !(self.selection.wildcard && has_wildcard(name)) {
            before.push(name.clone());
            self.expand(before, rest)?;
            before.pop();
            return Ok(());
        }
        let Some(directory) = resolve(self.listing, &join(before), true)? else { return Ok(()) };
        let deep = self.selection.parents && name == b"**";
        if deep {
            self.expand(before, rest)?;
        }
        match self.listing.find(&directory)? {
            Some(node) if node.kind() == FileType::Directory => {}
            _ => return Ok(()),
        }
        for child in self.listing.children(&directory)? {
            if deep {
                let path = joined(&directory, &child);
                let is_dir = |node: Node| node.kind() == FileType::Directory;
                if before.len() < MAX_DEPTH && self.listing.find(&path)?.is_some_and(is_dir) {
                    before.push(child);
                    self.expand(before, &[std::slice::from_ref(name), rest].concat())?;
                    before.pop();
                }
            } else if matches(name, &child) {
                before.push(child);
                self.expand(before, rest)?;
                before.pop();
            }
        }
        Ok(())
    }

    fn found(&mut self, names: &[Vec<u8>]) -> io::Result<()> {
        let Some(path) = resolve(self.listing, &join(names), self.selection.follow)? else {
            return Ok(());
        };
        if self.listing.find(&path)?.is_none() {
            return Ok(());
        }
        let name = names.last().cloned().unwrap_or_default();
        let kept = join(names.get(self.base..).unwrap_or_default());
        let pick = Pick { path, name, kept };
        // `**` may reach the same name in two ways.
        if !self.found.contains(&pick) || !self.selection.parents {
            self.found.push(pick);
        }
        Ok(())
    }
}

fn has_wildcard(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

pub(crate) fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Follows the links of a path inside the tree; the last one only if `follow`. `None` when a part is missing.
pub fn resolve(listing: &dyn Listing, path: &[u8], follow: bool) -> io::Result<Option<Vec<u8>>> {
    walk(listing, path, follow, Missing::Ends)
}

/// Follows the links of a path inside the tree, also the last one; names that are missing stay in the path, so that a
/// link to nowhere leads to the place that it names.
pub(crate) fn landing(listing: &dyn Listing, path: &[u8]) -> io::Result<Vec<u8>> {
    Ok(walk(listing, path, true, Missing::Kept)?.unwrap_or_default())
}

/// What a missing part of a path means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Ends,
    Kept,
}

fn walk(
    listing: &dyn Listing,
    path: &[u8],
    follow: bool,
    missing: Missing,
) -> io::Result<Option<Vec<u8>>> {
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut todo: VecDeque<Vec<u8>> = path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => done.push(name),
        }
        if todo.is_empty() && !follow {
            break;
        }
        let node = match listing.find(&join(&done))? {
            Some(node) if node.kind() == FileType::Symlink => node,
            None if missing == Missing::Ends => return Ok(None),
            _ => continue,
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(rustix::io::Errno::LOOP.into());
        }
        done.pop();
        if node.link.starts_with(b"/") {
            done.clear();
        }
        for name in node.link.split(|b| *b == b'/').rev() {
            todo.push_front(name.to_vec());
        }
    }
    Ok(Some(join(&done)))
}

/// Matches a name as Go's `filepath.Match` does; a broken pattern matches nothing.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            back = Some((p + 1, n));
            p += 1;
            continue;
        }
        if n == name.len() && p == pattern.len() {
            return true;
        }
        if n < name.len()
            && let Some(next) = one(pattern, p, name, n)
        {
            (p, n) = next;
            continue;
        }
        match back {
            Some((after, at)) if at < name.len() => {
                back = Some((after, at + 1));
                (p, n) = (after, at + 1);
            }
            _ => return false,
        }
    }
}

/// Matches one character at `p` and `n`; returns where to go on.
fn one(pattern: &[u8], p: usize, name: &[u8], n: usize) -> Option<(usize, usize)> {
    let (character, width) = character(name, n)?;
    match pattern.get(p)? {
        b'?' => Some((p + 1, n + width)),
        b'[' => {
            let (end, hit) = class(pattern, p + 1, character)?;
            hit.then_some((end, n + width))
        }
        _ => {
            let (wanted, next) = literal(pattern, p)?;
            (wanted == character).then_some((next, n + width))
        }
    }
}

/// Reads the character at a place and its length; a byte that is none stands for itself.
fn character(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let first = *text.get(at)?;
    let width = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    let read = text.get(at..at + width).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match read.and_then(|read| read.chars().next()) {
        Some(character) => Some((u32::from(character), width)),
        None => Some((u32::from(first), 1)),
    }
}

/// Reads a class behind its `[`; returns where it ends and whether the character is in it.
fn class(pattern: &[u8], mut at: usize, character: u32) -> Option<(usize, bool)> {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut hit = false;
    let mut first = true;
    loop {
        if *pattern.get(at)? == b']' && !first {
            return Some((at + 1, hit != negated));
        }
        first = false;
        let (low, next) = literal(pattern, at)?;
        at = next;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') && pattern.get(at + 1) != Some(&b']') {
            (high, at) = literal(pattern, at + 1)?;
        }
        hit |= (low..=high).contains(&character);
    }
}

/// Reads a character that stands for itself; returns it and where to go on.
fn literal(pattern: &[u8], at: usize) -> Option<(u32, usize)> {
    let at = if *pattern.get(at)? == b'\\' { at + 1 } else { at };
    character(pattern, at).map(|(character, width)| (character, at + width))
}

/// Takes the digest of what a selection picks: names, kinds, permissions and bytes, but no times.
pub fn contents(listing: &dyn Listing, selection: &Selection) -> Result<Contents, Error> {
    let picked = pick(listing, selection)?;
    let mut digest =
        Taking { listing, selection, whole: Sha256::new(), entries: Vec::new(), overflow: false };
    let failed = |source| Error::Io { action: format!("read {:?}", selection.source), source };
    for pick in picked {
        let shown = if selection.parents { pick.kept.clone() } else { pick.name.clone() };
        digest.whole.update((shown.len() as u64).to_le_bytes());
        digest.whole.update(&shown);
        digest.entry(&pick.path, &shown, &[], 0).map_err(failed)?;
    }
    let entries = if digest.overflow { Vec::new() } else { digest.entries };
    Ok(Contents { digest: Digest::sha256(digest.whole.finalize().into()), entries })
}

struct Taking<'a> {
    listing: &'a dyn Listing,
    selection: &'a Selection,
    whole: Sha256,
    entries: Vec<(String, u64)>,
    overflow: bool,
}

impl Taking<'_> {
    fn entry(&mut self, path: &[u8], shown: &[u8], below: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories are nested too deeply"));
        }
        let Some(node) = self.listing.find(path)? else { return Ok(()) };
        let directory = node.kind() == FileType::Directory;
        let (wanted, below_it) = wanted(self.selection, shown, below, directory);
        if wanted {
            let own = self.own(path, &node, below)?;
            self.whole.update(own);
            self.tell(shown, below, own);
        }
        if directory && below_it {
            for name in self.listing.children(path)? {
                let inner = joined(below, &name);
                self.entry(&joined(path, &name), shown, &inner, depth + 1)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, shown: &[u8], below: &[u8], own: [u8; 32]) {
        if self.entries.len() >= MAX_TOLD {
            self.overflow = true;
            return;
        }
        let path = if below.is_empty() { shown.to_vec() } else { joined(shown, below) };
        let short = own.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        self.entries.push((String::from_utf8_lossy(&path).into_owned(), short));
    }

    fn own(&self, path: &[u8], node: &Node, below: &[u8]) -> io::Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(below);
        field(&node.mode.to_le_bytes());
        if self.selection.owners {
            field(&node.uid.to_le_bytes());
            field(&node.gid.to_le_bytes());
        }
        field(&node.link);
        field(&node.device.0.to_le_bytes());
        field(&node.device.1.to_le_bytes());
        for (name, value) in &node.xattrs {
            field(name);
            field(value);
        }
        if node.kind() == FileType::RegularFile {
            field(&self.listing.content(path)?);
        }
        Ok(hash.finalize().into())
    }
}

/// Tells whether an entry is meant, and whether something below it may be.
pub(crate) fn wanted(
    selection: &Selection,
    shown: &[u8],
    below: &[u8],
    directory: bool,
) -> (bool, bool) {
    let Some(filter) = &selection.filter else { return (true, true) };
    // The picked directory itself is a place, not a choice.
    if below.is_empty() && directory {
        return (true, true);
    }
    let last = shown.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let path = String::from_utf8_lossy(if below.is_empty() { last } else { below }).into_owned();
    let wanted = filter.wants(&path);
    (wanted, wanted || filter.may_want_below(&path))
}

#[cfg(test)]
mod tests;

//! What a copy of a client's directory holds: every entry as the client announced it, with the digest of its bytes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use rorqual_snapshot::{Listing, Node};

use crate::contract::TreeEntry;

const MAGIC: &[u8] = b"RQI1";

/// An entry that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) entry: TreeEntry,
    pub(super) digest: [u8; 32],
}

/// All entries, by path.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) known: BTreeMap<String, Known>,
}

impl Index {
    /// Reads the index of a copy; one without a true index is emptied. Blocking.
    pub(super) fn load(home: &Path) -> io::Result<Self> {
        let files = home.join("files");
        match std::fs::read(home.join("index")) {
            Ok(bytes) => {
                if let Some(known) = parse(&bytes)
                    && files.is_dir()
                {
                    return Ok(Self { known });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match std::fs::remove_dir_all(home) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&files)?;
        Ok(Self::default())
    }

    /// Writes the index. Blocking.
    pub(super) fn save(&self, home: &Path) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        for known in self.known.values() {
            write(&mut bytes, known);
        }
        let part = home.join("index.part");
        std::fs::write(&part, bytes)?;
        std::fs::rename(part, home.join("index"))
    }

    /// Says that the index on disk is true no more. Blocking.
    pub(super) fn forget(home: &Path) -> io::Result<()> {
        match std::fs::remove_file(home.join("index")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Shows the index as a tree of files.
    pub(super) fn listing(&self) -> IndexListing<'_> {
        let mut children: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
        for path in self.known.keys() {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            children.entry(parent.as_bytes()).or_default().push(name.as_bytes());
        }
        for names in children.values_mut() {
            names.sort_unstable();
        }
        IndexListing { index: self, children }
    }
}

/// An index as a tree of files.
pub(super) struct IndexListing<'i> {
    index: &'i Index,
    children: HashMap<&'i [u8], Vec<&'i [u8]>>,
}

impl IndexListing<'_> {
    fn known(&self, path: &[u8]) -> Option<&Known> {
        self.index.known.get(std::str::from_utf8(path).ok()?)
    }
}

impl Listing for IndexListing<'_> {
    fn find(&self, path: &[u8]) -> io::Result<Option<Node>> {
        if path.is_empty() {
            return Ok(Some(Node { mode: 0o040_755, ..Node::default() }));
        }
        Ok(self.known(path).map(|Known { entry, .. }| {
            let link = entry.mode & 0o170_000 == 0o120_000;
            Node {
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                link: if link { entry.link.clone().into_bytes() } else { Vec::new() },
                device: entry.device,
                xattrs: entry
                    .xattrs
                    .iter()
                    .map(|(name, value)| (name.clone().into_bytes(), value.clone()))
                    .collect(),
            }
        }))
    }

    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let names = self.children.get(path);
        Ok(names.into_iter().flatten().map(|name| name.to_vec()).collect())
    }

    fn content(&self, path: &[u8]) -> io::Result<[u8; 32]> {
        self.known(path).map(|known| known.digest).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn field(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(value);
}

fn write(bytes: &mut Vec<u8>, known: &Known) {
    let entry = &known.entry;
    field(bytes, entry.path.as_bytes());
    field(bytes, entry.link.as_bytes());
    for number in [entry.mode, entry.uid, entry.gid, entry.device.0, entry.device.1] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&entry.size.to_le_bytes());
    bytes.extend_from_slice(&entry.mtime.to_le_bytes());
    bytes.extend_from_slice(&known.digest);
    bytes.extend_from_slice(&(entry.xattrs.len() as u32).to_le_bytes());
    for (name, value) in &entry.xattrs {
        field(bytes, name.as_bytes());
        field(bytes, value);
    }
}

/// Takes fields off the front of bytes; `None` at a damaged one.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'b [u8]> {
        let len = self.number()? as usize;
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<String, Known>> {
    let mut fields = Fields(bytes.strip_prefix(MAGIC)?);
    let mut all = BTreeMap::new();
    while !fields.0.is_empty() {
        let (path, link) = (fields.text()?, fields.text()?);
        let mut numbers = [0; 5];
        for number in &mut numbers {
            *number = fields.number()?;
        }
        let [mode, uid, gid, major, minor] = numbers;
        let size = u64::from_le_bytes(fields.take()?);
        let mtime = i64::from_le_bytes(fields.take()?);
        let digest = fields.take()?;
        let mut xattrs = Vec::new();
        for _ in 0..fields.number()? {
            xattrs.push((fields.text()?, fields.bytes()?.to_vec()));
        }
        let device = (major, minor);
        let entry =
            TreeEntry { path: path.clone(), mode, uid, gid, size, mtime, link, device, xattrs };
        all.insert(path, Known { entry, digest });
    }
    Some(all)
}

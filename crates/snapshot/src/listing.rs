//! A root as a listing, for picking files and taking digests.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rorqual_sys::path::{Follow, Root};
use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use crate::pack;
use crate::select::{Listing, Node};

/// Looks at what lies below a root.
pub(crate) struct RootListing<'r>(pub(crate) &'r Root);

fn at(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

impl Listing for RootListing<'_> {
    fn find(&self, path: &[u8]) -> io::Result<Option<Node>> {
        let handle = match self.0.open_handle(at(path), Follow::No) {
            Ok(handle) => handle,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&handle)?;
        let link = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => rustix::fs::readlinkat(&handle, "", Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        Ok(Some(Node {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            link,
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            xattrs: pack::attributes(&handle)?,
        }))
    }

    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let entries = self.0.open_dir(at(path))?.entries()?;
        Ok(entries.into_iter().map(|entry| entry.name.into_vec()).collect())
    }

    fn content(&self, path: &[u8]) -> io::Result<[u8; 32]> {
        let mut file = self.0.open_file(at(path))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash.finalize().into()),
                len => hash.update(&buffer[..len]),
            }
        }
    }
}

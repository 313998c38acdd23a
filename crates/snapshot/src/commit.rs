//! A container's changes as a layer's tar: what was added or modified, and whiteouts for what was deleted.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rorqual_sys::path::Root;

use crate::compare::{self, Closeness, Difference};
use crate::feed::{self, Feed};
use crate::pack::Packer;
use crate::{ChangeKind, whiteout};

/// Compares, and streams the tar. The same changes make the same bytes.
pub(crate) fn tar(upper: &Path, layers: &[Root]) -> io::Result<Feed> {
    let upper = Root::open(upper)?;
    let differences = compare::differences(&upper, layers, Closeness::Content)?;
    pack(upper, differences)
}

/// Streams the tar of differences that are known. The same changes make the same bytes.
pub(crate) fn pack(upper: Root, differences: Vec<Difference>) -> io::Result<Feed> {
    feed::produce(move |sink| {
        let mut packer = Packer::new(sink);
        for difference in differences {
            add(&mut packer, &upper, &difference)?;
        }
        packer.finish().map(drop)
    })
}

fn add<W: io::Write>(packer: &mut Packer<W>, upper: &Root, what: &Difference) -> io::Result<()> {
    let path = &what.path;
    if what.kind == ChangeKind::Deleted {
        let split = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let mark = whiteout::mark_for(&path[split..]);
        return packer.mark([&path[..split], &mark].concat());
    }
    match upper.parent(Path::new(OsStr::from_bytes(path))) {
        // It has gone since: the container runs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        parent => {
            let (dir, name) = parent?;
            packer.single(&dir, name, path)
        }
    }
}

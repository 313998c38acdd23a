//! Looking for a part of a volume before it is mounted, so that a missing one is told in plain words. What is mounted is looked up
//! again by the container's own process, since whoever writes to the volume may have changed it by then.

use std::io;
use std::path::Path;

use rorqual_sys::path::{Follow, Root};

use crate::Error;

/// Checks that a part is there and inside. Blocks.
///
/// # Errors
/// `NoPart`, `Elsewhere`, or `Io` when the volume cannot be looked at.
pub fn check_part(data: &Path, part: &str) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Io {
        action: format!("look for {part:?} in {}", data.display()),
        source,
    };
    let root = Root::open(data).map_err(failed)?;
    if root.escapes(Path::new(part)) {
        return Err(Error::Elsewhere { base: data.display().to_string(), part: part.to_owned() });
    }
    match root.open_handle(Path::new(part), Follow::Yes) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::NoPart(data.join(part).display().to_string()))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;

//! Paths of tar entries as they come from outside, and failures that name them. Touches no file system.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::Error;

pub(crate) fn name_of(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Names an entry in messages.
pub(crate) fn shown(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

/// Turns a failure to write an entry into ours: what the archive asks for, or what the host cannot do.
pub(crate) fn failed(path: &[u8]) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        let hostile = [
            Errno::NAMETOOLONG,
            Errno::LOOP,
            Errno::NOTDIR,
            Errno::INVAL,
            Errno::FBIG,
            // A directory is needed where a link leads nowhere.
            Errno::EXIST,
        ];
        let by_archive = source
            .raw_os_error()
            .is_some_and(|code| hostile.iter().any(|errno| errno.raw_os_error() == code));
        if by_archive
            || matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        {
            return Error::InvalidArchive(format!("cannot unpack {}: {source}", shown(path)));
        }
        Error::Io { action: format!("unpack {}", shown(path)), source }
    }
}

/// Reads an error of the stream: broken content is the archive's fault.
pub(crate) fn reading(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Unsupported => Error::InvalidArchive(source.to_string()),
        _ => Error::Io { action: "read the archive".to_owned(), source },
    }
}

/// Cleans a path lexically; fails where it leads out.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, Error> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                let text = || format!("{} leads out of the archive", shown(path));
                parts.pop().ok_or_else(|| Error::InvalidArchive(text()))?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

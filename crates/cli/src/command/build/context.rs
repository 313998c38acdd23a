//! What is built: a directory, an archive or a Dockerfile from standard input, a repository, a URL.

use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::Plan;
use crate::failure::{Failure, open_failure};

/// LIMIT: a Dockerfile from standard input; the daemon takes no larger ones.
const LARGEST_DOCKERFILE: u64 = 2 << 20;
/// LIMIT: bytes of an archive from standard input once unpacked; far above what is sensible to pipe.
const LARGEST_CONTEXT: u64 = 64 << 30;

/// A directory of ours that goes away with the build.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is in the system's directory for such; what stays is swept there.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn temporary(plan: &mut Plan) -> Result<PathBuf, Failure> {
    let name = format!("rorqual-build-{}", rorqual_buildkit::new_id());
    let path = std::env::temp_dir().join(name);
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&path)?;
    plan.keep.push(Arc::new(Temporary(path.clone())));
    Ok(path)
}

/// Tells whether a context is a repository or a file that the daemon fetches.
pub(super) fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|prefix| context.starts_with(prefix))
}

/// Adds the context and the Dockerfile to a plan.
pub(super) fn add(plan: &mut Plan, context: &str, file: &str) -> Result<(), Failure> {
    if context == "-" {
        return from_input(plan, file);
    }
    if is_remote(context) {
        plan.option("context", context);
        return dockerfile_of_remote(plan, file);
    }
    let directory = Path::new(context);
    let metadata = std::fs::metadata(directory).map_err(|_| missing(context))?;
    if !metadata.is_dir() {
        return Err(Failure::new(format!(
            "ERROR: unable to prepare context: path {context:?} is not a directory"
        )));
    }
    plan.lending.directories.insert("context".to_owned(), directory.to_owned());
    plan.shared_key = directory.canonicalize()?.to_string_lossy().into_owned();
    if file == "-" {
        return dockerfile_from_input(plan);
    }
    let file = if file.is_empty() { directory.join("Dockerfile") } else { PathBuf::from(file) };
    local_dockerfile(plan, &file)
}

fn missing(context: &str) -> Failure {
    Failure::new(format!("ERROR: unable to prepare context: path {context:?} not found"))
}

fn local_dockerfile(plan: &mut Plan, file: &Path) -> Result<(), Failure> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new(".")).to_owned();
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| missing(&file.display().to_string()))?;
    plan.lending.directories.insert("dockerfile".to_owned(), directory);
    plan.option("filename", &name);
    Ok(())
}

fn dockerfile_of_remote(plan: &mut Plan, file: &str) -> Result<(), Failure> {
    match file {
        "" => Ok(()),
        "-" => {
            dockerfile_from_input(plan)?;
            plan.option("dockerfilekey", "dockerfile");
            Ok(())
        }
        // A file that is here is meant to be read here.
        file if Path::new(file).is_file() => {
            local_dockerfile(plan, Path::new(file))?;
            plan.option("dockerfilekey", "dockerfile");
            Ok(())
        }
        file => {
            plan.option("filename", file);
            Ok(())
        }
    }
}

fn dockerfile_from_input(plan: &mut Plan) -> Result<(), Failure> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(LARGEST_DOCKERFILE + 1).read_to_end(&mut text)?;
    write_dockerfile(plan, &text)
}

fn write_dockerfile(plan: &mut Plan, text: &[u8]) -> Result<(), Failure> {
    if text.len() as u64 > LARGEST_DOCKERFILE {
        return Err(Failure::new(format!(
            "ERROR: the Dockerfile on standard input is larger than {LARGEST_DOCKERFILE} bytes"
        )));
    }
    let directory = temporary(plan)?;
    std::fs::write(directory.join("Dockerfile"), text)?;
    plan.lending.directories.insert("dockerfile".to_owned(), directory);
    plan.option("filename", "Dockerfile");
    Ok(())
}

fn from_input(plan: &mut Plan, file: &str) -> Result<(), Failure> {
    if file == "-" {
        return Err(Failure::new(
            "ERROR: invalid argument: can't use stdin for both build context and dockerfile",
        ));
    }
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        super::warn("the context is read from standard input, which is a terminal");
    }
    let mut head = Vec::new();
    input.by_ref().take(512).read_to_end(&mut head)?;
    if head.is_empty() {
        return Err(Failure::new("ERROR: unable to prepare context: standard input is empty"));
    }
    let Some(kind) = archive_kind(&head)? else {
        let mut text = head;
        input.take(LARGEST_DOCKERFILE + 1).read_to_end(&mut text)?;
        let empty = temporary(plan)?;
        plan.lending.directories.insert("context".to_owned(), empty);
        return write_dockerfile(plan, &text);
    };
    let directory = temporary(plan)?;
    let stream = std::io::Cursor::new(head).chain(input);
    let result = match kind {
        Archive::Plain => unpack(stream, &directory),
        Archive::Gzip => unpack(flate2::read::MultiGzDecoder::new(stream), &directory),
    };
    result.map_err(|error| {
        Failure::new(format!(
            "ERROR: unable to prepare context: cannot unpack standard input: {error}"
        ))
    })?;
    let file = if file.is_empty() { "Dockerfile" } else { file };
    // Names in the archive, not of this machine.
    let inside = Path::new(file.trim_start_matches('/'));
    if inside
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir))
    {
        return Err(Failure::new(format!(
            "ERROR: the Dockerfile {file:?} is outside of the context"
        )));
    }
    let path = directory.join(inside);
    plan.lending.directories.insert("context".to_owned(), directory);
    if !path.is_file() {
        return Err(open_failure(file, &std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    local_dockerfile(plan, &path)
}

enum Archive {
    Plain,
    Gzip,
}

/// What an archive is; `None` for anything that is text.
fn archive_kind(head: &[u8]) -> Result<Option<Archive>, Failure> {
    let is = |magic: &[u8]| head.starts_with(magic);
    if is(&[0x1f, 0x8b]) {
        return Ok(Some(Archive::Gzip));
    }
    if is(b"BZh") || is(&[0xfd, b'7', b'z', b'X', b'Z']) || is(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err(Failure::new(
            "ERROR: the archive on standard input is compressed with bzip2, xz or zstd: only gzip is read; unpack it in front \
             of the pipe",
        ));
    }
    Ok((head.get(257..262) == Some(b"ustar")).then_some(Archive::Plain))
}

fn unpack(stream: impl Read, directory: &Path) -> std::io::Result<()> {
    let mut archive = tar::Archive::new(stream.take(LARGEST_CONTEXT));
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    // The library refuses names and links that lead out of the directory.
    archive.unpack(directory)
}

//! `cp`: files between a container and our file system, as tar archives.

mod unpack;

use std::io::Write;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use rorqual_client::{Body, Client, Method, Request, Response};
use rorqual_core::units;
use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, system_text};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, query};

/// `cp`
pub(super) static CP: Command = Command {
    name: "cp",
    paths: &["container cp", "cp"],
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdocker cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files between a container and the local file system",
    flags: &[&[
        Flag::new("archive", Kind::Bool, "Keep owners and groups").short('a'),
        Flag::new("follow-link", Kind::Bool, "Copy what a link in SRC_PATH points to").short('L'),
        Flag::new("quiet", Kind::Bool, "Don't say how much was copied").short('q'),
    ]],
    args: Args::Exactly(2),
    run: task!(cp),
    completes: Completes::Containers,
    ..Command::EMPTY
};

async fn cp(cli: &Cli, matches: &Matches) -> Outcome {
    let (source, target) = (matches.word(0), matches.word(1));
    if source.is_empty() {
        return Err(Failure::new("source can not be empty"));
    }
    if target.is_empty() {
        return Err(Failure::new("destination can not be empty"));
    }
    match (split(source), split(target)) {
        (Some(_), Some(_)) => Err(Failure::new("copying between containers is not supported")),
        (Some((name, path)), None) => download(cli, matches, name, path, target).await,
        (None, Some((name, path))) => upload(cli, matches, source, name, path).await,
        (None, None) => Err(Failure::new("must specify at least one container source")),
    }
}

/// `container:path`; a path may have colons when it starts with a dot or slash.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') || text.starts_with('.') {
        return None;
    }
    let (name, path) = text.split_once(':')?;
    (!name.is_empty()).then_some((name, path))
}

/// What the daemon says of a path; `None` when it is not there.
async fn stat(client: &Client, name: &str, path: &str) -> Result<Option<Json>, Failure> {
    let query = query(&[("path", path)]);
    let request =
        Request::new(Method::HEAD, format!("/containers/{}/archive{query}", encoded(name)));
    match client.send(request).await {
        Ok(answer) => Ok(path_stat(&answer)),
        Err(error) if error.is_not_found() => Ok(None),
        // A path as `file/`: there is a file, but no such directory.
        Err(_) if path.ends_with('/') => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn path_stat(answer: &Response) -> Option<Json> {
    let bytes = base64_decoded(answer.header("x-docker-container-path-stat")?)?;
    serde_json::from_slice(&bytes).ok()
}

fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let digits: Option<Vec<u32>> = text.trim_end_matches('=').bytes().map(value).collect();
    for group in digits?.chunks(4) {
        let number = group.iter().fold(0, |sum, digit| sum << 6 | digit) << (6 * (4 - group.len()));
        out.extend_from_slice(&number.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

// Go's `fs.FileMode` bits, in which the daemon tells a path's type.
const MODE_DIRECTORY: u64 = 1 << 31;
const MODE_LINK: u64 = 1 << 27;

fn has_mode(stat: &Json, bit: u64) -> bool {
    stat["mode"].as_u64().unwrap_or(0) & bit != 0
}

/// The path a link inside a container points to.
fn link_target(path: &str, stat: &Json) -> Option<String> {
    let target = stat["linkTarget"].as_str().filter(|target| !target.is_empty())?;
    if !has_mode(stat, MODE_LINK) {
        return None;
    }
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    Some(parent.join(target).display().to_string())
}

/// The last name of a path; `.` for one that means the contents.
fn last_name(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    let name = trimmed.rsplit('/').next().unwrap_or_default();
    if name.is_empty() { "/".to_owned() } else { name.to_owned() }
}

fn is_contents(path: &str) -> bool {
    path.ends_with("/.") || path == "."
}

async fn download(cli: &Cli, matches: &Matches, name: &str, path: &str, target: &str) -> Outcome {
    let client = cli.client()?;
    let mut path = path.to_owned();
    if matches.on("follow-link")
        && let Some(stat) = stat(client, name, &path).await?
        && let Some(real) = link_target(&path, &stat)
    {
        path = real;
    }
    let query = query(&[("path", &path)]);
    let request =
        Request::new(Method::GET, format!("/containers/{}/archive{query}", encoded(name)));
    let answer = client.send(request).await?;
    if target == "-" {
        return to_stdout(answer).await;
    }
    let stat = path_stat(&answer).unwrap_or_default();
    let place = Place::local(target, &path, has_mode(&stat, MODE_DIRECTORY))?;
    let size = extract(answer, place, matches.on("archive")).await?;
    report(cli, matches, size, target);
    Ok(0)
}

async fn to_stdout(mut answer: Response) -> Outcome {
    let mut out = tokio::io::stdout();
    while let Some(bytes) = answer.chunk().await? {
        out.write_all(&bytes).await?;
    }
    out.flush().await?;
    Ok(0)
}

fn report(cli: &Cli, matches: &Matches, size: u64, target: &str) {
    if !matches.on("quiet") && rustix::termios::isatty(rustix::stdio::stderr()) {
        let size = units::human_size_short(size);
        cli.complain(&format!("Successfully copied {size} to {target}"));
    }
}

/// Where an archive's tree goes: a directory, and the name its top gets there.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    directory: PathBuf,
    /// `None` drops the top: its contents go into the directory itself.
    top: Option<String>,
}

impl Place {
    fn local(target: &str, source: &str, is_directory: bool) -> Result<Self, Failure> {
        let path = &followed(Path::new(target));
        let contents = is_contents(source);
        if path.is_dir() {
            let top = if contents { None } else { Some(last_name(source)) };
            return Ok(Self { directory: path.to_owned(), top });
        }
        if path.exists() && is_directory {
            return Err(Failure::new("cannot copy directory"));
        }
        if !path.exists() && target.ends_with('/') && !is_directory {
            return Err(Failure::new(format!("no such directory: {target}")));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_owned();
        if !directory.is_dir() {
            return Err(Failure::new(format!(
                "invalid output path: directory {:?} does not exist",
                directory.display().to_string()
            )));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self { directory, top: Some(name.unwrap_or_else(|| last_name(target))) })
    }
}

/// Follows the links that the user himself named as target.
fn followed(path: &Path) -> PathBuf {
    // LIMIT: as the kernel does.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(link) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new(".")).join(link);
    }
    path
}

/// Unpacks an answer's archive; returns how many bytes came.
async fn extract(answer: Response, place: Place, owners: bool) -> Result<u64, Failure> {
    let stream = futures_util::stream::unfold(answer, |mut answer| async {
        match answer.chunk().await {
            Ok(Some(bytes)) => Some((Ok(bytes), answer)),
            Ok(None) => None,
            Err(error) => Some((Err(std::io::Error::other(error.to_string())), answer)),
        }
    });
    let reader = SyncIoBridge::new(tokio_util::io::StreamReader::new(stream.boxed()));
    let work = tokio::task::spawn_blocking(move || unpack::unpack(reader, &place, owners));
    let result = work.await.map_err(|error| Failure::new(error.to_string()))?;
    result.map_err(|error| Failure::new(system_text(&error)))
}

async fn upload(cli: &Cli, matches: &Matches, source: &str, name: &str, path: &str) -> Outcome {
    let client = cli.client()?;
    let mut path = path.to_owned();
    let mut target = stat(client, name, &path).await?;
    if let Some(real) = target.as_ref().and_then(|stat| link_target(&path, stat)) {
        target = stat(client, name, &real).await?;
        path = real;
    }
    let into_directory = target.as_ref().is_some_and(|stat| has_mode(stat, MODE_DIRECTORY));
    if source == "-" {
        let parent = if into_directory {
            path
        } else {
            return Err(Failure::new(format!("destination \"{name}:{path}\" must be a directory")));
        };
        let stream = ReaderStream::with_capacity(tokio::io::stdin(), 64 << 10);
        return put(
            client,
            name,
            &parent,
            Body::Stream(Box::new(stream.boxed()), "application/x-tar"),
            matches,
        )
        .await;
    }
    let follow = matches.on("follow-link");
    let local = Path::new(source);
    let meta = if follow { std::fs::metadata(local) } else { std::fs::symlink_metadata(local) };
    let meta = meta.map_err(|error| {
        let path = std::path::absolute(local).unwrap_or_else(|_| local.to_owned());
        Failure::new(format!("lstat {}: {}", path.display(), system_text(&error)))
    })?;
    let (directory, top) = match (into_directory, is_contents(source) && meta.is_dir()) {
        (true, true) => (path.clone(), None),
        (true, false) => (path.clone(), Some(local_name(local)?)),
        (false, _) => {
            if target.is_some() && meta.is_dir() {
                return Err(Failure::new("cannot copy directory"));
            }
            if path.ends_with('/') && !meta.is_dir() {
                // COMPAT: docker's text.
                return Err(Failure::new("no such directory"));
            }
            let parent = Path::new(path.trim_end_matches('/')).parent().unwrap_or(Path::new("/"));
            let parent = if parent.as_os_str().is_empty() { Path::new("/") } else { parent };
            (parent.display().to_string(), Some(last_name(&path)))
        }
    };
    let (reader, writer) = tokio::io::duplex(256 << 10);
    let local = local.to_owned();
    let packing = tokio::task::spawn_blocking(move || {
        pack(&local, top.as_deref(), follow, SyncIoBridge::new(writer))
    });
    let body =
        Body::Stream(Box::new(ReaderStream::with_capacity(reader, 64 << 10)), "application/x-tar");
    put(client, name, &directory, body, matches).await?;
    let size = packing.await.map_err(|error| Failure::new(error.to_string()))??;
    report(
        cli,
        matches,
        size,
        &format!("{name}:{}", matches.word(1).split_once(':').map_or("", |(_, path)| path)),
    );
    Ok(0)
}

fn local_name(path: &Path) -> Result<String, Failure> {
    let whole =
        if path.file_name().is_some() { path.to_owned() } else { std::fs::canonicalize(path)? };
    Ok(whole.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned()))
}

async fn put(client: &Client, name: &str, path: &str, body: Body, matches: &Matches) -> Outcome {
    let owners = if matches.on("archive") { "true" } else { "" };
    let query = query(&[("copyUIDGID", owners), ("noOverwriteDirNonDir", "true"), ("path", path)]);
    let request =
        Request::new(Method::PUT, format!("/containers/{}/archive{query}", encoded(name)));
    client.send(request.with(body)).await?;
    Ok(0)
}

/// Writes a tree as an archive; returns how many bytes of files it has.
fn pack(path: &Path, top: Option<&str>, follow: bool, writer: impl Write) -> std::io::Result<u64> {
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    let mut size = 0;
    let meta = if follow { std::fs::metadata(path)? } else { std::fs::symlink_metadata(path)? };
    if meta.is_dir() {
        size += pack_directory(&mut builder, path, Path::new(top.unwrap_or(".")))?;
    } else {
        builder.follow_symlinks(follow);
        builder.append_path_with_name(path, top.unwrap_or("file"))?;
        size += meta.len();
    }
    builder.into_inner()?.flush()?;
    Ok(size)
}

fn pack_directory<W: Write>(
    builder: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
) -> std::io::Result<u64> {
    builder.append_dir(name, path)?;
    let mut size = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let inner = name.join(entry.file_name());
        if meta.is_dir() {
            size += pack_directory(builder, &entry.path(), &inner)?;
            continue;
        }
        if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) {
            // Sockets cannot be archived.
            continue;
        }
        builder.append_path_with_name(entry.path(), &inner)?;
        size += meta.len();
    }
    Ok(size)
}

//! `image push ssh://…`: an image to another machine without a registry.
//!
//! The image is laid out in a temporary directory and served from this process, by as much of the registry protocol as a pull needs.
//! ssh carries a port of the far machine back to it, and the far daemon pulls from there: so it fetches only the layers that it lacks, and
//! goes on where a connection broke. Any daemon that speaks the Engine API will do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rorqual_client::{Client, Host, Method, Options, Request};
use rorqual_core::{Digest, Reference};
use serde_json::{Value as Json, json};

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::output::text::{encoded, query};
use crate::progress::{self, Show};

// LIMIT: time for ssh to open the way back.
const PATIENCE: Duration = Duration::from_secs(45);
// LIMIT: the head of a request.
const MAX_HEAD: u64 = 64 << 10;
// LIMIT: connections that are served at a time.
const MAX_SERVED: usize = 64;
/// Repository the far daemon pulls from.
const REPOSITORY: &str = "image";

/// An image laid out to be served.
struct Layout {
    folder: PathBuf,
    /// Digest and media type of what the name leads to.
    target: String,
    kinds: HashMap<String, String>,
}

/// A process that ends with this one.
struct Tunnel(Child);

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends an image to the daemon of another machine.
pub(super) async fn push(cli: &Cli, to: &str, image: &str, show: Show) -> Outcome {
    let name =
        image.parse::<Reference>().map_err(|error| Failure::new(error.to_string()))?.or_latest();
    let host: Host =
        to.parse().map_err(|error: rorqual_client::InvalidHost| Failure::new(error.to_string()))?;
    let Host::Ssh { target, port, .. } = &host else {
        return Err(Failure::new(format!("{to}: need ssh://[user@]host[:port][/socket]")));
    };
    // Not the layout's own: the thread that serves it never ends, and what it holds would be left behind.
    let folder = tempfile::Builder::new().prefix("rorqual-push-").tempdir()?;
    let layout = Arc::new(lay_out(cli, image, folder.path()).await?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let local = listener.local_addr()?.port();
    let served = Arc::clone(&layout);
    std::thread::spawn(move || serve(&listener, &served));
    let (_tunnel, remote) = tunnel(target, *port, local)?;
    let far = Client::new(
        host.clone(),
        Options { user_agent: "rorqual".to_owned(), ..Options::default() },
    );
    let from = format!("127.0.0.1:{remote}/{REPOSITORY}");
    let path = query(&[("fromImage", &from), ("tag", &layout.target)]);
    let mut request = Request::new(Method::POST, format!("/images/create{path}"));
    request.headers.push(("x-registry-auth", "e30=".to_owned()));
    let answer = far.send(request).await?;
    progress::show(answer, show).await?;
    // The image gets the name it has here, and loses the one of the way it came.
    let came = format!("{from}@{}", layout.target);
    let familiar = name.familiar();
    let (repository, tag) = super::split_tag(&familiar);
    let path =
        format!("/images/{}/tag{}", encoded(&came), query(&[("repo", repository), ("tag", tag)]));
    far.post(path, Json::Null).await?;
    far.delete(format!("/images/{}", encoded(&came))).await?;
    cli.line(&format!("{} is now at {target}", name.familiar()))?;
    Ok(0)
}

/// Saves an image and unpacks the archive into a directory of blobs.
async fn lay_out(cli: &Cli, image: &str, folder: &Path) -> Result<Layout, Failure> {
    let request = Request::new(Method::GET, format!("/images/{}/get", encoded(image)));
    let mut answer = cli.client()?.send(request).await?;
    let archive = folder.join("archive");
    let mut file = File::create(&archive)?;
    while let Some(bytes) = answer.chunk().await? {
        file.write_all(&bytes)?;
    }
    drop(file);
    let mut index = Json::Null;
    for entry in tar::Archive::new(File::open(&archive)?).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        if path == "index.json" {
            index = serde_json::from_reader(&mut entry)
                .map_err(|error| Failure::new(error.to_string()))?;
        } else if let Some(digest) = blob_digest(&path) {
            io::copy(&mut entry, &mut File::create(folder.join(digest.hex()))?)?;
        }
    }
    std::fs::remove_file(&archive)?;
    let target = &index["manifests"][0];
    let text = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
    let mut kinds = HashMap::from([(text("digest"), text("mediaType"))]);
    list_kinds(folder, &text("digest"), &mut kinds)?;
    Ok(Layout { target: text("digest"), folder: folder.to_owned(), kinds })
}

fn blob_digest(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Finds out what the manifests below an index are.
fn list_kinds(
    folder: &Path,
    digest: &str,
    kinds: &mut HashMap<String, String>,
) -> Result<(), Failure> {
    let missing = || Failure::new("the daemon's archive has no index");
    let parsed = digest.parse::<Digest>().map_err(|_| missing())?;
    let bytes = std::fs::read(folder.join(parsed.hex()))?;
    let document: Json =
        serde_json::from_slice(&bytes).map_err(|error| Failure::new(error.to_string()))?;
    for entry in document["manifests"].as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        kinds.insert(text("digest"), text("mediaType"));
    }
    Ok(())
}

/// Opens a port of the far machine that leads back to ours.
fn tunnel(target: &str, port: Option<u16>, local: u16) -> Result<(Tunnel, u16), Failure> {
    let mut command = Command::new("ssh");
    command.args(["-N", "-o", "ConnectTimeout=30", "-o", "ExitOnForwardFailure=yes"]);
    // The port is told at this level only, whatever the user's configuration says.
    command.args(["-o", "LogLevel=INFO"]);
    command.arg("-R").arg(format!("127.0.0.1:0:127.0.0.1:{local}"));
    if let Some(port) = port {
        command.args(["-p", &port.to_string()]);
    }
    command.args(["--", target]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Tunnel(command.spawn()?);
    let stderr = child.0.stderr.take().ok_or_else(|| Failure::new("ssh has no output"))?;
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let begun = Instant::now();
    let mut said = Vec::new();
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        match told.recv_timeout(left) {
            Ok(line) => match allocated(&line) {
                Some(port) => {
                    // What ssh says later is read, so that it never waits.
                    std::thread::spawn(move || told.iter().for_each(drop));
                    return Ok((child, port));
                }
                None => said.push(line),
            },
            Err(_) => {
                let text = format!("ssh opens no way back from {target}: {}", said.join("; "));
                return Err(Failure::new(text));
            }
        }
    }
}

/// `Allocated port 41234 for remote forward to …`
fn allocated(line: &str) -> Option<u16> {
    line.trim().strip_prefix("Allocated port ")?.split(' ').next()?.parse().ok()
}

fn serve(listener: &TcpListener, layout: &Arc<Layout>) {
    let slots = Arc::new(());
    for stream in listener.incoming().flatten() {
        if Arc::strong_count(&slots) > MAX_SERVED {
            continue;
        }
        let (layout, slot) = (Arc::clone(layout), Arc::clone(&slots));
        std::thread::spawn(move || {
            // The other side tries again where it still wants something.
            while matches!(answer(&stream, &layout), Ok(true)) {}
            drop(slot);
        });
    }
}

/// Answers one request; true when another may follow.
fn answer(stream: &TcpStream, layout: &Layout) -> io::Result<bool> {
    let mut reader = BufReader::new(stream.take(MAX_HEAD));
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(false);
    }
    let mut from = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let lower = header.to_ascii_lowercase();
        if let Some(range) = lower.strip_prefix("range: bytes=") {
            from = range.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        }
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = find(layout, path).filter(|_| matches!(method, "GET" | "HEAD"));
    let mut out = stream;
    let Some((file, kind, digest)) = found else {
        let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
        let body =
            json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "not in this image"}]})
                .to_string();
        let body = if path == "/v2/" || method == "HEAD" { String::new() } else { body };
        write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        return Ok(true);
    };
    let mut file = File::open(file)?;
    let size = file.metadata()?.len();
    let from = u64::min(from, size);
    let (status, range) = match from {
        0 => ("200 OK", String::new()),
        from => (
            "206 Partial Content",
            format!("Content-Range: bytes {from}-{}/{size}\r\n", size.saturating_sub(1)),
        ),
    };
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\n{range}Content-Length: {}\r\n\r\n",
        size - from
    )?;
    if method == "GET" {
        file.seek(SeekFrom::Start(from))?;
        io::copy(&mut file, &mut out)?;
    }
    Ok(true)
}

/// Finds the file that a path asks for, with its type and digest.
fn find<'l>(layout: &'l Layout, path: &str) -> Option<(PathBuf, &'l str, String)> {
    let rest = path.strip_prefix("/v2/")?.strip_prefix(REPOSITORY)?;
    let (is_manifest, digest) =
        match (rest.strip_prefix("/manifests/"), rest.strip_prefix("/blobs/")) {
            (Some(digest), _) => (true, digest),
            (_, Some(digest)) => (false, digest),
            _ => return None,
        };
    let parsed = digest.parse::<Digest>().ok()?;
    let file = layout.folder.join(parsed.hex());
    let kind = match is_manifest {
        true => layout.kinds.get(digest)?.as_str(),
        false => "application/octet-stream",
    };
    file.exists().then(|| (file, kind, digest.to_owned()))
}

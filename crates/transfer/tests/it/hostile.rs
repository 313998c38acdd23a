//! A registry that does as it is told, good or bad: a server in this process that speaks HTTP by hand, so that it can break it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rorqual_core::{Digest, Reference};
use serde_json::{Value, json};

use crate::world::{gzip, sha, tar};

/// A request, as rules see it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// How many requests of this method and path came before.
    pub(crate) nth: usize,
}

impl Asked {
    /// The first byte that is asked for.
    pub(crate) fn from(&self) -> usize {
        let range = self.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/")
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What `Content-Length` says instead of the truth.
    pub(crate) length: Option<u64>,
    /// Bytes of the body after which the connection is cut.
    pub(crate) cut: Option<usize>,
    /// The body never ends.
    pub(crate) endless: bool,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Rule = Box<dyn Fn(&Asked, &Shelf) -> Option<Answer> + Send + Sync>;

/// What the registry has.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) blobs: Mutex<HashMap<String, Vec<u8>>>,
    /// By tag and by digest: media type and bytes.
    pub(crate) manifests: Mutex<HashMap<String, (String, Vec<u8>)>>,
    pub(crate) uploads: Mutex<HashMap<String, Vec<u8>>>,
    pub(crate) log: Mutex<Vec<Asked>>,
    asked: Condvar,
    /// Bodies of unknown length are not read to their end until an upload is given up.
    pub(crate) stalls: AtomicBool,
}

/// The registry.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) shelf: Arc<Shelf>,
    rule: Arc<Mutex<Option<Rule>>>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    format!("sha256:{}", sha(bytes)).parse().unwrap()
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub(crate) fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (shelf, rule) = (Arc::<Shelf>::default(), Arc::<Mutex<Option<Rule>>>::default());
        let (serving, ruling) = (Arc::clone(&shelf), Arc::clone(&rule));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shelf, rule) = (Arc::clone(&serving), Arc::clone(&ruling));
                std::thread::spawn(move || serve(stream, &shelf, &rule));
            }
        });
        Self { address, shelf, rule }
    }

    /// Answers by a rule where it has an answer.
    pub(crate) fn rule(
        &self,
        rule: impl Fn(&Asked, &Shelf) -> Option<Answer> + Send + Sync + 'static,
    ) {
        *self.rule.lock().unwrap() = Some(Box::new(rule));
    }

    pub(crate) fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    pub(crate) fn log(&self) -> Vec<Asked> {
        self.shelf.log.lock().unwrap().clone()
    }

    /// Lines of the log, as `GET /v2/…`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }

    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = digest(bytes);
        self.shelf.blobs.lock().unwrap().insert(digest.to_string(), bytes.to_vec());
        digest
    }

    pub(crate) fn put_manifest(&self, tag: &str, kind: &str, bytes: &[u8]) -> Digest {
        let digest = digest(bytes);
        let mut manifests = self.shelf.manifests.lock().unwrap();
        manifests.insert(tag.to_owned(), (kind.to_owned(), bytes.to_vec()));
        manifests.insert(digest.to_string(), (kind.to_owned(), bytes.to_vec()));
        digest
    }

    /// Makes an image of layers (plain tars) and returns its manifest.
    pub(crate) fn image(&self, tag: &str, architecture: &str, layers: &[Vec<u8>]) -> Value {
        let diffs: Vec<String> = layers.iter().map(|layer| digest(layer).to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = config.to_string();
        let descriptor = |kind: &str, bytes: &[u8]| {
            let digest = self.put_blob(bytes);
            json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()})
        };
        let packed: Vec<Value> =
            layers.iter().map(|layer| descriptor(LAYER, &gzip(layer))).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config.as_bytes()), "layers": packed,
        });
        self.put_manifest(tag, MANIFEST, manifest.to_string().as_bytes());
        manifest
    }

    /// Makes an image of one layer with a file of noise, so that it does not get smaller.
    pub(crate) fn noisy(&self, tag: &str, len: usize) -> Value {
        self.image(tag, architecture(), &[noise(len)])
    }
}

/// Name of this machine's architecture in images.
pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A layer that holds so many bytes of noise.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u32 | 1;
    let bytes = (0..len).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    tar(&[("noise", &bytes.collect::<Vec<_>>())])
}

fn serve(stream: TcpStream, shelf: &Shelf, rule: &Mutex<Option<Rule>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(asked) = read(&mut reader, shelf) else { return };
    let ruled = rule.lock().unwrap().as_ref().and_then(|rule| rule(&asked, shelf));
    let answer = ruled.unwrap_or_else(|| honest(&asked, shelf));
    write(stream, &asked, &answer);
}

fn read(reader: &mut impl BufRead, shelf: &Shelf) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = Vec::new();
    if headers.contains_key("transfer-encoding") {
        if shelf.stalls.load(Ordering::Relaxed) {
            let given_up = |log: &mut Vec<Asked>| log.iter().all(|asked| asked.method != "DELETE");
            let log = shelf.log.lock().unwrap();
            drop(shelf.asked.wait_timeout_while(log, Duration::from_secs(30), given_up).unwrap());
            return None;
        }
        while let Some(piece) = chunk(reader)? {
            body.extend_from_slice(&piece);
        }
    } else {
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
    }
    let mut log = shelf.log.lock().unwrap();
    let nth = log.iter().filter(|other| other.method == method && other.path == path).count();
    let asked = Asked { method, path, headers, body, nth };
    log.push(asked.clone());
    shelf.asked.notify_all();
    Some(asked)
}

/// Reads one chunk of a body of unknown length: nothing at its end.
fn chunk(reader: &mut impl BufRead) -> Option<Option<Vec<u8>>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut piece = vec![0; usize::from_str_radix(line.trim_end(), 16).ok()?];
    reader.read_exact(&mut piece).ok()?;
    reader.read_line(&mut line).ok()?;
    Some(Some(piece).filter(|piece| !piece.is_empty()))
}

fn write(mut stream: TcpStream, asked: &Asked, answer: &Answer) {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = answer.length.unwrap_or(answer.body.len() as u64);
    let says = answer.headers.iter().any(|(name, _)| name == "Content-Length");
    if !answer.endless && !says {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    if stream.write_all(head.as_bytes()).is_err() || asked.method == "HEAD" {
        return;
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    let mut failed = stream.write_all(body).is_err();
    let zeros = vec![0; 65536];
    while answer.endless && !failed {
        failed = stream.write_all(&zeros).is_err();
    }
}

/// What a good registry does.
pub(crate) fn honest(asked: &Asked, shelf: &Shelf) -> Answer {
    let path = asked.path.split('?').next().unwrap();
    let query = asked.path.split_once('?').map_or("", |(_, query)| query);
    if path == "/v2/" {
        return Answer::status(200);
    }
    let last = path.rsplit('/').next().unwrap().to_owned();
    match (asked.method.as_str(), path.contains("/manifests/"), path.contains("/blobs/uploads/")) {
        ("GET" | "HEAD", true, _) => match shelf.manifests.lock().unwrap().get(&last) {
            Some((kind, bytes)) => Answer::bytes(bytes.clone())
                .with("Content-Type", kind.clone())
                .with("Docker-Content-Digest", digest(bytes).to_string())
                .with("Content-Length", bytes.len().to_string()),
            None => Answer {
                body: unknown("MANIFEST_UNKNOWN", "manifest unknown"),
                ..Answer::status(404)
            },
        },
        ("PUT", true, _) => {
            let kind = asked.headers["content-type"].clone();
            let mut manifests = shelf.manifests.lock().unwrap();
            manifests.insert(digest(&asked.body).to_string(), (kind.clone(), asked.body.clone()));
            manifests.insert(last, (kind, asked.body.clone()));
            Answer::status(201)
        }
        ("POST", _, true) => {
            // Uploads end in any order, so their number says nothing of what is free.
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
            shelf.uploads.lock().unwrap().insert(id.clone(), Vec::new());
            Answer::status(202).with("Location", format!("{path}{id}"))
        }
        ("PATCH", _, true) => {
            let mut uploads = shelf.uploads.lock().unwrap();
            let upload = uploads.get_mut(&last).unwrap();
            upload.extend_from_slice(&asked.body);
            let range = format!("0-{}", upload.len() - 1);
            Answer::status(202).with("Location", path).with("Range", range)
        }
        ("PUT", _, true) => {
            let mut bytes = shelf.uploads.lock().unwrap().remove(&last).unwrap();
            bytes.extend_from_slice(&asked.body);
            let wanted = query.split("digest=").nth(1).unwrap().replace("%3A", ":");
            if digest(&bytes).to_string() != wanted {
                return Answer {
                    body: unknown("DIGEST_INVALID", "digest invalid"),
                    ..Answer::status(400)
                };
            }
            shelf.blobs.lock().unwrap().insert(wanted, bytes);
            Answer::status(201)
        }
        ("DELETE", _, true) => match shelf.uploads.lock().unwrap().remove(&last) {
            Some(_) => Answer::status(204),
            None => Answer::status(404),
        },
        ("GET", _, true) => match shelf.uploads.lock().unwrap().get(&last) {
            Some(upload) => Answer::status(204)
                .with("Location", path)
                .with("Range", format!("0-{}", upload.len().max(1) - 1)),
            None => Answer::status(404),
        },
        ("GET" | "HEAD", ..) => match shelf.blobs.lock().unwrap().get(&last) {
            Some(bytes) => ranged(asked, bytes),
            None => Answer { body: unknown("BLOB_UNKNOWN", "blob unknown"), ..Answer::status(404) },
        },
        _ => Answer::status(405),
    }
}

/// A blob, or the rest of it.
pub(crate) fn ranged(asked: &Asked, bytes: &[u8]) -> Answer {
    match asked.from() {
        0 => Answer::bytes(bytes),
        from => Answer { status: 206, ..Answer::bytes(&bytes[from..]) }
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}

pub(crate) fn unknown(code: &str, message: &str) -> Vec<u8> {
    json!({"errors": [{"code": code, "message": message}]}).to_string().into_bytes()
}

//! A builder that reads what clients lend and hands it back.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use rorqual_build::{
    Error, LocalSource, Location, LogStream, Progress, ResolveMode, ResolvedImage, Session as _,
    TreeEntry, TreeSink, VertexUpdate,
};
use rorqual_buildkit::{
    Backend, CacheRecord, Client, ExportRequest, FrontendRequest, Greeting, Lending, Outcome,
    PruneRequest, Refs, Scope, Server, State, Worker,
};
use rorqual_core::{Digest, Platform};

/// Everything that came of a directory.
pub(crate) type Tree = Arc<Mutex<BTreeMap<String, (u32, Vec<u8>)>>>;

/// Takes a directory into memory.
pub(crate) struct Memory(pub(crate) Tree);

impl TreeSink for Memory {
    fn entry(&mut self, entry: TreeEntry) -> Result<bool, Error> {
        self.0.lock().unwrap().insert(entry.path, (entry.mode, Vec::new()));
        Ok(true)
    }
    fn data(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.0.lock().unwrap().get_mut(path).unwrap().1.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// What the builder saw, and how it is to behave.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) context: Tree,
    pub(crate) cancelled: Arc<Mutex<Vec<String>>>,
    pub(crate) began: tokio::sync::Notify,
}

pub(crate) fn unsupported<T>() -> Result<T, Error> {
    Err(Error::Unsupported("not in this test".to_owned()))
}

fn vertex(name: &str) -> VertexUpdate {
    VertexUpdate {
        digest: Digest::sha256([7; 32]),
        inputs: Vec::new(),
        name: name.to_owned(),
        started: Some(SystemTime::now()),
        completed: None,
        cached: false,
        error: String::new(),
    }
}

#[async_trait]
impl Backend for Fake {
    fn worker(&self) -> Worker {
        Worker {
            id: "fake".to_owned(),
            labels: BTreeMap::new(),
            platforms: vec![Platform::host()],
            version: "0.0.0".to_owned(),
            caps: Vec::new(),
        }
    }

    async fn dockerfile(&self, request: FrontendRequest, scope: &Scope) -> Result<Outcome, Error> {
        let session = scope.session.clone().unwrap();
        let source = LocalSource {
            name: "context".to_owned(),
            exclude: vec!["*.tmp".to_owned()],
            ..LocalSource::default()
        };
        scope.progress.tell(Progress::Vertex(vertex("[internal] load build context")));
        session.sync(source, Box::new(Memory(Arc::clone(&self.context)))).await?;
        let mut done = vertex("[internal] load build context");
        done.completed = Some(SystemTime::now());
        scope.progress.tell(Progress::Vertex(done));
        scope.progress.tell(Progress::Log {
            vertex: Digest::sha256([7; 32]),
            stream: LogStream::Stdout,
            data: b"hello\n".to_vec(),
            at: SystemTime::now(),
        });
        match request.options.get("target").map(String::as_str) {
            Some("fail") => {
                scope.add_source("Dockerfile".to_owned(), b"FROM x\nRUN false\n".to_vec());
                Err(Error::Step {
                    command: "/bin/sh -c false".to_owned(),
                    code: 3,
                    location: Some(Location {
                        file: "Dockerfile".to_owned(),
                        first_line: 2,
                        first_column: 1,
                        last_line: 2,
                    }),
                })
            }
            Some("hang") => {
                let (cancel, told) = (scope.cancel.clone(), Arc::clone(&self.cancelled));
                let id = scope.id.clone();
                tokio::spawn(async move {
                    cancel.cancelled().await;
                    told.lock().unwrap().push(id);
                });
                self.began.notify_one();
                std::future::pending().await
            }
            _ => {
                let metadata = BTreeMap::from([("result.txt".to_owned(), b"fine".to_vec())]);
                Ok(Outcome { refs: Refs::One(None), metadata })
            }
        }
    }

    async fn evaluate(&self, _: &State, _: &Scope) -> Result<(), Error> {
        Ok(())
    }

    async fn read_file(
        &self,
        _: &State,
        _: &str,
        _: Option<(u64, u64)>,
        _: &Scope,
    ) -> Result<Vec<u8>, Error> {
        unsupported()
    }

    async fn read_dir(
        &self,
        _: &State,
        _: &str,
        _: &str,
        _: &Scope,
    ) -> Result<Vec<TreeEntry>, Error> {
        unsupported()
    }

    async fn stat(&self, _: &State, _: &str, _: &Scope) -> Result<TreeEntry, Error> {
        unsupported()
    }

    async fn resolve_image(
        &self,
        _: &str,
        _: &Platform,
        _: ResolveMode,
        _: &Scope,
    ) -> Result<ResolvedImage, Error> {
        unsupported()
    }

    async fn export(
        &self,
        _: &Outcome,
        request: ExportRequest,
        scope: &Scope,
    ) -> Result<BTreeMap<String, String>, Error> {
        let Some(session) = &scope.session else { return Ok(BTreeMap::new()) };
        for export in &request.exports {
            let id = export.id.to_string();
            match export.kind.as_str() {
                "tar" => {
                    let mut sink = session.output(&id).await?;
                    sink.write(&vec![b'x'; 3 << 20]).await?;
                    sink.finish().await?;
                }
                "local" => {
                    session.send_tree(&id, Box::new(std::io::Cursor::new(tar()))).await?;
                }
                _ => {}
            }
        }
        let secret = session.secret("token").await?.map(|secret| secret.0.len());
        let login = session.login("example.com").await?.map(|login| login.username);
        Ok(BTreeMap::from([
            ("secret".to_owned(), format!("{secret:?}")),
            ("login".to_owned(), format!("{login:?}")),
        ]))
    }

    async fn usage(&self) -> Result<Vec<CacheRecord>, Error> {
        let record = |id: &str, kind: &str| CacheRecord {
            id: id.to_owned(),
            size: 10,
            parents: Vec::new(),
            kind: kind.to_owned(),
            description: String::new(),
            is_mutable: false,
            is_in_use: false,
            is_shared: false,
            created: None,
            used: None,
            uses: 1,
        };
        Ok(vec![record("a", "regular"), record("b", "exec.cachemount")])
    }

    async fn prune(&self, request: PruneRequest) -> Result<Vec<CacheRecord>, Error> {
        let mut all = self.usage().await?;
        all.truncate(if request.all { 2 } else { 1 });
        Ok(all)
    }
}

/// A tar with two files in a directory.
pub(crate) fn tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    builder.append_data(&mut header, "out/", std::io::empty()).unwrap();
    for (name, text) in [("out/b", "two"), ("out/a", "one")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A server with its builder.
pub(crate) fn server() -> (Server, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    (Server::new(Arc::clone(&fake) as _, std::env::temp_dir()), fake)
}

/// A client on a connection of its own.
pub(crate) async fn connect(server: &Server) -> (Client, tokio::task::JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let server = server.clone();
    let served = tokio::spawn(async move { server.serve(far).await });
    (Client::new(near).await.unwrap(), served)
}

/// Opens a session; aborting the task is the client going away.
pub(crate) fn lend(server: &Server, id: &str, lending: Lending) -> tokio::task::JoinHandle<()> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in lending.headers(id, "") {
        headers.append(name, value.parse().unwrap());
    }
    let greeting = Greeting::from_headers(&headers).unwrap();
    let (near, far) = tokio::io::duplex(1 << 20);
    let sessions = server.sessions().clone();
    tokio::spawn(async move {
        tokio::join!(lending.serve(near), async {
            sessions.run(far, greeting).await.ok();
        });
    })
}

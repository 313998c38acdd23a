//! What clients can rely on.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use rorqual_build::SecretValue;
use rorqual_buildkit::{
    BuildRequest, CredentialSource, Export, Lending, OutputTarget, PruneRequest,
};

use crate::fake::{connect, lend, server};

struct Login;

#[async_trait]
impl CredentialSource for Login {
    async fn credentials(&self, host: &str) -> Result<Option<rorqual_build::Login>, String> {
        let secret = "s".to_owned();
        Ok((host == "example.com")
            .then(|| rorqual_build::Login { username: "me".to_owned(), secret }))
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn context() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    std::fs::write(dir.path().join("src/main.c"), vec![b'm'; 3_000_000]).unwrap();
    std::fs::write(dir.path().join("empty"), "").unwrap();
    std::fs::write(dir.path().join("left.tmp"), "no").unwrap();
    std::os::unix::fs::symlink("src/main.c", dir.path().join("link")).unwrap();
    dir
}

fn lending(dir: &tempfile::TempDir) -> Lending {
    Lending {
        directories: BTreeMap::from([("context".to_owned(), dir.path().to_owned())]),
        ..Lending::default()
    }
}

fn request(id: &str, target: &str) -> BuildRequest {
    BuildRequest {
        id: id.to_owned(),
        session: format!("s-{id}"),
        options: BTreeMap::from([("target".to_owned(), target.to_owned())]),
        ..BuildRequest::default()
    }
}

#[tokio::test]
async fn a_build_gets_its_context_and_gives_its_outputs() {
    let (server, fake) = server();
    let (dir, out) = (context(), tempfile::tempdir().unwrap());
    let (client, _served) = connect(&server).await;
    let tar = Buffer::default();
    let target = tar.clone();
    let lending = Lending {
        secrets: BTreeMap::from([("token".to_owned(), SecretValue(vec![1; 40]))]),
        credentials: Some(Arc::new(Login)),
        outputs: BTreeMap::from([
            (0, OutputTarget::Stream(Box::new(move |_| Ok(Box::new(target) as _)))),
            (1, OutputTarget::Directory(out.path().join("new"))),
        ]),
        ..lending(&dir)
    };
    let _session = lend(&server, "s-b", lending);
    let export = |id, kind: &str| Export { id, kind: kind.to_owned(), attrs: BTreeMap::new() };
    let request =
        BuildRequest { exports: vec![export(0, "tar"), export(1, "local")], ..request("b", "") };
    let told = client.build(request).await.unwrap();

    assert_eq!(told["secret"], "Some(40)");
    assert_eq!(told["login"], "Some(\"me\")");
    assert_eq!(tar.0.lock().unwrap().len(), 3 << 20);
    assert_eq!(std::fs::read_to_string(out.path().join("new/out/a")).unwrap(), "one");
    assert_eq!(std::fs::read_to_string(out.path().join("new/out/b")).unwrap(), "two");
    let seen = fake.context.lock().unwrap();
    let paths: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(paths, ["empty", "link", "src", "src/main.c"]);
    assert_eq!(seen["src/main.c"].1.len(), 3_000_000);
    assert_eq!(seen["src"].0 & 0o170_000, 0o040_000);
}

#[tokio::test]
async fn news_come_to_who_listens_and_to_who_asks_later() {
    let (server, _) = server();
    let dir = context();
    let (client, _served) = connect(&server).await;
    let _session = lend(&server, "s-b", lending(&dir));
    let (news, built) = tokio::join!(
        async { client.news("b").await.unwrap().collect::<Vec<_>>().await },
        client.build(request("b", ""))
    );
    built.unwrap();
    let logs = |news: Vec<Result<rorqual_buildkit::News, _>>| -> Vec<u8> {
        news.into_iter().flat_map(|batch| batch.unwrap().logs).flat_map(|log| log.data).collect()
    };
    assert_eq!(logs(news), b"hello\n");
    let later = client.news("b").await.unwrap().collect::<Vec<_>>().await;
    assert_eq!(logs(later), b"hello\n");
    let past = client.history().await.unwrap();
    assert_eq!((past.len(), past[0].id.as_str(), past[0].error.as_deref()), (1, "b", None));
}

#[tokio::test]
async fn a_failure_comes_with_the_lines_that_failed() {
    let (server, _) = server();
    let dir = context();
    let (client, _served) = connect(&server).await;
    let _session = lend(&server, "s-b", lending(&dir));
    let failure = client.build(request("b", "fail")).await.unwrap_err();
    assert_eq!(
        failure.message,
        "process \"/bin/sh -c false\" did not complete successfully: exit code: 3"
    );
    assert_eq!(failure.sources[0].0, "Dockerfile");
    assert_eq!((failure.sources[0].2, failure.sources[0].3), (2, 2));
    let past = client.history().await.unwrap();
    assert!(past[0].error.as_ref().unwrap().contains("exit code: 3"));
}

async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
}

#[tokio::test]
async fn a_build_ends_with_its_client() {
    // Either connection is enough: that of the calls, or that of the session.
    for gone in ["calls", "session", "future"] {
        let (server, fake) = server();
        let dir = context();
        let (client, served) = connect(&server).await;
        let session = lend(&server, "s-b", lending(&dir));
        let build = tokio::spawn(async move { client.build(request("b", "hang")).await });
        fake.began.notified().await;
        match gone {
            "calls" => served.abort(),
            "session" => session.abort(),
            _ => build.abort(),
        }
        until(|| fake.cancelled.lock().unwrap().as_slice() == ["b"]).await;
    }
}

#[tokio::test]
async fn a_build_without_its_session_says_so() {
    let (server, _) = server();
    let (client, _served) = connect(&server).await;
    tokio::time::pause();
    let failure = client.build(request("b", "")).await.unwrap_err();
    assert!(failure.message.contains("no active session for s-b"), "{}", failure.message);
}

#[tokio::test]
async fn questions_are_answered_and_not_listed() {
    let (server, _) = server();
    let dir = context();
    let (client, _served) = connect(&server).await;
    let _session = lend(&server, "s-q", lending(&dir));
    let mut question = request("q", "");
    question.options.insert("requestid".to_owned(), "frontend.outline".to_owned());
    question.is_internal = true;
    let told = client.build(question).await.unwrap();
    assert_eq!(told["result.txt"], "fine");
    assert!(client.history().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_cache_is_listed_and_pruned() {
    let (server, _) = server();
    let (client, _served) = connect(&server).await;
    assert_eq!(client.usage(Vec::new()).await.unwrap().len(), 2);
    let mounts = client.usage(vec!["type==exec.cachemount".to_owned()]).await.unwrap();
    assert_eq!(mounts[0].id, "b");
    assert!(client.usage(vec!["colour==red".to_owned()]).await.is_err());
    let removed = client.prune(PruneRequest { all: true, ..PruneRequest::default() }).await;
    assert_eq!(removed.unwrap().len(), 2);
}

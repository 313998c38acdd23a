//! A registry of its own per test, and the few requests that tests make again and again.

use std::ffi::OsStr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use reqwest::{Client, Response};
use rorqual_registry::{Config, Running, start};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) struct World {
    /// Before its folder, as fields are dropped in order.
    process: Option<Process>,
    pub(crate) folder: TempDir,
    pub(crate) running: Option<Running>,
    pub(crate) client: Client,
    pub(crate) base: String,
    config: Config,
}

/// A registry of its own process; ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

/// The code in an error's body.
pub(crate) async fn code(response: Response) -> String {
    let text = response.text().await.unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    document["errors"][0]["code"].as_str().unwrap_or(&text).to_owned()
}

/// The document of an answer.
pub(crate) async fn json(response: Response) -> serde_json::Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

pub(crate) fn client() -> Client {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

impl World {
    pub(crate) async fn start(config: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config: Config = serde_json::from_value(config).unwrap();
        config.listen = vec!["127.0.0.1:0".to_owned()];
        if config.storage.is_empty() {
            config.storage = folder.path().join("store").to_string_lossy().into_owned();
        }
        config.log.access = false;
        let running = start(config.clone()).await.unwrap();
        let base = format!("http://{}", running.addresses()[0]);
        Self { folder, running: Some(running), client: client(), base, config, process: None }
    }

    /// The same by a program `PROGRAM registry`; the storage is the configuration's, or a folder of its own.
    pub(crate) async fn of_program(program: &OsStr, mut config: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        config["listen"] = serde_json::json!([free.to_string()]);
        config["log"] = serde_json::json!({"access": false, "level": "warn"});
        if config["storage"].is_null() {
            config["storage"] = folder.path().join("store").to_string_lossy().into();
        }
        let file = folder.path().join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let child = Command::new(program).arg("registry").arg("--config-file").arg(&file).spawn();
        let process = Some(Process(child.unwrap()));
        let config = serde_json::from_value(config).unwrap();
        let (base, client) = (format!("http://{free}"), client());
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.get(format!("{base}/v2/")).send().await.is_err() {
            assert!(Instant::now() < deadline, "the program does not serve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { folder, running: None, client, base, config, process }
    }

    /// Kilobytes that the program had in memory at most; 0 in this process.
    pub(crate) fn peak(&self) -> u64 {
        let Some(process) = &self.process else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) async fn open() -> Self {
        Self::start(serde_json::json!({"delete": true})).await
    }

    /// Another registry over the same storage.
    pub(crate) async fn sibling(&self) -> Running {
        start(self.config.clone()).await.unwrap()
    }

    /// The same storage by another process, as far as the registry can tell.
    pub(crate) async fn beside(&self) -> Self {
        let (running, config) = (self.sibling().await, self.config.clone());
        let base = format!("http://{}", running.addresses()[0]);
        let folder = tempfile::tempdir().unwrap();
        Self { folder, running: Some(running), client: client(), base, config, process: None }
    }

    pub(crate) async fn restart(&mut self) {
        self.running.take().unwrap().stop().await;
        let running = self.sibling().await;
        self.base = format!("http://{}", running.addresses()[0]);
        self.running = Some(running);
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str) -> Response {
        self.request(method.parse().unwrap(), path).send().await.unwrap()
    }

    /// Pushes a blob in one request.
    pub(crate) async fn blob(&self, name: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.request(Method::POST, &path).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    pub(crate) async fn put(&self, name: &str, tag: &str, kind: &str, text: String) -> Response {
        let path = format!("/v2/{name}/manifests/{tag}");
        let request = self.request(Method::PUT, &path).header("content-type", kind);
        request.body(text).send().await.unwrap()
    }

    /// Pushes an image of one layer; returns the manifest's digest.
    pub(crate) async fn image(&self, name: &str, tag: &str, layer: &[u8], more: &str) -> String {
        let config = self.blob(name, b"{}").await;
        let blob = self.blob(name, layer).await;
        let text = image_text(&config, &blob, layer.len(), more);
        let by_digest = digest(text.as_bytes());
        let tag = if tag.is_empty() { &by_digest } else { tag };
        let answer = self.put(name, tag, MANIFEST, text.clone()).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{:?}", answer.text().await);
        by_digest
    }

    /// Begins an upload; returns its path.
    pub(crate) async fn upload(&self, name: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/")).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        answer.headers()["location"].to_str().unwrap().to_owned()
    }
}

pub(crate) fn image_text(config: &str, layer: &str, size: usize, more: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{size}}}]{more}}}"#
    )
}

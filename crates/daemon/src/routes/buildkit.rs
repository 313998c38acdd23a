//! Connections that speak BuildKit's protocol: calls of clients, and sessions on which the daemon calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use http::StatusCode;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use rorqual_api::message::Message;
use rorqual_buildkit::{Export, Greeting, PlainBuild, Server};
use rorqual_core::full_message;
use rorqual_http::{Answer, BoxFuture, Hijack, Protocol, RawStream, body};
use serde_json::json;

use crate::context::Context;
use crate::error::invalid;
use crate::request::{ApiRequest, Result, refuse, typed};
use crate::routes::build::{from_json, names, ulimits};
use crate::routes::transfers::driven;

/// `POST /grpc`
pub(super) async fn grpc(context: Arc<Context>, request: ApiRequest) -> Result {
    hijack(&request, move |connection| {
        Box::pin(async move { context.builds.serve(connection).await })
    })
}

/// `POST /session`
pub(super) async fn session(context: Arc<Context>, request: ApiRequest) -> Result {
    let greeting = match Greeting::from_headers(&request.parts.headers) {
        Ok(greeting) => greeting,
        Err(error) => return refuse(invalid(full_message(&error))),
    };
    hijack(&request, move |connection| {
        Box::pin(async move {
            if let Err(error) = context.builds.sessions().run(connection, greeting).await {
                tracing::debug!(error = full_message(&error), "cannot serve a session");
            }
        })
    })
}

/// Takes the connection over, as HTTP/2 without TLS of its own.
fn hijack(
    request: &ApiRequest,
    take: impl FnOnce(RawStream) -> BoxFuture<()> + Send + 'static,
) -> Result {
    let asked = request.parts.headers.get(UPGRADE).and_then(|asked| asked.to_str().ok());
    // COMPAT: BuildKit's texts.
    match asked {
        Some("h2c") => {}
        None | Some("") => return refuse(invalid("no upgrade proto in request")),
        Some(other) => return refuse(invalid(format!("protocol {other} not supported"))),
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    Ok(Answer::Hijack(Hijack { protocol: Protocol::Upgraded, headers, take: Box::new(take) }))
}

/// `POST /build?version=2`: a build of BuildKit in one request, as clients before buildx send it. Files come over the
/// session that it names.
pub(super) fn build(context: &Context, request: &ApiRequest) -> Result {
    let build = plain_build(request)?;
    let server = context.builds.clone();
    let (sender, body) = body::channel();
    let work = async move {
        let lines = run(&server, build);
        tokio::pin!(lines);
        while let Some(line) = lines.next().await {
            if sender.send(Ok(line.into())).await.is_err() {
                break;
            }
        }
    };
    typed(StatusCode::OK, "application/json", driven(work, body))
}

fn plain_build(request: &ApiRequest) -> Result<PlainBuild> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Output {
        r#type: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let query = &request.query;
    let mut options = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            options.insert(name.to_owned(), value.to_owned());
        }
    };
    set("filename", query.text("dockerfile"));
    set("target", query.text("target"));
    set("platform", query.text("platform"));
    set("cgroup-parent", query.text("cgroupparent"));
    let hosts: Vec<String> =
        query.all("extrahosts").map(|host| host.replacen(':', "=", 1)).collect();
    set("add-hosts", &hosts.join(","));
    set("ulimit", &ulimits(request)?.join(","));
    if let Some(size) = request.number("shmsize")?.filter(|size| *size > 0) {
        set("shm-size", &size.to_string());
    }
    match query.text("remote") {
        "" | "client-session" => {}
        remote => set("context", remote),
    }
    set("image-resolve-mode", if query.flag("pull") { "pull" } else { "local" });
    let network = query.text("networkmode");
    if matches!(network, "host" | "none") {
        set("force-network-mode", network);
    }
    if query.flag("nocache") {
        options.insert("no-cache".to_owned(), String::new());
    }
    let arguments: BTreeMap<String, Option<String>> = from_json(request, "buildargs")?;
    let inline_cache =
        arguments.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| value.as_deref() == Some("1"));
    options.extend(
        arguments
            .into_iter()
            .filter_map(|(name, value)| Some((format!("build-arg:{name}"), value?))),
    );
    let labels: BTreeMap<String, String> = from_json(request, "labels")?;
    options.extend(labels.into_iter().map(|(name, value)| (format!("label:{name}"), value)));
    let mut outputs: Vec<Output> = from_json(request, "outputs")?;
    if outputs.is_empty() {
        outputs.push(Output { r#type: "moby".to_owned(), attrs: BTreeMap::new() });
    }
    let names: Vec<String> = names(request)?.iter().map(ToString::to_string).collect();
    let exports = outputs.into_iter().filter(|output| output.r#type != "cacheonly").enumerate();
    let exports = exports.map(|(id, output)| {
        let mut attrs = output.attrs;
        if !names.is_empty() {
            attrs.entry("name".to_owned()).or_insert_with(|| names.join(","));
        }
        Export { id, kind: output.r#type, attrs }
    });
    let id = match query.text("buildid") {
        "" => rorqual_buildkit::new_id(),
        id => id.to_owned(),
    };
    Ok(PlainBuild {
        id,
        session: query.text("session").to_owned(),
        options,
        exports: exports.collect(),
        inline_cache,
        entitlements: if network == "host" { vec!["network.host".to_owned()] } else { Vec::new() },
    })
}

/// Runs a build; its news come as JSON lines, the image's id at the end.
fn run(server: &Server, build: PlainBuild) -> impl futures_util::Stream<Item = Vec<u8>> + Send {
    let (server, id) = (server.clone(), build.id.clone());
    let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(16);
    let work = async move {
        let trace = async {
            let Ok(news) = server.plain_status(&id).await else { return };
            tokio::pin!(news);
            while let Some(batch) = news.next().await {
                let line = json!({"id": "moby.buildkit.trace", "aux": STANDARD.encode(batch)});
                if sender.send(format!("{line}\r\n").into_bytes()).await.is_err() {
                    return;
                }
            }
        };
        let (built, ()) = tokio::join!(server.plain_build(build), trace);
        let last = match built {
            Ok(told) => {
                let id = told.get("containerimage.digest").cloned().unwrap_or_default();
                let line = json!({"id": "moby.image.id", "aux": {"ID": id}});
                format!("{line}\r\n").into_bytes()
            }
            Err(failure) => Message::error(&failure.message).line(),
        };
        sender.send(last).await.ok();
    };
    // The work is driven by whoever takes the lines, and ends with them.
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|line| (line, receiver))
    });
    let work = futures_util::stream::once(work).filter_map(|()| async { None });
    futures_util::stream::select(lines, work)
}

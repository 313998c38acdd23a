//! Images from and to registries: pull, push, login, search. Failures before anything was said are answers of their own, later
//! ones the last line of the stream.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::StatusCode;
use rorqual_api::image::{Found, LoginAnswer, RegistryCredentials};
use rorqual_api::message::{Message, ProgressDetail};
use rorqual_build::Login;
use rorqual_core::{Reference, Repository, full_message};
use rorqual_engine::{ImagePull, ImagePush, ImageSearch};
use rorqual_http::body;
use rorqual_transfer::{Progress, ProgressSink, RegistryAuth};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::context::Context;
use crate::convert::platform;
use crate::error::invalid;
use crate::request::{ApiRequest, Result, json, refuse, typed};
use crate::routes::attach::Piece;

// LIMIT: messages that a client has not taken; beyond that bars stand still, and only turns of events are told.
const WAITING: usize = 64;
/// LIMIT: messages of one stream in all cases: each layer has a handful of turns.
const MOST_WAITING: usize = 100_000;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)).ok()
}

/// Reads `X-Registry-Auth`. COMPAT: what cannot be read is nobody.
fn auth(request: &ApiRequest) -> RegistryAuth {
    let header = request.parts.headers.get("x-registry-auth");
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let document = decoded(text).and_then(|bytes| rorqual_api::from_slice(&bytes).ok());
    document.map(credentials).unwrap_or_default()
}

/// Reads `X-Registry-Config`, the logins of a classic build. COMPAT: what cannot be read is nobody.
pub(super) fn logins(request: &ApiRequest) -> Vec<(String, Login)> {
    let header = request.parts.headers.get("x-registry-config");
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let documents: Option<BTreeMap<String, RegistryCredentials>> =
        decoded(text).and_then(|bytes| rorqual_api::from_slice(&bytes).ok());
    let login = |document| {
        let RegistryAuth { username, password, identity_token, .. } = credentials(document);
        match identity_token.is_empty() {
            true => Login { username, secret: password },
            false => Login { username: String::new(), secret: identity_token },
        }
    };
    documents.into_iter().flatten().map(|(key, document)| (key, login(document))).collect()
}

fn credentials(document: RegistryCredentials) -> RegistryAuth {
    let RegistryCredentials {
        mut username, mut password, auth, identitytoken, registrytoken, ..
    } = document;
    if username.is_empty()
        && let Some(text) = decoded(&auth).and_then(|bytes| String::from_utf8(bytes).ok())
        && let Some((name, secret)) = text.split_once(':')
    {
        (username, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    RegistryAuth {
        username,
        password,
        identity_token: identitytoken,
        registry_token: registrytoken,
    }
}

/// Result of an operation.
type Outcome<T> = rorqual_engine::Result<T>;

/// What is under way, and what was said of it.
struct Telling {
    work: Option<Pin<Box<dyn Future<Output = Outcome<()>> + Send>>>,
    messages: UnboundedReceiver<Message>,
    waiting: Arc<AtomicUsize>,
    ready: VecDeque<Message>,
}

impl Telling {
    /// Returns the next message; `Err` once the work has failed and all was said.
    async fn next(&mut self) -> Outcome<Option<Message>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(work) = &mut self.work else {
                return Ok(self.messages.try_recv().ok());
            };
            tokio::select! {
                biased;
                result = work => {
                    self.work = None;
                    while let Ok(message) = self.messages.try_recv() {
                        self.ready.push_back(message);
                    }
                    match result {
                        Ok(()) => {}
                        Err(error) if self.ready.is_empty() => return Err(error),
                        Err(error) => self.ready.push_back(Message::error(&full_message(&error))),
                    }
                }
                Some(message) = self.messages.recv() => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    return Ok(Some(message));
                }
            }
        }
    }
}

/// Where the steps of an operation go.
#[derive(Clone)]
struct Teller {
    sender: tokio::sync::mpsc::UnboundedSender<Message>,
    waiting: Arc<AtomicUsize>,
}

impl Teller {
    fn send(&self, message: Message) {
        if self.waiting.load(Ordering::Relaxed) < MOST_WAITING && self.sender.send(message).is_ok()
        {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sink(&self) -> ProgressSink {
        let teller = self.clone();
        Arc::new(move |progress: Progress| {
            let Progress { id, status, current, total } = progress;
            let is_bar = total > 0;
            if is_bar && teller.waiting.load(Ordering::Relaxed) > WAITING {
                return;
            }
            let detail = ProgressDetail {
                current: current as i64,
                total: total as i64,
                ..ProgressDetail::default()
            };
            // COMPAT: turns of a layer carry an empty bar; what is about the whole carries none.
            let has_detail = is_bar || !id.is_empty() && !status.starts_with("Pulling from");
            let progress_detail = has_detail.then_some(detail);
            teller.send(Message { progress_detail, ..Message::status(&id, status) });
        })
    }
}

/// Answers with the steps of an operation, which ends when the client goes away.
async fn told<F>(work: impl FnOnce(Teller) -> F) -> Result
where
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let (sender, messages) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let work = work(Teller { sender, waiting: Arc::clone(&waiting) });
    let mut telling =
        Telling { work: Some(Box::pin(work)), messages, waiting, ready: VecDeque::new() };
    if let Some(first) = telling.next().await? {
        telling.ready.push_front(first);
    }
    let lines = futures_util::stream::unfold(telling, |mut telling| async {
        let message = match telling.next().await {
            Ok(message) => message?,
            Err(error) => Message::error(&full_message(&error)),
        };
        Some((Piece::Ok(Bytes::from(message.line())), telling))
    });
    typed(StatusCode::OK, "application/json", body::stream(Box::pin(lines)))
}

fn reference(text: &str) -> Result<Reference> {
    text.parse().map_err(|error: rorqual_core::InvalidReference| invalid(error.to_string()).into())
}

/// `POST /images/create?fromImage=`
pub(super) async fn pull(context: Arc<Context>, request: ApiRequest) -> Result {
    let (name, tag) = (request.query.text("fromImage"), request.query.text("tag"));
    let name = match tag {
        "" => reference(name)?,
        digest if digest.contains(':') => reference(&format!("{name}@{digest}"))?,
        tag => reference(&format!("{name}:{tag}"))?,
    };
    // COMPAT: a bare repository is all that it has.
    let all_tags = name.tag().is_none() && name.digest().is_none();
    let shown = name.clone().or_latest().familiar();
    if !all_tags
        && context.engine.images.inspect(&shown).await.is_err()
        && context.builtin.install(&shown).await?
    {
        let message = Message::status("", format!("Status: {shown} is built in"));
        return typed(StatusCode::OK, "application/json", body::full(message.line()));
    }
    let pull = ImagePull {
        name,
        all_tags,
        platform: platform::words(request.query.text("platform"))?,
        auth: auth(&request),
    };
    told(|teller| async move { context.engine.images.pull(pull, teller.sink()).await.map(drop) })
        .await
}

/// `POST /images/{name}/push`
pub(super) async fn push(context: Arc<Context>, request: ApiRequest) -> Result {
    let (name, tag) = (reference(request.param("name"))?, request.query.text("tag"));
    let all_tags = tag.is_empty() && name.tag().is_none();
    let name = match tag {
        "" => name,
        tag => {
            let repository: Repository = name.repository().clone();
            Reference::tagged(repository, tag).map_err(|error| invalid(error.to_string()))?
        }
    };
    let push = ImagePush {
        name,
        all_tags,
        platform: platform::document(request.query.text("platform"))?,
        auth: auth(&request),
    };
    told(|teller| async move {
        let told = teller.clone();
        let sent = move |tag: &str, pushed: &rorqual_transfer::Pushed| {
            let aux = json!({
                "Tag": tag,
                "Digest": pushed.target.digest.to_string(),
                "Size": pushed.target.size,
            });
            let progress_detail = Some(ProgressDetail::default());
            told.send(Message { progress_detail, aux: Some(aux), ..Message::default() });
        };
        context.engine.images.push(push, teller.sink(), sent).await
    })
    .await
}

/// `POST /auth`
pub(super) async fn login(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let document: RegistryCredentials = request.json(None).await?;
    let server = document.serveraddress.clone();
    let token = context.engine.images.login(&server, &credentials(document)).await?;
    let answer = LoginAnswer {
        identity_token: token.unwrap_or_default(),
        status: "Login Succeeded".to_owned(),
    };
    json(StatusCode::OK, &answer)
}

/// `GET /images/search`
pub(super) async fn search(context: Arc<Context>, request: ApiRequest) -> Result {
    let term = request.query.text("term").to_owned();
    if term.is_empty() {
        return refuse(invalid("need a term to search for"));
    }
    let limit = request.number("limit")?.unwrap_or(0);
    let search = ImageSearch { term, limit, filters: request.filters()?, auth: auth(&request) };
    let found = context.engine.images.search(search).await?;
    let documents = found.into_iter().map(|one| Found {
        star_count: one.stars as i64,
        is_official: one.official,
        name: one.name,
        is_automated: false,
        description: one.description,
    });
    json(StatusCode::OK, &documents.collect::<Vec<_>>())
}

/// `GET /distribution/{name}/json`
pub(super) async fn distribution(context: Arc<Context>, request: ApiRequest) -> Result {
    let name = reference(request.param("name"))?;
    let found = context.engine.images.distribution(&name, &auth(&request)).await?;
    let descriptor = &found.descriptor;
    let platforms = found.platforms.iter().map(|platform| {
        let mut document = json!({"architecture": platform.architecture, "os": platform.os});
        if !platform.variant.is_empty() {
            document["variant"] = platform.variant.clone().into();
        }
        document
    });
    let platforms = platforms.collect::<Vec<_>>();
    let document = json!({
        "Descriptor": {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest.to_string(),
            "size": descriptor.size,
        },
        "Platforms": platforms,
    });
    json(StatusCode::OK, &document)
}

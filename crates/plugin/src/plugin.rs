//! One plugin: its address, and calls over it. Each call has a connection and a deadline of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rorqual_client::{Connection, Host, dial};
use rorqual_core::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::discovery::Address;
use crate::plugins::Patience;
use crate::{Error, Result};

const MEDIA: &str = "application/vnd.docker.plugins.v1.2+json";
// LIMIT: a list of a hundred thousand volumes is smaller; a plugin that sends more is broken.
const LARGEST_ANSWER: usize = 32 << 20;
// LIMIT: an error's text that nobody reads to its end.
const LONGEST_MESSAGE: usize = 4096;

/// A plugin that was found; see [`crate::Plugins::get`].
#[derive(Debug)]
pub struct Plugin {
    name: String,
    pub(crate) address: Address,
    pub(crate) implements: Vec<String>,
    patience: Patience,
    /// Nobody was at its address: it is looked for again next time.
    lost: AtomicBool,
}

impl Plugin {
    pub(crate) const fn new(name: String, address: Address, patience: Patience) -> Self {
        let lost = AtomicBool::new(false);
        Self { name, address, implements: Vec::new(), patience, lost }
    }

    /// Returns the name it was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the subsystems it told in its handshake.
    pub fn implements(&self) -> &[String] {
        &self.implements
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Calls `method` (as `VolumeDriver.Create`) and reads its answer.
    ///
    /// A plugin that is just being restarted is waited for, within `deadline`: connecting is tried again and again. Once it
    /// was asked it is not asked again, because what a method does need not be repeatable.
    ///
    /// # Errors
    /// `Refused` when the plugin says no, by the status or by a text in `Err` or `Error`; `Unreachable`, `TimedOut` and
    /// `Protocol` when there is no usable answer.
    ///
    /// # Cancellation
    /// The connection is closed; the plugin may have done what it was asked.
    pub async fn call<A: DeserializeOwned>(
        &self,
        method: &str,
        question: &(impl Serialize + Sync),
        deadline: Duration,
    ) -> Result<A> {
        let question = serde_json::to_vec(question).map_err(|error| self.broken(method, error))?;
        let answer = self.exchange(method, Bytes::from(question), deadline).await?;
        // Some plugins answer with nothing where there is nothing to say.
        let answer: &[u8] = if answer.trim_ascii().is_empty() { b"{}" } else { &answer };
        let answer: Value =
            serde_json::from_slice(answer).map_err(|error| self.broken(method, error))?;
        if let Some(message) = complaint(&answer) {
            return Err(Error::Refused { method: method.to_owned(), status: None, message });
        }
        serde_json::from_value(answer).map_err(|error| self.broken(method, error))
    }

    /// Sends bytes and returns the body of an answer with status 200.
    pub(crate) async fn exchange(
        &self,
        method: &str,
        question: Bytes,
        deadline: Duration,
    ) -> Result<Bytes> {
        let until = Instant::now() + deadline;
        let connection = self.connect(until.min(Instant::now() + self.patience.total)).await?;
        let talk = self.talk(connection, method, question);
        let late = |_| Error::TimedOut {
            name: self.name.clone(),
            method: method.to_owned(),
            after: deadline,
        };
        tokio::time::timeout_at(until, talk).await.map_err(late)?
    }

    async fn connect(&self, until: Instant) -> Result<Connection> {
        let mut pause = self.patience.first;
        loop {
            let dialled =
                tokio::time::timeout_at(until, dial(&self.address.host, self.address.tls.as_ref()));
            let source: BoxError = match dialled.await {
                Ok(Ok(connection)) => {
                    self.lost.store(false, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Err(error)) => Box::new(reason(error)),
                Err(late) => Box::new(late),
            };
            if Instant::now() + pause >= until {
                self.lost.store(true, Ordering::Relaxed);
                let (name, address) = (self.name.clone(), self.address.host.to_string());
                return Err(Error::Unreachable { name, address, source });
            }
            tracing::debug!(plugin = self.name, ?pause, "plugin does not answer, trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.patience.longest);
        }
    }

    async fn talk(&self, connection: Connection, method: &str, question: Bytes) -> Result<Bytes> {
        let broken = |error: hyper::Error| self.broken(method, error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection))
                .await
                .map_err(broken)?;
        // Ends with the exchange: the sender is dropped then.
        tokio::spawn(connection);
        let request = http::Request::post(format!("/{method}"))
            .header(HOST, self.host_header())
            .header(ACCEPT, MEDIA)
            .header(CONTENT_TYPE, MEDIA)
            .body(Full::new(question))
            .map_err(|error| self.broken(method, error))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        let body = self.body(method, answer.into_body()).await?;
        if status == 200 {
            return Ok(body);
        }
        let message = serde_json::from_slice::<Value>(&body).ok().and_then(|v| complaint(&v));
        let message = message.unwrap_or_else(|| bounded(&String::from_utf8_lossy(&body)));
        Err(Error::Refused { method: method.to_owned(), status: Some(status), message })
    }

    async fn body(&self, method: &str, body: Incoming) -> Result<Bytes> {
        let collected = Limited::new(body, LARGEST_ANSWER).collect().await;
        Ok(collected.map_err(|error| self.broken(method, error))?.to_bytes())
    }

    fn host_header(&self) -> &str {
        match &self.address.host {
            Host::Tcp { address, .. } => address,
            // COMPAT: dockerd's name for a plugin behind a socket.
            _ => "plugin.moby.localhost",
        }
    }

    fn broken(&self, method: &str, source: impl Into<BoxError>) -> Error {
        let (name, method) = (self.name.clone(), method.to_owned());
        Error::Protocol { name, method, source: source.into() }
    }
}

/// Returns what an answer complains of: volume and network drivers say `Err`, address management says `Error`.
fn complaint(answer: &Value) -> Option<String> {
    let text = |key: &str| answer.get(key)?.as_str().filter(|text| !text.is_empty()).map(bounded);
    text("Err").or_else(|| text("Error"))
}

fn bounded(text: &str) -> String {
    let text = text.trim();
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST_MESSAGE);
    text[..end.unwrap_or(text.len())].to_owned()
}

/// The client's texts speak of the daemon; what is said of a plugin is the system's reason alone.
fn reason(error: rorqual_client::Error) -> std::io::Error {
    use rorqual_client::Error as Dial;
    use std::io::{Error as IoError, ErrorKind};
    match error {
        Dial::NotRunning(_) => IoError::new(ErrorKind::ConnectionRefused, "nobody listens there"),
        Dial::Denied(_) => ErrorKind::PermissionDenied.into(),
        Dial::Connect { source, .. } => source,
        other => IoError::other(other),
    }
}

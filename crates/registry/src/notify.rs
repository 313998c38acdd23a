//! Notifications: webhooks in the envelope of Docker's registry. They are sent in order, tried again for a while, and
//! dropped when too many wait; no request ever waits for one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rorqual_core::{Digest, Timestamp};
use tokio::sync::mpsc;

use crate::config::Endpoint;
use crate::error::{Error, Result};
use crate::metrics::Metrics;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) action: &'static str,
    pub(crate) repository: String,
    pub(crate) digest: Option<Digest>,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) tag: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) request: Source,
}

/// Who did it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) host: String,
    pub(crate) method: String,
    pub(crate) agent: String,
    pub(crate) user: String,
    pub(crate) scheme: &'static str,
}

/// Takes events to all endpoints.
pub(crate) struct Notifier {
    queues: Vec<(Vec<String>, mpsc::Sender<Arc<Event>>)>,
    metrics: Arc<Metrics>,
}

// LIMIT: events that wait for one endpoint; further ones are dropped and counted.
const QUEUE: usize = 1000;
// LIMIT: attempts for one event, with pauses that double up to PAUSE_MOST: some ten minutes together.
const ATTEMPTS: u32 = 12;
const PAUSE_LEAST: Duration = Duration::from_millis(500);
const PAUSE_MOST: Duration = Duration::from_secs(120);
const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v1+json";

impl Notifier {
    /// Starts a sender per endpoint.
    pub(crate) fn start(endpoints: &[Endpoint], metrics: &Arc<Metrics>) -> Result<Self> {
        let mut queues = Vec::new();
        for endpoint in endpoints {
            let client = reqwest::Client::builder()
                .timeout(endpoint.timeout.0)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| Error::Config(format!("cannot send notifications: {error}")))?;
            let url = reqwest::Url::parse(&endpoint.url).map_err(|error| {
                Error::Config(format!("cannot send notifications to {:?}: {error}", endpoint.url))
            })?;
            let (sender, receiver) = mpsc::channel(QUEUE);
            let sending =
                Sending { client, url, endpoint: endpoint.clone(), metrics: Arc::clone(metrics) };
            tokio::spawn(sending.run(receiver));
            queues.push((endpoint.actions.clone(), sender));
        }
        Ok(Self { queues, metrics: Arc::clone(metrics) })
    }

    /// Tells whether anybody listens, so that events need not be made for nobody.
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.is_empty()
    }

    /// Sends an event, some time.
    pub(crate) fn send(&self, event: Event) {
        let event = Arc::new(event);
        for (actions, queue) in &self.queues {
            let wanted = actions.is_empty() || actions.iter().any(|action| action == event.action);
            if wanted && queue.try_send(Arc::clone(&event)).is_err() {
                self.metrics.notification("dropped");
            }
        }
    }
}

struct Sending {
    client: reqwest::Client,
    url: reqwest::Url,
    endpoint: Endpoint,
    metrics: Arc<Metrics>,
}

impl Sending {
    async fn run(self, mut events: mpsc::Receiver<Arc<Event>>) {
        while let Some(event) = events.recv().await {
            let body = serde_json::to_vec(&envelope(&event)).unwrap_or_default();
            let mut pause = PAUSE_LEAST;
            let mut outcome = "failed";
            for _ in 0..ATTEMPTS {
                match self.attempt(body.clone()).await {
                    Ok(()) => {
                        outcome = "sent";
                        break;
                    }
                    Err(error) => tracing::debug!(url = %self.url, error, "notification failed"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
            if outcome == "failed" {
                tracing::warn!(url = %self.url, "a notification was given up");
            }
            self.metrics.notification(outcome);
        }
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<(), String> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(http::header::CONTENT_TYPE, MEDIA_TYPE)
            .body(body);
        for (name, value) in &self.endpoint.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        Err(format!("it answers {status}"))
    }
}

/// Makes the document that Docker's registry sends.
fn envelope(event: &Event) -> serde_json::Value {
    let Event { action, repository, digest, media_type, size, tag, from, request } = event;
    let digest = digest.as_ref().map(ToString::to_string).unwrap_or_default();
    let Source { id, address, host, method, agent, user, scheme } = request;
    let kind = if media_type.contains("manifest") || media_type.contains("index") {
        "manifests"
    } else {
        "blobs"
    };
    let mut target = serde_json::json!({
        "mediaType": media_type, "size": size, "length": size, "digest": digest,
        "repository": repository,
        "url": format!("{scheme}://{host}/v2/{repository}/{kind}/{digest}"),
    });
    if let Some(tag) = tag {
        target["tag"] = tag.clone().into();
    }
    if let Some(from) = from {
        target["fromRepository"] = from.clone().into();
    }
    serde_json::json!({"events": [{
        "id": new_id(), "timestamp": Timestamp::from(SystemTime::now()).to_string(),
        "action": action, "target": target,
        "request": {"id": id, "addr": address, "host": host, "method": method, "useragent": agent},
        "actor": {"name": user},
        "source": {"addr": host, "instanceID": std::process::id().to_string()},
    }]})
}

/// Makes a random id.
pub(crate) fn new_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok();
    format!("{:032x}", u128::from_le_bytes(bytes))
}

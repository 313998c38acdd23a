//! What happened, for everybody who listens: a ring of the last events and a broadcast of the next ones.
//!
//! Nothing waits for a listener: one that is too slow is told how many events it missed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_core::{Filters, Timestamp};
use tokio::sync::broadcast;

use crate::clock::Clock;

/// Kind of the thing an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
    /// The daemon.
    Daemon,
    /// The builder.
    Builder,
}

impl EventKind {
    /// Returns the word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Daemon => "daemon",
            Self::Builder => "builder",
        }
    }
}

/// Something that happened. Its scope is always `local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// About what kind of thing.
    pub kind: EventKind,
    /// What: `create`, `exec_start: sh -c true`, …
    pub action: String,
    /// About which: an id or a name.
    pub actor: String,
    /// Details.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub at: Timestamp,
}

/// What a listener wants.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Past events from here on; `None`: only new ones.
    pub since: Option<Timestamp>,
    /// End here.
    pub until: Option<Timestamp>,
    /// Docker's filters; unknown keys are ignored, as Docker does.
    pub filters: Filters,
}

// LIMIT: Docker keeps as many.
const KEPT: usize = 256;
// LIMIT: a listener may be so many events behind before it misses some.
const BACKLOG: usize = 4096;

/// The events of one daemon.
#[derive(Clone, Debug)]
pub struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ring: Mutex<VecDeque<Arc<Event>>>,
    next: broadcast::Sender<Arc<Event>>,
    clock: Clock,
}

impl Events {
    pub(crate) fn new(clock: Clock) -> Self {
        let (next, _) = broadcast::channel(BACKLOG);
        Self { inner: Arc::new(Inner { ring: Mutex::default(), next, clock }) }
    }

    /// Tells everybody.
    pub fn emit(
        &self,
        kind: EventKind,
        action: impl Into<String>,
        actor: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let (action, actor) = (action.into(), actor.into());
        let mut ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.inner.clock.now();
        let event = Arc::new(Event { kind, action, actor, attributes, at });
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        // Sent under the lock, so that ring and broadcast agree on the order. Nobody listening is fine.
        self.inner.next.send(event).ok();
    }

    /// Listens. Events of the past come first, then the next ones without a gap.
    pub fn listen(&self, query: EventQuery) -> Listener {
        let ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.inner.next.subscribe();
        // `until` alone asks for the past too, as Docker does.
        let past = match (query.since, query.until) {
            (None, None) => VecDeque::new(),
            (since, _) => {
                let from = since.unwrap_or_default();
                ring.iter().filter(|event| event.at >= from).cloned().collect()
            }
        };
        drop(ring);
        Listener { past, next, query, clock: self.inner.clock.clone() }
    }

    /// Returns how many listen.
    pub fn listeners(&self) -> usize {
        self.inner.next.receiver_count()
    }
}

/// A listener's place in the stream of events.
#[derive(Debug)]
pub struct Listener {
    past: VecDeque<Arc<Event>>,
    next: broadcast::Receiver<Arc<Event>>,
    query: EventQuery,
    clock: Clock,
}

impl Listener {
    /// Waits for the next event; `None` at `until` or when the daemon ends.
    ///
    /// # Cancellation
    ///
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let event = match self.past.pop_front() {
                Some(event) => event,
                None => self.receive().await?,
            };
            if self.query.until.is_some_and(|until| event.at > until) {
                return None;
            }
            if matches(&event, &self.query.filters) {
                return Some(event);
            }
        }
    }

    async fn receive(&mut self) -> Option<Arc<Event>> {
        loop {
            let received = match self.query.until {
                None => self.next.recv().await,
                Some(until) => {
                    let left = until.since(self.clock.now());
                    tokio::time::timeout(left, self.next.recv()).await.ok()?
                }
            };
            match received {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "a listener of events is too slow");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Tells whether an event passes Docker's filters.
fn matches(event: &Event, filters: &Filters) -> bool {
    let named = |kind: EventKind| {
        filters.any(kind.word(), |wanted| event.kind == kind && is_actor(event, wanted))
    };
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("type", |wanted| wanted == event.kind.word())
        && filters.any("event", |wanted| *wanted == event.action || wanted == action)
        && filters.any("scope", |wanted| wanted == "local")
        && filters.labels_match("label", |key| event.attributes.get(key).map(String::as_str))
        && filters.any("image", |wanted| is_image(event, wanted))
        && named(EventKind::Container)
        && named(EventKind::Volume)
        && named(EventKind::Network)
        && named(EventKind::Daemon)
}

/// Filters by id, id prefix or name.
fn is_actor(event: &Event, wanted: &str) -> bool {
    let name = event.attributes.get("name").map_or("", String::as_str);
    !wanted.is_empty()
        && (event.actor.starts_with(wanted) || name == wanted.trim_start_matches('/'))
}

/// Images are found in their own events and, by name, in those of their containers.
fn is_image(event: &Event, wanted: &str) -> bool {
    let name = match event.kind {
        EventKind::Image => event.attributes.get("name").map_or(&event.actor, |name| name),
        EventKind::Container => event.attributes.get("image").map_or("", String::as_str),
        _ => return false,
    };
    let without_tag = |text: &str| match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name.to_owned(),
        _ => text.to_owned(),
    };
    name == wanted || without_tag(name) == wanted || event.actor == wanted
}

#[cfg(test)]
mod tests;

//! One build, as the solver sees it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::failed::FailedSlot;
use super::foreign::{ImportedCache, Recorder};
use crate::contract::{ProgressSink, Session};

/// Something that a build may do beyond the usual, asked for by its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// `network.host`
    NetworkHost,
    /// `security.insecure`
    SecurityInsecure,
}

/// A build under way.
#[derive(Clone)]
pub struct Job {
    /// Identity, for messages.
    pub id: String,
    /// The client that lends its files and secrets; `None` when the build needs none.
    pub session: Option<Arc<dyn Session>>,
    /// Hears what happens.
    pub progress: Arc<dyn ProgressSink>,
    /// Ends the build.
    pub cancel: CancellationToken,
    /// What its user allows it.
    pub entitlements: BTreeSet<Entitlement>,
    /// Tell of every step that runs what has changed since it ran last, as a log line.
    pub explain: bool,
    /// Caches from elsewhere, asked in this order for what the own one lacks.
    pub imports: Vec<Arc<ImportedCache>>,
    /// Notes what the build needs.
    pub recorder: Option<Arc<Recorder>>,
    /// Takes the first step whose program fails, as it was.
    pub failed: Option<Arc<FailedSlot>>,
}

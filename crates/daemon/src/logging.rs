//! The daemon's own log: text or JSON on standard error, its level changeable while it runs.

use std::io;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::Logging;

/// Changes the level of the log.
#[derive(Clone)]
pub(crate) struct Verbosity(reload::Handle<Targets, Registry>);

impl Verbosity {
    /// Logs from `level` on.
    pub(crate) fn set(&self, level: Level) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!(%error, "cannot change the level of the log");
        }
    }
}

/// What is logged: our own words from `level` on, and of HTTP/2 none below `info`, as it tells of every frame.
fn filter(level: Level) -> Targets {
    let level = LevelFilter::from_level(level);
    Targets::new().with_default(level).with_target("h2", level.min(LevelFilter::INFO))
}

/// Starts the log.
pub(crate) fn start(logging: Logging) -> Verbosity {
    let (layer, handle) = reload::Layer::new(filter(logging.level));
    let registry = tracing_subscriber::registry().with(layer);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    // A subscriber that is there already (in tests) stays.
    if logging.json {
        registry.with(layer.json()).try_init().ok();
    } else {
        registry.with(layer.with_ansi(false)).try_init().ok();
    }
    Verbosity(handle)
}

//! Counters for Prometheus. Repositories' names are no labels: their number has no bound.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 3];
type Word = [(&'static str, &'static str); 1];

/// All of them.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    duration: Family<Word, Histogram, fn() -> Histogram>,
    pub(crate) in_flight: Gauge,
    pub(crate) uploads: Gauge,
    cache: Family<Word, Counter>,
    notifications: Family<Word, Counter>,
    pub(crate) collected_bytes: Counter<u64, AtomicU64>,
    pub(crate) collections: Counter,
}

fn histogram() -> Histogram {
    Histogram::new([0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0])
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("registry");
        let requests = Family::default();
        registry.register("http_requests", "requests answered", requests.clone());
        let duration: Family<Word, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(histogram as fn() -> Histogram);
        let text = "time until the head of the answer, seconds";
        registry.register("http_request_duration_seconds", text, duration.clone());
        let in_flight = Gauge::default();
        registry.register("http_in_flight", "requests being answered", in_flight.clone());
        let uploads = Gauge::default();
        registry.register("uploads", "uploads that have begun and not ended", uploads.clone());
        let cache = Family::default();
        registry.register("proxy_requests", "what the cache answered, by source", cache.clone());
        let notifications = Family::default();
        registry.register("notifications", "notifications, by outcome", notifications.clone());
        let collected_bytes = Counter::default();
        registry.register("gc_bytes", "bytes removed by collections", collected_bytes.clone());
        let collections = Counter::default();
        registry.register("gc_runs", "collections that ended well", collections.clone());
        Self {
            registry,
            requests,
            duration,
            in_flight,
            uploads,
            cache,
            notifications,
            collected_bytes,
            collections,
        }
    }

    pub(crate) fn request(
        &self,
        route: &'static str,
        method: &http::Method,
        status: http::StatusCode,
        took: Duration,
    ) {
        let method = match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let class = match status.as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let labels = [("route", route), ("method", method), ("status", class)];
        self.requests.get_or_create(&labels).inc();
        self.duration.get_or_create(&[("route", route)]).observe(took.as_secs_f64());
    }

    /// Counts what the cache did: `hit`, `miss`, `stale`, `error`.
    pub(crate) fn cache(&self, source: &'static str) {
        self.cache.get_or_create(&[("source", source)]).inc();
    }

    /// Counts notifications: `sent`, `failed`, `dropped`.
    pub(crate) fn notification(&self, outcome: &'static str) {
        self.notifications.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Writes all of them in the text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        encode(&mut text, &self.registry).ok();
        text
    }
}

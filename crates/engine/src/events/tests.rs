//! Tests of events.

use std::collections::BTreeMap;

use rorqual_core::{Filters, Timestamp};

use super::{EventKind, EventQuery, Events, KEPT};
use crate::clock::Clock;

fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_past_comes_first_and_no_event_is_lost_between() {
    let events = Events::new(Clock::stepping());
    events.emit(EventKind::Container, "create", "a", BTreeMap::new());
    let since = Some(Timestamp::default());
    let mut listener = events.listen(EventQuery { since, ..EventQuery::default() });
    events.emit(EventKind::Container, "start", "a", BTreeMap::new());
    assert_eq!(listener.next().await.unwrap().action, "create");
    assert_eq!(listener.next().await.unwrap().action, "start");
}

#[tokio::test]
async fn the_ring_is_bounded() {
    let events = Events::new(Clock::stepping());
    for number in 0..KEPT + 3 {
        events.emit(EventKind::Container, number.to_string(), "a", BTreeMap::new());
    }
    let until = Some(Timestamp::from_nanos(u64::MAX / 2));
    let mut listener = events.listen(EventQuery { until, ..EventQuery::default() });
    assert_eq!(listener.next().await.unwrap().action, "3");
}

#[tokio::test]
async fn filters_choose_by_type_name_label_and_action() {
    let events = Events::new(Clock::stepping());
    let about = attributes(&[("name", "web"), ("image", "debian:12"), ("tier", "front")]);
    events.emit(EventKind::Container, "exec_start: sh", "abc123", about);
    events.emit(EventKind::Network, "connect", "net", attributes(&[("name", "bridge")]));
    let cases = [
        ("type", "container", 1),
        ("type", "network", 1),
        ("event", "exec_start", 1),
        ("event", "exec", 0),
        ("container", "web", 1),
        ("container", "/web", 1),
        ("container", "abc", 1),
        ("container", "bridge", 0),
        ("network", "bridge", 1),
        ("image", "debian", 1),
        ("image", "debian:12", 1),
        ("image", "deb", 0),
        ("label", "tier", 1),
        ("label", "tier=back", 0),
        ("plugin", "x", 2),
    ];
    for (key, value, expected) in cases {
        let mut filters = Filters::default();
        filters.add(key, value);
        let until = Some(Timestamp::from_nanos(1000));
        let mut listener = events.listen(EventQuery { since: None, until, filters });
        let mut seen = 0;
        events.emit(EventKind::Builder, "end", "x", BTreeMap::new());
        while let Ok(Some(event)) =
            tokio::time::timeout(std::time::Duration::from_millis(20), listener.next()).await
        {
            seen += usize::from(event.kind != EventKind::Builder);
        }
        assert_eq!(seen, expected, "{key}={value}");
    }
}

//! Events.

use rorqual_api::event::{Actor, Event as Document};
use rorqual_engine::{Event, EventKind};

/// Writes an event, with the keys of old clients.
pub(crate) fn event_document(event: &Event) -> Document {
    let Event { kind, action, actor, attributes, at } = event;
    let is_legacy = matches!(kind, EventKind::Container | EventKind::Image);
    let legacy = |text: &str| if is_legacy { text.to_owned() } else { String::new() };
    let from = match kind {
        EventKind::Container => attributes.get("image").cloned().unwrap_or_default(),
        _ => String::new(),
    };
    Document {
        status: legacy(action),
        id: legacy(actor),
        from,
        kind: kind.word().to_owned(),
        action: action.clone(),
        actor: Actor { id: actor.clone(), attributes: attributes.clone() },
        scope: "local".to_owned(),
        time: at.secs() as i64,
        time_nano: at.nanos() as i64,
    }
}

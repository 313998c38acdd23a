//! System call filters on their way to the shims: compiled once in the daemon, sent as bytes.
//!
//! A profile has hundreds of rules; reading and compiling it takes longer than starting a container.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::runtime::LinuxSeccomp;
use rorqual_runtime::Filter;

/// LIMIT: a daemon has one filter for each set of capabilities in use, few of them often.
const KEPT: usize = 16;

/// The filters used last, with what they were compiled from.
#[derive(Debug, Default)]
pub(crate) struct Filters(Mutex<Vec<(Arc<LinuxSeccomp>, Option<String>)>>);

impl Filters {
    /// Returns the compiled form of a profile as the wire has it; `None` for one with an agent, about whom the runtime has
    /// to know more.
    pub(crate) fn compiled(
        &self,
        profile: &Arc<LinuxSeccomp>,
    ) -> Result<Option<String>, rorqual_runtime::Error> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // By address, which nobody else can have while it is kept here.
        if let Some(at) = kept.iter().position(|(known, _)| Arc::ptr_eq(known, profile)) {
            kept[..=at].rotate_right(1);
            return Ok(kept[0].1.clone());
        }
        let filter = Filter::compile(profile)?;
        let text = (!filter.has_listener()).then(|| STANDARD.encode(filter.to_bytes()));
        kept.truncate(KEPT - 1);
        kept.insert(0, (Arc::clone(profile), text.clone()));
        Ok(text)
    }
}

/// Reads what [`Filters::compiled`] wrote.
pub(crate) fn decode(text: &str) -> Option<Filter> {
    Filter::from_bytes(&STANDARD.decode(text).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(names: &[&str]) -> Arc<LinuxSeccomp> {
        let document = serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
        });
        Arc::new(serde_json::from_value(document).unwrap())
    }

    #[test]
    fn what_is_sent_is_what_was_compiled() {
        let (filters, profile) = (Filters::default(), profile(&["read", "write"]));
        let text = filters.compiled(&profile).unwrap().unwrap();
        let direct = Filter::compile(&profile).unwrap();
        assert_eq!(decode(&text).unwrap().to_bytes(), direct.to_bytes());
        assert_eq!(filters.compiled(&profile).unwrap(), Some(text));
        assert!(decode("AAAA").is_none());
    }

    #[test]
    fn a_profile_with_an_agent_is_left_to_the_runtime() {
        let document = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "/run/agent",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
        });
        let profile = Arc::new(serde_json::from_value(document).unwrap());
        assert_eq!(Filters::default().compiled(&profile).unwrap(), None);
    }

    #[test]
    fn the_filters_used_last_are_kept() {
        let filters = Filters::default();
        let first = profile(&["read"]);
        filters.compiled(&first).unwrap();
        for _ in 0..2 * KEPT {
            filters.compiled(&profile(&["write"])).unwrap();
            filters.compiled(&first).unwrap();
        }
        let kept = filters.0.lock().unwrap();
        assert_eq!(kept.len(), KEPT);
        assert!(Arc::ptr_eq(&kept[0].0, &first));
    }
}

//! Answers of name servers, for as long as they say they are true. Bounded; knows nothing of sockets.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::message;

/// LIMIT: answers kept, of all containers together.
const MOST: usize = 2048;
/// LIMIT: a larger answer is not worth its place.
const LARGEST: usize = 4096;
/// LIMIT: a zone that says its answers are true for longer is asked again all the same.
const LONGEST: u32 = 3600;
/// LIMIT: the same for answers that there is nothing.
const LONGEST_NOTHING: u32 = 300;

/// Who asked, and all of the query but its number.
type Key = (String, Vec<u8>);

#[derive(Debug)]
struct Kept {
    answer: Vec<u8>,
    places: Vec<usize>,
    since: Instant,
    until: Instant,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: HashMap<Key, Kept>,
    order: VecDeque<Key>,
}

fn key(container: &str, query: &[u8]) -> Key {
    let mut rest = query.get(2..).unwrap_or_default().to_vec();
    rest.make_ascii_lowercase();
    (container.to_owned(), rest)
}

impl Cache {
    /// Returns an answer with its times to live as they are now; its number and question are those of the query.
    pub(super) fn get(
        &self,
        container: &str,
        query: &[u8],
        question_end: usize,
    ) -> Option<Vec<u8>> {
        let now = Instant::now();
        let kept = self.kept.get(&key(container, query)).filter(|kept| kept.until > now)?;
        let mut answer = kept.answer.clone();
        answer.get_mut(..2)?.copy_from_slice(query.get(..2)?);
        answer.get_mut(12..question_end)?.copy_from_slice(query.get(12..question_end)?);
        let passed = u32::try_from(now.duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        for place in &kept.places {
            let bytes = answer.get_mut(*place..*place + 4)?;
            let left = u32::from_be_bytes(bytes.try_into().ok()?).saturating_sub(passed);
            bytes.copy_from_slice(&left.to_be_bytes());
        }
        Some(answer)
    }

    /// Keeps an answer if it may be kept.
    pub(super) fn put(&mut self, container: &str, query: &[u8], answer: &[u8]) {
        let longest = match message::code(answer) {
            0 => LONGEST,
            3 => LONGEST_NOTHING,
            _ => return,
        };
        if answer.len() > LARGEST || message::is_truncated(answer) {
            return;
        }
        let Some((places, seconds)) = message::lifetimes(answer) else { return };
        // Without any record nothing says how long it is true.
        if places.is_empty() || seconds == 0 {
            return;
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
        let since = Instant::now();
        let until = since + Duration::from_secs(u64::from(seconds.min(longest)));
        let key = key(container, query);
        let kept = Kept { answer: answer.to_vec(), places, since, until };
        if self.kept.insert(key.clone(), kept).is_none() {
            self.order.push_back(key);
        }
    }

    /// Forgets what a container asked.
    pub(super) fn forget(&mut self, container: &str) {
        self.kept.retain(|(owner, _), _| owner != container);
        self.order.retain(|(owner, _)| owner != container);
    }
}

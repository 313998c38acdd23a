//! Answers of name servers, for as long as they say they are true. Bounded; knows nothing of sockets.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::message;

/// LIMIT: answers kept, of all containers together.
const MOST: usize = 2048;
/// LIMIT: answers kept for one container, so that one that asks for everything leaves room for others.
const MOST_EACH: usize = 256;
/// LIMIT: a larger answer is not worth its place.
const LARGEST: usize = 4096;
/// LIMIT: a zone that says its answers are true for longer is asked again all the same.
const LONGEST: u32 = 3600;
/// LIMIT: the same for answers that there is nothing.
const LONGEST_NOTHING: u32 = 300;

#[derive(Debug)]
struct Kept {
    answer: Vec<u8>,
    places: Vec<usize>,
    since: Instant,
    until: Instant,
}

/// What was answered to one container, by all of the query but its number.
#[derive(Debug, Default)]
struct Own {
    kept: HashMap<Vec<u8>, Kept>,
    order: VecDeque<Vec<u8>>,
}

impl Own {
    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.kept.remove(&oldest);
        }
    }
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Cache {
    containers: HashMap<String, Own>,
    count: usize,
}

fn key(query: &[u8], question_end: usize) -> Vec<u8> {
    let mut key = query.to_vec();
    if let Some(number) = key.get_mut(..2) {
        number.fill(0);
    }
    // Names are the same in upper and lower case; types are not, nor is what follows.
    if let Some(name) = key.get_mut(12..question_end.saturating_sub(4)) {
        name.make_ascii_lowercase();
    }
    key
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
        let own = self.containers.get(container)?;
        let kept = own.kept.get(&key(query, question_end)).filter(|kept| kept.until > now)?;
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
    pub(super) fn put(
        &mut self,
        container: &str,
        (query, question_end): (&[u8], usize),
        answer: &[u8],
    ) {
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
        let since = Instant::now();
        let until = since + Duration::from_secs(u64::from(seconds.min(longest)));
        let kept = Kept { answer: answer.to_vec(), places, since, until };
        let own = self.containers.entry(container.to_owned()).or_default();
        let before = own.kept.len();
        let key = key(query, question_end);
        if own.kept.insert(key.clone(), kept).is_none() {
            own.order.push_back(key);
        }
        if own.kept.len() > MOST_EACH {
            own.drop_oldest();
        }
        self.count = self.count + own.kept.len() - before;
        if self.count > MOST {
            self.make_room();
        }
    }

    /// Forgets the oldest answer of who has most.
    fn make_room(&mut self) {
        let largest = self.containers.values_mut().max_by_key(|own| own.kept.len());
        if let Some(own) = largest {
            own.drop_oldest();
            self.count -= 1;
        }
    }

    /// Forgets what a container asked.
    pub(super) fn forget(&mut self, container: &str) {
        if let Some(own) = self.containers.remove(container) {
            self.count -= own.kept.len();
        }
    }
}

#[cfg(test)]
mod tests;

//! What is kept, and whose goes first.

use super::{Cache, MOST, MOST_EACH};
use crate::dns::message::tests::query;
use crate::dns::message::{self, A, Code, Data};

fn exchange(name: &str) -> (Vec<u8>, Vec<u8>) {
    exchange_of(name, A)
}

fn exchange_of(name: &str, kind: u16) -> (Vec<u8>, Vec<u8>) {
    let query = query(name, kind, false);
    let read = message::parse(&query).unwrap();
    let records = [Data::Address([192, 0, 2, 1].into())];
    let answer = message::answer(&query, &read, Code::Ok, &records, read.room());
    (query, answer)
}

fn has(cache: &Cache, container: &str, name: &str) -> bool {
    let (query, _) = exchange(name);
    let end = message::parse(&query).unwrap().question_end();
    cache.get(container, &query, end).is_some()
}

fn put(cache: &mut Cache, container: &str, (query, answer): &(Vec<u8>, Vec<u8>)) {
    let end = message::parse(query).unwrap().question_end();
    cache.put(container, (query, end), answer);
}

#[test]
fn types_are_not_letters() {
    let mut cache = Cache::default();
    // 65 and 97 are an upper and a lower case letter.
    put(&mut cache, "one", &exchange_of("web.example", 65));
    let ask = |kind| {
        let (query, _) = exchange_of("WEB.example", kind);
        let end = message::parse(&query).unwrap().question_end();
        cache.get("one", &query, end).is_some()
    };
    assert!(ask(65) && !ask(97));
}

#[test]
fn one_that_asks_for_everything_leaves_others_their_answers() {
    let mut cache = Cache::default();
    put(&mut cache, "quiet", &exchange("quiet.example"));
    for number in 0..2 * MOST {
        put(&mut cache, "loud", &exchange(&format!("n{number}.example")));
    }
    assert!(has(&cache, "quiet", "quiet.example"));
    assert!(has(&cache, "quiet", "QUIET.example"));
    assert!(!has(&cache, "other", "quiet.example"), "another may ask other servers");
    assert_eq!(cache.count, MOST_EACH + 1);
    assert!(has(&cache, "loud", &format!("n{}.example", 2 * MOST - 1)));
    assert!(!has(&cache, "loud", "n0.example"));
    for container in 0..20 {
        for number in 0..MOST_EACH {
            put(&mut cache, &format!("many{container}"), &exchange(&format!("n{number}.example")));
        }
    }
    assert_eq!(cache.count, MOST);
    assert!(has(&cache, "quiet", "quiet.example"), "who has most loses first");
    cache.forget("quiet");
    assert!(!has(&cache, "quiet", "quiet.example"));
    assert_eq!(cache.count, cache.containers.values().map(|own| own.kept.len()).sum::<usize>());
}

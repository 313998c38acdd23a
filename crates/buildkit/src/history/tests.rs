use super::*;
use crate::progress::timestamp;

fn record(id: &str) -> BuildHistoryRecord {
    BuildHistoryRecord { r#ref: id.to_owned(), ..BuildHistoryRecord::default() }
}

#[test]
fn old_records_go_and_pinned_ones_stay() {
    let history = History::new();
    for number in 0..60 {
        let id = format!("b{number}");
        history.begin(record(&id), Arc::new(ProgressLog::new()));
        history.update(&id, BuildHistoryEventType::Complete, |record| {
            record.completed_at = Some(timestamp(std::time::UNIX_EPOCH));
            record.pinned = number == 0;
        });
    }
    let (events, _) = history.listen("", false);
    assert_eq!(events.len(), MOST_RECORDS);
    assert_eq!(history.listen("b0", false).0.len(), 1);
    assert!(history.listen("", true).0.is_empty());
    assert!(history.remove("b0") && !history.remove("b0"));
    assert!(history.log("b59").is_some());
}

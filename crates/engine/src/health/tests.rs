//! The rule of health as a table.

use rorqual_core::Timestamp;

use super::{framed, note, unframed};
use crate::view::{HealthProbe, HealthView};

fn play(results: &[(i32, bool)]) -> String {
    let mut health = HealthView::default();
    let mut words = Vec::new();
    for (exit_code, grace) in results {
        let at = Timestamp::default();
        let probe =
            HealthProbe { start: at, end: at, exit_code: *exit_code, output: String::new() };
        note(&mut health, probe, 3, *grace);
        words.push(format!("{}/{}", health.status.word(), health.failing_streak));
    }
    assert!(health.log.len() <= 5);
    words.join(" ")
}

#[test]
fn verdicts() {
    assert_eq!(play(&[(0, false)]), "healthy/0");
    assert_eq!(play(&[(1, false); 3]), "starting/1 starting/2 unhealthy/3");
    assert_eq!(play(&[(1, true), (1, true), (0, true)]), "starting/0 starting/0 healthy/0");
    assert_eq!(
        play(&[(0, true), (1, true), (1, false), (-1, false), (0, false)]),
        "healthy/0 healthy/1 healthy/2 unhealthy/3 healthy/0"
    );
    play(&[(0, false); 9]);
}

#[test]
fn frames() {
    let mut bytes = framed("ab");
    bytes.extend(framed("c"));
    assert_eq!(unframed(&bytes), b"abc");
    assert_eq!(unframed(&bytes[..9]), b"a");
}

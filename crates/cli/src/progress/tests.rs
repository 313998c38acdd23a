use serde_json::json;

use super::{Screen, bar};

#[test]
fn bars_have_the_form_of_docker() {
    let half = format!("[{}>{}]      50B/100B", "=".repeat(25), " ".repeat(25));
    let whole = format!("[{}>]  1.234GB/1.234GB", "=".repeat(50));
    let cases = [
        (json!({"current": 50, "total": 100}), 120, half.as_str()),
        (json!({"current": 50, "total": 100}), 110, "     50B/100B"),
        (json!({"current": 1_234_000_000, "total": 1_234_000_000}), 111, &whole),
        (json!({"current": 5000}), 120, "     5kB"),
        (json!({"current": 200, "total": 100}), 80, "    200B"),
        (json!({"current": 3, "total": 4, "units": "steps"}), 80, "3/4 steps"),
        (json!({"current": 3, "units": "s"}), 120, "3 s"),
    ];
    for (progress, width, expected) in cases {
        assert_eq!(bar(&progress, width), expected, "{progress} at {width}");
    }
}

#[test]
fn lines_move_on_a_terminal_and_come_once_in_a_file() {
    let told = [
        json!({"id": "a", "status": "Waiting"}),
        json!({"id": "b", "status": "Waiting", "progressDetail": {}}),
        json!({"id": "a", "status": "Downloading", "progressDetail": {"total": 10}}),
        json!({"id": "a", "status": "Downloading", "progressDetail": {"current": 5, "total": 10}}),
        json!({"status": "Status: done"}),
    ];
    let show = |moving| {
        let mut screen = Screen { moving, width: 80, lines: Vec::new() };
        told.iter().map(|message| screen.message(message)).collect::<Vec<_>>()
    };
    assert_eq!(show(false).concat(), "a: Waiting\nb: Waiting\nStatus: done\n");
    let moved = show(true);
    assert_eq!(moved[3], "\u{1b}[2A\u{1b}[2K\ra: Downloading       5B/10B\r\u{1b}[2B");
    assert_eq!(moved[4], "Status: done\n");
}

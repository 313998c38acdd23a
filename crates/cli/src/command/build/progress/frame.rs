//! The picture of a build on a terminal: a pure function of what is known, the room, and the time.

use std::time::SystemTime;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::model::{Model, Vertex, describe, is_cancelled, seconds};

/// Lines of output that are shown of a step at work.
const OUTPUT: usize = 6;

/// What there is to draw on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) has_colour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Plain,
    Done,
    Failed,
    Cancelled,
}

struct Line {
    text: String,
    time: String,
    colour: Colour,
    /// Goes first when there is too little room.
    is_old: bool,
}

/// Draws.
pub(super) fn frame(model: &Model, room: Room, now: SystemTime) -> Vec<String> {
    let now = model.ended.unwrap_or(now);
    let (done, all) = model.counts();
    let time = model.began.map_or(0.0, |began| seconds(began, now));
    let state = if model.ended.is_some() && done == all { " FINISHED" } else { "" };
    let head = format!("[+] Building {time:.1}s ({done}/{all}){state}");
    let mut lines = Vec::new();
    for vertex in &model.vertices {
        vertex_lines(vertex, now, &mut lines);
    }
    // LIMIT: one line less than the terminal has, so that it never scrolls.
    let most = room.height.saturating_sub(2).max(1);
    while lines.len() > most {
        let old = lines.iter().position(|line| line.is_old).unwrap_or(0);
        lines.remove(old);
    }
    let mut drawn = vec![aligned(&head, "docker:default", room.width)];
    drawn.extend(lines.iter().map(|line| coloured(line, room)));
    drawn
}

fn vertex_lines(vertex: &Vertex, now: SystemTime, lines: &mut Vec<Line>) {
    let Some(started) = vertex.started.or(vertex.completed) else { return };
    let end = vertex.completed.unwrap_or(now);
    let (word, colour) = if is_cancelled(&vertex.error) {
        ("CANCELED ", Colour::Cancelled)
    } else if !vertex.error.is_empty() {
        ("ERROR ", Colour::Failed)
    } else if vertex.cached {
        ("CACHED ", Colour::Done)
    } else if vertex.completed.is_some() {
        ("", Colour::Done)
    } else {
        ("", Colour::Plain)
    };
    let is_old = vertex.completed.is_some() && vertex.error.is_empty();
    lines.push(Line {
        text: format!(" => {word}{}", vertex.name),
        time: format!("{:.1}s", seconds(started, end)),
        colour,
        is_old,
    });
    for status in &vertex.statuses {
        let Some(began) = status.started else { continue };
        lines.push(Line {
            text: format!(" => => {}", describe(status)),
            time: format!("{:.1}s", seconds(began, status.completed.unwrap_or(end))),
            colour: if status.completed.is_some() { Colour::Done } else { Colour::Plain },
            is_old: vertex.completed.is_some() || status.completed.is_some(),
        });
    }
    if vertex.completed.is_none() {
        let from = vertex.tail.len().saturating_sub(OUTPUT);
        lines.extend(vertex.tail.iter().skip(from).map(|line| Line {
            text: format!(" => => # {}", printable(line)),
            time: String::new(),
            colour: Colour::Plain,
            is_old: false,
        }));
    }
}

/// Output of steps must not move the cursor.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// Puts a text on the left and another at the right edge.
fn aligned(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(right.width() + usize::from(!right.is_empty()));
    let left = cut(left, room);
    let gap = width.saturating_sub(left.width() + right.width());
    if right.is_empty() { left } else { format!("{left}{}{right}", " ".repeat(gap)) }
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 3 > width {
            break;
        }
        kept.push(c);
    }
    kept + "..."
}

fn coloured(line: &Line, room: Room) -> String {
    let text = aligned(&line.text, &line.time, room.width);
    let code = match line.colour {
        Colour::Done => "34",
        Colour::Failed => "31",
        Colour::Cancelled => "33",
        Colour::Plain => return text,
    };
    if room.has_colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
}

//! Lines, step by step: one step at a time has the word, the others wait for it to end or to fall silent.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rorqual_buildkit::{LogNews, News};

use super::model::{Model, describe, is_cancelled, seconds};

/// LIMIT: lines of steps that wait for the word, before somebody else gets it.
const PATIENCE: usize = 256;

/// What of a step waits to be written.
#[derive(Clone, Debug, Default)]
struct Waiting {
    is_named: bool,
    is_done: bool,
    lines: Vec<String>,
    partial: String,
}

/// The writer of lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Plain {
    steps: BTreeMap<usize, Waiting>,
    speaker: Option<usize>,
    /// Statuses that were written with their end.
    ended: std::collections::BTreeSet<(usize, String)>,
}

impl Plain {
    /// Takes news; returns what is to be written.
    pub(super) fn take(&mut self, model: &Model, news: &News) -> String {
        for vertex in &news.vertices {
            if let Some(number) = model.number(&vertex.digest) {
                self.steps.entry(number).or_default();
            }
        }
        for status in &news.statuses {
            let Some(number) = model.number(&status.vertex) else { continue };
            let is_over = status.completed.is_some();
            // Only the end is of interest in a log, and one sign of life.
            if !is_over || !self.ended.insert((number, status.id.clone())) {
                continue;
            }
            let time = match (status.started, status.completed) {
                (Some(started), Some(completed)) => {
                    format!(" {:.1}s done", seconds(started, completed))
                }
                _ => " done".to_owned(),
            };
            let line = format!("{}{time}", describe(status));
            self.steps.entry(number).or_default().lines.push(line);
        }
        for log in &news.logs {
            if let Some(number) = model.number(&log.vertex) {
                let started = model.vertices[number].started;
                self.steps.entry(number).or_default().log(log, started);
            }
        }
        self.write(model)
    }

    /// Writes what is left.
    pub(super) fn end(&mut self, model: &Model) -> String {
        for step in self.steps.values_mut() {
            if !step.partial.is_empty() {
                let line = std::mem::take(&mut step.partial);
                step.lines.push(line);
            }
        }
        let mut text = self.write(model);
        let left: Vec<usize> = self.steps.keys().copied().collect();
        for number in left {
            text.push_str(&self.speak(model, number));
        }
        text
    }

    fn write(&mut self, model: &Model) -> String {
        let mut text = String::new();
        loop {
            let speaker = match self.speaker {
                Some(speaker) => speaker,
                None => match self.next(model) {
                    Some(next) => next,
                    None => return text,
                },
            };
            self.speaker = Some(speaker);
            text.push_str(&self.speak(model, speaker));
            if self.steps.get(&speaker).is_none_or(|step| step.is_done) {
                self.speaker = None;
                continue;
            }
            let waits = |(number, step): (&usize, &Waiting)| {
                *number != speaker && (step.lines.len() > PATIENCE || is_over(model, *number, step))
            };
            // Somebody is done while the speaker is not: it may say so.
            let Some(other) = self.steps.iter().find(|(number, step)| waits((number, step))) else {
                return text;
            };
            let other = *other.0;
            text.push_str(&format!("#{} ...\n\n", speaker + 1));
            if let Some(step) = self.steps.get_mut(&speaker) {
                step.is_named = false;
            }
            self.speaker = Some(other);
        }
    }

    /// Who speaks next: who is over first, else who has begun.
    fn next(&self, model: &Model) -> Option<usize> {
        let open = || self.steps.iter().filter(|(_, step)| !step.is_done);
        let over = open().find(|(number, step)| is_over(model, **number, step));
        let begun = || open().find(|(number, _)| model.vertices[**number].started.is_some());
        over.or_else(begun).map(|(number, _)| *number)
    }

    fn speak(&mut self, model: &Model, number: usize) -> String {
        let (Some(step), Some(vertex)) = (self.steps.get_mut(&number), model.vertices.get(number))
        else {
            return String::new();
        };
        if step.is_done {
            return String::new();
        }
        let mut text = String::new();
        let prefix = format!("#{}", number + 1);
        if !step.is_named {
            text.push_str(&format!("{prefix} {}\n", vertex.name));
            step.is_named = true;
        }
        for line in step.lines.drain(..) {
            text.push_str(&format!("{prefix} {line}\n"));
        }
        let Some(completed) = vertex.completed else { return text };
        step.is_done = true;
        if !step.partial.is_empty() {
            text.push_str(&format!("{prefix} {}\n", std::mem::take(&mut step.partial)));
        }
        let end = if is_cancelled(&vertex.error) {
            "CANCELED".to_owned()
        } else if !vertex.error.is_empty() {
            format!("ERROR: {}", vertex.error)
        } else if vertex.cached {
            "CACHED".to_owned()
        } else {
            format!(
                "DONE {:.1}s",
                vertex.started.map_or(0.0, |started| seconds(started, completed))
            )
        };
        text + &format!("{prefix} {end}\n\n")
    }
}

fn is_over(model: &Model, number: usize, step: &Waiting) -> bool {
    !step.is_done && model.vertices[number].completed.is_some()
}

impl Waiting {
    fn log(&mut self, log: &LogNews, started: Option<SystemTime>) {
        let text = String::from_utf8_lossy(&log.data);
        let since = started.map_or(0.0, |started| seconds(started, log.at));
        for piece in text.split_inclusive('\n') {
            if self.partial.is_empty() {
                self.partial = format!("{since:.3} ");
            }
            self.partial.push_str(piece.trim_end_matches(['\n', '\r']));
            if piece.ends_with('\n') {
                self.lines.push(std::mem::take(&mut self.partial));
            }
        }
    }
}

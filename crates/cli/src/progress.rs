//! Streams of JSON messages from long operations: plain lines, or moving bars on a terminal.

use std::io::Write;

use rorqual_client::Response;
use rorqual_core::units;
use serde_json::Value as Json;

use crate::failure::Failure;
use crate::terminal;

/// COMPAT: terminals up to this width see no bars, only numbers.
const ROOM: usize = 110;

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
    /// Nowhere; failures are still noticed.
    Nothing,
}

/// Reads messages to their end; fails with the first error message.
pub(crate) async fn show(answer: Response, to: Show) -> Result<(), Failure> {
    last_aux(answer, to).await.map(drop)
}

/// Like [`show`]; returns the last data for programs among the messages.
pub(crate) async fn last_aux(mut answer: Response, to: Show) -> Result<Json, Failure> {
    let mut last = Json::Null;
    let moving = to == Show::Output && terminal::output_is_terminal()
        || to == Show::Error && rustix::termios::isatty(rustix::stdio::stderr());
    let mut screen = Screen { moving, width: terminal::width().unwrap_or(80), lines: Vec::new() };
    let mut pending: Vec<u8> = Vec::new();
    while let Some(bytes) = answer.chunk().await? {
        pending.extend_from_slice(&bytes);
        let mut stream = serde_json::Deserializer::from_slice(&pending).into_iter::<Json>();
        let mut done = 0;
        while let Some(Ok(message)) = stream.next() {
            done = stream.byte_offset();
            match message.get("aux") {
                // What is for programs is no line for people.
                Some(aux) => last = aux.clone(),
                None => one(&message, &mut screen, to)?,
            }
        }
        pending.drain(..done);
        // LIMIT: no message of a daemon comes near this.
        if pending.len() > 4 << 20 {
            return Err(Failure::new("the daemon's messages are too large"));
        }
    }
    Ok(last)
}

fn one(message: &Json, screen: &mut Screen, to: Show) -> Result<(), Failure> {
    if let Some(text) = message["errorDetail"]["message"].as_str().or(message["error"].as_str()) {
        return Err(Failure::new(text));
    }
    let text = screen.message(message);
    match to {
        Show::Nothing => {}
        Show::Output => std::io::stdout().lock().write_all(text.as_bytes())?,
        Show::Error => std::io::stderr().lock().write_all(text.as_bytes())?,
    }
    Ok(())
}

struct Screen {
    moving: bool,
    width: usize,
    lines: Vec<String>,
}

impl Screen {
    /// Returns what to write for a message.
    fn message(&mut self, message: &Json) -> String {
        let text = |key: &str| message[key].as_str().unwrap_or_default();
        if message.get("stream").is_some() {
            return text("stream").to_owned();
        }
        let id = text("id");
        let progress = &message["progressDetail"];
        let has_bar =
            ["current", "total"].iter().any(|key| progress[key].as_i64().unwrap_or(0) > 0);
        let head = if id.is_empty() { String::new() } else { format!("{id}: ") };
        let status = text("status");
        if !self.moving {
            // Bars are of no use in a file.
            return if has_bar { String::new() } else { format!("{head}{status}\n") };
        }
        let bar = match has_bar {
            true => format!(" {}", bar(progress, self.width)),
            false => String::new(),
        };
        if id.is_empty() {
            return format!("{status}{bar}\n");
        }
        let at = self.lines.iter().position(|line| line == id);
        let up = match at {
            Some(at) => self.lines.len() - at,
            None => {
                self.lines.push(id.to_owned());
                0
            }
        };
        match up {
            0 => format!("\x1b[2K\r{head}{status}{bar}\n"),
            up => format!("\x1b[{up}A\x1b[2K\r{head}{status}{bar}\r\x1b[{up}B"),
        }
    }
}

/// `[=====>     ]  1.2MB/3.4MB`; without the bar where there is no room for it.
///
/// COMPAT: the form of Docker's command line; numbers that contradict each other lose the total.
fn bar(progress: &Json, width: usize) -> String {
    let number = |key: &str| progress[key].as_u64().unwrap_or(0);
    let (current, total) = (number("current"), number("total"));
    let units = progress["units"].as_str().unwrap_or_default();
    let counted = |number: u64| match units {
        "" => units::human_size(number),
        _ => number.to_string(),
    };
    let of =
        if total > 0 && current <= total { format!("/{}", counted(total)) } else { String::new() };
    let numbers = match units {
        "" => format!("{:>8}{of}", counted(current)),
        _ => format!("{}{of} {units}", counted(current)),
    };
    if total == 0 || width <= ROOM {
        return numbers;
    }
    let filled = (u128::from(current.min(total)) * 50 / u128::from(total)) as usize;
    format!("[{}>{}] {numbers}", "=".repeat(filled), " ".repeat(50 - filled))
}

#[cfg(test)]
mod tests;

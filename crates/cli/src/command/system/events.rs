//! `events`: what happens at the daemon.

use std::io::Write as _;

use rorqual_client::{Method, Request};
use serde_json::Value as Json;

use crate::cli::Cli;
use crate::command::{logs, task, typed};
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::text::{filters, local_time_exact, query};
use crate::output::unescaped;
use crate::template::{Mode, Template};

/// `events`
pub(in crate::command) static EVENTS: Command = Command {
    name: "events",
    paths: &["system events", "events"],
    usage: "[OPTIONS]",
    about: "Show what happens at the daemon, as it happens",
    flags: &[&[
        Flag::new("filter", Kind::List("filter"), "Show only what fits").short('f'),
        Flag::new("format", Kind::Text("string"), "Form of the output: 'json' or a Go template"),
        Flag::new("since", Kind::Text("string"), "Show what happened after this time"),
        Flag::new("until", Kind::Text("string"), "End at this time"),
    ]],
    args: Args::None,
    run: task!(events),
    ..Command::EMPTY
};

async fn events(cli: &Cli, matches: &Matches) -> Outcome {
    let format = unescaped(matches.text("format"));
    let template = match format.as_str() {
        "" | "json" | "{{json .}}" => None,
        format => Some(Template::parse("", format).map_err(|error| wrong_format(&error))?),
    };
    let query = query(&[
        ("filters", &filters(matches.list("filter")).map_err(Failure::new)?),
        ("since", &logs::moment("", matches.text("since"))?),
        ("until", &logs::moment("", matches.text("until"))?),
    ]);
    let request = Request::new(Method::GET, format!("/events{query}"));
    let mut answer = cli.client()?.send(request).await?;
    let mut pending: Vec<u8> = Vec::new();
    while let Some(bytes) = answer.chunk().await? {
        pending.extend_from_slice(&bytes);
        let mut stream = serde_json::Deserializer::from_slice(&pending).into_iter::<Json>();
        let (mut done, mut out) = (0, String::new());
        while let Some(Ok(event)) = stream.next() {
            done = stream.byte_offset();
            match &template {
                Some(template) => out.push_str(
                    &template
                        .render(&typed::named(&event, "*events.Message"), Mode::Rows)
                        .map_err(|error| wrong_format(&error))?,
                ),
                None if format.is_empty() => out.push_str(&line(&event)),
                None => out.push_str(&event.to_string()),
            }
            out.push('\n');
        }
        pending.drain(..done);
        std::io::stdout().lock().write_all(out.as_bytes())?;
    }
    Ok(0)
}

fn wrong_format(error: &dyn std::error::Error) -> Failure {
    Failure { code: 64, text: format!("Error parsing format: {error}") }
}

/// `2026-11-20T23:14:05.123456789Z container start <id> (image=x, name=y)`
fn line(event: &Json) -> String {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let nanos = event["timeNano"].as_i64().map(i128::from).filter(|nanos| *nanos != 0);
    let nanos =
        nanos.unwrap_or_else(|| i128::from(event["time"].as_i64().unwrap_or(0)) * 1_000_000_000);
    let mut out = local_time_exact(nanos).replace("+00:00", "Z");
    out.push_str(&format!(
        " {} {} {}",
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"])
    ));
    let attributes = event["Actor"]["Attributes"].as_object();
    let mut pairs: Vec<String> = attributes
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if !pairs.is_empty() {
        out.push_str(&format!(" ({})", pairs.join(", ")));
    }
    out
}

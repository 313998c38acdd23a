//! `logs`: what a container wrote.

use std::time::Duration;

use rorqual_client::{Method, Request};
use rorqual_core::{Timestamp, units};

use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, now, query};
use crate::stream::{Demultiplexer, Framing, to_standard_streams};

/// `logs`
pub(super) static LOGS: Command = Command {
    name: "logs",
    paths: &["container logs", "logs"],
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    flags: &[&[
        Flag::new("details", Kind::Bool, "Show the attributes the log driver was given"),
        Flag::new("follow", Kind::Bool, "Go on with what is written from now on").short('f'),
        Flag::new(
            "since",
            Kind::Text("string"),
            "Show what was written after this time (2013-01-02T13:23:37Z) or age (42m)",
        ),
        Flag::new("tail", Kind::Text("string"), "How many lines of the end to show")
            .short('n')
            .default("all"),
        Flag::new("timestamps", Kind::Bool, "Show when each line was written").short('t'),
        Flag::new(
            "until",
            Kind::Text("string"),
            "Show what was written before this time (2013-01-02T13:23:37Z) or age (42m)",
        ),
    ]],
    args: Args::Exactly(1),
    run: task!(logs),
    completes: Completes::Containers,
    ..Command::EMPTY
};

async fn logs(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let name = encoded(matches.word(0));
    let inspected = client.get(format!("/containers/{name}/json")).await?;
    let tty = inspected["Config"]["Tty"].as_bool().unwrap_or(false);
    let on = |flag| if matches.on(flag) { "1" } else { "" };
    let query = query(&[
        ("details", on("details")),
        ("follow", on("follow")),
        ("since", &moment("since", matches.text("since"))?),
        ("stderr", "1"),
        ("stdout", "1"),
        ("tail", matches.text("tail")),
        ("timestamps", on("timestamps")),
        ("until", &moment("until", matches.text("until"))?),
    ]);
    let id = inspected["Id"].as_str().unwrap_or(&name);
    let request = Request::new(Method::GET, format!("/containers/{id}/logs{query}"));
    let mut answer = client.send(request).await?;
    let mut streams = Demultiplexer::new(if tty { Framing::Raw } else { Framing::Frames });
    while let Some(bytes) = answer.chunk().await? {
        streams.feed(&bytes, to_standard_streams)?;
    }
    Ok(0)
}

/// Turns an age or a time into seconds since 1970, as the API wants them. `flag` gets into the error unless it is empty.
pub(super) fn moment(flag: &str, text: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Ok(String::new());
    }
    // COMPAT: zero is the beginning of time, not an age.
    if text == "0" {
        return Ok(text.to_owned());
    }
    if let Ok(age) = units::parse_duration(text.strip_prefix('-').unwrap_or(text)) {
        let then = now().since(Timestamp::default()).saturating_sub(age);
        return Ok(seconds(then));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Ok(text.to_owned());
    }
    local_moment(text).map(seconds).ok_or_else(|| {
        // COMPAT: docker names the flag in some commands and not in others.
        let prefix = match flag {
            "" => String::new(),
            flag => format!("invalid value for \"{flag}\": "),
        };
        Failure::new(format!("{prefix}failed to parse value as time or duration: {text:?}"))
    })
}

fn seconds(time: Duration) -> String {
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

/// Reads RFC 3339, or a shorter form of it in the local time zone: a date, hours, minutes.
fn local_moment(text: &str) -> Option<Duration> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Duration::try_from(moment.as_duration()).ok();
    }
    let zone = jiff::tz::TimeZone::try_system().unwrap_or(jiff::tz::TimeZone::UTC);
    let bare = text.strip_suffix('Z');
    let zone = if bare.is_some() { jiff::tz::TimeZone::UTC } else { zone };
    let mut text = bare.unwrap_or(text).to_owned();
    match text.len() {
        10 => text.push_str("T00:00:00"),
        13 => text.push_str(":00:00"),
        _ => {}
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Duration::try_from(civil.to_zoned(zone).ok()?.timestamp().as_duration()).ok()
}

#[cfg(test)]
mod tests;

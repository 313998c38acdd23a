//! `stats`: what containers use, live or once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rorqual_client::{Client, Method, Request, Response};
use rorqual_core::units;
use serde_json::Value as Json;

use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, filters, query, short_id};
use crate::output::{Listing, chosen_format};
use crate::template::{Record, Value};

/// `stats`
pub(super) static STATS: Command = Command {
    name: "stats",
    paths: &["container stats", "stats"],
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show what containers use, again and again",
    flags: &[&[
        Flag::new("all", Kind::Bool, "Show containers that do not run, too").short('a'),
        Flag::new(
            "format",
            Kind::Text("string"),
            "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template",
        ),
        Flag::new("no-stream", Kind::Bool, "Show one result and end"),
        Flag::new("no-trunc", Kind::Bool, "Don't shorten"),
    ]],
    args: Args::Any,
    run: task!(stats),
    completes: Completes::Containers,
    ..Command::EMPTY
};

const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

const HEADERS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

const LISTING: Listing = Listing::new(TABLE, HEADERS);

/// The latest sample of each container, by the name it was asked for.
type Samples = RefCell<BTreeMap<String, Option<Json>>>;

async fn stats(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let format = chosen_format(cli, matches.text("format"), "statsFormat", false);
    let whole = matches.on("no-trunc");
    let everything = matches.words.is_empty();
    // ORDER: before the list, or one that starts in between would be missed.
    let starts = match everything && !matches.on("no-stream") {
        true => Some(watch_starts(client, matches.on("all")).await?),
        false => None,
    };
    let names = match everything {
        true => running(cli, matches.on("all")).await?,
        false => matches.words.clone(),
    };
    if matches.on("no-stream") {
        let asked = names.iter().map(|name| once(client, name));
        let mut rows = Vec::new();
        for (name, sample) in names.iter().zip(futures_util::future::join_all(asked).await) {
            rows.push(row(name, Some(&sample?), whole));
        }
        LISTING.show(cli, rows, &format)?;
        return Ok(0);
    }
    let samples: Samples = RefCell::new(names.iter().map(|name| (name.clone(), None)).collect());
    let drawing = draw(cli, &samples, &format, whole);
    let following = follow_all(client, names, starts, &samples);
    tokio::select! {
        failure = following => failure.map(|()| 0),
        drawn = drawing => drawn,
    }
}

/// Follows containers to their ends, and those that start meanwhile when `starts` tells of them; ends with the last one
/// then only when nothing tells of new ones.
async fn follow_all(
    client: &Client,
    names: Vec<String>,
    mut starts: Option<Response>,
    samples: &Samples,
) -> Result<(), Failure> {
    let is_everything = starts.is_some();
    let mut following: FuturesUnordered<_> =
        names.into_iter().map(|name| follow(client, name, samples)).collect();
    loop {
        tokio::select! {
            Some(ended) = following.next() => match ended {
                // One of many that is gone again is no failure.
                Err(failure) if !is_everything => return Err(failure),
                _ if following.is_empty() && !is_everything => return Ok(()),
                _ => {}
            },
            names = next_starts(&mut starts), if is_everything => {
                for name in names? {
                    samples.borrow_mut().insert(name.clone(), None);
                    following.push(follow(client, name, samples));
                }
            }
        }
    }
}

/// Asks to be told of containers that start (or are made, where those are shown, too).
async fn watch_starts(client: &Client, all: bool) -> Result<Response, Failure> {
    let event = if all { "event=create" } else { "event=start" };
    let filters =
        filters(&["type=container".to_owned(), event.to_owned()]).map_err(Failure::new)?;
    let path = format!("/events{}", query(&[("filters", &filters)]));
    Ok(client.send(Request::new(Method::GET, path)).await?)
}

/// Waits for the next containers that start; ends only with a failure.
async fn next_starts(starts: &mut Option<Response>) -> Result<Vec<String>, Failure> {
    let Some(answer) = starts else { return std::future::pending().await };
    let Some(bytes) = answer.chunk().await? else {
        return Err(Failure::new("the daemon ended the stream of events"));
    };
    // COMPAT: daemons write each event whole.
    let events = serde_json::Deserializer::from_slice(&bytes).into_iter::<Json>();
    let id = |event: Json| event["Actor"]["ID"].as_str().map(short_id);
    Ok(events.map_while(Result::ok).filter_map(id).collect())
}

async fn running(cli: &Cli, all: bool) -> Result<Vec<String>, Failure> {
    let list = cli.get(format!("/containers/json{}", if all { "?all=1" } else { "" })).await?;
    let ids = list.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str());
    Ok(ids.map(short_id).collect())
}

async fn once(client: &Client, name: &str) -> Result<Json, Failure> {
    Ok(client.get(format!("/containers/{}/stats?stream=0", encoded(name))).await?)
}

async fn follow(client: &Client, name: String, samples: &Samples) -> Result<(), Failure> {
    let path = format!("/containers/{}/stats?stream=1", encoded(&name));
    let mut answer = client.send(Request::new(Method::GET, path)).await?;
    let mut pending = Vec::new();
    while let Some(bytes) = answer.chunk().await? {
        pending.extend_from_slice(&bytes);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if let Ok(sample) = serde_json::from_slice(&line) {
                samples.borrow_mut().insert(name.clone(), Some(sample));
            }
        }
    }
    samples.borrow_mut().remove(&name);
    Ok(())
}

async fn draw(cli: &Cli, samples: &Samples, format: &str, whole: bool) -> Outcome {
    let moving = crate::terminal::output_is_terminal();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let rows: Vec<Record> = samples
            .borrow()
            .iter()
            .map(|(name, sample)| row(name, sample.as_ref(), whole))
            .collect();
        let text = LISTING.render(rows, format)?;
        // Each line is wiped behind its end, and what is left of a longer table below.
        match moving {
            true => {
                let text = text.replace('\n', "\x1b[K\n");
                cli.print(&format!("\x1b[H{text}\x1b[J"))?;
            }
            false => cli.print(&text)?,
        }
    }
}

fn row(asked: &str, sample: Option<&Json>, whole: bool) -> Record {
    let fields = |values: [String; 8]| {
        let [id, name, cpu, usage, share, network, disk, processes] = values;
        vec![
            ("BlockIO", Value::from(disk)),
            ("CPUPerc", cpu.into()),
            ("Container", asked.into()),
            ("ID", id.into()),
            ("MemPerc", share.into()),
            ("MemUsage", usage.into()),
            ("Name", name.into()),
            ("NetIO", network.into()),
            ("PIDs", processes.into()),
        ]
    };
    let Some(sample) = sample else {
        let none = || "--".to_owned();
        let values = [none(), none(), none(), "-- / --".to_owned(), none(), none(), none(), none()];
        return Record::row("container.statsContext", fields(values));
    };
    let id = sample["id"].as_str().unwrap_or_default();
    let name = sample["name"].as_str().unwrap_or_default().trim_start_matches('/');
    let (used, limit) = memory(sample);
    let share = if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 };
    let (received, sent) = network(sample);
    let (read, written) = disk(sample);
    let values = [
        if whole { id.to_owned() } else { short_id(id) },
        name.to_owned(),
        format!("{:.2}%", cpu(sample)),
        format!("{} / {}", units::binary_size(used), units::binary_size(limit)),
        format!("{share:.2}%"),
        format!("{} / {}", units::human_size_short(received), units::human_size_short(sent)),
        format!("{} / {}", units::human_size_short(read), units::human_size_short(written)),
        sample["pids_stats"]["current"].as_u64().unwrap_or(0).to_string(),
    ];
    Record::row("container.statsContext", fields(values))
}

fn number(value: &Json) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn cpu(sample: &Json) -> f64 {
    let (now, before) = (&sample["cpu_stats"], &sample["precpu_stats"]);
    let difference = |now: &Json, before: &Json| number(now) as f64 - number(before) as f64;
    let used = difference(&now["cpu_usage"]["total_usage"], &before["cpu_usage"]["total_usage"]);
    let system = difference(&now["system_cpu_usage"], &before["system_cpu_usage"]);
    let mut processors = number(&now["online_cpus"]);
    if processors == 0 {
        processors = now["cpu_usage"]["percpu_usage"].as_array().map_or(0, |all| all.len() as u64);
    }
    if used > 0.0 && system > 0.0 { used / system * processors as f64 * 100.0 } else { 0.0 }
}

/// Memory in use without what the page cache could give back.
fn memory(sample: &Json) -> (u64, u64) {
    let memory = &sample["memory_stats"];
    let used = number(&memory["usage"]);
    let details = &memory["stats"];
    // cgroup v1 has the sum over children, v2 only this name.
    let cache = details.get("total_inactive_file").or_else(|| details.get("inactive_file"));
    let cache = cache.map_or(0, number);
    (if cache < used { used - cache } else { used }, number(&memory["limit"]))
}

fn network(sample: &Json) -> (u64, u64) {
    let all = sample["networks"].as_object().into_iter().flatten();
    all.fold((0, 0), |(received, sent), (_, one)| {
        (received + number(&one["rx_bytes"]), sent + number(&one["tx_bytes"]))
    })
}

fn disk(sample: &Json) -> (u64, u64) {
    let all = sample["blkio_stats"]["io_service_bytes_recursive"].as_array().into_iter().flatten();
    all.fold((0, 0), |(read, written), one| {
        let value = number(&one["value"]);
        match one["op"].as_str().unwrap_or_default().as_bytes().first() {
            Some(b'r' | b'R') => (read + value, written),
            Some(b'w' | b'W') => (read, written + value),
            _ => (read, written),
        }
    })
}

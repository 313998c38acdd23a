//! Small questions about a container: its ports, processes, changes; and images made from it.

use rorqual_client::{Method, Request};
use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;

use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, open_failure};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::aligned;
use crate::output::text::{encoded, query};
use crate::terminal;

const NAME: Command =
    Command { args: Args::Exactly(1), completes: Completes::Containers, ..Command::EMPTY };

/// `port`
pub(super) static PORT: Command = Command {
    name: "port",
    paths: &["container port", "port"],
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "Show where the ports of a container are published",
    args: Args::Between(1, 2),
    run: task!(port),
    ..NAME
};

/// `top`
pub(super) static TOP: Command = Command {
    name: "top",
    paths: &["container top", "top"],
    usage: "CONTAINER [ps OPTIONS]",
    about: "Show the processes of a container",
    args: Args::AtLeast(1),
    stops_at_word: true,
    run: task!(top),
    ..NAME
};

/// `diff`
pub(super) static DIFF: Command = Command {
    name: "diff",
    paths: &["container diff", "diff"],
    usage: "CONTAINER",
    about: "Show what changed in a container's file system",
    run: task!(diff),
    ..NAME
};

/// `commit`
pub(super) static COMMIT: Command = Command {
    name: "commit",
    paths: &["container commit", "commit"],
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Make an image of a container's changes",
    flags: &[&[
        Flag::new("author", Kind::Text("string"), "Who made it (e.g., \"Ada <ada@example.org>\")")
            .short('a'),
        Flag::new("change", Kind::List("list"), "Apply a Dockerfile instruction to the image")
            .short('c'),
        Flag::new("message", Kind::Text("string"), "What was done").short('m'),
        Flag::new("no-pause", Kind::Bool, "Let the container run on meanwhile"),
        Flag::new("pause", Kind::Bool, "Pause the container meanwhile").short('p').default("true"),
    ]],
    args: Args::Between(1, 2),
    run: task!(commit),
    ..NAME
};

/// `export`
pub(super) static EXPORT: Command = Command {
    name: "export",
    paths: &["container export", "export"],
    usage: "[OPTIONS] CONTAINER",
    about: "Write a container's file system as a tar archive",
    flags: &[&[Flag::new("output", Kind::Text("string"), "Write to this file instead of stdout")
        .short('o')]],
    run: task!(export),
    ..NAME
};

async fn port(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    let state = cli.get(format!("/containers/{}/json", encoded(name))).await?;
    let ports = state["NetworkSettings"]["Ports"].as_object();
    let mut lines = Vec::new();
    let asked = matches.word(1);
    let number = asked.split('/').next().unwrap_or_default();
    if !asked.is_empty() && number.parse::<u16>().is_err() {
        // COMPAT: docker's text.
        return Err(Failure::new(format!(
            "Error: invalid port ({number}): strconv.ParseUint: parsing {number:?}: invalid syntax"
        )));
    }
    let wanted = match asked {
        "" => None,
        text if text.contains('/') => Some(text.to_owned()),
        text => Some(format!("{text}/tcp")),
    };
    for (port, bindings) in ports.into_iter().flatten() {
        if wanted.as_ref().is_some_and(|wanted| wanted != port) {
            continue;
        }
        for binding in bindings.as_array().into_iter().flatten() {
            let text = |key: &str| binding[key].as_str().unwrap_or_default();
            let ip = text("HostIp");
            let address = match ip.contains(':') {
                true => format!("[{ip}]:{}", text("HostPort")),
                false => format!("{ip}:{}", text("HostPort")),
            };
            lines.push(match wanted {
                Some(_) => address,
                None => format!("{port} -> {address}"),
            });
        }
    }
    if wanted.is_some() && lines.is_empty() {
        return Err(Failure::new(format!("Error: No public port '{asked}' published for {name}")));
    }
    lines.sort_by_key(|line| {
        let port = line.split('/').next().and_then(|port| port.parse::<u32>().ok());
        (port.unwrap_or(0), line.clone())
    });
    for line in lines {
        cli.line(&line)?;
    }
    Ok(0)
}

async fn top(cli: &Cli, matches: &Matches) -> Outcome {
    let arguments = matches.words[1..].join(" ");
    let name = encoded(matches.word(0));
    let answer =
        cli.get(format!("/containers/{name}/top{}", query(&[("ps_args", &arguments)]))).await?;
    let words = |list: &Json| -> Vec<String> {
        let all = list.as_array().into_iter().flatten();
        all.map(|word| word.as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut text = words(&answer["Titles"]).join("\t") + "\n";
    for process in answer["Processes"].as_array().into_iter().flatten() {
        text.push_str(&words(process).join("\t"));
        text.push('\n');
    }
    cli.print(&aligned(&text, 20, 3))?;
    Ok(0)
}

async fn diff(cli: &Cli, matches: &Matches) -> Outcome {
    if matches.word(0).is_empty() {
        return Err(Failure::new("Container name cannot be empty"));
    }
    let changes = cli.get(format!("/containers/{}/changes", encoded(matches.word(0)))).await?;
    for change in changes.as_array().into_iter().flatten() {
        let kind = match change["Kind"].as_i64() {
            Some(1) => 'A',
            Some(2) => 'D',
            _ => 'C',
        };
        cli.line(&format!("{kind} {}", change["Path"].as_str().unwrap_or_default()))?;
    }
    Ok(0)
}

async fn commit(cli: &Cli, matches: &Matches) -> Outcome {
    if matches.given("pause") && matches.given("no-pause") {
        return Err(Failure::new(
            "conflicting options: cannot specify both --pause and --no-pause",
        ));
    }
    let name = matches.word(1);
    if !name.is_empty() {
        super::image::check_reference(name)?;
    }
    let (repository, tag) = super::image::split_tag(name);
    let pause = matches.on("pause") && !matches.on("no-pause");
    let mut query = query(&[
        ("author", matches.text("author")),
        ("comment", matches.text("message")),
        ("container", matches.word(0)),
        ("repo", repository),
        (
            "tag",
            if name.is_empty() {
                ""
            } else if tag.is_empty() {
                "latest"
            } else {
                tag
            },
        ),
        ("pause", if pause { "" } else { "0" }),
    ]);
    for change in matches.list("change") {
        query.push_str(&format!("&changes={}", encoded(change)));
    }
    let answer = cli.post(format!("/commit{query}"), Json::Null).await?;
    cli.line(answer["Id"].as_str().unwrap_or_default())?;
    Ok(0)
}

async fn export(cli: &Cli, matches: &Matches) -> Outcome {
    if matches.text("output").is_empty() && terminal::output_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    let path = format!("/containers/{}/export", encoded(matches.word(0)));
    download(cli, path, matches.text("output"), "failed to export container").await
}

/// Writes what the daemon sends to a file, complete or not at all, or to standard output.
pub(super) async fn download(cli: &Cli, path: String, file: &str, what: &str) -> Outcome {
    download_of(cli, Request::new(Method::GET, path), file, what).await
}

/// Like [`download`], of whatever request.
pub(super) async fn download_of(cli: &Cli, request: Request, file: &str, what: &str) -> Outcome {
    if !file.is_empty() {
        check_output(file).map_err(|reason| Failure::new(format!("{what}: {reason}")))?;
    }
    let mut answer = cli.client()?.send(request).await?;
    if file.is_empty() {
        let mut out = tokio::io::stdout();
        while let Some(bytes) = answer.chunk().await? {
            out.write_all(&bytes).await?;
        }
        out.flush().await?;
        return Ok(0);
    }
    // A device such as /dev/null is written to, not replaced.
    let is_plain = std::fs::metadata(file).is_ok_and(|meta| !meta.is_file());
    let target =
        if is_plain { file.to_owned() } else { format!("{file}.{}.tmp", std::process::id()) };
    let written = async {
        let mut out = tokio::fs::File::create(&target).await?;
        while let Some(bytes) = answer.chunk().await? {
            out.write_all(&bytes).await?;
        }
        out.flush().await?;
        if !is_plain {
            tokio::fs::rename(&target, file).await?;
        }
        Ok::<(), Failure>(())
    };
    if let Err(failure) = written.await {
        if !is_plain {
            let _ = std::fs::remove_file(&target);
        }
        return Err(failure);
    }
    Ok(0)
}

fn check_output(file: &str) -> Result<(), String> {
    let path = std::path::Path::new(file);
    if path.is_dir() {
        return Err(format!("invalid output path: {file:?} is a directory"));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => Err(format!(
            "invalid output path: stat {}: no such file or directory",
            parent.display()
        )),
        _ => Ok(()),
    }
}

/// Reads a whole small file, or standard input for `-`.
pub(super) fn read_input(path: &str) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    // LIMIT: of what docker takes for an exported context.
    const LARGEST: u64 = 10 << 20;
    let mut bytes = Vec::new();
    if path == "-" {
        std::io::stdin().take(LARGEST).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(path).map_err(|error| open_failure(path, &error))?;
        file.take(LARGEST).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

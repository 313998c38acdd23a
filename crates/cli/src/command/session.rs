//! What interactive commands share: resizing, signals, detach keys, exit codes.

use std::time::Duration;

use rorqual_client::{Client, Method, Request};
use serde_json::Value as Json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::{Cli, complain};
use crate::failure::Failure;
use crate::output::text::encoded;
use crate::stream;
use crate::terminal;

/// Returns the keys that detach: of the flag, the settings, or the usual ones.
pub(super) fn keys(cli: &Cli, flag: &str) -> Result<Vec<u8>, Failure> {
    let text = match flag {
        "" => cli.config.text("detachKeys").unwrap_or("ctrl-p,ctrl-q"),
        flag => flag,
    };
    stream::detach_keys(text)
}

/// Returns the keys as the query of an attach or exec wants them.
pub(super) fn keys_query(cli: &Cli, flag: &str) -> String {
    let text = if flag.is_empty() { cli.config.text("detachKeys").unwrap_or("") } else { flag };
    text.to_owned()
}

/// Keeps the far terminal as large as ours; never ends. `path` is `/containers/x` or `/exec/x`.
pub(super) async fn keep_size(client: &Client, path: &str) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return std::future::pending().await;
    };
    // The process may not be there yet: the first try may have to be repeated.
    for attempt in 0..5_u64 {
        if resize(client, path).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10 * (attempt + 1))).await;
    }
    while changes.recv().await.is_some() {
        resize(client, path).await;
    }
    std::future::pending::<()>().await;
}

async fn resize(client: &Client, path: &str) -> bool {
    let Some((rows, columns)) = terminal::size() else { return true };
    client.post(format!("{path}/resize?h={rows}&w={columns}"), Json::Null).await.is_ok()
}

/// Our signals, caught from the moment this is made.
pub(super) struct Signals {
    caught: mpsc::Receiver<&'static str>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Signals {
    const FORWARDED: [(&str, SignalKind); 8] = [
        ("HUP", SignalKind::hangup()),
        ("INT", SignalKind::interrupt()),
        ("QUIT", SignalKind::quit()),
        ("USR1", SignalKind::user_defined1()),
        ("USR2", SignalKind::user_defined2()),
        ("ALRM", SignalKind::alarm()),
        ("TERM", SignalKind::terminate()),
        // Continues a container whose client was stopped and continued.
        ("CONT", SignalKind::from_raw(18)),
    ];

    /// Catches the signals from now on: before a container starts, or one that comes right behind its first output
    /// would end us and leave the container alone.
    pub(super) fn catch() -> Self {
        let (sender, caught) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        for (name, kind) in Self::FORWARDED {
            let Ok(mut stream) = signal(kind) else { continue };
            let sender = sender.clone();
            tasks.spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send(name).await.is_err() {
                        break;
                    }
                }
            });
        }
        Self { caught, _tasks: tasks }
    }

    /// Passes them on to a container; never ends on its own.
    ///
    /// Returns when the user insists: the third interrupt ends the program itself.
    pub(super) async fn forward(mut self, client: &Client, id: &str) {
        let mut insisted = 0;
        while let Some(name) = self.caught.recv().await {
            if matches!(name, "INT" | "TERM") {
                insisted += 1;
            }
            // A container that just ended, or does not run yet, gets none.
            let _ = client
                .post(format!("/containers/{}/kill?signal={name}", encoded(id)), Json::Null)
                .await;
            if insisted >= 3 {
                complain("got 3 SIGTERM/SIGINTs, forcefully exiting");
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Passes signals on, if any are to be; never ends on its own otherwise.
pub(super) async fn forward(signals: Option<Signals>, client: &Client, id: &str) {
    match signals {
        Some(signals) => signals.forward(client, id).await,
        None => std::future::pending().await,
    }
}

/// The answer of a container's end, asked for before it starts.
pub(super) struct Waiting(rorqual_client::Response);

/// Asks to be told of a container's end; the daemon has noted it when this returns.
pub(super) async fn wait_for(
    client: &Client,
    id: &str,
    condition: &str,
) -> Result<Waiting, Failure> {
    let path = format!("/containers/{}/wait?condition={condition}", encoded(id));
    Ok(Waiting(client.send(Request::new(Method::POST, path)).await?))
}

impl Waiting {
    /// Waits for the end; returns the exit code.
    pub(super) async fn code(self) -> u8 {
        match self.0.json().await {
            Ok(answer) => {
                if let Some(text) = answer["Error"]["Message"].as_str().filter(|t| !t.is_empty()) {
                    complain(&format!("Error waiting for container: {text}"));
                    return 125;
                }
                answer["StatusCode"].as_i64().map_or(125, |code| code as u8)
            }
            Err(error) => {
                complain(&format!("error waiting for container: {error}"));
                125
            }
        }
    }
}

/// Returns the exit code of a start that failed, judged by the daemon's text.
///
/// COMPAT: the text is all docker's client has to go by.
pub(super) fn start_failure_code(text: &str) -> u8 {
    let has = |part: &str| text.contains(part);
    if has("permission denied") || has("is a directory") {
        return 126;
    }
    let missing = [
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ];
    if missing.iter().any(|part| has(part)) { 127 } else { 125 }
}

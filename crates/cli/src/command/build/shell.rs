//! `--on-fail=shell`: our terminal in the step that failed.

use futures_util::StreamExt as _;
use rorqual_buildkit::{ShellInput, ShellNews};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Connected, warn};
use crate::cli::complain;
use crate::failure::Failure;
use crate::flag::Matches;
use crate::stream::to_standard_streams;
use crate::terminal::{self, RawMode};

/// LIMIT: messages on their way; the terminal waits for the rest.
const QUEUE: usize = 4;
/// LIMIT: bytes of one message.
const PIECE: usize = 16 << 10;

/// Tells whether a shell is wanted when a step fails; refuses what cannot be.
pub(super) fn is_wanted(matches: &Matches) -> Result<bool, Failure> {
    match matches.text("on-fail") {
        "" => return Ok(false),
        "shell" => {}
        other => {
            return Err(Failure::new(format!(
                "ERROR: invalid value {other:?} for --on-fail: the only one is \"shell\""
            )));
        }
    }
    if terminal::input_is_terminal() && terminal::output_is_terminal() {
        return Ok(true);
    }
    Err(Failure::new(
        "ERROR: --on-fail=shell needs a terminal, and standard input or output is none: \
         run it on a terminal, or build without --on-fail",
    ))
}

/// Opens a shell in the step that failed and stays until it ends.
pub(super) async fn enter(connected: &Connected, step: &str) -> Result<(), Failure> {
    let (sender, input) = mpsc::channel(QUEUE);
    let (rows, columns) = terminal::size().unwrap_or((24, 80));
    sender.send(ShellInput::Size(rows, columns)).await.ok();
    let mut news = match connected.builder.shell(&connected.session, input).await {
        Ok(news) => std::pin::pin!(news),
        Err(failure) => {
            warn(&format!("no shell: {}", failure.message));
            return Ok(());
        }
    };
    complain(&format!("A shell in the failed step{step}; the build ends with it."));
    let mode = RawMode::enter();
    let resizing = tokio::spawn(keep_size(sender.clone()));
    let typing = tokio::spawn(take(sender));
    let ended = loop {
        match news.next().await {
            Some(Ok(ShellNews::Output(data))) => {
                if let Err(error) = to_standard_streams(1, &data) {
                    break Err(error.into());
                }
            }
            Some(Ok(ShellNews::Ended(_))) => break Ok(()),
            Some(Err(failure)) => {
                break Err(Failure::new(format!("ERROR: no shell: {}", failure.message)));
            }
            None => break Err(Failure::new("ERROR: the builder hung up on the shell")),
        }
    };
    typing.abort();
    resizing.abort();
    drop(mode);
    ended
}

/// Hands on what is typed.
async fn take(sender: mpsc::Sender<ShellInput>) {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = input.read(&mut buffer).await {
        if sender.send(ShellInput::Typed(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
    sender.send(ShellInput::End).await.ok();
}

/// Keeps the far terminal as large as ours.
async fn keep_size(sender: mpsc::Sender<ShellInput>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        let Some((rows, columns)) = terminal::size() else { continue };
        if sender.send(ShellInput::Size(rows, columns)).await.is_err() {
            return;
        }
    }
}

//! `completion` prints the scripts of shells; `__complete` answers them.

use serde_json::Value as Json;

use super::task;
use crate::cli::{Cli, plugin};
use crate::failure::{Failure, Outcome};
use crate::flag::{self, Args, Command, Completes, Flag, Kind, Matches, Offer};
use crate::output::text::short_id;

/// `completion`
pub(super) static COMPLETION: Command = Command {
    name: "completion",
    usage: "bash|zsh|fish|powershell",
    about: "Print the script that completes commands in a shell",
    flags: &[&[Flag::new("no-descriptions", Kind::Bool, "Leave descriptions out").hidden()]],
    args: Args::Exactly(1),
    run: task!(completion),
    ..Command::EMPTY
};

/// `__complete`
pub(super) static COMPLETE: Command = Command {
    name: "__complete",
    about: "Answer a shell's question for completions",
    args: Args::Any,
    stops_at_word: true,
    hidden: true,
    run: task!(complete),
    ..Command::EMPTY
};

async fn completion(cli: &Cli, matches: &Matches) -> Outcome {
    let shell = matches.word(0);
    let script = flag::script(shell, &cli.program).ok_or_else(|| {
        Failure::new(format!("unsupported shell {shell:?}: need bash, zsh, fish or powershell"))
    })?;
    cli.print(&script)?;
    Ok(0)
}

async fn complete(cli: &Cli, matches: &Matches) -> Outcome {
    if let Some(plugin) = matches.words.first().and_then(|name| plugin::find(&cli.config, name))
        && matches.words.len() > 1
    {
        let (words, files) = plugin.candidates(&matches.words);
        let offer = if words.is_empty() && files { Offer::Files } else { Offer::Words(words) };
        return show(cli, offer).await;
    }
    let mut offer = flag::candidates(&super::ROOT, &matches.words);
    if let (Offer::Words(words), 0 | 1) = (&mut offer, matches.words.len())
        && matches.words.first().is_none_or(|word| !word.starts_with('-'))
    {
        words.extend(plugin::all(&cli.config).into_iter().map(|one| (one.name, String::new())));
    }
    show(cli, offer).await
}

async fn show(cli: &Cli, offer: Offer) -> Outcome {
    match offer {
        Offer::Files => cli.line(":files")?,
        Offer::Words(words) => {
            for (word, description) in words {
                cli.line(&format!("{word}\t{description}"))?;
            }
            cli.line(":words")?;
        }
        Offer::Objects(kind) => {
            for (word, description) in objects(cli, kind).await.unwrap_or_default() {
                cli.line(&format!("{word}\t{description}"))?;
            }
            cli.line(":words")?;
        }
    }
    Ok(0)
}

async fn objects(cli: &Cli, kind: Completes) -> Result<Vec<(String, String)>, Failure> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let list = |value: Json| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    match kind {
        Completes::Files => {}
        Completes::Containers => {
            for one in list(cli.get("/containers/json?all=1").await?) {
                let name = text(&one["Names"][0]);
                all.push((name.trim_start_matches('/').to_owned(), text(&one["Image"])));
            }
        }
        Completes::Images => {
            for one in list(cli.get("/images/json").await?) {
                let id = short_id(&text(&one["Id"]));
                for tag in one["RepoTags"].as_array().into_iter().flatten() {
                    all.push((text(tag), id.clone()));
                }
            }
        }
        Completes::Networks => {
            for one in list(cli.get("/networks").await?) {
                all.push((text(&one["Name"]), text(&one["Driver"])));
            }
        }
        Completes::Volumes => {
            for one in list(cli.get("/volumes").await?["Volumes"].clone()) {
                all.push((text(&one["Name"]), text(&one["Driver"])));
            }
        }
        Completes::Contexts => {
            let store = rorqual_client::context::ContextStore::new(cli.config.directory());
            all.push(("default".to_owned(), String::new()));
            for one in store.list()? {
                all.push((text(&one["Name"]), text(&one["Metadata"]["Description"])));
            }
        }
    }
    Ok(all)
}

//! `version`: of the client and of the daemon.

use serde_json::{Value as Json, json};

use crate::cli::{COMPATIBLE, Cli, crate_version, current_context};
use crate::command::{task, typed};
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::unescaped;
use crate::template::{Mode, Template};

/// `version`
pub(in crate::command) static VERSION: Command = Command {
    name: "version",
    usage: "[OPTIONS]",
    about: "Show the versions of the client and of the daemon",
    flags: &[&[Flag::new(
        "format",
        Kind::Text("string"),
        "Form of the output: 'json' or a Go template",
    )
    .short('f')]],
    args: Args::None,
    run: task!(version),
    ..Command::EMPTY
};

async fn version(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let (server, failure) = match client.get("/version").await {
        Ok(server) => (server, None),
        Err(error) => (Json::Null, Some(Failure::from(error))),
    };
    let architecture = rorqual_core::Platform::host().architecture;
    let own = json!({
        "Platform": { "Name": format!("Rorqual {}", crate_version()) },
        "Version": COMPATIBLE,
        "ApiVersion": client.current_version(),
        "DefaultAPIVersion": rorqual_client::Client::newest_version(),
        "GitCommit": format!("rorqual-{}", crate_version()),
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "BuildTime": "",
        "Context": current_context(&cli.root, &cli.config),
    });
    let document = json!({ "Client": own, "Server": server });
    match matches.text("format") {
        "" => cli.print(&layout(&document))?,
        "json" => cli.line(&document.to_string())?,
        format => {
            let template = Template::parse("version", &unescaped(format)).map_err(|error| {
                Failure { code: 64, text: format!("template parsing error: {error}") }
            })?;
            let text = template
                .render(&typed::named(&go_names(&document), "system.versionInfo"), Mode::Rows)
                .map_err(|error| {
                    // COMPAT: docker ends the line it could not write.
                    let _ = cli.line("");
                    // That there is no daemon tells more than what a template misses because of it.
                    failure.clone().unwrap_or_else(|| Failure::new(error.to_string()))
                })?;
            cli.line(&text)?;
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(0),
    }
}

/// COMPAT: templates call a server's field by its name in Go, which the document does not have.
fn go_names(document: &Json) -> Json {
    let mut document = document.clone();
    if let Some(server) = document["Server"].as_object_mut()
        && let Some(version) = server.get("ApiVersion").cloned()
    {
        server.insert("APIVersion".to_owned(), version);
    }
    if let Some(own) = document["Client"].as_object_mut()
        && let Some(version) = own.get("ApiVersion").cloned()
    {
        own.insert("APIVersion".to_owned(), version);
    }
    document
}

fn layout(document: &Json) -> String {
    let own = &document["Client"];
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!("Client: {}\n", text(&own["Platform"]["Name"]));
    let mut line = |indent: usize, name: &str, value: &str| {
        let label = format!("{}{name}:", " ".repeat(indent));
        out.push_str(&format!("{label:<20}{value}\n"));
    };
    let host = |value: &Json| format!("{}/{}", text(&value["Os"]), text(&value["Arch"]));
    line(1, "Version", &text(&own["Version"]));
    line(1, "API version", &api(own));
    line(1, "Git commit", &text(&own["GitCommit"]));
    line(1, "OS/Arch", &host(own));
    line(1, "Context", &text(&own["Context"]));
    let server = &document["Server"];
    if server.is_null() {
        return out;
    }
    let name = text(&server["Platform"]["Name"]);
    out.push_str(&format!("\nServer:{}{name}\n", if name.is_empty() { "" } else { " " }));
    for component in server["Components"].as_array().into_iter().flatten() {
        out.push_str(&component_layout(component, server));
    }
    out
}

/// `1.50 (downgraded from 1.51)`
fn api(own: &Json) -> String {
    let (used, newest) = (&own["ApiVersion"], &own["DefaultAPIVersion"]);
    let used_text = used.as_str().unwrap_or_default();
    if used == newest {
        return used_text.to_owned();
    }
    format!("{used_text} (downgraded from {})", newest.as_str().unwrap_or_default())
}

fn component_layout(component: &Json, server: &Json) -> String {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!(" {}:\n", text(&component["Name"]));
    let details = &component["Details"];
    let mut line = |name: &str, value: &str| {
        let label = format!("  {name}:");
        out.push_str(&format!("{label:<20}{value}\n"));
    };
    line("Version", &text(&component["Version"]));
    if component["Name"] != "Engine" {
        let mut known: Vec<_> = details.as_object().into_iter().flatten().collect();
        known.sort_by_key(|(name, _)| name.as_str());
        for (name, value) in known {
            line(name, &text(value));
        }
        return out;
    }
    let detail = |name: &str| text(&details[name]);
    let api = format!("{} (minimum version {})", detail("ApiVersion"), detail("MinAPIVersion"));
    line("API version", &api);
    for (label, name) in [("Go version", "GoVersion"), ("Git commit", "GitCommit")] {
        if !detail(name).is_empty() {
            line(label, &detail(name));
        }
    }
    if !detail("BuildTime").is_empty() {
        line("Built", &detail("BuildTime"));
    }
    line("OS/Arch", &format!("{}/{}", text(&server["Os"]), text(&server["Arch"])));
    line("Experimental", &detail("Experimental"));
    out
}

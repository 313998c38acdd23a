//! `login`, `logout`, `search`: who the user is to registries, and what they have.

use std::io::{IsTerminal as _, Read as _};

use rorqual_client::credentials::{self, Credential, HUB, Kept};
use rorqual_client::{Method, Request};
use rorqual_core::Reference;
use serde_json::{Value as Json, json};

use crate::cli::Cli;
use crate::command::task;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::Listing;
use crate::output::text::{ellipsis, filters, query};
use crate::template::{Record, Value};
use crate::terminal;

/// `login`
pub(super) static LOGIN: Command = Command {
    name: "login",
    usage: "[OPTIONS] [SERVER]",
    about: "Tell a registry who you are, and keep it",
    flags: &[&[
        Flag::new(
            "password",
            Kind::Text("string"),
            "Password or token (others may see it in the list of processes)",
        )
        .short('p'),
        Flag::new("password-stdin", Kind::Bool, "Read the password from standard input"),
        Flag::new("plain", Kind::Bool, "Write the password unencrypted into config.json"),
        Flag::new("username", Kind::Text("string"), "Name of the user").short('u'),
    ]],
    args: Args::AtMost(1),
    run: task!(login),
    ..Command::EMPTY
};

/// `logout`
pub(super) static LOGOUT: Command = Command {
    name: "logout",
    usage: "[SERVER]",
    about: "Forget who you are to a registry",
    args: Args::AtMost(1),
    run: task!(logout),
    ..Command::EMPTY
};

/// `search`
pub(super) static SEARCH: Command = Command {
    name: "search",
    usage: "[OPTIONS] TERM",
    about: "Look for images at a registry",
    flags: &[&[
        Flag::new("filter", Kind::List("filter"), "Show only what fits").short('f'),
        Flag::new(
            "format",
            Kind::Text("string"),
            "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template",
        ),
        Flag::new("limit", Kind::Int, "At most so many results").default("25"),
        Flag::new("no-trunc", Kind::Bool, "Don't shorten"),
    ]],
    args: Args::Exactly(1),
    run: task!(search),
    ..Command::EMPTY
};

// LIMIT: a password on standard input; tokens are some KiB.
const MAX_PASSWORD: u64 = 64 << 10;

/// Returns the header that tells the daemon who the user is to the registry of an image.
pub(super) fn auth_header(cli: &Cli, image: &str) -> Result<(&'static str, String), Failure> {
    let host = image.parse::<Reference>().map(|name| name.repository().host().to_owned());
    auth_header_for(cli, &host.unwrap_or_default())
}

fn auth_header_for(cli: &Cli, server: &str) -> Result<(&'static str, String), Failure> {
    let found = credentials::find(&cli.config, server)?;
    let document =
        found.map_or_else(|| json!({}), |found| found.document(&credentials::server_key(server)));
    Ok(("x-registry-auth", credentials::header(&document)))
}

impl From<credentials::CredentialsError> for Failure {
    fn from(error: credentials::CredentialsError) -> Self {
        Self::new(error.to_string())
    }
}

async fn login(cli: &Cli, matches: &Matches) -> Outcome {
    let server = matches.words.first().map_or("", String::as_str);
    let key = credentials::server_key(server);
    let (user, password) = (matches.text("username"), matches.text("password"));
    if !password.is_empty() {
        cli.complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if matches.on("password-stdin") {
            return Err(Failure::new("--password and --password-stdin are mutually exclusive"));
        }
    }
    let credential = if matches.on("password-stdin") {
        if user.is_empty() {
            return Err(Failure::new("Must provide --username with --password-stdin"));
        }
        given(user, &read_password()?)
    } else if user.is_empty() && password.is_empty() {
        match credentials::find(&cli.config, server)? {
            Some(known) => {
                cli.line("Authenticating with existing credentials...")?;
                match check(cli, &key, &known).await {
                    Ok(token) => return keep(cli, matches, &key, known, token),
                    Err(failure) => {
                        cli.complain(&format!("Login did not succeed, error: {}", failure.text));
                        asked(cli, &key, &known.username, "")?
                    }
                }
            }
            None => asked(cli, &key, "", "")?,
        }
    } else {
        asked(cli, &key, user, password)?
    };
    let token = check(cli, &key, &credential).await?;
    keep(cli, matches, &key, credential, token)
}

fn given(username: &str, secret: &str) -> Credential {
    Credential { username: username.to_owned(), secret: secret.to_owned(), is_token: false }
}

fn read_password() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text)?;
    // COMPAT: the end of the line is not part of it.
    Ok(text.trim_end_matches('\n').trim_end_matches('\r').to_owned())
}

/// Asks at the terminal for what was not given.
fn asked(cli: &Cli, key: &str, username: &str, password: &str) -> Result<Credential, Failure> {
    let complete = !username.is_empty() && !password.is_empty();
    if !complete && !std::io::stdin().is_terminal() {
        // COMPAT: docker's text.
        return Err(Failure::new(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let mut name = username.to_owned();
    if name.is_empty() {
        if key == HUB {
            cli.line(
                "Logging in through a browser is a service of Docker Hub for Docker's own client: give your name and an access token.",
            )?;
        }
        cli.print("Username: ")?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        line.trim().clone_into(&mut name);
    }
    if name.is_empty() {
        return Err(Failure::new("Error: Non-null Username Required"));
    }
    let mut secret = password.to_owned();
    if secret.is_empty() {
        cli.print("Password: ")?;
        secret = terminal::read_hidden()?;
        cli.line("")?;
    }
    if secret.is_empty() {
        return Err(Failure::new("Error: Password Required"));
    }
    Ok(given(&name, &secret))
}

/// Has the daemon check credentials; returns the token to keep instead of the password.
async fn check(cli: &Cli, key: &str, credential: &Credential) -> Result<String, Failure> {
    let answer = cli.post("/auth", credential.document(key)).await?;
    Ok(answer["IdentityToken"].as_str().unwrap_or_default().to_owned())
}

fn keep(cli: &Cli, matches: &Matches, key: &str, credential: Credential, token: String) -> Outcome {
    let credential = match token.is_empty() {
        true => credential,
        false => Credential { username: String::new(), secret: token, is_token: true },
    };
    let mut config = cli.config.clone();
    let kept = credentials::keep(&mut config, key, &credential, matches.on("plain"))?;
    if kept == Kept::Plain {
        let path = config.directory().join("config.json");
        // COMPAT: docker's text.
        cli.complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    cli.line("Login Succeeded")?;
    Ok(0)
}

async fn logout(cli: &Cli, matches: &Matches) -> Outcome {
    let server = matches.words.first().map_or("", String::as_str);
    let key = credentials::server_key(server);
    let mut config = cli.config.clone();
    if credentials::forget(&mut config, server)? {
        cli.line(&format!("Removing login credentials for {key}"))?;
    } else {
        cli.line(&format!("Not logged in to {key}"))?;
    }
    Ok(0)
}

const TABLE: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

async fn search(cli: &Cli, matches: &Matches) -> Outcome {
    let term = matches.word(0);
    let path = query(&[
        ("filters", &filters(matches.list("filter")).map_err(Failure::new)?),
        ("limit", matches.text("limit")),
        ("term", term),
    ]);
    let host = term.split_once('/').map_or("", |(host, _)| host);
    let host = if host.contains(['.', ':']) || host == "localhost" { host } else { "" };
    let mut request = Request::new(Method::GET, format!("/images/search{path}"));
    request.headers.push(auth_header_for(cli, host)?);
    let mut found = cli.client()?.send(request).await?.json().await?;
    let results = found.as_array_mut().map(std::mem::take).unwrap_or_default();
    let whole = matches.on("no-trunc");
    let row = |one: &Json| {
        let description =
            one["description"].as_str().unwrap_or_default().replace(['\n', '\r'], " ");
        let official = if one["is_official"].as_bool() == Some(true) { "[OK]" } else { "" };
        let fields = vec![
            ("Description", if whole { description } else { ellipsis(&description, 45) }.into()),
            ("IsAutomated", String::new().into()),
            ("IsOfficial", official.to_owned().into()),
            ("Name", one["name"].as_str().unwrap_or_default().to_owned().into()),
            ("StarCount", Value::from(one["star_count"].as_i64().unwrap_or(0).to_string())),
        ];
        Record::row("search.searchContext", fields)
    };
    let mut results = results;
    results.sort_by_key(|one| std::cmp::Reverse(one["star_count"].as_i64().unwrap_or(0)));
    let rows = results.iter().map(row).collect();
    Listing::new(TABLE, HEADERS).show(cli, rows, matches.text("format"))?;
    Ok(0)
}

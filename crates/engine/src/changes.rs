//! `--change` of `commit` and `import`: the Dockerfile instructions that only touch an image's config. Pure.

use rorqual_content::{HealthConfig, ImageConfig};
use rorqual_core::units::parse_duration;

use crate::effective::{overlay_env, parse_port};
use crate::error::{Error, Result};

/// Applies instructions in order.
pub(crate) fn apply(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    changes
        .iter()
        .flat_map(|change| change.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .try_for_each(|line| instruction(config, line))
}

/// The instructions that only touch a config.
const WORDS: [&str; 12] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// COMPAT: dockerd's text.
fn unknown(word: &str) -> Error {
    Error::Invalid(format!("{word} is not a valid change command"))
}

fn instruction(config: &mut ImageConfig, line: &str) -> Result<()> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
    if !WORDS.contains(&word.as_str()) {
        return Err(unknown(&word));
    }
    if rest.is_empty() {
        return Err(Error::Invalid(format!("{word} requires at least one argument")));
    }
    match word.as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest));
        }
        "ENV" => {
            let pairs = pairs(rest, "ENV")?;
            let variables: Vec<String> =
                pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            overlay_env(config.env.get_or_insert_default(), &variables);
        }
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(rest, "LABEL")?),
        "EXPOSE" => expose(config, rest)?,
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        "USER" => rest.clone_into(&mut config.user),
        "VOLUME" => {
            let paths = json_words(rest).unwrap_or_else(|| words(rest));
            let volumes = config.volumes.get_or_insert_default();
            volumes.extend(paths.into_iter().map(|path| (path, serde_json::Map::new())));
        }
        "WORKDIR" => {
            config.working_dir = if rest.starts_with('/') {
                crate::validate::normal(rest)
            } else {
                crate::validate::normal(&format!("{}/{rest}", config.working_dir))
            };
        }
        "STOPSIGNAL" => {
            rest.parse::<rorqual_core::Signal>()?;
            rest.clone_into(&mut config.stop_signal);
        }
        "SHELL" => {
            config.shell = Some(json_words(rest).ok_or_else(|| {
                Error::Invalid("SHELL requires the arguments to be in JSON form".to_owned())
            })?);
        }
        "HEALTHCHECK" => config.healthcheck = Some(health(rest)?),
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn json_words(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// The JSON form as it is, the shell form through the image's shell.
fn command(config: &ImageConfig, text: &str) -> Vec<String> {
    json_words(text).unwrap_or_else(|| {
        let shell = config.shell.clone();
        let mut all = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        all.push(text.to_owned());
        all
    })
}

fn expose(config: &mut ImageConfig, text: &str) -> Result<()> {
    for word in words(text) {
        let (range, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, _) = parse_port(&format!("{first}/{protocol}"))?;
        let (last, _) = parse_port(&format!("{last}/{protocol}"))?;
        let ports = config.exposed_ports.get_or_insert_default();
        for port in first..=last {
            ports.insert(format!("{port}/{protocol}"), serde_json::Map::new());
        }
    }
    Ok(())
}

/// Reads `key=value key2="quoted value"`, or the old `key value`.
fn pairs(text: &str, word: &str) -> Result<Vec<(String, String)>> {
    let words = quoted_words(text)?;
    if words.first().is_some_and(|first| !first.contains('=')) {
        return match text.split_once(char::is_whitespace) {
            Some((key, value)) => Ok(vec![(key.to_owned(), value.trim().to_owned())]),
            None => Err(Error::Invalid(format!("{word} must have two arguments"))),
        };
    }
    words
        .into_iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Error::Invalid(format!(
                "Syntax error - can't find = in {pair:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Splits at blanks, minds quotes and backslashes and removes them.
fn quoted_words(text: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, blank) if blank.is_whitespace() => all.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if letter == open => quote = None,
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().extend(letters.next());
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Error::Invalid(
            "unexpected end of statement while looking for matching quote".to_owned(),
        ));
    }
    all.extend(word);
    Ok(all)
}

fn health(text: &str) -> Result<HealthConfig> {
    let mut config = HealthConfig::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, tail) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = tail.trim_start();
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        let time = || {
            let time = parse_duration(value).map_err(|error| Error::Invalid(error.to_string()))?;
            Ok::<_, Error>(time.as_nanos() as i64)
        };
        match key {
            "interval" => config.interval = time()?,
            "timeout" => config.timeout = time()?,
            "start-period" => config.start_period = time()?,
            "start-interval" => config.start_interval = time()?,
            "retries" => {
                config.retries = value
                    .parse::<u32>()
                    .map_err(|_| Error::Invalid(format!("invalid retries: {value:?}")))?
                    .into();
            }
            _ => return Err(Error::Invalid(format!("unknown flag: {key}"))),
        }
    }
    let (word, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    config.test = match word.to_ascii_uppercase().as_str() {
        "NONE" => vec!["NONE".to_owned()],
        "CMD" if !command.is_empty() => match json_words(command) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        "CMD" => return Err(Error::Invalid("Missing command after HEALTHCHECK CMD".to_owned())),
        other => {
            return Err(Error::Invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")));
        }
    };
    Ok(config)
}

#[cfg(test)]
mod tests;

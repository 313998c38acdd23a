//! What people see: names of vertices and entries of an image's history.

use rorqual_content::History;
use rorqual_core::{Platform, Timestamp};

use super::Converter;
use super::env::Env;
use crate::dockerfile::{Dialect, platform};

/// Whether an instruction changes files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// It does, by a vertex.
    Made,
    /// It makes a directory. COMPAT: its entry does not end as that of other vertices.
    Directory,
    /// It only changes the config.
    None,
}

impl Converter<'_> {
    /// Puts `[stage 2/5] ` before a name, and counts.
    pub(super) fn numbered(
        &mut self,
        number: usize,
        text: &str,
        platform: &Platform,
        env: Option<&Env>,
    ) -> String {
        let options = &self.request.options;
        let several = options.multi_platform || options.platforms.len() > 1;
        let state = &mut self.stages[number];
        if state.progress.total == 0 {
            return text.to_owned();
        }
        let mut name = "[".to_owned();
        if several {
            let target = env.map(|env| cross_target(platform, env)).unwrap_or_default();
            name.push_str(&format!("{platform}{target} "));
        }
        if !state.label.is_empty() {
            name.push_str(&format!("{} ", state.label));
        }
        state.progress.done += 1;
        let (done, total) = (state.progress.done, state.progress.total);
        let width = total.to_string().len();
        name.push_str(&format!("{done:width$}/{total}] "));
        if state.progress.on_build {
            name.push_str("ONBUILD ");
        }
        name + text
    }

    /// Appends to the history of a stage's image. `text` is what BuildKit says of the instruction.
    pub(super) fn commit(&mut self, number: usize, text: &str, layer: Layer) {
        let classic = self.request.options.dialect == Dialect::Classic;
        let created = self.epoch.map(|seconds| {
            let nanos = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000);
            Timestamp::from_nanos(nanos).to_string()
        });
        let state = &mut self.stages[number];
        let author = if classic { state.image.author.clone() } else { String::new() };
        let created_by = match (classic, layer) {
            (false, Layer::Made) => format!("{text} # buildkit"),
            (false, _) => text.to_owned(),
            // COMPAT: the classic builder ran a shell with a comment for what runs nothing.
            (true, _) => match text.strip_prefix("RUN ") {
                Some(command) => command.to_owned(),
                None => {
                    let shell = shell_of(&state.image).join(" ");
                    let blank = if layer == Layer::None { " " } else { "" };
                    format!("{shell} #(nop) {blank}{text}")
                }
            },
        };
        state.image.history.push(History {
            created: created.unwrap_or_default(),
            created_by,
            author,
            comment: if classic { String::new() } else { "buildkit.dockerfile.v0".to_owned() },
            empty_layer: layer == Layer::None,
        });
    }
}

/// The shell of an image.
pub(super) fn shell_of(image: &rorqual_content::ImageDocument) -> Vec<String> {
    match image.config.shell.as_deref() {
        Some(shell) if !shell.is_empty() => shell.to_vec(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }
}

/// `->arm64` when the environment says that a step compiles for another machine than its own.
fn cross_target(own: &Platform, env: &Env) -> String {
    let target = match env.get("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok()) {
        Some(target) => target,
        None => {
            let part =
                |name: &str| env.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
            let (os, architecture, variant) =
                (part("TARGETOS"), part("TARGETARCH"), part("TARGETVARIANT"));
            if os.is_none() && architecture.is_none() && variant.is_none() {
                return String::new();
            }
            Platform {
                os: os.unwrap_or_else(|| own.os.clone()),
                architecture: architecture.unwrap_or_else(|| own.architecture.clone()),
                variant: variant.unwrap_or_default(),
            }
        }
    };
    let target = platform::normal(target);
    match (target.os == own.os, target.architecture == own.architecture) {
        (true, true) => String::new(),
        (true, false) if target.variant.is_empty() => format!("->{}", target.architecture),
        (true, false) => format!("->{}/{}", target.architecture, target.variant),
        (false, _) => format!("->{target}"),
    }
}

/// Makes the first word upper case.
pub(super) fn upper_first(text: &str) -> String {
    let end = text.find(' ').unwrap_or(text.len());
    format!("{}{}", text[..end].to_uppercase(), &text[end..])
}

/// Quotes a text as Go's `%q` does.
pub(super) fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\x7f' => {
                quoted.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if c.is_control() || matches!(c, '\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                quoted.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Quotes a number as Go's `%q` does: the character of that number.
pub(super) fn go_quoted_char(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    match c {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c => {
            let quoted = go_quote(&c.to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

/// `["a" "b"]`
pub(super) fn go_quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| go_quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `[a b]`
pub(super) fn go_list(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

//! The arguments of one instruction: flags split off, words, `name=value` pairs, JSON arrays.

/// An instruction's line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SplitLine<'a> {
    pub(super) name: &'a str,
    pub(super) flags: Vec<String>,
    pub(super) rest: &'a str,
}

const fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits a line into name, flags and the rest.
pub(super) fn split_line(line: &str, escape: char) -> SplitLine<'_> {
    let line = line.trim();
    let Some(end) = line.find(is_blank) else {
        return SplitLine { name: line, ..SplitLine::default() };
    };
    let (flags, rest) = flags(line[end..].trim_start_matches(is_blank), escape);
    SplitLine { name: &line[..end], flags, rest: rest.trim() }
}

/// Reads words that start with `--`; a lone `--` ends them.
fn flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, tail) = flag_word(rest, escape);
        rest = tail;
        if word == "--" {
            return (flags, rest);
        }
        if !word.is_empty() {
            flags.push(word);
        }
    }
}

/// Reads one word without its quotes and escapes.
fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (word, "")
}

/// Splits at blanks outside quotes; quotes and escapes stay.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if started {
                words.push(std::mem::take(&mut word));
            }
            started = false;
            continue;
        }
        match quote {
            None if c == '\'' || c == '"' => {
                started = true;
                quote = Some(c);
            }
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            let Some(escaped) = chars.next() else { break };
            word.push(c);
            word.push(escaped);
        } else {
            word.push(c);
        }
        started = true;
    }
    if started && (!word.is_empty() || quote.is_some()) {
        words.push(word);
    }
    words
}

/// Splits at blanks, whatever they stand in.
pub(super) fn blank_separated(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Reads `name=value …`, or the old `name value`, as triples of name, value and separator.
pub(super) fn pairs(text: &str, instruction: &str, escape: char) -> Result<Vec<String>, String> {
    let words = words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some(end) = text.find(is_blank) else {
            return Err(format!("{instruction} must have two arguments"));
        };
        let value = text[end..].trim_start_matches(is_blank);
        return Ok(vec![text[..end].to_owned(), value.to_owned(), String::new()]);
    }
    let mut triples = Vec::with_capacity(words.len() * 3);
    for word in &words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ));
        };
        triples.extend([name.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(triples)
}

/// Reads a JSON array of strings; `None` when it is no valid JSON array.
pub(super) fn json_strings(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => {
            Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned())
        }
    });
    strings.collect::<Result<_, _>>().map(Some)
}

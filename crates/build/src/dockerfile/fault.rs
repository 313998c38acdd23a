//! Errors of the front end: made short, and given a place.

use crate::{Error, Location};

/// A mistake in a Dockerfile or an option, with no place yet.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid { message: message.into(), location: None }
}

/// Gives an error a place when it has none.
pub(super) fn at(mut error: Error, place: &Location) -> Error {
    match &mut error {
        Error::Invalid { location, .. }
        | Error::NotFound { location, .. }
        | Error::Step { location, .. } => {
            location.get_or_insert_with(|| place.clone());
        }
        Error::Forbidden(_) | Error::Unsupported(_) | Error::Cancelled | Error::Other { .. } => {}
    }
    error
}

/// The option that is closest to a word, when at most two letters are wrong; nothing when it is there exactly.
pub(super) fn closest<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    fold_case: bool,
) -> Option<String> {
    let fold = |text: &str| if fold_case { text.to_lowercase() } else { text.to_owned() };
    let wanted = fold(word);
    let mut best: Option<(usize, String)> = None;
    for option in options {
        let candidate = fold(option);
        let distance = edit_distance(&wanted, &candidate);
        if distance == 0 {
            return None;
        }
        if distance <= 2 && best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, candidate));
        }
    }
    let upper = fold_case && word == word.to_uppercase();
    best.map(|(_, option)| if upper { option.to_uppercase() } else { option })
}

/// What is put behind a message: ` (did you mean X?)`, or nothing.
pub(super) fn did_you_mean<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    fold_case: bool,
) -> String {
    let found = closest(word, options, fold_case);
    found.map_or_else(String::new, |option| format!(" (did you mean {option}?)"))
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

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

/// The option that is closest to a word, when it is close enough to be meant: `, did you mean X?`
pub(super) fn did_you_mean<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    fold_case: bool,
) -> String {
    let fold = |text: &str| if fold_case { text.to_lowercase() } else { text.to_owned() };
    let wanted = fold(word);
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        let candidate = fold(option);
        if candidate == wanted {
            return String::new();
        }
        // LIMIT: at most two letters are wrong, and fewer than half of a short word.
        let distance = edit_distance(&wanted, &candidate);
        let close = distance <= 2 && distance * 2 < wanted.chars().count().max(2) + 1;
        if close && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, option));
        }
    }
    best.map_or_else(String::new, |(_, option)| format!(" (did you mean {option}?)"))
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

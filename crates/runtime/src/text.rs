//! Words for failures, in the kernel's own spelling.

use std::io;

/// Returns what an error says without the number that the standard library appends: `no such file or directory`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let bare = text.find(" (os error ").map_or_else(
        || text.clone(),
        |start| {
            let end = text[start..].find(')').map_or(text.len(), |end| start + end + 1);
            format!("{}{}", &text[..start], &text[end..])
        },
    );
    let mut chars = bare.chars();
    match (chars.next(), chars.clone().next()) {
        // Not for acronyms.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => bare,
    }
}

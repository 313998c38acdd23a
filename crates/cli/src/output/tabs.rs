//! Columns from tab-separated text, as Go's tabwriter aligns them.

use unicode_width::UnicodeWidthChar as _;

/// Aligns the cells of `text`: each cell but the last of a line ends with a tab.
///
/// A column is as wide as its widest cell plus `padding`, at least `min_width`; it reaches over
/// neighbouring lines only.
pub(crate) fn aligned(text: &str, min_width: usize, padding: usize) -> String {
    let room = |widest: usize| (widest + padding).max(min_width);
    laid_out(text, room, |room, cell| " ".repeat(room.saturating_sub(cell)))
}

/// Columns of the terminal from one stop of the tabulator to the next.
const STOP: usize = 8;

/// Aligns the cells of `text` with tabs, with at least one character between columns.
pub(crate) fn tabbed(text: &str) -> String {
    let room = |widest: usize| (widest + 1).next_multiple_of(STOP);
    laid_out(text, room, |room, cell| "\t".repeat(room.saturating_sub(cell).div_ceil(STOP)))
}

/// Lays cells out: how wide a column is by its widest cell, and what fills a cell up.
fn laid_out(
    text: &str,
    room: impl Fn(usize) -> usize,
    fill: impl Fn(usize, usize) -> String,
) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len() - 1]).collect();
    let deepest = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..deepest {
        let mut from = 0;
        while from < lines.len() {
            let block = widths[from..].iter().take_while(|line| line.len() > column).count();
            let cells = lines[from..from + block].iter().map(|line| width(line[column]));
            let widest = cells.max().unwrap_or(0);
            for line in &mut widths[from..from + block] {
                line[column] = room(widest);
            }
            from += block.max(1);
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (line, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(room) = widths.get(column) {
                out.push_str(&fill(*room, width(cell)));
            }
        }
    }
    out
}

// COMPAT: Go counts characters, not columns of the terminal; marks without width count too.
fn width(cell: &str) -> usize {
    cell.chars().filter(|c| c.width().is_some()).count()
}

//! Columns from tab-separated text, as Go's tabwriter aligns them.

use unicode_width::UnicodeWidthChar as _;

/// Aligns the cells of `text`: each cell but the last of a line ends with a tab.
///
/// A column is as wide as its widest cell plus `padding`, at least `min_width`; it reaches over
/// neighbouring lines only.
pub(crate) fn aligned(text: &str, min_width: usize, padding: usize) -> String {
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
                line[column] = (widest + padding).max(min_width);
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
                out.extend(std::iter::repeat_n(' ', room.saturating_sub(width(cell))));
            }
        }
    }
    out
}

// COMPAT: Go counts characters, not columns of the terminal; marks without width count too.
fn width(cell: &str) -> usize {
    cell.chars().filter(|c| c.width().is_some()).count()
}

//! Lists of things as tables, JSON lines or templates, as `--format` asks.

mod tabs;
pub(crate) mod text;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::template::{Mode, Record, Template, Value, html_escaped_json};

pub(crate) use tabs::{aligned, tabbed};

/// A kind of list.
pub(crate) struct Listing {
    /// `--format table`
    pub(crate) table: &'static str,
    /// `--format raw`
    pub(crate) raw: &'static str,
    /// Column titles by field.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// Smallest width of a column.
    pub(crate) min_width: usize,
}

impl Listing {
    /// A list with usual columns and no raw form.
    pub(crate) const fn new(
        table: &'static str,
        headers: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { table, raw: "", headers, min_width: 10 }
    }

    /// Renders rows in a format; empty is the table.
    pub(crate) fn render(&self, rows: Vec<Record>, format: &str) -> Result<String, Failure> {
        let rows: Vec<Value> = rows.into_iter().map(Value::from).collect();
        let (is_table, text) = match format {
            "" | "table" => (true, unescaped(self.table)),
            "raw" if !self.raw.is_empty() => (false, unescaped(self.raw)),
            "json" | "{{json .}}" => {
                let lines: Vec<String> =
                    rows.iter().map(|row| html_escaped_json(row) + "\n").collect();
                return Ok(lines.concat());
            }
            _ => match format.strip_prefix("table") {
                Some(columns) => (true, unescaped(columns.trim())),
                None => (false, unescaped(format.trim())),
            },
        };
        let template = Template::parse("", &text)?;
        let mut out = String::new();
        if is_table {
            out.push_str(&template.render(&self.header_row(), Mode::Header)?);
            out.push('\n');
        }
        for row in &rows {
            out.push_str(&template.render(row, Mode::Rows)?);
            out.push('\n');
        }
        if is_table {
            out = aligned(&out, self.min_width, 3);
        }
        Ok(out)
    }

    /// Renders rows and prints them.
    pub(crate) fn show(&self, cli: &Cli, rows: Vec<Record>, format: &str) -> Result<(), Failure> {
        cli.print(&self.render(rows, format)?)
    }

    fn header_row(&self) -> Value {
        let pairs = self.headers.iter().map(|(name, title)| ((*name).into(), Value::text(title)));
        Value::map(pairs.collect())
    }
}

/// `\t` and `\n` as shells pass them on.
pub(crate) fn unescaped(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Returns the format to use: the flag's, else the setting's when not quiet.
pub(crate) fn chosen_format(cli: &Cli, flag: &str, setting: &str, quiet: bool) -> String {
    if !flag.is_empty() {
        return flag.to_owned();
    }
    match cli.config.text(setting) {
        Some(format) if !quiet => format.to_owned(),
        _ => "table".to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! Lists processes as `ps` does, from `/proc`; what procps prints for the same arguments, without running it.

mod column;
mod process;

use rorqual_core::ErrorKind;

use self::column::Column;
use self::process::{Host, Process};
use crate::Error;
use crate::task::ProcessTable;

const FULL: &[&str] = &["uid_name", "pid", "ppid", "c", "stime", "tname", "time", "cmd"];
const EXTRA_FULL: &[&str] =
    &["uid_name", "pid", "ppid", "c", "sz", "rss", "psr", "stime", "tname", "time", "cmd"];
const LONG: &[&str] = &[
    "f", "s", "uid", "pid", "ppid", "c", "pri_long", "ni", "addr", "sz", "wchan", "tname", "time",
    "ucmd",
];
const JOBS: &[&str] = &["pid", "pgid", "sid", "tname", "time", "ucmd"];
const SHORT: &[&str] = &["pid", "tname", "time", "ucmd"];
const BSD_USER: &[&str] = &[
    "user",
    "pid",
    "pcpu",
    "pmem",
    "vsz",
    "rss",
    "tname",
    "stat",
    "start_time",
    "bsdtime",
    "args",
];
const BSD_SHORT: &[&str] = &["pid", "tname", "stat", "bsdtime", "args"];

/// The columns to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    columns: Vec<(Column, String)>,
}

fn invalid(message: String) -> Error {
    Error::Refused { message, kind: ErrorKind::InvalidArgument }
}

/// What options have said so far.
#[derive(Default)]
struct Options {
    base: Option<&'static [&'static str]>,
    listed: Vec<(Column, String)>,
}

impl Options {
    fn list(&mut self, text: &str) -> Result<(), Error> {
        let mut rest = text;
        while !rest.is_empty() {
            let split = rest.find([',', ' ', '=']).unwrap_or(rest.len());
            let (name, tail) = rest.split_at(split);
            // As in procps, a title of one's own goes on to the end.
            let (title, tail) = match tail.strip_prefix('=') {
                Some(title) => (Some(title.to_owned()), ""),
                None => (None, tail.trim_start_matches([',', ' '])),
            };
            rest = tail;
            if name.is_empty() {
                continue;
            }
            let column = Column::find(name).ok_or_else(|| {
                invalid(format!("ps: error: unknown user-defined format specifier \"{name}\""))
            })?;
            self.listed.push((column, title.unwrap_or_else(|| column.title().to_owned())));
        }
        Ok(())
    }

    /// Reads one cluster of letters; tells whether the next word belongs to it as a list of columns.
    fn letters(&mut self, letters: &str, bsd: bool) -> Result<bool, Error> {
        for (at, letter) in letters.char_indices() {
            match (letter, bsd) {
                // Which processes: always those of the container.
                ('e' | 'A' | 'a' | 'd' | 'x' | 'g' | 'w', _) => {
                    if bsd && self.base.is_none() {
                        self.base = Some(BSD_SHORT);
                    }
                }
                ('f', false) => self.base = Some(FULL),
                ('F', false) => self.base = Some(EXTRA_FULL),
                ('l', false) => self.base = Some(LONG),
                ('j', false) => self.base = Some(JOBS),
                ('y', false) => {}
                // `-aux` is taken for `aux`, as procps does.
                ('u', _) => self.base = Some(BSD_USER),
                ('f', true) => {}
                ('o', _) => {
                    let inline = &letters[at + 1..];
                    if inline.is_empty() {
                        return Ok(true);
                    }
                    self.list(inline)?;
                    return Ok(false);
                }
                _ => return Err(invalid(format!("ps option {letter:?} is not supported"))),
            }
        }
        Ok(false)
    }
}

impl Format {
    /// Understands the arguments of `ps`; none stand for `-ef`.
    pub(crate) fn parse(args: &str) -> Result<Self, Error> {
        let args = if args.trim().is_empty() { "-ef" } else { args };
        let mut options = Options::default();
        let mut words = args.split_whitespace();
        while let Some(word) = words.next() {
            let takes_list = if let Some(list) = word.strip_prefix("--format=") {
                options.list(list)?;
                false
            } else if word == "--format" {
                true
            } else if word.starts_with("--") {
                return Err(invalid(format!("ps option {word:?} is not supported")));
            } else {
                let bsd = !word.starts_with('-');
                options.letters(word.trim_start_matches('-'), bsd)?
            };
            if takes_list {
                let list = words.next();
                options.list(list.ok_or_else(|| invalid("ps needs a list of columns".into()))?)?;
            }
        }
        let mut columns = options.listed;
        if columns.is_empty() {
            let names = options.base.unwrap_or(SHORT).iter();
            let known = names.filter_map(|name| Column::find(name));
            columns = known.map(|column| (column, column.title().to_owned())).collect();
        }
        // COMPAT: dockerd finds the container's processes by this column.
        if !columns.iter().any(|(column, _)| *column == Column::Pid) {
            return Err(invalid("Couldn't find PID field in ps output".to_owned()));
        }
        Ok(Self { columns })
    }
}

/// Makes the table; processes that ended meanwhile are left out.
pub(crate) fn table(format: &Format, pids: &[i32]) -> ProcessTable {
    let host = Host::read();
    let rows = pids.iter().filter_map(|pid| Process::read(*pid)).map(|process| {
        format.columns.iter().map(|(column, _)| column.render(&process, &host)).collect()
    });
    ProcessTable {
        titles: format.columns.iter().map(|(_, title)| title.clone()).collect(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests;

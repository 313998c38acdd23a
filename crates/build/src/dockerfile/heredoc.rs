//! Heredocs: `<<EOF` words, and the bodies that follow their line.

use super::shell::Lexer;

/// A heredoc with its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// The word that ends it; also the name of the file.
    pub(super) name: String,
    /// Variables in the body are expanded: no part of the word is quoted.
    pub(super) expand: bool,
    /// `<<-`: leading tabs mean nothing.
    pub(super) chomp: bool,
    /// The body, verbatim.
    pub(super) content: String,
}

impl Heredoc {
    /// Reads one word; `None` when it is no heredoc.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let lexer = Lexer { skip_unset: true, ..Lexer::new('\\') };
        let nothing = |_: &str| None;
        let word = one(lexer.expand(rest, &nothing).ok()?.words)?;
        let raw = Lexer { raw_quotes: true, ..lexer }.expand(rest, &nothing).ok()?;
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        let expand = quotes(&word) == raw.words.iter().map(|raw| quotes(raw)).sum::<usize>();
        Some(Self { name: word, expand, chomp, content: String::new() })
    }

    /// The body as it is used: without leading tabs when `<<-` says so.
    pub(super) fn body(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Tells whether a line ends it.
    pub(super) fn ends_at(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.chomp { line.trim_start_matches('\t') } else { line };
        line == self.name
    }
}

fn one(words: Vec<String>) -> Option<String> {
    let mut words = words.into_iter();
    let first = words.next()?;
    words.next().is_none().then_some(first)
}

/// Finds the heredocs that a line announces.
pub(super) fn announced(line: &str) -> Vec<Heredoc> {
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\') };
    let words = lexer.expand(line, &|_| None).map(|done| done.words).unwrap_or_default();
    words.iter().filter_map(|word| Heredoc::parse(word)).collect()
}

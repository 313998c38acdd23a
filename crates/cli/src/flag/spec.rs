//! What a command and a flag are.

use std::future::Future;
use std::pin::Pin;

use super::parse::Matches;
use crate::cli::Cli;
use crate::failure::Outcome;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true`, `=false`.
    Bool,
    /// A text; the word is what help calls it.
    Text(&'static str),
    /// A text that may be given several times.
    List(&'static str),
    /// Like `List`, split at commas.
    Commas(&'static str),
    /// A whole number.
    Int,
    /// A whole number from 0 to 65535.
    Uint16,
    /// A size such as `64m`.
    Bytes,
    /// A size, or -1 for no limit.
    SwapBytes,
    /// A number of processors such as `1.5`.
    Cpus,
    /// A duration such as `1m30s`.
    Duration,
}

impl Kind {
    /// Returns what help calls the value.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Bool => "",
            Self::Text(label) | Self::List(label) | Self::Commas(label) => label,
            Self::Int => "int",
            Self::Uint16 => "uint16",
            Self::Bytes | Self::SwapBytes => "bytes",
            Self::Cpus => "decimal",
            Self::Duration => "duration",
        }
    }

    /// Tells whether later values join earlier ones instead of replacing them.
    pub(crate) const fn is_list(self) -> bool {
        matches!(self, Self::List(_) | Self::Commas(_))
    }
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Long name.
    pub(crate) name: &'static str,
    /// One letter, `\0` for none.
    pub(crate) short: char,
    /// What it takes.
    pub(crate) kind: Kind,
    /// What it is when not given.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
    /// Not shown in help.
    pub(crate) hidden: bool,
    /// The flag this is another name of.
    pub(crate) alias_of: &'static str,
    /// What to say when it is used nevertheless.
    pub(crate) deprecated: &'static str,
    /// Tells what is wrong with a value beyond its kind.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

impl Flag {
    /// Describes a flag.
    pub(crate) const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            name,
            short: '\0',
            kind,
            default: "",
            help,
            hidden: false,
            alias_of: "",
            deprecated: "",
            check: |_| Ok(()),
        }
    }

    /// Adds a letter.
    pub(crate) const fn short(mut self, letter: char) -> Self {
        self.short = letter;
        self
    }

    /// Adds a default.
    pub(crate) const fn default(mut self, value: &'static str) -> Self {
        self.default = value;
        self
    }

    /// Leaves it out of help.
    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Adds a check of values.
    pub(crate) const fn checked(mut self, check: fn(&str) -> Result<(), String>) -> Self {
        self.check = check;
        self
    }

    /// Makes it another name of a flag.
    pub(crate) const fn alias(mut self, name: &'static str) -> Self {
        self.alias_of = name;
        self.hidden = true;
        self
    }

    /// Marks it as going away.
    pub(crate) const fn deprecated(mut self, hint: &'static str) -> Self {
        self.deprecated = hint;
        self.hidden = true;
        self
    }
}

/// How many words a command takes besides flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Args {
    /// Any number.
    Any,
    /// None.
    None,
    /// This many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
    /// This many or fewer.
    AtMost(usize),
    /// From the first to the second number.
    Between(usize, usize),
}

/// A running command.
pub(crate) type Task<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Its last word.
    pub(crate) name: &'static str,
    /// Other last words.
    pub(crate) aliases: &'static [&'static str],
    /// All ways to call it, without the program's name; empty when there is one.
    pub(crate) paths: &'static [&'static str],
    /// What follows its name in the usage line.
    pub(crate) usage: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    /// Its flags.
    pub(crate) flags: &'static [&'static [Flag]],
    /// How many words it takes.
    pub(crate) args: Args,
    /// Flags end at the first word that is none.
    pub(crate) stops_at_word: bool,
    /// Not shown in help.
    pub(crate) hidden: bool,
    /// What it carries out; nothing for a group.
    pub(crate) run: Option<for<'a> fn(&'a Cli, &'a Matches) -> Task<'a>>,
    /// Commands below it.
    pub(crate) children: &'static [&'static Command],
    /// What shell completion offers for its words.
    pub(crate) completes: Completes,
}

/// What the words of a command name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completes {
    /// Files, or nothing known.
    Files,
    /// Containers.
    Containers,
    /// Images.
    Images,
    /// Networks.
    Networks,
    /// Volumes.
    Volumes,
    /// Contexts.
    Contexts,
}

impl Command {
    /// An unnamed command, to be completed with `..`.
    pub(crate) const EMPTY: Self = Self {
        name: "",
        aliases: &[],
        paths: &[],
        usage: "",
        about: "",
        flags: &[],
        args: Args::None,
        stops_at_word: false,
        hidden: false,
        run: None,
        children: &[],
        completes: Completes::Files,
    };

    /// Returns all flags.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().flat_map(|group| group.iter())
    }

    /// Finds a flag by its long name.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Flag> {
        self.flags().find(|flag| flag.name == name)
    }

    /// Finds a command below by name or alias.
    pub(crate) fn child(&self, word: &str) -> Option<&'static Command> {
        self.children
            .iter()
            .copied()
            .find(|child| child.name == word || child.aliases.contains(&word))
    }
}

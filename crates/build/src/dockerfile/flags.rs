//! Flags of instructions: which there are, and what was given.

use super::fault::did_you_mean;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true` or `false`; the bare flag is true.
    Switch,
    /// One value.
    One,
    /// A value each time.
    Many,
}

/// The flags that were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags(Vec<(String, String)>);

impl Flags {
    /// Compares what was given with what there is.
    pub(super) fn read(given: &[String], known: &[(&str, Kind)]) -> Result<Self, String> {
        let mut flags = Self::default();
        for text in given {
            let (shown, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&**text, None),
            };
            let name = shown.trim_start_matches("--");
            let Some((_, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let hint = did_you_mean(name, known.iter().map(|(known, _)| *known), false);
                return Err(format!("unknown flag: {shown}{hint}"));
            };
            if *kind != Kind::Many && flags.one(name).is_some() {
                return Err(format!("duplicate flag specified: {shown}"));
            }
            let value = match (kind, value) {
                (Kind::Switch, None) => "true".to_owned(),
                (Kind::Switch, Some("")) | (Kind::One | Kind::Many, None) => {
                    return Err(format!("missing a value on flag: {shown}"));
                }
                (Kind::Switch, Some(value)) => match &*value.to_ascii_lowercase() {
                    value @ ("true" | "false") => value.to_owned(),
                    _ => {
                        return Err(format!(
                            "expecting boolean value for flag {shown}, not: {value}"
                        ));
                    }
                },
                (Kind::One | Kind::Many, Some(value)) => value.to_owned(),
            };
            flags.0.push((name.to_owned(), value));
        }
        Ok(flags)
    }

    /// The value of a flag that was given.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }

    /// The value of a flag, empty when it was not given.
    pub(super) fn text(&self, name: &str) -> String {
        self.one(name).unwrap_or_default().to_owned()
    }

    /// All values of a flag.
    pub(super) fn many(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a switch was given, and how.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.one(name).map(|value| value == "true")
    }
}

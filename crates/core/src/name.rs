//! Names that users give to containers and volumes, and names we make up for them.

use std::fmt;
use std::str::FromStr;

/// A name with letters that are not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Invalid {what} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" // COMPAT: dockerd's text
)]
pub struct InvalidName {
    /// `container`, `volume`, …
    pub what: &'static str,
    /// What was given.
    pub name: String,
}

// LIMIT: names end up in directory and DNS names, both of which stop at 255 bytes.
const LONGEST: usize = 255;

fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() >= 2
        && name.len() <= LONGEST
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $strip:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the name as given, without a leading slash.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let bare = text.strip_prefix($strip).unwrap_or(text);
                if is_valid(bare) {
                    Ok(Self(bare.into()))
                } else {
                    Err(InvalidName { what: $what, name: text.to_owned() })
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// Name of a container; a leading slash is accepted and dropped.
    ContainerName, "container", "/"
);
name!(
    /// Name of a volume.
    VolumeName, "volume", "\0"
);

const MOODS: [&str; 48] = [
    "agile", "amber", "apt", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
    "clever", "cosy", "curious", "deft", "eager", "elated", "fair", "fleet", "fond", "frank",
    "gentle", "glad", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "mellow", "merry", "modest", "neat", "nimble", "patient", "proud", "quick", "quiet",
    "serene", "sharp", "snug", "sober", "steady", "sunny", "warm", "witty",
];

const SEA_LIFE: [&str; 48] = [
    "albacore",
    "anchovy",
    "auk",
    "barnacle",
    "beluga",
    "bonito",
    "bowhead",
    "capelin",
    "coral",
    "cormorant",
    "cuttlefish",
    "dolphin",
    "dugong",
    "eider",
    "fulmar",
    "gannet",
    "grouper",
    "guillemot",
    "halibut",
    "heron",
    "herring",
    "humpback",
    "kelp",
    "krill",
    "lamprey",
    "limpet",
    "lobster",
    "mackerel",
    "manatee",
    "manta",
    "minke",
    "mullet",
    "narwhal",
    "nautilus",
    "octopus",
    "orca",
    "osprey",
    "petrel",
    "plaice",
    "puffin",
    "remora",
    "sardine",
    "skua",
    "sturgeon",
    "tern",
    "turbot",
    "urchin",
    "walrus",
];

/// Returns a name such as `brave_narwhal`, chosen by `draw`; from the second `attempt` on with a number behind it.
pub fn generated_name(draw: u64, attempt: u32) -> ContainerName {
    let mood = MOODS[(draw % MOODS.len() as u64) as usize];
    let animal = SEA_LIFE[(draw / MOODS.len() as u64 % SEA_LIFE.len() as u64) as usize];
    let number = if attempt == 0 { String::new() } else { format!("{}", (draw >> 32) % 100_000) };
    ContainerName(format!("{mood}_{animal}{number}").into())
}

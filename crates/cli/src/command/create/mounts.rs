//! `--mount` and `--volume`: texts → mounts of the request.

use rorqual_core::units;
use serde_json::{Map, Value as Json, json};

use super::values::csv;

/// Reads `type=bind,source=/x,target=/y,…`.
pub(super) fn mount(text: &str) -> Result<Json, String> {
    let mut parts = Parts { kind: "volume".to_owned(), ..Parts::default() };
    for field in csv(text)? {
        parts.field(&field)?;
    }
    parts.finish()
}

#[derive(Default)]
struct Parts {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: String,
    bind: Map<String, Json>,
    volume: Map<String, Json>,
    driver: Map<String, Json>,
    image: Map<String, Json>,
    tmpfs: Map<String, Json>,
}

impl Parts {
    fn field(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let switches = ["readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-idmap"];
        let key = key.as_str();
        if switches.contains(&key) {
            let on = match value {
                None => true,
                Some(value) => crate::flag::parse_bool(value)
                    .ok_or_else(|| format!("invalid value for {key}: {value}"))?,
            };
            return self.switch(key, on);
        }
        let value =
            value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        self.pair(field, key, value)
    }

    fn switch(&mut self, key: &str, on: bool) -> Result<(), String> {
        match key {
            "volume-nocopy" => {
                self.volume.insert("NoCopy".to_owned(), on.into());
            }
            // Travels as the one word of a bind that docker's client passes on as it is.
            "bind-idmap" => {
                self.consistency = if on { "idmap" } else { "noidmap" }.to_owned();
            }
            "bind-nonrecursive" => {
                return Err("bind-nonrecursive is deprecated, use bind-recursive=disabled instead"
                    .to_owned());
            }
            _ => self.read_only = on,
        }
        Ok(())
    }

    fn pair(&mut self, field: &str, key: &str, value: &str) -> Result<(), String> {
        match key {
            "type" => self.kind = value.to_ascii_lowercase(),
            "source" | "src" => self.source = source(value),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "consistency" => self.consistency = value.to_ascii_lowercase(),
            "bind-propagation" => {
                self.bind.insert("Propagation".to_owned(), value.to_ascii_lowercase().into());
            }
            "bind-recursive" => self.recursive(value)?,
            "volume-subpath" => {
                self.volume.insert("Subpath".to_owned(), value.into());
            }
            "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                put(&mut self.volume, "Labels", name, value);
            }
            "volume-driver" => {
                self.driver.insert("Name".to_owned(), value.into());
            }
            "volume-opt" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                put(&mut self.driver, "Options", name, value);
            }
            "image-subpath" => {
                self.image.insert("Subpath".to_owned(), value.into());
            }
            "tmpfs-size" => {
                let size = units::parse_size(value)
                    .map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.insert("SizeBytes".to_owned(), size.into());
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.insert("Mode".to_owned(), mode.into());
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn recursive(&mut self, value: &str) -> Result<(), String> {
        let key = match value {
            "enabled" => return Ok(()),
            "disabled" => "NonRecursive",
            "writable" => "ReadOnlyNonRecursive",
            "readonly" => "ReadOnlyForceRecursive",
            _ => {
                return Err(format!(
                    "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                ));
            }
        };
        self.bind.insert(key.to_owned(), true.into());
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let kind = &self.kind;
        if self.target.is_empty() {
            return Err("target is required".to_owned());
        }
        let foreign = |options: bool, name: &str| match options && kind != name {
            true => Err(format!("cannot mix '{name}-*' options with mount type '{kind}'")),
            false => Ok(()),
        };
        foreign(!self.volume.is_empty() || !self.driver.is_empty(), "volume")?;
        foreign(!self.bind.is_empty(), "bind")?;
        foreign(!self.tmpfs.is_empty(), "tmpfs")?;
        foreign(!self.image.is_empty(), "image")?;
        if self.bind.contains_key("ReadOnlyForceRecursive") {
            if !self.read_only {
                return Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".to_owned());
            }
            if self.bind.get("Propagation").and_then(Json::as_str) != Some("rprivate") {
                return Err("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction".to_owned());
            }
        }
        if self.bind.contains_key("ReadOnlyNonRecursive") && !self.read_only {
            return Err("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".to_owned());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Json, String> {
        self.check()?;
        let mut mount = Map::new();
        mount.insert("Type".to_owned(), self.kind.as_str().into());
        if !self.source.is_empty() {
            mount.insert("Source".to_owned(), self.source.into());
        }
        mount.insert("Target".to_owned(), self.target.into());
        if self.read_only {
            mount.insert("ReadOnly".to_owned(), true.into());
        }
        if !self.consistency.is_empty() {
            mount.insert("Consistency".to_owned(), self.consistency.into());
        }
        if !self.volume.is_empty() || !self.driver.is_empty() {
            // COMPAT: docker sends its fields in this order, and an empty driver with any option.
            let mut volume = Map::new();
            for key in ["NoCopy", "Labels", "Subpath"] {
                if let Some(value) = self.volume.remove(key) {
                    volume.insert(key.to_owned(), value);
                }
            }
            volume.insert("DriverConfig".to_owned(), Json::Object(self.driver));
            mount.insert("VolumeOptions".to_owned(), Json::Object(volume));
        }
        for (name, options) in
            [("BindOptions", self.bind), ("TmpfsOptions", self.tmpfs), ("ImageOptions", self.image)]
        {
            if !options.is_empty() {
                mount.insert(name.to_owned(), Json::Object(options));
            }
        }
        Ok(Json::Object(mount))
    }
}

fn put(map: &mut Map<String, Json>, group: &str, key: &str, value: &str) {
    let inner = map.entry(group).or_insert_with(|| json!({}));
    inner[key] = value.into();
}

/// A relative path is one of the client's directory.
fn source(text: &str) -> String {
    if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
        return absolute(text);
    }
    text.to_owned()
}

/// Returns an absolute path without `.` and `..`.
pub(super) fn absolute(path: &str) -> String {
    let mut whole = std::env::current_dir().unwrap_or_default();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    whole.display().to_string()
}

/// What `--volume` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Volume {
    /// `source:target[:options]` with the source made absolute.
    Bind(String),
    /// A path that gets a volume of its own.
    Anonymous(String),
}

/// Reads `--volume`.
pub(super) fn volume(text: &str) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let invalid = || format!("invalid volume specification: '{text}'");
    match parts.as_slice() {
        [""] => Err("invalid empty volume spec".to_owned()),
        [path] => Ok(Volume::Anonymous((*path).to_owned())),
        [from, to] | [from, to, _] if from.is_empty() || to.is_empty() => Err(invalid()),
        [from, rest @ ..] if rest.len() <= 2 => {
            let is_relative =
                *from == "." || *from == ".." || from.starts_with("./") || from.starts_with("../");
            let from = if is_relative { absolute(from) } else { (*from).to_owned() };
            Ok(Volume::Bind(format!("{from}:{}", rest.join(":"))))
        }
        // What has more parts the daemon refuses, as it does for docker's client.
        _ => Ok(Volume::Bind(text.to_owned())),
    }
}

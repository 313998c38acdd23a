//! Plugins that are shell scripts.

use std::fs;
use std::path::Path;

use rorqual_client::config::Config;

use super::*;

const GOOD: &str = r#"echo '{"SchemaVersion":"0.1.0","Vendor":"Somebody","Version":"v1"}'"#;

fn write(folder: &Path, name: &str, body: &str) {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_first_directory_wins_and_built_in_commands_stay() {
    let home = tempfile::tempdir().unwrap();
    let (extra, own) = (home.path().join("extra"), home.path().join("cli-plugins"));
    for (folder, name) in
        [(&own, "docker-zz"), (&extra, "docker-zz"), (&own, "docker-run"), (&own, "docker-Bad")]
    {
        write(folder, name, GOOD);
    }
    write(&own, "docker-plain", GOOD);
    fs::set_permissions(own.join("docker-plain"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut config = Config::empty(home.path());
    config.set("cliPluginsExtraDirs", Some(serde_json::json!([extra])));
    assert_eq!(find(&config, "zz").unwrap().path, extra.join("docker-zz"));
    for name in ["run", "Bad", "plain", "no/../zz", ""] {
        assert_eq!(find(&config, name), None, "{name}");
    }
    let mine: Vec<_> =
        all(&config).into_iter().filter(|one| one.path.starts_with(home.path())).collect();
    assert_eq!(mine.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["zz"]);
}

#[test]
fn only_what_describes_itself_is_a_plugin() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("cli-plugins");
    let config = Config::empty(home.path());
    for (name, body, wanted) in [
        ("aa", GOOD, ""),
        ("bb", "exit 3", "does not describe itself"),
        ("cc", "echo nonsense", "is invalid"),
        ("dd", r#"echo '{"SchemaVersion":"0.1.0"}'"#, "names no vendor"),
        ("ee", r#"echo '{"SchemaVersion":"2.0.0","Vendor":"x"}'"#, "unknown SchemaVersion"),
    ] {
        write(&folder, &format!("docker-{name}"), body);
        match find(&config, name).unwrap().metadata() {
            Ok(described) => assert!(wanted.is_empty() && described["Vendor"] == "Somebody"),
            Err(error) => assert!(!wanted.is_empty() && error.contains(wanted), "{error}"),
        }
    }
}

#[test]
fn candidates_end_with_a_directive() {
    let (words, files) = read_candidates("up\tStart\ndown\n:4\nCompletion ended\n");
    assert_eq!(words, [("up".to_owned(), "Start".to_owned()), ("down".to_owned(), String::new())]);
    assert!(!files);
    assert_eq!(read_candidates(":0\n"), (Vec::new(), true));
}

//! Settings against files of accounts.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use super::{Accounts, free_range};

const PASSWD: &str =
    "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\nlone:x:7:7::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nann:x:1000:\nstaff:x:50:\n";

fn files(passwd: &str, subuid: &str, subgid: &str) -> tempfile::TempDir {
    let etc = tempfile::tempdir().unwrap();
    for (name, text) in
        [("passwd", passwd), ("group", GROUP), ("subuid", subuid), ("subgid", subgid)]
    {
        fs::write(etc.path().join(name), text).unwrap();
    }
    etc
}

fn maps(etc: &Path, setting: &str) -> Result<String, String> {
    let run = |words: &[&str]| -> Result<(), String> { Err(format!("ran {words:?}")) };
    let found = Accounts { etc, run: &run }.maps(setting);
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.map_or("off".to_owned(), |maps| format!("{}| {}", maps.users, maps.groups)))
}

#[test]
fn spellings() {
    let etc = files(PASSWD, "ann:100000:65536\n1000:300000:10\n", "# mine\nann:200000:65536\n");
    let mapped = "0 100000 65536\n65536 300000 10\n| 0 200000 65536\n";
    for setting in ["ann", "1000", "ann:ann", "1000:1000", "ann:staff", "ann:50", "1000:staff"] {
        assert_eq!(maps(etc.path(), setting).as_deref(), Ok(mapped), "{setting}");
    }
    assert_eq!(maps(etc.path(), "root").as_deref(), Ok("off"));
    for (setting, words) in [
        ("ann:ann:ann", "invalid user/group specification"),
        ("", "invalid user/group specification"),
        ("ann:", "invalid user/group specification"),
        ("bob", "user \"bob\" is not in"),
        ("1001", "user \"1001\" is not in"),
        ("lone", "group \"lone\" is not in"),
        ("ann:bobs", "group \"bobs\" is not in"),
        ("lone:staff", "no ranges of \"lone\" in"),
    ] {
        let error = maps(etc.path(), setting).unwrap_err();
        assert!(error.contains(words), "{setting}: {error}");
    }
}

#[test]
fn ranges_that_overlap() {
    let etc = files(PASSWD, "ann:100000:10\nann:100005:10\n", "ann:1:1\n");
    assert!(maps(etc.path(), "ann").unwrap_err().contains("subuid cannot be used"));
}

#[test]
fn the_default_user_is_made() {
    let etc = files(PASSWD, "ann:100000:65536\n", "");
    let ran = RefCell::new(Vec::new());
    let run = |words: &[&str]| {
        ran.borrow_mut().push(words.join(" "));
        let add = |file: &str, line: &str| {
            let path = etc.path().join(file);
            let text = fs::read_to_string(&path).unwrap() + line;
            fs::write(path, text).unwrap();
        };
        match words[1] {
            "--system" => {
                add("passwd", "dockremap:x:999:999::/:/bin/false\n");
                add("group", "dockremap:x:999:\n");
            }
            "--add-subuids" => add("subuid", "dockremap:165536:65536\n"),
            _ => add("subgid", "dockremap:100000:65536\n"),
        }
        Ok(())
    };
    let accounts = Accounts { etc: etc.path(), run: &run };
    let made = accounts.maps("default").unwrap().unwrap();
    assert_eq!(made.root(), Some((165_536, 100_000)));
    assert_eq!(
        *ran.borrow(),
        [
            "useradd --system --user-group --shell /bin/false dockremap",
            "usermod --add-subuids 165536-231071 dockremap",
            "usermod --add-subgids 100000-165535 dockremap",
        ]
    );
    ran.borrow_mut().clear();
    assert_eq!(accounts.maps("default").unwrap().unwrap(), made);
    assert!(ran.borrow().is_empty());
}

#[test]
fn a_failing_program_is_told() {
    let etc = files(PASSWD, "", "");
    assert!(maps(etc.path(), "default").unwrap_err().contains("ran [\"useradd\""));
}

#[test]
fn free_ranges() {
    for (text, expected) in [
        ("", 100_000),
        ("a:100000:65536\n", 165_536),
        ("a:165536:65536\nb:100000:65536\n", 231_072),
        ("a:300000:65536\n", 100_000),
        ("a:1:10\nb:120000:1\n", 120_001),
    ] {
        assert_eq!(free_range(text), expected, "{text:?}");
    }
}

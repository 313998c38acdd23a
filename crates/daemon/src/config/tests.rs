//! Flags and files, good and bad.

use serde_json::Map;

use super::table::{Fate, ROWS, by_flag};
use super::{CacheBound, Config, ConfigError, Settings, file, merge, parse_flags};

fn configure(flags: &[&str], json: &str) -> Result<Config, String> {
    let line =
        parse_flags(flags.iter().map(|flag| (*flag).to_owned())).map_err(|e| e.to_string())?;
    let file = file::parse(json.as_bytes())?;
    let settings = merge(&line.settings, file)?;
    Config::from_settings(Settings(settings), line.allow_insecure_tcp)
        .map_err(|error: ConfigError| error.to_string())
}

#[test]
fn flags_and_file_set_the_same_things() {
    let flags = [
        "-D",
        "-H",
        "unix:///a",
        "--host=tcp://:1",
        "--mtu",
        "1400",
        "--icc=false",
        "--log-opt",
        "max-size=1m",
    ];
    let by_flags = configure(&flags, "").unwrap();
    let by_file = configure(
        &[],
        r#"{"debug": true, "hosts": ["unix:///a", "tcp://:1"], "mtu": 1400, "icc": false, "log-opts": {"max-size": "1m"}}"#,
    )
    .unwrap();
    assert_eq!(format!("{by_flags:?}"), format!("{by_file:?}"));
    assert!(by_flags.debug && !by_flags.bridge.icc);
    assert_eq!((by_flags.hosts.len(), by_flags.bridge.mtu), (2, 1400));
}

#[test]
fn address_pools_by_file_and_flag() {
    let flag = ["--default-address-pool", "base=10.10.0.0/16,size=24"];
    let by_flag = configure(&flag, "").unwrap();
    let by_file =
        configure(&[], r#"{"default-address-pools": [{"base": "10.10.3.0/16", "size": 24}]}"#)
            .unwrap();
    assert_eq!(by_flag.bridge.pools, by_file.bridge.pools);
    assert_eq!(by_flag.bridge.pools.len(), 1);
    for (pool, words) in [
        (r#"{"base": "10.10.0.0/16"}"#, "needs a base"),
        (r#"{"base": "10.10.0.0", "size": 24}"#, "10.10.0.0"),
        (r#"{"base": "10.10.0.0/16", "size": 8}"#, "need 16 to 30"),
        (r#"{"base": "10.0.0.0/8", "size": 30}"#, "need 8 to 24"),
    ] {
        let error =
            configure(&[], &format!("{{\"default-address-pools\": [{pool}]}}")).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn mistakes_stop_the_start() {
    let check = |flags: &[&str], json: &str, words: &str| {
        let error = configure(flags, json).expect_err(json);
        assert!(error.contains(words), "{error}");
    };
    check(
        &[],
        r#"{"foo": 1, "bar": 2}"#,
        "the following directives don't match any configuration option: bar, foo",
    );
    check(&[], r#"{"debug": true, "debug": false}"#, "\"debug\" is given twice");
    check(
        &["-D"],
        r#"{"debug": false}"#,
        "both as a flag and in the configuration file: debug: (from flag: true, from file: false)",
    );
    check(&[], r#"{"debug": "yes"}"#, "debug: need true or false");
    check(&[], r#"{"hosts": "x"}"#, "need a list of strings");
    check(&[], r#"{"hosts": ["x"]}"#, "invalid address \"x\"");
    check(&[], r#"{"log-opts": {"a": 1}}"#, "strings as values");
    check(&[], r#"{"mtu": -1}"#, "mtu: -1 is less than 68");
    check(&[], r#"{"log-level": "loud"}"#, "invalid logging level: loud");
    check(&[], r#"{"labels": ["a"]}"#, "bad attribute format: a");
    check(&[], r#"{"data-root": "x"}"#, "not an absolute path");
    check(&[], "[]", "object of settings");
    check(&[], "{", "EOF");
    check(&["--zz"], "", "unknown flag: --zz");
    check(&["extra"], "", "accepts no arguments");
    check(&["--mtu"], "", "flag needs an argument: --mtu");
    check(&["--debug=x"], "", "invalid argument \"x\" for \"--debug\" flag");
}

#[test]
fn the_builder_is_bounded_as_the_file_says() {
    let bound = |json: &str| configure(&[], json).unwrap().builder.bound;
    assert_eq!(bound("{}"), CacheBound::Share);
    assert_eq!(bound(r#"{"builder": {"gc": {"enabled": false}}}"#), CacheBound::None);
    let json = r#"{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "2GB"}}}"#;
    assert_eq!(bound(json), CacheBound::Bytes(2 << 30));
    for (json, wanted) in [
        (r#"{"builder": {"gc": {"policy": []}}}"#, "gc.policy is not supported"),
        (r#"{"builder": {"gc": {"defaultKeepStorage": "much"}}}"#, "defaultKeepStorage"),
        (r#"{"builder": {"entitlements": {"root": true}}}"#, "entitlements.root is not known"),
    ] {
        let refused = configure(&[], json).unwrap_err();
        assert!(refused.contains(wanted), "{refused}");
    }
    let json = r#"{"builder": {"entitlements": {"network-host": false}}}"#;
    assert!(!configure(&[], json).unwrap().builder.network_host);
}

#[test]
fn harmless_files_are_accepted() {
    for json in [
        "",
        " \n",
        "{}",
        r#"{"debug": null}"#,
        r#"{"restart": true}"#,
        r#"{"userns-remap": "", "ipv6": false}"#,
    ] {
        assert!(configure(&[], json).is_ok(), "{json}");
    }
    let config =
        configure(&[], r#"{"registry-mirrors": ["https://x"], "features": {"cdi": true}}"#)
            .unwrap();
    let idle: Vec<_> = config.idle.iter().map(|(key, _)| *key).collect();
    assert_eq!(idle, ["features"]);
}

#[test]
fn the_table_is_in_order_and_flags_are_unique() {
    assert!(ROWS.is_sorted_by(|a, b| a.key < b.key));
    for row in ROWS.iter().filter(|row| !row.flag.is_empty()) {
        assert_eq!(by_flag(row.flag).map(|found| found.key), Some(row.key));
    }
    let refused = ROWS.iter().filter(|row| matches!(row.fate, Fate::Refused(_))).count();
    assert_eq!(refused, 18, "a change here changes what users may write: say so in the change log");
}

#[test]
fn a_missing_file_is_an_error_only_when_asked_for() {
    let path = std::path::Path::new("/nonexistent/daemon.json");
    assert_eq!(file::read(path, false).unwrap(), Map::new());
    assert!(file::read(path, true).is_err());
}

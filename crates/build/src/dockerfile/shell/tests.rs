use proptest::prelude::*;

use super::Lexer;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "SHELL" => "bash",
        "EMPTY" => "",
        "PATH" => "foo/bar/baz.tar.gz",
        "STAR" => "a*b*c",
        "WORDS" => " one  two ",
        "É" => "accent",
        _ => return None,
    };
    Some(value.to_owned())
}

fn expand(text: &str) -> Result<String, String> {
    Lexer::new('\\').expand(text, &lookup).map(|done| done.text)
}

#[test]
fn variables_are_expanded_in_all_forms() {
    for (text, expected) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he\\'llo", "he'llo"),
        ("\"hello\\\"\"", "hello\""),
        ("\"\\x\"", "\\x"),
        ("$PWD", "/home"),
        ("he\\$PWD", "he$PWD"),
        ("'$PWD'", "$PWD"),
        ("\"$PWD'x'\"", "/home'x'"),
        ("\\\\$PWD", "\\/home"),
        ("$", "$"),
        ("$,", "$,"),
        ("he${X}xx", "hexx"),
        ("$PWD1", ""),
        ("$1abc", "abc"),
        ("$@x", "x"),
        ("${PWD}:", "/home:"),
        ("$É", "accent"),
        ("${X:-000}", "000"),
        ("${EMPTY:-000}", "000"),
        ("${EMPTY-000}", ""),
        ("${X-000}", "000"),
        ("${X:-${PWD:-x}}", "/home"),
        ("${X:-a\\}b}", "a}b"),
        ("${SHELL:+on}", "on"),
        ("${EMPTY:+on}", ""),
        ("${EMPTY+on}", "on"),
        ("${X+on}", ""),
        ("${SHELL:?no}", "bash"),
        ("${EMPTY?no}", ""),
        ("${PATH#*/}", "bar/baz.tar.gz"),
        ("${PATH##*/}", "baz.tar.gz"),
        ("${PATH%.*}", "foo/bar/baz.tar"),
        ("${PATH%%.*}", "foo/bar/baz"),
        ("${PATH#nothing}", "foo/bar/baz.tar.gz"),
        ("${PATH/bar/x}", "foo/x/baz.tar.gz"),
        ("${PATH//a?/x}", "foo/bx/bx.tx.gz"),
        ("${PATH/*\\//x-}", "x-baz.tar.gz"),
        ("${STAR#a\\*}", "b*c"),
        ("${STAR//\\*/-}", "a-b-c"),
        ("${SHELL//b/}", "ash"),
        ("tail\\", "tail"),
    ] {
        assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn mistakes_are_named() {
    for (text, message) in [
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${SHELL", "unsupported modifier () in substitution"),
        ("${SHELL:-x", "syntax error: missing '}'"),
        ("${SHELL:x}", "unsupported modifier (:x) in substitution"),
        ("${SHELL:#x}", "unsupported modifier (:#) in substitution"),
        ("${SHELL/x}", "syntax error: missing '/' in ${}"),
        ("${X?}", "X: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${X:?must be set}", "X: must be set"),
        ("'abc", "unexpected end of statement while looking for matching single-quote"),
        ("\"abc", "unexpected end of statement while looking for matching double-quote"),
        ("${SHELL#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
    ] {
        let expected = format!("failed to process {text:?}: {message}");
        assert_eq!(expand(text), Err(expected), "{text}");
    }
}

#[test]
fn words_are_split_outside_quotes() {
    let words = |text: &str| Lexer::new('\\').expand(text, &lookup).unwrap().words;
    assert_eq!(words("a  b"), ["a", "b"]);
    assert_eq!(words("a\\ b 'c d' \"e f\""), ["a b", "c d", "e f"]);
    assert_eq!(words("$WORDS x$WORDS"), ["one", "two", "x", "one", "two"]);
    assert_eq!(words("cat << EOF"), ["cat", "<< EOF"]);
}

#[test]
fn unset_variables_can_stay() {
    let lexer = Lexer { skip_unset: true, raw_quotes: true, ..Lexer::new('\\') };
    let done = lexer.expand("'a' $PWD $X ${X} ${X:-y} ${X/a/b}", &lookup).unwrap();
    assert_eq!(done.text, "'a' /home $X ${X} ${X:-y} ${X/a/b}");
    assert!(done.used.contains("PWD") && done.unset.contains("X"));
}

#[test]
fn growth_is_bounded() {
    let big = |_: &str| Some("x".repeat(1 << 19));
    assert!(Lexer::new('\\').expand("$a$a$a", &big).unwrap_err().contains("longer than"));
    let deep = format!("{}{}", "${X:-".repeat(100), "}".repeat(100));
    assert!(expand(&deep).unwrap_err().contains("nest deeper"));
    let long = |_: &str| Some("a".repeat(1 << 16));
    assert!(Lexer::new('\\').expand("${a//*b/x}", &long).unwrap_err().contains("too long"));
}

proptest! {
    #[test]
    fn nothing_panics(text in "[a$X{}:+?#%/*\\\\'\"< -]{0,24}") {
        let _ = expand(&text);
    }

    #[test]
    fn plain_text_stays(text in "[a-z0-9 ./=-]{0,40}") {
        prop_assert_eq!(expand(&text), Ok(text));
    }
}

//! What is refused, in which words, at which line.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn mistakes_are_named_where_they_are() {
    let table = [
        ("", "the Dockerfile cannot be empty"),
        ("# just a comment\n", "1: file with no instructions"),
        ("RUN x\n", "1: no build stage in current context"),
        ("ARG x\n", "dockerfile contains no stages to build"),
        (
            "FROM a\nRUNN x\n",
            "2: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)",
        ),
        (
            "FROM a b\n",
            "1: dockerfile parse error on line 1: FROM requires either one or three arguments",
        ),
        (
            "FROM a AS 1x\n",
            "1: dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        ("FROM $x\n", "1: base name ($x) should not be blank"),
        (
            "FROM a\nCOPY x\n",
            "2: dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "FROM a\nCOPY --chwon=1 x y\n",
            "2: dockerfile parse error on line 2: unknown flag: --chwon (did you mean chown?)",
        ),
        (
            "FROM a\nCOPY --link=maybe x y\n",
            "2: dockerfile parse error on line 2: expecting boolean value for flag --link, not: maybe",
        ),
        (
            "FROM a\nCOPY --chown x y\n",
            "2: dockerfile parse error on line 2: missing a value on flag: --chown",
        ),
        (
            "FROM a\nCOPY --chown=1 --chown=2 x y\n",
            "2: dockerfile parse error on line 2: duplicate flag specified: --chown",
        ),
        (
            "FROM a\nCOPY --from=$x a b\n",
            "2: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("FROM a\nCOPY --from=7 a b\n", "2: invalid stage index 7"),
        ("FROM a\nCOPY https://x/y z\n", "2: source can't be a URL for COPY"),
        ("FROM a\nCOPY https://x/y.git z\n", "2: source can't be a git ref for COPY"),
        (
            "FROM a\nCOPY --chmod=9 a b\n",
            "2: invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ),
        ("FROM a\nADD --checksum=sha256:00 a b\n", "2: checksum requires HTTP(S) or Git sources"),
        (
            "FROM a\nCOPY a <<E\nx\nE\n",
            "2: dockerfile parse error on line 2: COPY cannot accept a heredoc as a destination",
        ),
        ("FROM a\nRUN <<E\nx\n", "2: unterminated heredoc"),
        ("FROM a\nENV x\n", "2: ENV must have two arguments"),
        (
            "FROM a\nENV a=b c\n",
            "2: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM a\nENV =b\n", "2: dockerfile parse error on line 2: ENV names can not be blank"),
        ("FROM a\nENV x=${y:?absent}\n", "2: failed to process \"${y:?absent}\": y: absent"),
        (
            "FROM a\nCMD [\"a\", 1]\n",
            "2: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "FROM a\nSHELL sh\n",
            "2: dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
        ),
        (
            "FROM a\nHEALTHCHECK FOO x\n",
            "2: dockerfile parse error on line 2: Unknown type \"FOO\" in HEALTHCHECK (try CMD)",
        ),
        (
            "FROM a\nHEALTHCHECK CMD\n",
            "2: dockerfile parse error on line 2: Missing command after HEALTHCHECK CMD",
        ),
        (
            "FROM a\nHEALTHCHECK NONE x\n",
            "2: dockerfile parse error on line 2: HEALTHCHECK NONE takes no arguments",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=1us CMD x\n",
            "2: dockerfile parse error on line 2: Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "FROM a\nHEALTHCHECK --retries=-1 CMD x\n",
            "2: dockerfile parse error on line 2: --retries cannot be negative (-1)",
        ),
        (
            "FROM a\nONBUILD ONBUILD RUN x\n",
            "2: dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM a\nONBUILD FROM x\n",
            "2: dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        ("FROM a\nEXPOSE 80/icmp\n", "2: invalid port: \"80/icmp\": invalid proto: icmp"),
        ("FROM a\nEXPOSE x\n", "2: invalid containerPort: x"),
        ("FROM a\nSTOPSIGNAL FOO\n", "2: invalid signal: FOO"),
        ("FROM a\nVOLUME $x\n", "2: VOLUME specified can not be an empty string"),
        (
            "FROM a\nWORKDIR\n",
            "2: dockerfile parse error on line 2: WORKDIR requires exactly one argument",
        ),
        ("FROM a\nRUN --mount=type=foo,target=/x y\n", "2: unsupported mount type \"foo\""),
        (
            "FROM a\nRUN --mount=type=cahce,target=/x y\n",
            "2: unsupported mount type \"cahce\" (did you mean cache?)",
        ),
        (
            "FROM a\nRUN --mount=type=secret,from=x,id=y z\n",
            "2: secret mount should not have a from",
        ),
        ("FROM a\nRUN --mount=type=bind,target=/ z\n", "2: invalid mount target \"/\""),
        (
            "FROM a\nRUN --mount=type=tmpfs,target=/x,uid=1 z\n",
            "2: uid not allowed for \"tmpfs\" type mounts",
        ),
        (
            "FROM a\nRUN --mount=target=/x,sharing=locked z\n",
            "2: invalid cache sharing set for bind mount",
        ),
        (
            "FROM a\nRUN --mount=target=/x,foo=1 z\n",
            "2: unexpected key 'foo' in 'foo=1' (did you mean from?)",
        ),
        (
            "FROM a\nRUN --mount=target=/x,size=1 z\n",
            "2: unexpected key 'size' for mount type 'bind'",
        ),
        (
            "FROM a\nRUN --mount=from=$x,target=/x z\n",
            "2: dockerfile parse error on line 2: 'from' doesn't support variable expansion, define alias stage instead",
        ),
        (
            "FROM a\nRUN --network=wlan z\n",
            "2: dockerfile parse error on line 2: invalid network mode \"wlan\"",
        ),
        (
            "FROM a AS x\nCOPY --from=y /a /\nFROM a AS y\nCOPY --from=x /a /\n",
            "4: circular dependency detected on stage: x",
        ),
        ("FROM a AS x\nCOPY --from=x /a /\n", "2: circular dependency detected on stage: x"),
        (
            "FROM a AS x\nCOPY --from=y /a /\nFROM a AS y\nRUN z\nFROM x\n",
            "2: cannot copy from stage \"y\", it needs to be defined before current stage \"x\"",
        ),
        (
            "FROM --platform=foo/bar/baz/qux a\n",
            "1: failed to parse platform foo/bar/baz/qux: \"foo/bar/baz/qux\": cannot parse platform specifier: invalid argument",
        ),
        ("FROM missing\n", "1: missing: pull access denied"),
        ("FROM debain\nFROM missing-debian\n", "2: missing-debian: pull access denied"),
        ("# escape=x\nFROM a\n", "1: invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a\n", "2: only one escape parser directive can be used"),
        ("# check=foo\nFROM a\n", "failed to parse check options: invalid check option \"foo\""),
        (
            "# check=error=true\nFROM a AS x\nFROM a AS x\n",
            "lint violation found for rules: DuplicateStageName",
        ),
        (
            "# syntax=example.com/other\nFROM a\n",
            "1: the build asks for the front end \"example.com/other\", which this builder cannot run: it answers for docker/dockerfile itself; remove the syntax directive or name docker/dockerfile:1",
        ),
        ("# syntax=docker/dockerfile:1.7-labs\nFROM a\n", "accepted"),
        (
            "FROM A\n",
            "1: failed to parse stage name \"A\": invalid reference format: repository name (library/A) must be lowercase",
        ),
    ];
    let mut wrong = String::new();
    for (text, expected) in table {
        let found = refusal(text);
        if found != expected {
            let _ = writeln!(wrong, "{text:?}\n  expected {expected}\n  found    {found}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn targets_that_do_not_exist_are_named() {
    let mut request = request("FROM a AS builder\n");
    request.options.target = "buidler".to_owned();
    let refused = build_with(&request, &Fake::default()).unwrap_err().to_string();
    assert_eq!(refused, "target stage \"buidler\" could not be found (did you mean builder?)");
}

#[test]
fn an_error_shows_the_lines() {
    let source = SourceFile {
        name: "Dockerfile".to_owned(),
        text: "FROM a\n\nRUN one\nRUN two \\\n  three\nRUN four\nRUN five\n".to_owned(),
    };
    let place = crate::Location {
        file: "Dockerfile".to_owned(),
        first_line: 4,
        first_column: 0,
        last_line: 5,
    };
    insta::assert_snapshot!(excerpt(&source, &place), @r"
    Dockerfile:4
    --------------------
       3 |     RUN one
       4 | >>> RUN two \
       5 | >>>   three
       6 |     RUN four
    --------------------
    ");
}

//! The build checks, each fired once, and questions about a Dockerfile.

use super::*;

fn found(text: &str) -> Vec<String> {
    build(text).warnings.iter().map(Warning::short).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_rule_fires() {
    let table = [
        (
            "FROM a AS Builder\nFROM builder\n",
            "StageNameCasing: Stage name 'Builder' should be lowercase (line 1)",
        ),
        (
            "FROM a as x\nFROM x\n",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
        ),
        ("FROM a\nRUN x \\\n\n  y\n", "NoEmptyContinuation: Empty continuation line (line 4)"),
        (
            "FROM a\nRUN x\nrun y\n",
            "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)",
        ),
        (
            "FROM a AS x\nFROM a AS x\n",
            "DuplicateStageName: Duplicate stage name \"x\", stage names should be unique (line 2)",
        ),
        (
            "FROM a AS context\n",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 1)",
        ),
        (
            "FROM a\nCMD x\n",
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
        ),
        (
            "FROM a\nMAINTAINER x\n",
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
        ),
        ("FROM a$foo\n", "UndefinedArgInFrom: FROM argument 'foo' is not declared (line 1)"),
        (
            "FROM a\nWORKDIR x\n",
            "WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes (line 2)",
        ),
        ("FROM a\nCOPY $fooo /\n", "UndefinedVar: Usage of undefined variable '$fooo' (line 2)"),
        (
            "FROM a\nENV DIR=/x\nCOPY a $DRI\n",
            "UndefinedVar: Usage of undefined variable '$DRI' (did you mean $DIR?) (line 3)",
        ),
        (
            "FROM a\nCMD [\"a\"]\nCMD [\"b\"]\n",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
        ),
        (
            "FROM a\nENV x y z\n",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
        ),
        (
            "FROM --platform=$TARGETPLATFORM a\n",
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
        ),
        (
            "FROM a\nARG API_TOKEN\n",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\") (line 2)",
        ),
        (
            "ARG V\nFROM a:$V\n",
            "InvalidDefaultArgInFrom: Default value for ARG a:$V results in empty or invalid base image name (line 2)",
        ),
        (
            "FROM --platform=linux/amd64 a AS x\n",
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
        ),
        (
            "FROM a\nEXPOSE 80/TCP\n",
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
        ),
        (
            "FROM a\nEXPOSE 127.0.0.1:80:80\n",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 2)",
        ),
        (
            "# check=experimental=all\n\n# something else\nFROM a AS x\n",
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# x <description>` (line 4)",
        ),
    ];
    for (text, expected) in table {
        if text.contains("a:$V") {
            let mut request = request(text);
            request.options.build_args.insert("V".to_owned(), "1".to_owned());
            let done = build_with(&request, &Fake::default()).unwrap();
            assert_eq!(done.warnings[0].short(), expected);
            continue;
        }
        assert_eq!(found(text), [expected], "{text}");
    }
    assert_eq!(Rule::ALL.len(), 22);
}

#[test]
fn ignored_files_and_other_platforms_are_remarked() {
    let fake = Fake { files: BTreeMap::from([(".dockerignore", "secret\n")]), ..Fake::default() };
    let done = build_with(&request("FROM a\nCOPY secret/x /\nADD secret /\n"), &fake).unwrap();
    let short: Vec<_> = done.warnings.iter().map(Warning::short).collect();
    assert_eq!(
        short,
        [
            "CopyIgnoredFile: Attempting to Copy file \"secret/x\" that is excluded by .dockerignore (line 2)",
            "CopyIgnoredFile: Attempting to Add file \"secret\" that is excluded by .dockerignore (line 3)",
        ]
    );
    let mut arm = base_image();
    arm.architecture = "arm64".to_owned();
    let fake =
        Fake { images: BTreeMap::from([("docker.io/library/a:latest", arm)]), ..Fake::default() };
    let done = build_with(&request("FROM a\n"), &fake).unwrap();
    assert_eq!(done.warnings[0].short(), "InvalidBaseImagePlatform: Base image docker.io/library/a:latest was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build (line 1)".replace("docker.io/library/a:latest", "a"));
}

#[test]
fn rules_can_be_off() {
    let text = "FROM a AS x\nFROM a AS x\nCMD y\n";
    assert_eq!(found(text).len(), 2);
    assert_eq!(found(&format!("# check=skip=all\n{text}")), Vec::<String>::new());
    assert_eq!(
        found(&format!("# check=skip=DuplicateStageName, JSONArgsRecommended\n{text}")),
        Vec::<String>::new()
    );
    assert_eq!(found("FROM a\n# check=skip=JSONArgsRecommended\nCMD y\n"), Vec::<String>::new());
}

const DESCRIBED: &str = "ARG VERSION=1\n# TAG which one\nARG TAG=v$VERSION\n# app the application\nFROM debian:$TAG AS app\n\
    # MODE how\nARG MODE=fast\nRUN --mount=type=secret,id=key,required --mount=type=ssh --mount=type=secret,id=opt x\nFROM app\n";

#[test]
fn targets_are_listed() {
    let source = SourceFile { name: "Dockerfile".into(), text: DESCRIBED.into() };
    let answer = targets(&source).unwrap();
    insta::assert_snapshot!(answer.text, @r"
    TARGET    DESCRIPTION
    app       the application
    (default)
    ");
    insta::assert_snapshot!("targets_json", answer.json);
}

#[test]
fn parameters_are_listed() {
    let mut request = request(DESCRIBED);
    request.options.target = "app".to_owned();
    let answer = run(outline(&request, &Fake::default())).unwrap();
    insta::assert_snapshot!(answer.text);
    insta::assert_snapshot!("outline_json", answer.json);
}

#[test]
fn checks_are_answered() {
    let answer = run(lint(
        &request("FROM a AS x\nRUN y\nFROM a AS x\nCOPY --from=9 / /\n"),
        &Fake::default(),
    ))
    .unwrap();
    assert_eq!(answer.status, Some(1));
    insta::assert_snapshot!(answer.text);
    insta::assert_snapshot!("lint_json", answer.json);
    let clean = run(lint(&request("FROM a\n"), &Fake::default())).unwrap();
    assert_eq!((clean.status, &*clean.text), (Some(0), ""));
    assert!(clean.json.contains("\"warnings\": null"));
}

#[test]
fn questions_are_described() {
    insta::assert_snapshot!(describe().text, @r"
    NAME                 VERSION DESCRIPTION
    outline              1.0.0   List all parameters current build target supports
    targets              1.0.0   List all targets current build supports
    subrequests.describe 1.0.0   List available subrequest types
    ");
}

fn checked(file: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checks");
    std::fs::read_to_string(folder.join(file)).unwrap()
}

/// The answers beside that Dockerfile were given by dockerd 28.5.
#[test]
fn answers_are_those_of_docker() {
    let text = checked("Dockerfile");
    let fake = Fake { files: BTreeMap::from([(".dockerignore", "secret\n")]), ..Fake::default() };
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();

    let sorted = |answer: &serde_json::Value| {
        let mut list = answer["warnings"].as_array().unwrap().clone();
        // This rule was an experiment then.
        list.retain(|warning| warning["ruleName"] != "CopyIgnoredFile");
        let mut list: Vec<String> = list.iter().map(ToString::to_string).collect();
        list.sort();
        list
    };
    let answer = run(lint(&request(&text), &fake)).unwrap();
    assert_eq!(sorted(&parse(&answer.json)), sorted(&parse(&checked("check.json"))));

    let mut request = request(&text);
    request.options.target = "app".to_owned();
    let answer = run(outline(&request, &fake)).unwrap();
    let by_name = |mut answer: serde_json::Value| {
        for key in ["args", "secrets", "ssh"] {
            let list = answer[key].as_array_mut().unwrap();
            list.sort_by_key(|one| one["name"].to_string());
        }
        answer
    };
    assert_eq!(by_name(parse(&answer.json)), by_name(parse(&checked("outline.json"))));

    let answer = targets(&request.source).unwrap();
    assert_eq!(parse(&answer.json), parse(&checked("targets.json")));
}

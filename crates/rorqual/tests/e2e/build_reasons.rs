//! Why steps run, and that the same input makes the same image.

use std::fs;
use std::path::Path;

use rorqual_testkit::{Host, TestResult};

use crate::build_client::{build, context};
use crate::scenario;

/// What a build says about the steps that run, without their numbers and times.
fn reasons(host: &Host, dir: &Path, flags: &[&str]) -> TestResult<Vec<String>> {
    let built = build(host, dir, &[&["--why"], flags].concat())?.exits_with(0)?;
    let told = built.stderr.lines().filter_map(|line| line.split_once(" why: "));
    Ok(told.map(|(_, why)| why.to_owned()).collect())
}

#[test]
fn a_build_says_which_file_argument_or_base_changed() -> TestResult {
    scenario(|host| {
        let text = "FROM first:1\nARG WHO=one\nCOPY a b /src/\nRUN cat /src/a > /x\nRUN echo $WHO > /who\n";
        let dir = context(&[("Dockerfile", text), ("a", "a"), ("b", "b")])?;
        let made = |name: &str| -> TestResult {
            let text = format!("FROM busybox\nRUN echo {name} > /name\n");
            host.cli_with_input(["build", "-q", "-t", "first:1", "-"], text.as_bytes())?.ok()?;
            Ok(())
        };
        made("old")?;
        build(host, dir.path(), &[])?.ok()?;
        assert_eq!(reasons(host, dir.path(), &[])?, [""; 0]);

        fs::write(dir.path().join("a"), "other")?;
        let below = ["the base (COPY a b /src/) changed", "the base (RUN cat /src/a > /x) changed"];
        let file = ["a changed", below[0], below[1]];
        assert_eq!(reasons(host, dir.path(), &[])?, file);

        // Both steps behind the argument see it; the copy does not.
        let argument = reasons(host, dir.path(), &["--build-arg", "WHO=two"])?;
        let changed = "variable WHO changed from \"one\" to \"two\"";
        assert_eq!(argument, [changed, changed, below[1]]);

        made("new")?;
        let base = reasons(host, dir.path(), &["--build-arg", "WHO=two"])?;
        let changed = "the base image docker.io/library/first:1 changed";
        assert_eq!(base, [changed, below[0], below[1]]);
        Ok(())
    })
}

#[test]
fn two_daemons_make_the_same_image_of_the_same_input() -> TestResult {
    let text = "FROM scratch\nADD root.tar /\nFROM busybox\nCOPY a /a\nRUN mkdir /d && date > /d/ignored && \
                echo made > /d/file && rm /d/ignored\nWORKDIR /work/deep\n";
    let dir = context(&[("Dockerfile", text), ("a", "a")])?;
    fs::write(dir.path().join("root.tar"), [0; 1024])?;
    let mut digests = Vec::new();
    // An import has its time in it: the second daemon takes the base of the first.
    let base = dir.path().join("base").display().to_string();
    fs::write(dir.path().join(".dockerignore"), "base\n")?;
    for command in [["save", "-o", &base, "busybox"], ["load", "-q", "-i", &base]] {
        let facts = dir.path().join("facts.json").display().to_string();
        scenario(|host| {
            host.cli(command)?.ok()?;
            let output = "type=image,name=same:1,rewrite-timestamp=true";
            let epoch = "SOURCE_DATE_EPOCH=1700000000";
            let flags = ["--build-arg", epoch, "-o", output, "--metadata-file", &facts];
            build(host, dir.path(), &flags)?.ok()?;
            Ok(())
        })?;
        let facts: serde_json::Value = serde_json::from_slice(&fs::read(&facts)?)?;
        digests.push(facts["containerimage.config.digest"].clone());
    }
    assert!(digests[0].is_string(), "{digests:?}");
    assert_eq!(digests[0], digests[1]);
    Ok(())
}

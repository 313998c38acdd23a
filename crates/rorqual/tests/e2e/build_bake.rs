//! `bake`: what files offer, targets side by side, what one target has of another, and failures.

use rorqual_testkit::{Finished, Host, TestResult};

use crate::build_client::context;
use crate::scenario;

fn bake(host: &Host, dir: &tempfile::TempDir, args: &[&str]) -> TestResult<Finished> {
    // A directory of the outside does not go along into the host's namespaces.
    let mut command = host.command("sh");
    command.args(["-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]).arg(dir.path());
    command.args([crate::RORQUAL, "bake", "--progress=plain"]).args(args);
    host.run(command)
}

/// Two targets, each of which waits for a sign of the other one, below a stage that both have.
const MEETING: &str = r#"
group "default" { targets = ["one", "two"] }
target "one" {
  target = "one"
  tags = ["one:1"]
}
target "two" {
  target = "two"
  tags = ["two:1"]
}
"#;

const MEETING_DOCKERFILE: &str = "\
FROM busybox AS shared
RUN --mount=type=cache,target=/signs,id=signs echo ran >> /signs/shared && cp /signs/shared /shared
FROM shared AS one
RUN --mount=type=cache,target=/signs,id=signs touch /signs/one; until [ -e /signs/two ]; do sleep 0.1; done
FROM shared AS two
RUN --mount=type=cache,target=/signs,id=signs touch /signs/two; until [ -e /signs/one ]; do sleep 0.1; done
";

#[test]
fn targets_are_built_side_by_side_and_what_they_share_once() -> TestResult {
    scenario(|host| {
        let dir = context(&[("docker-bake.hcl", MEETING), ("Dockerfile", MEETING_DOCKERFILE)])?;
        // Each waits for the other one: one after the other they would never end.
        let facts = dir.path().join("facts.json").display().to_string();
        let built = bake(host, &dir, &["--metadata-file", &facts])?.exits_with(0)?;
        for part in ["[one one 1/1] RUN", "[two two 1/1] RUN"] {
            assert!(built.stderr.contains(part), "no {part:?} in {}", built.stderr);
        }
        for image in ["one:1", "two:1"] {
            host.cli(["run", "--rm", image, "cat", "/shared"])?.prints("ran")?;
        }
        let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(facts)?)?;
        for target in ["one", "two"] {
            assert!(facts[target]["containerimage.config.digest"].is_string(), "{facts}");
        }
        Ok(())
    })
}

const LINKED: &str = r#"
variable "WORD" {
  default = "linked"
  description = "What is said"
}
group "default" {
  targets = ["top"]
  description = "All of it"
}
target "bottom" {
  dockerfile-inline = "FROM busybox\nRUN echo ${WORD} > /said\n"
}
target "top" {
  description = "Stands on the other"
  contexts = { base = "target:bottom" }
  dockerfile-inline = "FROM base\nRUN cat /said > /heard\n"
  tags = ["top:1"]
}
target "broken" {
  dockerfile-inline = "FROM busybox\nRUN exit 9\n"
}
target "slow" {
  dockerfile-inline = "FROM busybox\nRUN sleep 1000\n"
}
"#;

#[test]
fn a_target_stands_on_another_and_a_failure_ends_the_rest() -> TestResult {
    scenario(|host| {
        let dir = context(&[("docker-bake.hcl", LINKED)])?;
        bake(host, &dir, &[])?.ok()?;
        host.cli(["run", "--rm", "top:1", "cat", "/heard"])?.prints("linked")?;
        let images = host.cli(["images", "--format", "{{.Repository}}"])?.ok()?;
        assert!(!images.contains("rorqual-bake"), "{images}");
        // Without an end to the slow one this would never end.
        let failed = bake(host, &dir, &["broken", "slow"])?.exits_with(1)?;
        assert!(
            failed.stderr.contains("ERROR: target broken: failed to solve:"),
            "{}",
            failed.stderr
        );
        Ok(())
    })
}

#[test]
fn what_files_offer_is_listed() -> TestResult {
    scenario(|host| {
        let dir = context(&[("docker-bake.hcl", LINKED)])?;
        let targets = bake(host, &dir, &["--list=targets"])?.ok()?;
        assert_eq!(
            targets,
            "TARGET\tDESCRIPTION\nbottom\t\nbroken\t\ndefault\tAll of it (top)\nslow\t\ntop\tStands on the other"
        );
        let variables = bake(host, &dir, &["--list=type=variables,format=json"])?.ok()?;
        let variables: serde_json::Value = serde_json::from_str(&variables)?;
        let expected = serde_json::json!(
            [{ "name": "WORD", "description": "What is said", "value": "linked" }]
        );
        assert_eq!(variables, expected);
        let refused = bake(host, &dir, &["--list=nonsense"])?;
        refused.exits_with(1)?.complains("invalid list type \"nonsense\"")?;
        let checked = bake(host, &dir, &["--check", "top", "broken"])?;
        assert!(checked.stdout.contains("no warnings found"), "{checked:?}");
        Ok(())
    })
}

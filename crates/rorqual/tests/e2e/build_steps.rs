//! What steps of a build are lent, and which files copies take.

use std::process::Command;

use rorqual_testkit::TestResult;

use crate::build_client::{build, context};
use crate::{inspect, scenario};

/// Each `RUN` fails where it does not find what it should.
pub(crate) const MOUNTS: &str = r#"FROM busybox AS src
RUN mkdir -p /d && echo from-stage > /d/f
FROM busybox
RUN ls / > /before
RUN --mount=type=cache,target=/c,id=kept echo one >> /c/log
RUN --mount=type=cache,target=/c,id=kept echo two >> /c/log && test "$(cat /c/log | tr '\n' ' ')" = "one two "
RUN --mount=type=cache,target=/c,sharing=locked,mode=0750,uid=5 test "$(stat -c '%a %u' /c)" = "750 5"
RUN --mount=type=cache,target=/c,id=own,sharing=private test -z "$(ls -A /c)"
RUN --mount=type=cache,target=/c,id=filled,from=src,source=/d test "$(cat /c/f)" = from-stage
RUN --mount=type=bind,from=src,source=/d,target=/d test "$(cat /d/f)" = from-stage && ! touch /d/x
RUN --mount=type=bind,target=/ctx,rw touch /ctx/x && test "$(cat /ctx/a)" = content
RUN --mount=type=bind,target=/ctx test ! -e /ctx/x && ! touch /ctx/y
RUN --mount=type=bind,source=a,target=/one test "$(cat /one)" = content
RUN --mount=type=tmpfs,target=/t,size=1m touch /t/x && grep -q ' /t tmpfs ' /proc/mounts
RUN --mount=type=secret,id=s,env=TOKEN test "$TOKEN" = hidden
RUN --mount=type=secret,id=s,target=/s,mode=0440,uid=3 test "$(cat /s)" = hidden && test "$(stat -c '%a %u' /s)" = "440 3"
RUN --mount=type=secret,id=none test ! -e /run/secrets/none
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK"
RUN ls / | diff /before - && test -z "$SSH_AUTH_SOCK" && test -z "$TOKEN"
RUN <<EOF
echo a > /heredoc
echo b >> /heredoc
EOF
RUN test "$(wc -l < /heredoc)" = 2
COPY <<EOF /written
text of $NAME
EOF
ARG NAME=nobody
RUN test "$(cat /written)" = "text of "
"#;

#[test]
fn steps_are_lent_mounts_secrets_and_agents_and_keep_nothing_of_them() -> TestResult {
    if Command::new("ssh-agent").arg("-h").output().is_err() {
        return Ok(());
    }
    scenario(|host| {
        let dir = context(&[("Dockerfile", MOUNTS), ("a", "content\n"), ("secret", "hidden")])?;
        let socket = dir.path().join("agent");
        let mut agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).spawn()?;
        let there =
            rorqual_testkit::eventually("the agent listens", || socket.exists().then_some(()));
        let secret = format!("id=s,src={}", dir.path().join("secret").display());
        let ssh = format!("default={}", socket.display());
        std::fs::write(dir.path().join(".dockerignore"), "agent\nsecret\n")?;
        let flags = ["-t", "lent:1", "--secret", &secret, "--ssh", &ssh];
        let first = build(host, dir.path(), &flags);
        let again = build(host, dir.path(), &flags);
        agent.kill()?;
        agent.wait()?;
        there?;
        first?.ok()?;
        again?.ok()?;
        let without = build(host, dir.path(), &["--no-cache"])?;
        without.exits_with(1)?;
        let history = inspect(host, "lent:1", "{{json .Config}}")?;
        assert!(!history.contains("hidden"), "{history}");
        Ok(())
    })
}

const COPIES: &str = r#"FROM busybox AS src
RUN mkdir -p /d && echo from-stage > /d/f
FROM busybox
COPY --parents x/./sub/deep/f y/*/z /p/
COPY --exclude=*.log --exclude=more logs /l/
COPY --chmod=640 --chown=7:8 a /a
COPY --chmod=u=rwX,go= logs /modes/
COPY --link a /linked/a
COPY --from=src --link /d/f /f
COPY --from=busybox /bin/busybox /bb
ADD a.tar /un/
ADD --unpack=false a.tar /packed/
ADD --unpack a.tar /again/
COPY a b* none* /several/
RUN cd /p && find . -type f | sort | tr '\n' ' ' > /found && cat /found && test "$(cat /found)" = "./sub/deep/f ./y/1/z "
RUN test "$(ls /l)" = kept.txt && test "$(stat -c '%a %u %g' /a)" = "640 7 8"
RUN test "$(stat -c %a /modes/more /modes/kept.txt | tr '\n' ' ')" = "700 600 "
RUN cmp /linked/a /a && test "$(cat /f)" = from-stage && cmp /bb /bin/busybox
RUN test "$(cat /un/member /again/member)" = "$(printf 'inside\ninside')" && ls /packed/a.tar
RUN test "$(ls /several | tr '\n' ' ')" = "a b1 b2 "
"#;

#[test]
fn copies_take_what_their_flags_say_and_the_same_build_is_the_same_image() -> TestResult {
    scenario(|host| {
        let dir = context(&[
            ("Dockerfile", COPIES),
            ("a", "content\n"),
            ("b1", ""),
            ("b2", ""),
            ("x/sub/deep/f", "f"),
            ("y/1/z", "z"),
            ("y/1/other", "z"),
            ("logs/kept.txt", "k"),
            ("logs/left.log", "l"),
            ("logs/more/m", "m"),
        ])?;
        let made = Command::new("sh")
            .args(["-ec", "echo inside > member; tar -cf a.tar member; rm member; chmod 755 logs"])
            .current_dir(dir.path())
            .status()?;
        assert!(made.success());
        build(host, dir.path(), &["-t", "copied:1"])?.ok()?;
        let id = inspect(host, "copied:1", "{{.Id}}")?;
        let again = build(host, dir.path(), &["-t", "copied:2"])?;
        assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
        again.ok()?;
        assert_eq!(inspect(host, "copied:2", "{{.Id}}")?, id);
        std::fs::write(dir.path().join("Dockerfile"), "FROM busybox\nCOPY nowhere /x\n")?;
        build(host, dir.path(), &[])?
            .exits_with(1)?
            .complains("failed to calculate checksum of ref")?
            .complains("\"/nowhere\": not found")?;
        Ok(())
    })
}

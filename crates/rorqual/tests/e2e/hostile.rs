//! Hostile images, archives and requests: refused or contained, in words, without a trace.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rorqual_testkit::image::{Odd, odd_rootfs};
use rorqual_testkit::{Host, TestResult};

use crate::scenario;

#[test]
fn images_full_of_links_reach_nothing_outside() -> TestResult {
    scenario(|host| {
        let victim = host.folder().join("victim");
        fs::create_dir(&victim)?;
        let up = "../../../../../../../../../../../../tmp";
        let images: &[(&str, &[(&str, Odd)])] = &[
            ("etc-link", &[("etc", Odd::Link(up))]),
            ("dev-link", &[("dev", Odd::Link(up))]),
            (
                "dev-inside",
                &[
                    ("dev", Odd::Folder),
                    ("dev/null", Odd::Link("/etc/x")),
                    ("dev/pts", Odd::Link(up)),
                ],
            ),
            (
                "resolv",
                &[("etc", Odd::Folder), ("etc/resolv.conf", Odd::Link("../run/systemd/stub.conf"))],
            ),
            (
                "passwd",
                &[
                    ("etc", Odd::Folder),
                    ("etc/passwd", Odd::Link("/dev/zero")),
                    ("etc/group", Odd::Pipe),
                ],
            ),
            ("large", &[("etc", Odd::Folder), ("etc/passwd", Odd::File(vec![b'x'; 20 << 20]))]),
        ];
        for (name, odd) in images {
            host.cli_with_input(["import", "-", name], &odd_rootfs(odd)?)?.ok()?;
            let args = [
                "run",
                "--rm",
                "-u",
                "5:6",
                name,
                "sh",
                "-c",
                "grep -c localhost /etc/hosts; echo > /dev/null",
            ];
            let run = host.cli(args)?.exits_with(0)?;
            assert!(!run.stdout.starts_with('0'), "{name}: {run:?}");
        }
        let bind = |target: &str| format!("{}:{target}", victim.display());
        host.cli_with_input(
            ["import", "-", "links"],
            &odd_rootfs(&[("link", Odd::Link("/..")), ("up", Odd::Link(up))])?,
        )?
        .ok()?;
        for target in ["/link/y", "/up/deep/z", "/../../q"] {
            host.cli(["run", "--rm", "-v", &bind(target), "links", "ls", target])?.ok()?;
        }
        assert_eq!(fs::read_dir(&victim)?.count(), 0);
        for proc_link in ["proc", "sys"] {
            host.cli_with_input(
                ["import", "-", "bad"],
                &odd_rootfs(&[(proc_link, Odd::Link(up))])?,
            )?
            .ok()?;
            host.cli(["run", "--rm", "bad", "true"])?
                .exits_with(125)?
                .complains("ordinary directory")?;
        }
        Ok(())
    })
}

#[test]
fn broken_archives_leave_no_trace() -> TestResult {
    scenario(|host| {
        let before = host.cli(["images", "-q"])?.ok()?;
        let odd = |name: &'static str, odd: Odd| odd_rootfs(&[(name, odd)]);
        let good = odd_rootfs(&[])?;
        let mut flipped = good.clone();
        flipped[700] ^= 4;
        for (what, archive) in [
            ("a way up", odd("../../evil", Odd::File(vec![1]))?),
            ("a hard link up", odd("h", Odd::HardLink("../../etc/passwd"))?),
            ("a hard link to itself", odd("h", Odd::HardLink("h"))?),
            (
                "through a link",
                odd_rootfs(&[("t", Odd::Link("/tmp")), ("t/evil", Odd::File(vec![1]))])?,
            ),
            ("an empty link", odd("e", Odd::Link(""))?),
            ("no whiteout", odd(".wh.", Odd::File(vec![]))?),
            ("cut short", good[..good.len() / 2].to_vec()),
            ("a flipped bit", flipped),
            (
                "noise",
                (0..70_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
            ),
        ] {
            let refused = host.cli_with_input(["import", "-", "evil"], &archive)?;
            assert!(
                refused.code == 1 && refused.stderr.contains("invalid archive"),
                "{what}: {refused:?}"
            );
            host.cli_with_input(["load"], &archive)?.exits_with(1)?;
        }
        assert_eq!(host.cli(["images", "-q"])?.ok()?, before);
        assert!(!host.daemon_log().contains("ERROR"), "{}", host.daemon_log());
        Ok(())
    })
}

#[test]
fn an_environment_of_a_hundred_thousand_variables_is_no_burden() -> TestResult {
    scenario(|host| {
        let env: Vec<String> = (0..100_000).map(|n| format!("\"V{n}={n}\"")).collect();
        let body = format!("{{\"Image\":\"busybox\",\"Env\":[{}]}}", env.join(","));
        let request = format!(
            "POST /v1.51/containers/create?name=cc HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert!(ask(host, request.as_bytes())?.starts_with("HTTP/1.1 201"));
        host.cli(["start", "cc"])?.ok()?;
        Ok(())
    })
}

fn ask(host: &Host, request: &[u8]) -> TestResult<String> {
    let mut socket = UnixStream::connect(host.socket())?;
    socket.set_read_timeout(Some(rorqual_testkit::DEADLINE))?;
    // A daemon that has read enough closes first.
    socket.write_all(request).ok();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok();
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn malformed_requests_get_their_status_and_do_no_harm() -> TestResult {
    scenario(|host| {
        let create = |body: &str| {
            format!(
                "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let get =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let deep = format!("{{\"Labels\":{}", "[".repeat(100_000));
        let large = format!("{{\"Image\":\"{}\"}}", "x".repeat(20 << 20));
        let requests = [
            (create("{"), "400"),
            (create(""), "400"),
            (create("[]"), "400"),
            (create(&deep), "400"),
            (create(&large), "400"),
            (create(r#"{"Image":5}"#), "400"),
            (create(r#"{"Image":"busybox","HostConfig":{"Memory":1e400}}"#), "400"),
            (create(r#"{"Image":"busybox","HostConfig":{"Binds":["/x\u0000:/y"]}}"#), "400"),
            (create(r#"{"Image":"busybox","HostConfig":{"CgroupParent":"../../x"}}"#), "400"),
            (get("/nope"), "404"),
            (get("/v9.99/info"), "400"),
            (get("/containers/%2e%2e%2f%2e%2e/json"), "404"),
            (get("/containers/a%00b/json"), "404"),
            (get("/containers/json?limit=x"), "400"),
            (get("/containers/json?filters=%7B"), "400"),
            (get("/events?since=x"), "400"),
            (get(&format!("/{}", "a".repeat(500_000))), "431"),
            ("\u{16}\u{3}\u{1}garbage\r\n\r\n".to_owned(), "400"),
            (
                "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"
                    .to_owned(),
                "400",
            ),
        ];
        for (request, status) in requests {
            let answer = ask(host, request.as_bytes())?;
            let shown: String = request.chars().take(200).collect();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown}: {answer}");
        }
        let mut slow = Vec::new();
        for _ in 0..100 {
            let mut socket = UnixStream::connect(host.socket())?;
            socket.write_all(b"GET /_ping HTTP/1.1\r\nHos")?;
            slow.push(socket);
        }
        assert!(ask(host, get("/_ping").as_bytes())?.starts_with("HTTP/1.1 200"));
        assert_eq!(host.cli(["ps", "-aq"])?.ok()?, "");
        assert!(!host.daemon_log().contains("ERROR"), "{}", host.daemon_log());
        Ok(())
    })
}

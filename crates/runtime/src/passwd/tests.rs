use super::*;

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:33:34::/srv:/bin/sh\nnum:x:12:12::/n:\n";
const GROUP: &str = "root:x:0:root\nbin:x:1:root,web\nweb:x:34:\naudio:x:29:web\n";

fn check(user: &str, extra: &[&str], expected: &str) {
    let extra: Vec<String> = extra.iter().map(|e| (*e).to_owned()).collect();
    let text = match look_up(user, &extra, PASSWD, GROUP) {
        Ok(i) => format!("{}:{} {:?} {}", i.uid, i.gid, i.groups, i.home.unwrap_or_default()),
        Err(error) => error,
    };
    assert_eq!(text, expected, "for {user:?}");
}

#[test]
fn looks_up_like_docker() {
    check("", &[], "0:0 [0, 1] /root");
    check("web", &[], "33:34 [34, 1, 29] /srv");
    check("33", &[], "33:34 [34, 1, 29] /srv");
    check("web:bin", &[], "33:1 [1] /srv");
    check("web:77", &["audio", "500"], "33:77 [77, 29, 500] /srv");
    check("1000", &[], "1000:0 [0] ");
    check("1000:1000", &[], "1000:1000 [1000] ");
    check("nobody", &[], "unable to find user nobody: no matching entries in passwd file");
    check("web:none", &[], "unable to find group none: no matching entries in group file");
    check("web", &["none"], "unable to find group none: no matching entries in group file");
    check("4294967296", &[], "uids and gids must be in range 0-2147483647");
}

use super::*;

#[test]
fn dockerfile_front_ends_are_known_in_all_their_spellings() {
    let own = ["docker/dockerfile:1", "docker.io/docker/dockerfile:1.7-labs", "docker/dockerfile"];
    assert!(own.into_iter().all(is_own));
    assert!(is_own("docker/dockerfile-upstream@sha256:00"));
    assert!(!is_own("example.com/docker/dockerfile:1"));
    assert!(!is_own("docker/other"));
}

use super::shell_of;

#[test]
fn the_shell_is_that_of_the_command() {
    let check = |args: &[&str], expected: &str| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        assert_eq!(shell_of(&args), expected, "{args:?}");
    };
    check(&["/bin/sh", "-c", "make"], "/bin/sh");
    check(&["/bin/bash", "-o", "pipefail", "-c", "make"], "/bin/bash");
    check(&["bash", "-c", "make"], "bash");
    check(&["make", "all"], "/bin/sh");
    check(&["/usr/bin/python3", "-c", "1/0"], "/bin/sh");
    check(&["/bin/bash"], "/bin/sh");
    check(&[], "/bin/sh");
}

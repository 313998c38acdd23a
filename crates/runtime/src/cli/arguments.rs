//! The table of commands and flags.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

pub(super) fn command() -> Command {
    Command::new("runtime")
        .about("Open Container Initiative runtime")
        .version(concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.1"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(global_flags())
        .subcommands([create(), run(), start(), kill(), delete(), exec(), state(), list(), ps()])
        .subcommands([events(), features(), spec(), update(), pause(), resume()])
        .subcommands([refused("checkpoint"), refused("restore")])
}

fn global_flags() -> Vec<Arg> {
    vec![
        switch("debug", "enable debug logging"),
        path("log", "set the log file to write logs to"),
        value("log-format", "set the log format ('text' (default), or 'json')")
            .value_parser(["text", "json"])
            .default_value("text"),
        path("root", "root directory for storage of container state"),
        // COMPAT: callers name the program for checkpoints whether or not they make any; there is no such command here.
        path("criu", "without effect: there are no checkpoints").hide(true),
        switch(
            "systemd-cgroup",
            "let systemd make the cgroups; cgroupsPath is \"slice:prefix:name\"",
        ),
        value(
            "rootless",
            "go without a cgroup where none may be made ('true', 'false', or 'auto')",
        )
        .value_parser(["true", "false", "auto"])
        .default_value("auto"),
    ]
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn value(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::Set).help(help)
}

fn path(name: &'static str, help: &'static str) -> Arg {
    value(name, help).value_parser(value_parser!(PathBuf))
}

fn number(name: &'static str, help: &'static str) -> Arg {
    value(name, help).value_parser(value_parser!(i64)).allow_negative_numbers(true)
}

fn id() -> Arg {
    Arg::new("id").required(true).value_name("container-id")
}

fn bundle() -> Arg {
    path("bundle", "path to the root of the bundle directory").short('b')
}

/// Flags that `create`, `run` and `exec` share.
fn process_flags() -> Vec<Arg> {
    vec![
        path("console-socket", "AF_UNIX socket that receives the master of the pseudo terminal"),
        path("pid-file", "file to write the process id to"),
        value("preserve-fds", "pass N additional file descriptors to the container")
            .value_parser(value_parser!(u32))
            .default_value("0"),
    ]
}

fn create_flags() -> Vec<Arg> {
    vec![
        bundle(),
        switch("no-pivot", "do not use pivot_root(2); for a rootfs on top of a ramdisk"),
        switch("no-new-keyring", "let the container inherit the session keyring"),
    ]
}

fn create() -> Command {
    Command::new("create")
        .about("create a container")
        .arg(id())
        .args(create_flags())
        .args(process_flags())
}

fn run() -> Command {
    Command::new("run")
        .about("create and run a container")
        .arg(id())
        .args(create_flags())
        .args(process_flags())
        .arg(switch("detach", "detach from the container's process").short('d'))
        .arg(switch("keep", "do not delete the container after it exits"))
        .arg(switch("no-subreaper", "do not adopt orphaned processes of the container"))
}

fn start() -> Command {
    Command::new("start").about("execute the user defined process in a created container").arg(id())
}

fn kill() -> Command {
    Command::new("kill")
        .about("send a signal to the container's init process")
        .arg(id())
        .arg(Arg::new("signal").default_value("TERM").allow_hyphen_values(true))
        .arg(switch("all", "send the signal to all processes of the container").short('a'))
}

fn delete() -> Command {
    Command::new("delete")
        .about("delete any resources held by the container")
        .arg(id())
        .arg(switch("force", "delete the container even if it is still running").short('f'))
}

fn exec() -> Command {
    let many = |name: &'static str, short: char, help: &'static str| {
        value(name, help).short(short).action(ArgAction::Append)
    };
    Command::new("exec")
        .about("execute new process inside the container")
        .arg(id())
        .arg(
            Arg::new("command")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_name("command"),
        )
        .args(process_flags())
        .arg(value("cwd", "current working directory in the container"))
        .arg(many("env", 'e', "set environment variables"))
        .arg(switch("tty", "allocate a pseudo-TTY").short('t'))
        .arg(value("user", "UID (format: <uid>[:<gid>])").short('u'))
        .arg(many("additional-gids", 'g', "additional gids"))
        .arg(path("process", "path to the process.json").short('p'))
        .arg(switch("detach", "detach from the container's process").short('d'))
        .arg(value("process-label", "SELinux label of the process"))
        .arg(value("apparmor", "AppArmor profile of the process"))
        .arg(switch("no-new-privs", "set no_new_privs for the process"))
        .arg(many("cap", 'c', "add a capability to the bounding set for the process"))
        .arg(many("cgroup", 'G', "run the process in an existing sub-cgroup"))
        .arg(switch("ignore-paused", "allow exec in a paused container"))
}

fn state() -> Command {
    Command::new("state").about("output the state of a container").arg(id())
}

fn format() -> Arg {
    value("format", "select one of: table or json")
        .short('f')
        .default_value("table")
        .value_parser(["table", "json"])
}

fn list() -> Command {
    Command::new("list")
        .about("list containers started with the given root")
        .arg(format())
        .arg(switch("quiet", "display only container IDs").short('q'))
}

fn ps() -> Command {
    Command::new("ps")
        .about("display the processes running inside a container")
        .arg(id())
        .arg(format())
        .arg(Arg::new("options").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true))
}

fn events() -> Command {
    Command::new("events")
        .about("display container events and statistics")
        .arg(id())
        .arg(value("interval", "statistics interval, as in 5s").default_value("5s"))
        .arg(switch("stats", "display the container's stats then exit"))
}

fn features() -> Command {
    Command::new("features").about("show the enabled features")
}

fn spec() -> Command {
    Command::new("spec")
        .about("create a new specification file")
        .arg(bundle())
        .arg(switch("rootless", "generate a configuration for a rootless container"))
}

fn update() -> Command {
    Command::new("update")
        .about("update container resource constraints")
        .arg(id())
        .arg(path("resources", "file with the resources to update, or '-'").short('r'))
        .args([
            number("blkio-weight", "weight, from 10 to 1000"),
            number("cpu-period", "CFS period in microseconds"),
            number("cpu-quota", "CFS hard limit in microseconds"),
            number("cpu-burst", "CFS burst in microseconds"),
            number("cpu-share", "CPU shares").alias("cpu-shares"),
            number("cpu-rt-period", "real-time period in microseconds"),
            number("cpu-rt-runtime", "real-time hard limit in microseconds"),
            number("cpu-idle", "1 for SCHED_IDLE"),
            number("memory", "memory limit in bytes"),
            number("memory-reservation", "soft limit in bytes"),
            number("memory-swap", "memory and swap in bytes; -1 for unlimited swap"),
            number("pids-limit", "maximum number of pids"),
        ])
        .arg(value("cpuset-cpus", "CPUs to use"))
        .arg(value("cpuset-mems", "memory nodes to use"))
        .arg(value("l3-cache-schema", "shares of the last cache, \"L3:ID=MASK;…\""))
        .arg(value("mem-bw-schema", "shares of memory bandwidth, \"MB:ID=PERCENT;…\""))
}

/// A command of other runtimes that this one knows only to refuse.
fn refused(name: &'static str) -> Command {
    let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Command::new(name).about("not supported").hide(true).arg(rest)
}

fn pause() -> Command {
    Command::new("pause").about("suspend all processes inside the container").arg(id())
}

fn resume() -> Command {
    Command::new("resume").about("resume all processes that have been paused").arg(id())
}

//! All commands: the root of the table, and one module per command or family.

mod build;
mod builder;
mod completion;
mod container;
mod context;
mod copy;
mod create;
mod exec;
mod facts;
mod image;
mod inspect;
mod lifecycle;
mod list;
mod logs;
mod manifest;
mod manual;
mod network;
mod registry;
mod run;
mod session;
mod stats;
mod system;
mod typed;
mod volume;

use crate::flag::{Args, Command, Flag, Kind};

/// Makes the entry of a command's table from its function.
macro_rules! task {
    ($function:path) => {
        Some(|cli, matches| Box::pin($function(cli, matches)))
    };
}
pub(crate) use task;

/// Flags in front of the command.
const ROOT_FLAGS: &[Flag] = &[
    Flag::new("config", Kind::Text("string"), "Directory of the client's settings"),
    Flag::new(
        "context",
        Kind::Text("string"),
        "Context that names the daemon to speak to (goes before DOCKER_HOST and the context chosen by \"context use\")",
    )
    .short('c'),
    Flag::new("debug", Kind::Bool, "Say more about what happens").short('D'),
    Flag::new("host", Kind::List("list"), "Address of the daemon").short('H'),
    Flag::new("log-level", Kind::Text("string"), "Least level of messages: debug, info, warn, error, fatal")
        .short('l')
        .default("info"),
    Flag::new("tls", Kind::Bool, "Encrypt; --tlsverify implies it"),
    Flag::new("tlscacert", Kind::Text("string"), "Trust certificates of this authority only"),
    Flag::new("tlscert", Kind::Text("string"), "Our certificate"),
    Flag::new("tlskey", Kind::Text("string"), "Key of our certificate"),
    Flag::new("tlsverify", Kind::Bool, "Encrypt, and check the daemon's certificate"),
    Flag::new("version", Kind::Bool, "Print the version and end").short('v'),
];

/// The program itself.
pub(crate) static ROOT: Command = Command {
    usage: "[OPTIONS] COMMAND [ARG...]",
    about: "Runs containers, a whole world in a single binary",
    flags: &[ROOT_FLAGS],
    args: Args::Any,
    stops_at_word: true,
    children: &[
        &run::RUN,
        &exec::EXEC,
        &build::BUILD,
        &build::BAKE,
        &list::PS,
        &image::PULL,
        &image::PUSH,
        &image::IMAGES,
        &registry::LOGIN,
        &registry::LOGOUT,
        &registry::SEARCH,
        &system::VERSION,
        &system::INFO,
        &builder::GROUP,
        &container::GROUP,
        &context::GROUP,
        &image::GROUP,
        &manifest::GROUP,
        &network::GROUP,
        &system::GROUP,
        &volume::GROUP,
        &exec::ATTACH,
        &facts::COMMIT,
        &completion::COMPLETION,
        &copy::CP,
        &create::CREATE,
        &facts::DIFF,
        &system::EVENTS,
        &facts::EXPORT,
        &image::HISTORY,
        &image::IMPORT,
        &inspect::INSPECT,
        &lifecycle::KILL,
        &image::LOAD,
        &logs::LOGS,
        &lifecycle::PAUSE,
        &facts::PORT,
        &lifecycle::RENAME,
        &lifecycle::RESTART,
        &container::RM,
        &image::RMI,
        &image::SAVE,
        &exec::START,
        &stats::STATS,
        &lifecycle::STOP,
        &image::TAG,
        &facts::TOP,
        &lifecycle::UNPAUSE,
        &lifecycle::UPDATE,
        &lifecycle::WAIT,
        &completion::COMPLETE,
        &manual::MANUAL,
    ],
    ..Command::EMPTY
};

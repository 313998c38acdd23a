//! The transition table, printed.

use rorqual_core::Timestamp;
use rorqual_shim::{Exit, TaskId};

use super::{Happening, Phase};

const EXIT: Exit =
    Exit { code: 1, oom_killed: false, at: Timestamp::from_nanos(1), witnessed: true };

#[test]
fn the_whole_table() {
    let task = TaskId(7);
    let dead = || Phase::Dead { reason: "busy".to_owned() };
    let phases = [
        Phase::Created,
        Phase::Running(task),
        Phase::Paused(task),
        Phase::Restarting(EXIT),
        Phase::Exited(EXIT),
        Phase::Removing,
        dead(),
    ];
    let ended = |task, restart| Happening::TaskEnded { task, exit: EXIT, restart };
    let happenings = [
        ("started", Happening::Started(TaskId(8))),
        ("frozen", Happening::Frozen),
        ("thawed", Happening::Thawed),
        ("ended", ended(task, false)),
        ("ended, restart", ended(task, true)),
        ("earlier task ended", ended(TaskId(6), false)),
        ("restart called off", Happening::RestartCalledOff),
        ("removal began", Happening::RemovalBegan),
        ("removal failed", Happening::RemovalFailed { reason: "busy".to_owned() }),
    ];
    let mut table = String::new();
    for phase in &phases {
        for (word, happening) in &happenings {
            if let Ok(next) = phase.clone().after(happening.clone()) {
                table += &format!("{} --{word}--> {}\n", phase.word(), next.word());
            }
        }
    }
    insta::assert_snapshot!(table, @r"
    created --started--> running
    created --removal began--> removing
    running --frozen--> paused
    running --ended--> exited
    running --ended, restart--> restarting
    paused --thawed--> running
    paused --ended--> exited
    paused --ended, restart--> restarting
    restarting --started--> running
    restarting --restart called off--> exited
    exited --started--> running
    exited --removal began--> removing
    removing --removal failed--> dead
    dead --removal began--> removing
    ");
}

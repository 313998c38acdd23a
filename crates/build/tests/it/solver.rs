//! What runs, what does not, what is left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rorqual_build::solver::PruneRequest;
use rorqual_build::{
    CopyAction, Error, FileAction, FileOp, FileOwner, Graph, Input, Op, OutputRef,
};
use tokio::sync::Semaphore;

use crate::world::{Heard, Programs, World, add, exec, job};

pub(crate) fn output(input: Input) -> OutputRef {
    match input {
        Input::Output(output) => output,
        Input::Scratch => panic!("no output"),
    }
}

fn copy(from: Input, source: &str, target: &str) -> FileAction {
    FileAction::Copy(Box::new(CopyAction {
        from,
        source: source.to_owned(),
        target: target.to_owned(),
        owner: FileOwner::Ids(0, 0),
        mode: None,
        follow_link: true,
        contents_only: true,
        unpack: false,
        make_parents: true,
        wildcard: true,
        allow_empty_wildcard: false,
        include: Vec::new(),
        exclude: Vec::new(),
        parents: false,
        required: Vec::new(),
        replace: false,
        created: None,
    }))
}

fn file(base: Input, action: FileAction) -> Op {
    Op::File(FileOp { base, actions: vec![action] })
}

/// Two stages, of which the second takes a file of the first.
pub(crate) fn two_stages(text: &str, other: &str) -> (Arc<Graph>, OutputRef) {
    let mut graph = Graph::default();
    let first = add(&mut graph, "first", exec(&["write", "made", text], Input::Scratch));
    let first = add(&mut graph, "noise", exec(&["write", "noise", other], first));
    let copied = add(&mut graph, "copy", file(Input::Scratch, copy(first, "/made", "/in/made")));
    let last = add(&mut graph, "last", exec(&["write", "done", "yes"], copied));
    (Arc::new(graph), output(last))
}

pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_second_build_runs_nothing_and_neither_does_the_next_daemons() {
    let world = World::new(Programs::default()).await;
    let (graph, wanted) = two_stages("text", "a");
    let heard = Arc::new(Heard::default());
    let states = world.solver.solve(Arc::clone(&graph), &[wanted], &job(&heard)).await.unwrap();
    assert_eq!(heard.ended(), ["first", "noise", "copy", "last"]);
    let made = world.solver.read_file(&states[0], "/in/made", 100).await.unwrap();
    assert_eq!(made.unwrap(), b"text");
    let world = world.again(Programs::default()).await;
    let heard = Arc::new(Heard::default());
    let again = world.solver.solve(graph, &[wanted], &job(&heard)).await.unwrap();
    assert_eq!(heard.ended(), ["first*", "noise*", "copy*", "last*"]);
    assert!(world.ran().is_empty());
    assert_eq!(again[0].layers(), states[0].layers());
    // What is copied is the same, though the state it comes from is not.
    let (graph, wanted) = two_stages("text", "b");
    let heard = Arc::new(Heard::default());
    world.solver.solve(graph, &[wanted], &job(&heard)).await.unwrap();
    assert_eq!(heard.ended(), ["first*", "noise", "copy*", "last*"]);
    eventually("no snapshot stays", || world.snapshots() == 0).await;
}

#[tokio::test]
async fn what_is_not_needed_does_not_run_and_what_must_run_does() {
    let world = World::new(Programs::default()).await;
    let mut graph = Graph::default();
    add(&mut graph, "unneeded", exec(&["fail", "1"], Input::Scratch));
    let wanted = add(&mut graph, "wanted", exec(&["write", "x", "y"], Input::Scratch));
    let heard = Arc::new(Heard::default());
    let graph = Arc::new(graph);
    for _ in 0..2 {
        world.solver.solve(Arc::clone(&graph), &[output(wanted)], &job(&heard)).await.unwrap();
    }
    assert_eq!(heard.ended(), ["wanted", "wanted*"]);
    let mut forced = Graph::default();
    for (_, vertex) in graph.vertices() {
        let mut vertex = vertex.clone();
        vertex.ignore_cache = true;
        forced.add(vertex).unwrap();
    }
    world.solver.solve(Arc::new(forced), &[output(wanted)], &job(&heard)).await.unwrap();
    assert_eq!(world.ran(), ["write x y", "write x y"]);
}

#[tokio::test]
async fn every_failure_tells_its_step_and_poisons_nothing() {
    for failing in 0..4 {
        let world = World::new(Programs::default()).await;
        let build = |failing: usize| {
            let mut graph = Graph::default();
            let mut last = Input::Scratch;
            for number in 0..4 {
                let name = number.to_string();
                let args: &[&str] =
                    if number == failing { &["fail", "7"] } else { &["write", &name, &name] };
                last = add(&mut graph, &name, exec(args, last));
            }
            (Arc::new(graph), output(last))
        };
        let (graph, wanted) = build(failing);
        let heard = Arc::new(Heard::default());
        let error = world.solver.solve(graph, &[wanted], &job(&heard)).await.unwrap_err();
        assert!(matches!(error, Error::Step { code: 7, .. }), "{error}");
        assert_eq!(heard.ended().last().unwrap(), &format!("{failing}!"));
        eventually("no snapshot stays", || world.snapshots() == 0).await;
        // What was finished before is known, what failed is not.
        let heard = Arc::new(Heard::default());
        let (graph, wanted) = build(9);
        world.solver.solve(graph, &[wanted], &job(&heard)).await.unwrap();
        let shown =
            (0..4).map(|number| format!("{number}{}", if number < failing { "*" } else { "" }));
        assert_eq!(heard.ended(), shown.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn independent_steps_run_at_the_same_time() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::new(Programs { gate: Some(Arc::clone(&gate)), ..Programs::default() }).await;
    let mut graph = Graph::default();
    let all = ["a", "b", "c"]
        .map(|name| output(add(&mut graph, name, exec(&["write", name, name], Input::Scratch))));
    let heard = Arc::new(Heard::default());
    let (solver, job) = (world.solver.clone(), job(&heard));
    let solving = tokio::spawn(async move { solver.solve(Arc::new(graph), &all, &job).await });
    eventually("all three run", || world.programs.highest.load(Ordering::SeqCst) == 3).await;
    gate.add_permits(3);
    assert_eq!(solving.await.unwrap().unwrap().len(), 3);
}

#[tokio::test]
async fn the_same_step_of_two_builds_runs_once_and_ends_with_the_last_of_them() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::new(Programs { gate: Some(Arc::clone(&gate)), ..Programs::default() }).await;
    let start = || {
        let mut graph = Graph::default();
        let wanted = add(&mut graph, "same", exec(&["say", "hello"], Input::Scratch));
        let heard = Arc::new(Heard::default());
        let (solver, job) = (world.solver.clone(), job(&heard));
        let wanted = output(wanted);
        let solving =
            tokio::spawn(async move { solver.solve(Arc::new(graph), &[wanted], &job).await });
        (solving, heard)
    };
    let (first, heard_first) = start();
    eventually("it runs", || world.ran().len() == 1).await;
    let (second, heard_second) = start();
    eventually("the second waits", || heard_second.0.lock().unwrap().len() == 1).await;
    eventually("the second has joined the work", || world.solver.waiting() == 2).await;
    // The first one goes, and the work goes on for the second.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(world.programs.dropped.load(Ordering::SeqCst), 0);
    gate.add_permits(1);
    second.await.unwrap().unwrap();
    assert_eq!((world.ran().len(), heard_second.logs().as_str()), (1, "hello"));
    assert_eq!(heard_first.ended(), Vec::<String>::new());

    let (third, _) = {
        let mut graph = Graph::default();
        let wanted = output(add(&mut graph, "other", exec(&["say", "bye"], Input::Scratch)));
        let heard = Arc::new(Heard::default());
        let (solver, job) = (world.solver.clone(), job(&heard));
        (tokio::spawn(async move { solver.solve(Arc::new(graph), &[wanted], &job).await }), heard)
    };
    eventually("it runs", || world.ran().len() == 2).await;
    third.abort();
    eventually("it ends", || world.programs.dropped.load(Ordering::SeqCst) == 1).await;
    eventually("no snapshot stays", || world.snapshots() == 0).await;
}

#[tokio::test]
async fn a_cancelled_build_stops_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::new(Programs { gate: Some(gate), ..Programs::default() }).await;
    let (graph, wanted) = two_stages("x", "y");
    let heard = Arc::new(Heard::default());
    let job = job(&heard);
    let token = job.cancel.clone();
    let solver = world.solver.clone();
    let solving = tokio::spawn(async move { solver.solve(graph, &[wanted], &job).await });
    eventually("it runs", || world.ran().len() == 1).await;
    token.cancel();
    assert!(matches!(solving.await.unwrap(), Err(Error::Cancelled)));
    eventually("the program ends", || world.programs.dropped.load(Ordering::SeqCst) == 1).await;
    eventually("no snapshot stays", || world.snapshots() == 0).await;
    assert_eq!(world.layer_count(), 0);
}

#[tokio::test]
async fn why_a_step_runs_is_told() {
    let world = World::new(Programs::default()).await;
    let explained = async |text: &str, args: &[&str]| {
        let mut graph = Graph::default();
        let write = FileAction::MakeFile {
            path: "/data".to_owned(),
            data: text.into(),
            mode: 0o644,
            owner: FileOwner::Keep,
        };
        let made = add(&mut graph, "make", file(Input::Scratch, write));
        let taken = add(&mut graph, "take", file(Input::Scratch, copy(made, "/", "/in")));
        let last = output(add(&mut graph, "run", exec(args, taken)));
        let heard = Arc::new(Heard::default());
        let mut job = job(&heard);
        job.explain = true;
        world.solver.solve(Arc::new(graph), &[last], &job).await.unwrap();
        heard.logs()
    };
    let first = explained("one", &["write", "a", "b"]).await;
    assert_eq!(first, "why: no step of this name ran before\n".repeat(3));
    assert_eq!(explained("one", &["write", "a", "b"]).await, "");
    let changed = explained("two", &["write", "a", "b"]).await;
    assert!(
        changed.contains("why: /data changed\n") || changed.contains("data changed\n"),
        "{changed}"
    );
    assert!(changed.contains("why: the base (take) changed\n"), "{changed}");
    let argument = explained("two", &["write", "a", "c"]).await;
    assert_eq!(argument, "why: command changed from \"write a b\" to \"write a c\"\n");
}

#[tokio::test]
async fn steps_that_are_alike_are_not_taken_for_each_other() {
    let world = World::new(Programs::default()).await;
    let explained = async |text: &str| {
        let mut graph = Graph::default();
        let first = add(&mut graph, "[a 1/3] RUN say", exec(&["say", "hello"], Input::Scratch));
        let middle = add(&mut graph, "[a 2/3] RUN write", exec(&["write", "x", text], first));
        let last = output(add(&mut graph, "[a 3/3] RUN say", exec(&["say", "hello"], middle)));
        let heard = Arc::new(Heard::default());
        let mut job = job(&heard);
        job.explain = true;
        world.solver.solve(Arc::new(graph), &[last], &job).await.unwrap();
        heard.logs()
    };
    explained("one").await;
    let changed = explained("two").await;
    assert!(changed.contains("why: the base ([a] RUN write) changed\n"), "{changed}");
    assert!(!changed.contains("the base changed"), "{changed}");
}

#[tokio::test]
async fn records_are_pruned_the_oldest_first_and_made_anew() {
    let world = World::new(Programs::default()).await;
    let (graph, wanted) = two_stages("text", "a");
    let heard = Arc::new(Heard::default());
    world.solver.solve(Arc::clone(&graph), &[wanted], &job(&heard)).await.unwrap();
    let before = world.solver.usage().await.unwrap();
    assert!(before.iter().any(|entry| entry.description == "last" && entry.size > 0));
    let all = world.solver.prune(PruneRequest::default()).await.unwrap();
    assert_eq!(all.ids.len(), before.len());
    assert!(world.solver.usage().await.unwrap().is_empty());
    let heard = Arc::new(Heard::default());
    world.solver.solve(graph, &[wanted], &job(&heard)).await.unwrap();
    assert_eq!(heard.ended(), ["first", "noise", "copy", "last"]);
    assert!(world.path().join("build/mirrors").is_dir());
}

use std::time::{Duration, UNIX_EPOCH};

use rorqual_buildkit::{LogNews, StatusNews, VertexNews};

use super::frame::{Room, frame};
use super::*;

fn at(tenths: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(tenths * 100)
}

fn vertex(digest: &str, name: &str, started: u64, completed: Option<u64>) -> VertexNews {
    VertexNews {
        digest: digest.to_owned(),
        name: name.to_owned(),
        started: Some(at(started)),
        completed: completed.map(at),
        ..VertexNews::default()
    }
}

fn log(digest: &str, tenths: u64, text: &str) -> LogNews {
    LogNews { vertex: digest.to_owned(), stream: 1, at: at(tenths), data: text.as_bytes().to_vec() }
}

/// A build that loads, finds something in the cache, runs two steps at a time, and fails.
fn story() -> Vec<News> {
    let transfer = StatusNews {
        id: "transferring dockerfile:".to_owned(),
        vertex: "a".to_owned(),
        current: 97,
        started: Some(at(0)),
        completed: Some(at(1)),
        ..StatusNews::default()
    };
    let cached = VertexNews { cached: true, ..vertex("b", "[1/3] FROM base", 1, Some(1)) };
    let failed = VertexNews {
        error: "process \"/bin/sh -c make\" did not complete successfully: exit code: 2".to_owned(),
        ..vertex("c", "[2/3] RUN make", 2, Some(9))
    };
    let stopped = VertexNews {
        error: "context canceled".to_owned(),
        ..vertex("d", "[3/3] RUN sleep", 3, Some(9))
    };
    vec![
        News {
            vertices: vec![vertex("a", "[internal] load build definition", 0, None)],
            ..News::default()
        },
        News {
            vertices: vec![vertex("a", "[internal] load build definition", 0, Some(1)), cached],
            statuses: vec![transfer],
            ..News::default()
        },
        News {
            vertices: vec![
                vertex("c", "[2/3] RUN make", 2, None),
                vertex("d", "[3/3] RUN sleep", 3, None),
            ],
            logs: vec![log("c", 4, "cc main.c\nmain.c:1: er"), log("d", 5, "zzz\n")],
            ..News::default()
        },
        News {
            vertices: vec![failed, stopped],
            logs: vec![log("c", 8, "ror\n")],
            ..News::default()
        },
    ]
}

#[test]
fn lines_of_a_build() {
    let (mut model, mut plain, mut text) = (Model::default(), Plain::default(), String::new());
    for news in story() {
        model.take(&news);
        text.push_str(&plain.take(&model, &news));
    }
    text.push_str(&plain.end(&model));
    insta::assert_snapshot!(text, @r#"
    #1 [internal] load build definition
    #1 transferring dockerfile: 97B 0.1s done
    #1 DONE 0.1s

    #2 [1/3] FROM base
    #2 CACHED

    #3 [2/3] RUN make
    #3 0.200 cc main.c
    #3 0.200 main.c:1: error
    #3 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2

    #4 [3/3] RUN sleep
    #4 0.200 zzz
    #4 CANCELED
    "#);
}

fn drawn(news: &[News], width: usize, height: usize, ended: bool) -> String {
    let mut model = Model::default();
    model.began = Some(at(0));
    for news in news {
        model.take(news);
    }
    model.ended = ended.then(|| at(10));
    frame(&model, Room { width, height, has_colour: false }, at(7)).join("\n")
}

#[test]
fn a_picture_of_a_build_at_work() {
    insta::assert_snapshot!(drawn(&story()[..3], 60, 20, false), @r"
    [+] Building 0.7s (2/4)                       docker:default
     => [internal] load build definition                    0.1s
     => => transferring dockerfile: 97B                     0.1s
     => CACHED [1/3] FROM base                              0.0s
     => [2/3] RUN make                                      0.5s
     => => # cc main.c
     => [3/3] RUN sleep                                     0.4s
     => => # zzz
    ");
}

#[test]
fn a_picture_of_a_build_that_failed() {
    insta::assert_snapshot!(drawn(&story(), 40, 20, true), @r"
    [+] Building 1.0s (4/4... docker:default
     => [internal] load build defini... 0.1s
     => => transferring dockerfile: 97B 0.1s
     => CACHED [1/3] FROM base          0.0s
     => ERROR [2/3] RUN make            0.7s
     => CANCELED [3/3] RUN sleep        0.6s
    ");
}

#[test]
fn little_room_keeps_what_is_at_work() {
    insta::assert_snapshot!(drawn(&story()[..3], 60, 6, false), @r"
    [+] Building 0.7s (2/4)                       docker:default
     => [2/3] RUN make                                      0.5s
     => => # cc main.c
     => [3/3] RUN sleep                                     0.4s
     => => # zzz
    ");
}

#[test]
fn output_cannot_move_the_cursor() {
    let news = [
        News { vertices: vec![vertex("a", "RUN", 0, None)], ..News::default() },
        News { logs: vec![log("a", 1, "\x1b[2Jevil\rover\n")], ..News::default() },
    ];
    let shown = drawn(&news, 60, 20, false);
    assert!(!shown.contains(['\x1b', '\r']), "{shown:?}");
}

#[test]
fn excerpts_mark_lines() {
    insta::assert_snapshot!(excerpt("Dockerfile", "FROM x\nRUN a\nRUN false\nRUN b\n", &[(3, 3)]), @r"
    Dockerfile:3
    --------------------
       1 |     FROM x
       2 |     RUN a
       3 | >>> RUN false
       4 |     RUN b
       5 |     
    --------------------
    ");
    assert_eq!(excerpt("x", "a", &[(9, 9)]), "");
}

#[test]
fn raw_news_are_documents() {
    let text = raw(&story()[1]);
    assert!(text.contains("\"name\":\"[1/3] FROM base\""), "{text}");
    assert!(text.contains("\"cached\":true") && text.contains("\"current\":97"), "{text}");
    assert!(text.ends_with("}\n"));
}

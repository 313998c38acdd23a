//! Hostile and broken input: it ends, it does not panic, and it is refused with words.

use proptest::prelude::*;

use super::*;

#[test]
fn sizes_are_bounded() {
    let long = format!("FROM a\nRUN {}\n", "x".repeat(70_000));
    assert_eq!(refusal(&long), "2: dockerfile line greater than max allowed size of 65535");
    assert!(
        refusal(&"RUN x\n".repeat(10_001).replacen("RUN x", "FROM a", 1))
            .contains("more than the 10000 instructions")
    );
    assert!(refusal(&"FROM a\n".repeat(1001)).contains("more than 1000 stages"));
    assert!(
        refusal(&format!("FROM a\n{}", "#".repeat(MAX_SOURCE))).contains("a Dockerfile may have")
    );
    let doubling: Vec<_> = (0..30).map(|n| format!("ENV a{}=$a{n}$a{n}\n", n + 1)).collect();
    let doubling = doubling.concat();
    assert!(refusal(&format!("FROM a\nENV a0=xxxxxxxx\n{doubling}")).contains("longer than"));
    let nested = format!("FROM a\nONBUILD {}RUN x\n", "ONBUILD ".repeat(5000));
    assert!(refusal(&nested).contains("Chaining ONBUILD"));
}

#[test]
fn a_chain_of_many_stages_is_walked_without_recursion() {
    let stages: Vec<_> = (1..900)
        .map(|n| format!("FROM s{} AS s{n}\nCOPY --from=s{} /x /\n", n - 1, n - 1))
        .collect();
    let result = build(&format!("FROM a AS s0\n{}", stages.concat()));
    assert!(result.graph.vertices().len() > 800);
}

const SEEDS: [&str; 4] = [
    "# escape=`\nFROM a AS b\nRUN <<E `\nx\nE\nCOPY --from=b [\"x\", \"y\"]\n",
    "ARG X=${Y:-z}\nFROM --platform=$BUILDPLATFORM a$X\nENV A=\"b c\" D='e'\nLABEL x y\n",
    "FROM a\nHEALTHCHECK --interval=1s CMD [\"x\"]\nONBUILD COPY <<A /\nhi\nA\nEXPOSE 1-3/udp\nVOLUME [\"/a\"]\n",
    "FROM a\nRUN --mount=type=cache,target=/x,id=$y --mount=type=secret,id=k,env=E \\\n # c\n\n make\nADD --checksum=sha256:0 http://h/p q\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutations_never_panic(
        seed in 0..SEEDS.len(), cuts in prop::collection::vec((any::<prop::sample::Index>(), "[ -~\\n\\t\u{feff}é]{0,4}", 0_usize..6), 1..6),
    ) {
        let mut text: Vec<char> = SEEDS[seed].chars().collect();
        for (at, insert, remove) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let _ = build_with(&request(&text), &Fake::default());
        let _ = run(lint(&request(&text), &Fake::default()));
    }
}

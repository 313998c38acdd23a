use super::*;

fn nodes(text: &str) -> Vec<Node> {
    let source = SourceFile { name: "Dockerfile".to_owned(), text: text.to_owned() };
    parse(&source).unwrap().nodes
}

#[test]
fn lines_are_joined_and_comments_left_out() {
    let nodes = nodes(
        "\u{feff}# syntax=x\n\n  FROM a \\\n# comment\n   AS b\r\nRUN x \\  \n  y\\\\\nCMD z\n",
    );
    let seen: Vec<_> = nodes
        .iter()
        .map(|node| (&*node.original, node.place().first_line, node.place().last_line))
        .collect();
    assert_eq!(seen, [("FROM a    AS b", 3, 5), ("RUN x   y\\\\", 6, 7), ("CMD z", 8, 8)]);
    assert_eq!(nodes[0].args, ["a", "AS", "b"]);
}

#[test]
fn the_escape_can_be_another() {
    let nodes = nodes("# escape=`\nFROM a\nRUN dir c:\\ `\n  x\n");
    assert_eq!(nodes[1].args, ["dir c:\\   x"]);
}

#[test]
fn arguments_are_read_in_their_own_way() {
    for (line, args, json) in [
        ("COPY  a\tb", &["a", "b"][..], false),
        ("COPY [\"a b\", \"c\"]", &["a b", "c"], true),
        ("RUN [ \"a\" ]", &["a"], true),
        ("RUN [\"a\"", &["[\"a\""], false),
        ("RUN [a, b]", &["[a, b]"], false),
        (
            "ENV a=b c=\"d e\" f=g\\ h",
            &["a", "b", "=", "c", "\"d e\"", "=", "f", "g\\ h", "="],
            false,
        ),
        ("ENV a  b c", &["a", "b c", ""], false),
        ("LABEL \"x y\"=z", &["\"x y\"", "z", "="], false),
        ("ARG a b=c \"d\"", &["a", "b=c", "\"d\""], false),
        ("HEALTHCHECK CMD [\"x\"]", &["CMD", "x"], true),
        ("HEALTHCHECK   CMD x y", &["CMD", "x y"], false),
        ("ONBUILD COPY a b", &["COPY", "a", "b"], false),
        ("USER a b", &["a b"], false),
        ("WORKDIR", &[], false),
    ] {
        let found = &nodes(line)[0];
        assert_eq!(
            (found.args.iter().map(String::as_str).collect::<Vec<_>>(), found.json),
            (args.to_vec(), json),
            "{line}"
        );
    }
}

#[test]
fn flags_end_where_words_begin() {
    let node = &nodes("COPY --chown=\"a b\" --link --x='y' -- --not a")[0];
    assert_eq!(node.flags, ["--chown=a b", "--link", "--x=y"]);
    assert_eq!(node.args, ["--not", "a"]);
}

#[test]
fn heredocs_follow_their_line() {
    let nodes = nodes(
        "FROM a\nRUN 3<<-\"E O\" cat <<B\n\t\tone\n\tE O\ntwo $x\nB\nRUN echo \"<<no\"\nCOPY << EOF /\n# kept \\\nEOF\nRUN [\"<<E\"]\n",
    );
    let first = &nodes[1].heredocs;
    assert_eq!(
        (&*first[0].name, first[0].expand, first[0].chomp, &*first[0].body()),
        ("E O", false, true, "one\n")
    );
    assert_eq!((&*first[1].name, first[1].expand, &*first[1].content), ("B", true, "two $x\n"));
    assert_eq!(nodes[2].heredocs, []);
    assert_eq!(nodes[3].heredocs[0].content, "# kept \\\n");
    assert_eq!(nodes[4].heredocs, []);
}

#[test]
fn comments_above_belong_to_the_instruction() {
    let nodes = nodes("# escape=\\\n# one\n#\n# two\nFROM a\n# three\n\nRUN x\n");
    assert_eq!(nodes[0].comments, ["two"]);
    assert_eq!(nodes[1].comments, ["three"]);
}

//! One snapshot for each instruction and each way of connecting stages.

use super::*;

#[test]
fn a_plain_file() {
    let result = build(
        "FROM debian:sid\nENV A=1 B=\"two words\" C=$A\nENV D=$A\nLABEL x=y\nARG V=3\nRUN echo $V\n\
         WORKDIR /src\nCOPY . .\nCOPY a b c/\nUSER app\nEXPOSE 80 53/udp 90-91\nVOLUME /data\nSTOPSIGNAL SIGTERM\n\
         HEALTHCHECK --interval=5m --retries=2 CMD curl -f http://x\nSHELL [\"/bin/bash\", \"-c\"]\n\
         ENTRYPOINT [\"/app\"]\nCMD echo hi\nONBUILD RUN make\nMAINTAINER me <me@x>\n",
    );
    insta::assert_snapshot!(show(&result));
}

#[test]
fn scratch_with_one_file() {
    insta::assert_snapshot!(show(&build("FROM scratch\nCOPY hello /\nCMD [\"/hello\"]\n")));
}

#[test]
fn stages() {
    let result = build(
        "ARG TAG=sid\nFROM debian:${TAG} AS builder\nWORKDIR /src\nCOPY go.mod main.go ./\nRUN make\n\
         FROM builder AS test\nRUN make test\n\
         FROM alpine AS unused\nRUN false\n\
         FROM debian:sid-slim\nCOPY --from=builder --chown=1:2 --chmod=755 /src/app /usr/bin/\n\
         COPY --from=nginx:1 /etc/nginx/nginx.conf /\nCOPY --from=0 /x /y\n",
    );
    insta::assert_snapshot!(show(&result));
}

#[test]
fn every_kind_of_mount() {
    let result = build(
        "FROM alpine AS tools\nFROM debian\nWORKDIR /w\n\
         RUN --mount=target=/ctx,source=sub --mount=type=bind,from=tools,target=t,rw \
         --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,id=x,target=/c,uid=5,mode=0700 \
         --mount=type=tmpfs,target=/tmp,size=1m --mount=type=secret,id=key,required \
         --mount=type=secret,id=tok,env=TOKEN --mount=type=ssh --network=none --security=insecure make\n",
    );
    insta::assert_snapshot!(show(&result));
}

#[test]
fn heredocs() {
    let result = build(
        "FROM debian\nARG who=you\nRUN <<EOF\necho a\necho $who\nEOF\n\
         RUN <<-'SCRIPT'\n\t#!/usr/bin/python3\n\tprint(1)\n\tSCRIPT\n\
         RUN cat <<A >/a && cat <<B >/b\nfirst\nA\nsecond\nB\n\
         COPY <<one <<'two' /dir/\nhello $who\none\nliteral $who\ntwo\n",
    );
    insta::assert_snapshot!(show(&result));
}

#[test]
fn adding() {
    let result = build(
        "FROM debian\nADD a.tar.gz /\nADD --unpack=false b.tar /\n\
         ADD --checksum=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa https://example.com/x/file.tgz?q=1 /opt/\n\
         ADD https://example.com/ /opt/\n\
         ADD --keep-git-dir --checksum=abcd https://github.com/a/b.git#v1:sub /src\nADD --link --exclude=*.md c d /x/\n",
    );
    insta::assert_snapshot!(show(&result));
}

#[test]
fn copying_with_parents_and_links() {
    let result = build(
        "FROM scratch\nCOPY --parents ./x/a.txt /out/\nCOPY --parents src/./**/*.c /c/\nCOPY --link a /b\nCOPY [\"with space\", \"/d/\"]\n",
    );
    insta::assert_snapshot!(show(&result));
}

#[test]
fn triggers_of_a_base_image() {
    let mut base = base_image();
    base.config.on_build = Some(vec![
        "COPY . /app".to_owned(),
        "RUN make -C /app".to_owned(),
        "COPY --from=tools /t /".to_owned(),
    ]);
    let fake = Fake {
        images: BTreeMap::from([("docker.io/library/onbuild:latest", base)]),
        ..Fake::default()
    };
    let text = "FROM alpine AS tools\nFROM onbuild\nRUN true\n";
    insta::assert_snapshot!(show(&build_with(&request(text), &fake).unwrap()));
}

#[test]
fn triggers_between_stages() {
    insta::assert_snapshot!(show(&build(
        "FROM debian AS a\nONBUILD RUN one\nONBUILD ENV x=y\nFROM a\nRUN two\n"
    )));
}

#[test]
fn several_platforms() {
    let mut request = request(
        "FROM --platform=$BUILDPLATFORM golang AS b\nARG TARGETARCH\nCOPY . .\nRUN build $TARGETARCH\nFROM debian\nCOPY --from=b /a /a\n",
    );
    request.options.platforms =
        vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
    let result = build_with(&request, &Fake::default()).unwrap();
    assert!(result.multi_platform);
    insta::assert_snapshot!(show(&result));
}

#[test]
fn named_contexts() {
    let mut request = request(
        "FROM base\nCOPY --from=files a/b /\nCOPY --from=lay /x /\nRUN --mount=from=repo,target=/r make\nFROM unused AS replaced\n",
    );
    request.options.target = String::new();
    request.source.text = "FROM stage1 AS replaced\nRUN never\nFROM base\nCOPY --from=files a/b /\nCOPY --from=lay /x /\nCOPY --from=replaced /y /\nRUN --mount=from=repo,target=/r make\n".to_owned();
    for (name, value) in [
        ("base", "docker-image://docker.io/library/alpine:3"),
        ("files", "local:files"),
        ("lay", &format!("oci-layout://store@sha256:{}", "ef".repeat(32))),
        ("replaced", "docker-image://busybox"),
        ("repo", "https://example.com/r.git#main"),
    ] {
        request.options.named_contexts.insert(name.to_owned(), value.to_owned());
    }
    let fake = Fake { files: BTreeMap::from([(".dockerignore", "*.md\n")]), ..Fake::default() };
    insta::assert_snapshot!(show(&build_with(&request, &fake).unwrap()));
    insta::assert_snapshot!("named_contexts_labels", fake.asked.lock().unwrap().join("\n"));
}

#[test]
fn the_target_decides_what_is_built() {
    let mut request =
        request("FROM debian AS a\nRUN a\nFROM debian AS b\nRUN b\nFROM a\nCOPY --from=b /x /\n");
    request.options.target = "B".to_owned();
    let names: Vec<String> = build_with(&request, &Fake::default())
        .unwrap()
        .graph
        .vertices()
        .map(|(_, v)| v.name.clone())
        .collect();
    assert_eq!(
        names,
        [
            format!("[b 1/2] FROM docker.io/library/debian:latest@sha256:{}", "ab".repeat(32)),
            "[b 2/2] RUN b".to_owned()
        ]
    );
}

#[test]
fn the_classic_dialect() {
    let mut request = request(
        "FROM debian AS a\nENV X=1\nARG X=2\nRUN echo $X\nFROM debian\nCOPY --chown=1 a /b\nWORKDIR /x\nCMD run\n",
    );
    request.options.dialect = Dialect::Classic;
    let result = build_with(&request, &Fake::default()).unwrap();
    let steps: Vec<_> = result
        .steps
        .iter()
        .map(|step| format!("{} -> {}", step.text, show_input(step.output)))
        .collect();
    insta::assert_snapshot!(format!("{}\n{}", show(&result), steps.join("\n")));
    request.source.text = "FROM a\nRUN --mount=target=/x y\n".to_owned();
    let refused = build_with(&request, &Fake::default()).unwrap_err().to_string();
    assert!(refused.starts_with("the --mount option requires BuildKit. Refer to"), "{refused}");
}

#[test]
fn options_reach_steps_and_image() {
    let mut request = request("FROM debian\nARG SOURCE_DATE_EPOCH\nRUN a\nENV x=y\n");
    let options = &mut request.options;
    options.extra_hosts = vec![("h".into(), "1.2.3.4".into())];
    options.shm_size = Some(64);
    options.ulimits = vec!["nofile=1:2".into()];
    options.no_cache = NoCache::Always;
    options.labels = BTreeMap::from([("l".into(), "v".into())]);
    options.build_args = BTreeMap::from([
        ("SOURCE_DATE_EPOCH".into(), "1700000000".into()),
        ("HTTP_PROXY".into(), "p".into()),
    ]);
    let result = build_with(&request, &Fake::default()).unwrap();
    let exec = result.graph.vertices().find_map(|(_, vertex)| match &vertex.op {
        Op::Exec(exec) => Some((exec.clone(), vertex.ignore_cache)),
        _ => None,
    });
    let (exec, ignore_cache) = exec.unwrap();
    assert!(ignore_cache);
    assert_eq!((exec.shm_size, &*exec.ulimits[0]), (Some(64), "nofile=1:2"));
    assert_eq!(exec.proxy_env, ["HTTP_PROXY=p", "http_proxy=p"]);
    assert_eq!(exec.extra_hosts, [("h".to_owned(), "1.2.3.4".to_owned())]);
    let document = &result.platforms[0].document;
    assert_eq!(document.config.labels.as_ref().unwrap()["l"], "v");
    assert_eq!(document.history[0].created, "2023-11-14T22:13:20Z");
    assert_eq!(result.source_date_epoch, Some(1_700_000_000));
    assert_eq!(
        document.history[1].created_by,
        "RUN |1 SOURCE_DATE_EPOCH=1700000000 /bin/sh -c a # buildkit"
    );
}

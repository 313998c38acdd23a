//! Tests of `--change`.

use rorqual_content::ImageConfig;

use super::apply;

fn check(changes: &[&str], expected: Result<&str, &str>) {
    let mut config = ImageConfig::default();
    let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
    let result = apply(&mut config, &changes).map_err(|error| error.to_string());
    let result = result.map(|()| serde_json::to_string(&config).unwrap());
    assert_eq!(result.as_deref().map_err(String::as_str), expected);
}

#[test]
fn instructions() {
    check(&["CMD [\"a\",\"b\"]"], Ok(r#"{"Cmd":["a","b"]}"#));
    check(&["cmd echo hi"], Ok(r#"{"Cmd":["/bin/sh","-c","echo hi"]}"#));
    check(
        &["ENV A=1 B=\"two words\"", "ENV C three four"],
        Ok(r#"{"Env":["A=1","B=two words","C=three four"]}"#),
    );
    check(
        &["EXPOSE 80-81 53/udp"],
        Ok(r#"{"ExposedPorts":{"53/udp":{},"80/tcp":{},"81/tcp":{}}}"#),
    );
    check(&["LABEL a=b"], Ok(r#"{"Labels":{"a":"b"}}"#));
    check(&["WORKDIR /a", "WORKDIR b"], Ok(r#"{"WorkingDir":"/a/b"}"#));
    check(&["USER me", "STOPSIGNAL SIGINT"], Ok(r#"{"User":"me","StopSignal":"SIGINT"}"#));
    check(&["VOLUME /a /b"], Ok(r#"{"Volumes":{"/a":{},"/b":{}}}"#));
    check(
        &["HEALTHCHECK --interval=5s --retries=2 CMD true"],
        Ok(r#"{"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":2}}"#),
    );
    check(&["RUN true"], Err("RUN is not a valid change command"));
    check(&["CMD"], Err("CMD requires at least one argument"));
    check(&["ENV A=\"open"], Err("unexpected end of statement while looking for matching quote"));
}

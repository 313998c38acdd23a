//! Requests of clients as the engine sees them.

use rorqual_engine::spec::{ContainerSpec, HealthSpec, NetworkMode, RestartPolicy, StopTimeout};

use super::container_spec;

fn spec(json: &str) -> Result<ContainerSpec, String> {
    let request = rorqual_api::from_slice(json.as_bytes()).map_err(|error| error.to_string())?;
    container_spec(request, "/web", "linux/amd64").map_err(|error| error.to_string())
}

#[test]
fn zeros_and_empty_texts_vanish() {
    let spec = spec(
        r#"{"Image":"a","StopSignal":"","HostConfig":{"Memory":0,"PidsLimit":-1,"CpusetCpus":""}}"#,
    )
    .unwrap();
    assert_eq!(spec.name.unwrap().as_str(), "web");
    assert_eq!(
        (spec.resources.memory, spec.resources.pids, spec.resources.cpuset_cpus),
        (None, None, None)
    );
    assert_eq!((spec.process.stop_signal, spec.healthcheck, spec.log), (None, None, None));
    assert_eq!(spec.network.mode, NetworkMode::Default);
}

#[test]
fn values_are_parsed() {
    let spec = spec(
        r#"{"Image":"a","Cmd":"ls","StopSignal":"SIGINT","StopTimeout":-1,"ExposedPorts":{"80/tcp":{},"90-91/udp":{}},
        "Healthcheck":{"Test":["NONE"]},
        "HostConfig":{"NetworkMode":"container:x","RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},
        "PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8000-8010"}]},"ConsoleSize":[24,80]}}"#,
    )
    .unwrap();
    assert_eq!(spec.process.cmd, Some(vec!["ls".to_owned()]));
    assert_eq!(spec.process.stop_signal.map(rorqual_core::Signal::number), Some(2));
    assert_eq!(spec.process.stop_timeout, Some(StopTimeout::Never));
    assert_eq!((spec.process.window.height, spec.process.window.width), (24, 80));
    assert_eq!(spec.network.exposed.len(), 3);
    assert_eq!(spec.network.published[0].host, (8000, 8010));
    assert_eq!(spec.network.mode, NetworkMode::Container("x".to_owned()));
    assert_eq!(spec.restart, RestartPolicy::OnFailure(3));
    assert_eq!(spec.healthcheck, Some(HealthSpec::Disabled));
}

#[test]
fn ports_are_kept_once_unless_their_spelling_would_be_lost() {
    for (bindings, kept) in [
        (r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#, false),
        (r#"{"80/tcp":[{"HostIp":"::1","HostPort":""},{"HostIp":"","HostPort":"81-82"}]}"#, false),
        (r#"{"80":[{"HostIp":"","HostPort":"8080"}]}"#, true),
        (r#"{"80/tcp":[{"HostIp":"::0","HostPort":"8080"}]}"#, true),
        (r#"{"80/tcp":[{"HostIp":"","HostPort":"08080"}]}"#, true),
        (r#"{"80/tcp":null}"#, true),
        ("{}", true),
    ] {
        let text = format!(r#"{{"Image":"a","HostConfig":{{"PortBindings":{bindings}}}}}"#);
        let spec = spec(&text).unwrap();
        let bindings = serde_json::from_str::<serde_json::Value>(bindings).unwrap();
        let echoed = &spec.echo.0["HostConfig"]["PortBindings"];
        let shown = match kept {
            true => echoed.clone(),
            false => {
                assert!(echoed.is_null(), "{echoed}");
                serde_json::to_value(network::bindings(&spec.network.published)).unwrap()
            }
        };
        assert_eq!(shown, bindings);
    }
}

#[test]
fn the_impossible_is_refused() {
    for (json, words) in [
        ("{}", "no command specified"),
        (r#"{"Image":"a","WorkingDir":"x"}"#, "needs to be an absolute path"),
        (r#"{"Image":"a","StopSignal":"SIGWHAT"}"#, "invalid signal: SIGWHAT"),
        (
            r#"{"Image":"a","Healthcheck":{"Interval":5}}"#,
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (r#"{"Image":"a","Healthcheck":{"Test":["WHAT"]}}"#, "Unknown healthcheck type 'WHAT'"),
        (r#"{"Image":"a","ExposedPorts":{"80/what":{}}}"#, "unknown protocol"),
        (
            r#"{"Image":"a","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}"#,
            "unknown policy 'sometimes'",
        ),
        (
            r#"{"Image":"a","HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":1}}}"#,
            "can only be used with 'on-failure'",
        ),
        (r#"{"Image":"a","HostConfig":{"OomScoreAdj":2000}}"#, "Invalid value 2000"),
        (r#"{"Image":"a","HostConfig":{"ShmSize":-1}}"#, "SHM size"),
        (r#"{"Image":"a","HostConfig":{"IpcMode":"what"}}"#, "invalid IPC mode: what"),
        (r#"{"Image":"a","HostConfig":{"Isolation":"hyperv"}}"#, "linux only supports 'default'"),
        (
            r#"{"Image":"a","HostConfig":{"DeviceRequests":[{"Driver":"","Capabilities":[["gpu"]]}]}}"#,
            "could not select device driver \"\" with capabilities: [[gpu]]",
        ),
        (r#"{"Image":"a","HostConfig":{"StorageOpt":{"what":"1"}}}"#, "Unknown option what"),
        (r#"{"Image":"a","HostConfig":{"Dns":["what"]}}"#, "bad nameserver address what"),
        (r#"{"Image":"a","HostConfig":{"ExtraHosts":["a:b"]}}"#, "invalid IP address in add-host"),
    ] {
        let error = spec(json).expect_err(json);
        assert!(error.contains(words), "{json}: {error}");
    }
}

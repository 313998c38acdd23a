use oci_spec::runtime::LinuxSchedulerFlag as Flag;

use super::*;

#[test]
fn unknown_capabilities_are_told_once_and_left_out() {
    let text = br#"{"ociVersion": "1.2.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities":
        {"bounding": ["CAP_KILL", "CAP_FLY"], "effective": ["CAP_FLY", "CAP_CHOWN"]}}}"#;
    let (spec, warnings) = spec(text).unwrap();
    assert_eq!(warnings, [r#"unknown capability "CAP_FLY" is left out"#]);
    let process = spec.process().clone().unwrap();
    let sets = process.capabilities().clone().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    assert_eq!(sets.effective().as_ref().unwrap().len(), 1);
}

/// Every name that the specification lists for a scheduler.
#[test]
fn scheduler_names_are_the_specification_s() {
    let flags = [
        ("SCHED_FLAG_RESET_ON_FORK", Flag::SchedResetOnFork),
        ("SCHED_FLAG_RECLAIM", Flag::SchedFlagReclaim),
        ("SCHED_FLAG_DL_OVERRUN", Flag::SchedFlagDLOverrun),
        ("SCHED_FLAG_KEEP_POLICY", Flag::SchedFlagKeepPolicy),
        ("SCHED_FLAG_KEEP_PARAMS", Flag::SchedFlagKeepParams),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", Flag::SchedFlagUtilClampMin),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", Flag::SchedFlagUtilClampMax),
    ];
    for (name, expected) in flags {
        for policy in ["OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE"] {
            let text = format!(
                r#"{{"cwd": "/", "user": {{"uid": 0, "gid": 0}},
                "scheduler": {{"policy": "SCHED_{policy}", "flags": ["{name}"]}}}}"#
            );
            let (process, _) = process(text.as_bytes()).unwrap();
            let scheduler = process.scheduler().clone().unwrap();
            assert_eq!(scheduler.flags().as_deref(), Some([expected].as_slice()), "{name}");
        }
    }
}

#[test]
fn other_documents_are_refused() {
    let refused = |text: &str| spec(text.as_bytes()).unwrap_err();
    assert_eq!(refused("[]"), "not a JSON object");
    let version = "is not supported: it must be 1.something";
    assert_eq!(refused(r#"{"ociVersion": "2.0.0"}"#), format!(r#"ociVersion "2.0.0" {version}"#));
    assert_eq!(refused("{}"), format!(r#"ociVersion "" {version}"#));
    for version in ["0.2.0", "1.0.2-dev", "1.3.0+dev"] {
        assert!(spec(format!(r#"{{"ociVersion": "{version}"}}"#).as_bytes()).is_ok(), "{version}");
    }
}

#[test]
fn the_older_switches_of_monitoring_are_the_newer_one() {
    for (switches, expected) in [
        (r#""enableCMT": true"#, Some(true)),
        (r#""enableMBM": true, "enableCMT": false"#, Some(true)),
        (r#""enableCMT": false"#, None),
        (r#""enableMonitoring": true"#, Some(true)),
    ] {
        let text = format!(
            r#"{{"ociVersion": "1.2.0", "linux": {{"intelRdt": {{"closID": "gold", "l3CacheSchema": "L3:0=f", {switches}}}}}}}"#
        );
        let (spec, _) = spec(text.as_bytes()).unwrap();
        let rdt = spec.linux().clone().unwrap().intel_rdt().clone().unwrap();
        assert_eq!(*rdt.enable_monitoring(), expected, "{switches}");
        assert_eq!(rdt.clos_id().as_deref(), Some("gold"));
        assert_eq!(rdt.l3_cache_schema().as_deref(), Some("L3:0=f"));
    }
}

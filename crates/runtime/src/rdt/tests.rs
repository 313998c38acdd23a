use std::fs;
use std::path::Path;

use super::*;

/// A directory that looks like the file system; what the kernel would make in a new group is made by the first write.
struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fake.put("schemata", "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n");
        fake.put("info/L3/cbm_mask", "7ff\n");
        fake.put("info/L3/num_closids", "16\n");
        fake.put("info/MB/bandwidth_gran", "10\n");
        fake
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.0.path().join(path).exists()
    }

    fn control(&self) -> Resctrl {
        Resctrl::at(self.0.path())
    }

    fn prepare(&self, document: &serde_json::Value) -> Result<Guard, Error> {
        prepare_in(self.control(), "c1", &serde_json::from_value(document.clone()).unwrap())
    }

    fn refusal(&self, document: &serde_json::Value) -> String {
        self.prepare(document).err().expect("refused").to_string()
    }

    /// The kernel removes a group with the files that are its own.
    fn empty(&self, group: &str) {
        let directory = self.0.path().join(group);
        for name in ["schemata", "tasks"] {
            let _ = fs::remove_file(directory.join(name));
        }
        let _ = fs::remove_dir(directory.join("mon_groups"));
    }
}

#[test]
fn a_class_of_its_own_comes_and_goes_with_the_container() {
    let fake = Fake::new();
    let guard = fake
        .prepare(&json!({
            "l3CacheSchema": "L3:0=f;1=f",
            "memBwSchema": "MB:0=20;1=70",
            "schemata": ["L3:0=7"],
        }))
        .unwrap();
    assert_eq!(fake.read("c1/schemata"), "L3:0=f;1=f\nMB:0=20;1=70\nL3:0=7\n");
    guard.assign(42).unwrap();
    assert_eq!(fake.read("c1/tasks"), "42");
    let membership = guard.keep();
    assert!(fake.has("c1"), "kept");
    let saved = serde_json::to_string(&membership).unwrap();
    let membership: Membership = serde_json::from_str(&saved).unwrap();
    fake.empty("c1");
    membership.remove_in(&fake.control(), membership.owned).unwrap();
    assert!(!fake.has("c1"));
    // Again is no failure.
    membership.remove_in(&fake.control(), membership.owned).unwrap();
}

#[test]
fn a_named_class_stays() {
    let fake = Fake::new();
    let membership =
        fake.prepare(&json!({"closID": "gold", "schemata": ["L3:0=f"]})).unwrap().keep();
    assert!(membership.made && !membership.owned);
    membership.remove_in(&fake.control(), membership.owned).unwrap();
    assert!(fake.has("gold"));
}

#[test]
fn what_is_there_must_fit_and_is_not_changed() {
    let fake = Fake::new();
    let present = "    L3:0=00f;1=7ff\n    MB:0=30;1=100\n";
    fake.put("gold/schemata", present);
    for document in [
        json!({"closID": "gold"}),
        json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}),
        json!({"closID": "gold", "memBwSchema": "MB:0=21", "schemata": ["L3:1=7ff;0=f"]}),
        json!({"closID": "/"}),
    ] {
        let membership = fake.prepare(&document).unwrap().keep();
        assert!(!membership.made && !membership.owned, "{document}");
        assert_eq!(fake.read("gold/schemata"), present, "{document}");
    }
    let text = fake.refusal(&json!({"closID": "gold", "schemata": ["L3:0=1f"]}));
    assert!(text.ends_with("exists and does not have schema \"L3:0=1f\""), "{text}");
    let text = fake.refusal(&json!({"closID": "silver"}));
    assert_eq!(text, "invalid specification: intelRdt: closID \"silver\" does not exist");
    assert!(fake.has("gold") && !fake.has("silver"));
}

#[test]
fn what_is_wrong_is_refused_and_leaves_nothing() {
    let fake = Fake::new();
    for (document, reason) in [
        (json!({"memBwSchema": "L3:0=f"}), "is no line that starts with \"MB:\""),
        (json!({"memBwSchema": "MB:0=10\nL3:0=f"}), "is no line that starts with \"MB:\""),
        (json!({"schemata": ["L3:0=f\nMB:0=10"]}), "schemata has a line feed"),
        (json!({"closID": "../x"}), "invalid name of a resctrl group"),
        (json!({"closID": "info", "schemata": ["L3:0=f"]}), "invalid name of a resctrl group"),
    ] {
        let text = fake.refusal(&document);
        assert!(text.contains(reason), "{document}: {text}");
    }
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(names(fake.0.path()), 2, "info and schemata, as before");
}

#[test]
fn a_monitoring_group_is_the_containers() {
    let fake = Fake::new();
    fake.put("gold/schemata", "L3:0=f\n");
    fs::create_dir(fake.0.path().join("gold/mon_groups")).unwrap();
    let document = json!({"closID": "gold", "enableMonitoring": true});
    drop(fake.prepare(&document).unwrap());
    assert!(!fake.has("gold/mon_groups/c1"), "undone");
    let guard = fake.prepare(&document).unwrap();
    guard.assign(7).unwrap();
    assert_eq!(
        (fake.read("gold/tasks"), fake.read("gold/mon_groups/c1/tasks")),
        ("7".into(), "7".into())
    );
    let membership = guard.keep();
    assert!(fake.refusal(&document).contains("exists already"));
    assert!(fake.has("gold/mon_groups/c1"), "another container's");
    fake.put("gold/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy", "4096\n");
    let stats = membership.stats_in(&fake.control());
    assert_eq!(stats["cmt_stats"], json!([{"llc_occupancy": 4096}]));
    assert_eq!(stats["l3_cache_info"], json!({"cbm_mask": "7ff", "num_closids": 16}));
    assert_eq!(
        (&stats["l3_cache_schema"], &stats["l3_cache_schema_root"]),
        (&json!("L3:0=f"), &json!("L3:0=7ff;1=7ff"))
    );
    fs::remove_dir_all(fake.0.path().join("gold/mon_groups/c1/mon_data")).unwrap();
    fake.empty("gold/mon_groups/c1");
    membership.remove_in(&fake.control(), membership.owned).unwrap();
    assert!(!fake.has("gold/mon_groups/c1") && fake.has("gold"));
}

#[test]
fn a_failure_leaves_a_class_that_another_container_found() {
    let fake = Fake::new();
    let document = json!({"closID": "gold", "schemata": ["L3:0=f"]});
    let first = fake.prepare(&document).unwrap();
    fake.put("gold/tasks", "42\n");
    drop(first);
    assert!(fake.has("gold"));
}

use std::collections::HashSet;

use super::*;

const POLICY: &str = r#"
process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
init_process = "system_u:system_r:container_init_t:s0"
"#;

#[test]
fn contexts_are_read_and_written() {
    for text in ["system_u:system_r:container_t:s0:c1,c2", "u:r:t:s0-s15:c0.c1023", "u:r:t"] {
        assert_eq!(text.parse::<Context>().unwrap().to_string(), text);
    }
    for text in ["", "u", "u:r", "u::t", "u:r:t s", "u:r:t:s0\n", "u:r:\"t\""] {
        assert!(text.parse::<Context>().is_err(), "{text:?}");
    }
    assert!(Contexts::parse("process = \"u:r:t\"\n").is_none());
}

#[test]
fn labels_by_options() {
    let contexts = Contexts::parse(POLICY).unwrap();
    let none = Contexts::parse("process=u:r:t\nfile=u:o:f").unwrap();
    for (options, process, mount) in [
        (
            &[][..],
            "system_u:system_r:container_t:s0:c4,c5",
            "system_u:object_r:container_file_t:s0:c4,c5",
        ),
        (
            &["type:spc_t", "filetype:my_file_t"],
            "system_u:system_r:spc_t:s0:c4,c5",
            "system_u:object_r:my_file_t:s0:c4,c5",
        ),
        (
            &["user:u", "role:r", "level:s0:c100,c200"],
            "u:r:container_t:s0:c100,c200",
            "u:object_r:container_file_t:s0:c100,c200",
        ),
        (&["disable"], "", "system_u:object_r:container_file_t:s0:c1022,c1023"),
        (&["type:x_t", "disable"], "", "system_u:object_r:container_file_t:s0:c1022,c1023"),
    ] {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let labels = choose(&contexts, &options, "s0:c4,c5").unwrap();
        assert_eq!((labels.process.as_str(), labels.mount.as_str()), (process, mount));
    }
    assert_eq!(choose(&none, &[], "s0:c4,c5").unwrap().process, "u:r:t");
    for bad in ["", "x", "type:", "type:a b", "type:a\"", "level:s0\n", "colour:red", "disable:x"] {
        let text = choose(&contexts, &[bad.to_owned()], "s0").unwrap_err();
        assert!(text.starts_with(&format!("bad label option {bad:?}")), "{text}");
    }
}

#[test]
fn others_share_a_label_or_the_files() {
    let contexts = Contexts::parse(POLICY).unwrap();
    let labels = choose(&contexts, &[], "s0:c4,c5").unwrap();
    assert_eq!(labels.shared(), "system_u:object_r:container_file_t:s0");
    assert_eq!(labels.level(), "s0:c4,c5");
    let same = choose(&contexts, &labels.options(), "s0:c6,c7").unwrap();
    assert_eq!(same, labels);
    let nothing = Labels::default();
    assert!(nothing.options().is_empty() && nothing.shared().is_empty() && nothing.is_empty());
}

#[test]
fn all_levels_are_pairs_of_their_own() {
    let pairs = 1022 * 1021 / 2;
    let all: HashSet<String> = (0..pairs).map(level).collect();
    assert_eq!(all.len() as u64, pairs);
    assert_eq!((level(0), level(pairs - 1)), ("s0:c0,c1".into(), "s0:c1020,c1021".into()));
    assert_eq!(level(pairs), level(0));
    assert!(!all.contains(HIGHEST));
}

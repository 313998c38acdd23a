use super::*;

#[test]
fn filters_pick_records() {
    let record = CacheRecord {
        id: "a1".to_owned(),
        size: 1,
        parents: vec!["p".to_owned()],
        kind: "exec.cachemount".to_owned(),
        description: "cached mount /root".to_owned(),
        is_mutable: true,
        is_in_use: false,
        is_shared: false,
        created: None,
        used: None,
        uses: 1,
    };
    let is = |filters: &[&str]| {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        compile(&filters).unwrap()(&record)
    };
    assert!(is(&[]));
    assert!(is(&["type==exec.cachemount"]));
    assert!(!is(&["type==regular"]));
    assert!(is(&["type==regular", "mutable"]));
    assert!(!is(&["mutable,inuse"]));
    assert!(is(&["description~=mount,private"]));
    assert!(is(&["id!=b"]));
    assert!(compile(&["nonsense==1".to_owned()]).is_err());
}

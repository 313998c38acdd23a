//! Which uploads count as open.

use super::Sessions;

#[test]
fn an_upload_that_begins_while_others_are_looked_for_is_not_forgotten() {
    let sessions = Sessions::default();
    for id in ["kept", "lost", "beginning"] {
        assert!(sessions.begin(id, 10));
    }
    sessions.begun("kept");
    sessions.begun("lost");
    let before = sessions.written();
    // Both are written only after the storage was listed.
    assert!(sessions.begin("young", 10));
    sessions.begun("young");
    sessions.begun("beginning");
    sessions.forget_lost(&before, &["kept".to_owned()]);
    assert_eq!(sessions.count(), 3);
    assert!(!sessions.written().contains("lost"));
    assert!(!sessions.begin("more", 3), "the bound holds");
    sessions.end("young");
    assert!(sessions.begin("more", 3));
}

use super::*;

fn mount(text: &str) -> Result<Mount, String> {
    parse_mount(text, |value| Ok(value.replace("$X", "/x")))
}

#[test]
fn keys_and_their_other_names() {
    let bind = mount("dst=$X,src=a,from=b").unwrap();
    assert_eq!(
        (bind.kind, &*bind.target, &*bind.source, &*bind.from, bind.readonly),
        (MountType::Bind, "/x", "a", "b", true)
    );
    assert!(!mount("target=/x,rw").unwrap().readonly);
    assert!(!mount("target=/x,readonly=false").unwrap().readonly);
    let cache = mount("TYPE=cache,destination=/c,sharing=LOCKED,mode=0700,uid=1,gid=2").unwrap();
    assert_eq!(
        (&*cache.sharing, cache.mode, cache.uid, cache.gid, cache.readonly),
        ("locked", Some(0o700), Some(1), Some(2), false)
    );
    assert_eq!(mount("type=tmpfs,target=/t,size=64m").unwrap().size, Some(64 << 20));
    assert!(mount("type=secret,id=x,required").unwrap().required);
    assert_eq!(mount("type=secret,id=x,env=Y").unwrap().env.as_deref(), Some("Y"));
    assert_eq!(mount("\"target=/a,b\"").unwrap().target, "/a,b");
}

#[test]
fn what_does_not_fit_is_refused() {
    for (text, message) in [
        ("target", "invalid field 'target' must be a key=value pair"),
        ("target=/x,required", "unexpected key 'required' for mount type 'bind'"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,src=b", "both source and id can't be set"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/x,ro=maybe", "invalid value for ro: maybe"),
        ("type=cache,target=/x,sharing=some", "unsupported sharing value \"some\""),
        ("targte=/x", "unexpected key 'targte' in 'targte=/x' (did you mean target?)"),
    ] {
        assert_eq!(mount(text), Err(message.to_owned()), "{text}");
    }
    assert_eq!(mount_from("from=a,target=$b").as_deref(), Ok("a"));
    assert!(mount_from("from=$a,target=b").is_err());
}

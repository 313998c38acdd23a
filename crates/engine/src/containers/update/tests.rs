use super::*;

fn memory(memory: i64, swap: Option<i64>) -> Resources {
    Resources { memory: Some(memory), memory_swap: swap, ..Resources::default() }
}

#[test]
fn memory_stays_below_the_swap_that_is_set() {
    let (free, bounded) = (Resources::default(), memory(64, Some(128)));
    assert!(update_conflicts(&free, &memory(64, None)).is_err());
    assert!(update_conflicts(&free, &memory(64, Some(128))).is_ok());
    assert!(update_conflicts(&bounded, &memory(100, None)).is_ok());
    assert!(update_conflicts(&bounded, &memory(200, None)).is_err());
    assert!(update_conflicts(&bounded, &Resources::default()).is_ok());
}

#[test]
fn a_share_of_processors_is_said_in_one_way() {
    let nano = Resources { nano_cpus: Some(1), ..Resources::default() };
    let quota = Resources { cpu_quota: Some(1000), ..Resources::default() };
    let period = Resources { cpu_period: Some(1000), ..Resources::default() };
    for (old, new) in [(&nano, &quota), (&nano, &period), (&quota, &nano), (&period, &nano)] {
        assert!(update_conflicts(old, new).is_err());
    }
    assert!(update_conflicts(&quota, &period).is_ok());
    assert!(update_conflicts(&nano, &nano).is_ok());
}

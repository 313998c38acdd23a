use super::*;

#[test]
fn buckets_empty_and_fill() {
    let buckets = Buckets::new(2.0, 3.0);
    let (now, a) = (Instant::now(), "192.0.2.1".parse().unwrap());
    for _ in 0..3 {
        buckets.take(a, now).unwrap();
    }
    let wait = buckets.take(a, now).unwrap_err();
    assert_eq!(wait, Duration::from_millis(500));
    buckets.take("192.0.2.2".parse().unwrap(), now).unwrap();
    buckets.take(a, now + wait).unwrap();
    buckets.take(a, now + wait).unwrap_err();
    let (one, two) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    for address in [one, two, one] {
        buckets.take(address, now).unwrap();
    }
    buckets.take(two, now).unwrap_err();
}

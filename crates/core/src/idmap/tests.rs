//! Tables of maps.

use super::{IdMap, IdMaps, IdRange};

fn map(ranges: &[(u32, u32, u32)]) -> Result<IdMap, super::InvalidIdMap> {
    let range = |&(inside, outside, count)| IdRange { inside, outside, count };
    IdMap::new(ranges.iter().map(range).collect())
}

#[test]
fn ids_on_both_sides() {
    let map = map(&[(0, 100_000, 1000), (1000, 5, 1), (1001, 200_000, 10)]).unwrap();
    for (inside, outside) in
        [(0, 100_000), (999, 100_999), (1000, 5), (1001, 200_000), (1010, 200_009)]
    {
        assert_eq!(map.outside(inside), Some(outside), "{inside}");
        assert_eq!(map.inside(outside), Some(inside), "{outside}");
    }
    for outside in [0, 4, 6, 99_999, 101_000, 200_010, u32::MAX] {
        assert_eq!(map.inside(outside), None, "{outside}");
    }
    assert_eq!(map.outside(1011), None);
    assert!(!map.is_identity());
}

#[test]
fn maps_that_the_kernel_refuses() {
    for ranges in [
        &[][..],
        &[(0, 0, 0)],
        &[(0, 100_000, 10), (9, 200_000, 1)],
        &[(0, 100_000, 10), (10, 100_009, 1)],
        &[(0, u32::MAX, 1)],
        &[(0, 1, u32::MAX)],
    ] {
        assert!(map(ranges).is_err(), "{ranges:?}");
    }
    let many = (0..341).map(|id| IdRange { inside: id, outside: id, count: 1 });
    assert!(IdMap::new(many.collect()).is_err());
}

#[test]
fn text_of_the_kernel() {
    let text = "         0     100000      65536\n     65536          7          1\n";
    let map = IdMap::parse(text).unwrap();
    assert_eq!(map.to_string(), "0 100000 65536\n65536 7 1\n");
    assert_eq!(IdMap::parse(&map.to_string()).unwrap(), map);
    for wrong in ["", "0 0", "0 0 1 1", "0 -1 1", "a b c", "0 0 4294967296"] {
        assert!(IdMap::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_host_maps_everybody_to_himself() {
    let host = IdMap::parse("0 0 4294967295\n").unwrap();
    let maps = IdMaps { users: host.clone(), groups: host };
    assert!(maps.is_identity());
    assert_eq!(maps.root(), Some((0, 0)));
}

//! Tests of walking documents.

use std::collections::HashMap;

use rorqual_content::Descriptor;
use rorqual_core::Digest;

use super::{Documents, walk};
use crate::Error;

#[derive(Default)]
struct Table(HashMap<Digest, Vec<u8>>);

impl Documents for Table {
    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(digest).cloned())
    }
}

fn digest(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

#[test]
fn circles_and_missing_ends() {
    let index = |to: u8| {
        format!(
            r#"{{"manifests":[{{"mediaType":"x","digest":"{}","size":1}}],"schemaVersion":2}}"#,
            digest(to)
        )
    };
    let mut table = Table::default();
    table.0.insert(digest(1), index(2).into_bytes());
    let target = Descriptor::new("x", digest(1), 1);
    let graph = walk(&table, &target).unwrap();
    assert_eq!((graph.documents.len(), graph.leaves.len()), (1, 1));
    assert!(graph.leaves[0].manifest.is_none());

    table.0.insert(digest(2), index(1).into_bytes());
    let graph = walk(&table, &target).unwrap();
    assert_eq!((graph.documents.len(), graph.leaves.len()), (2, 0));
}

#[test]
fn depth_and_width_are_bounded() {
    let entry =
        |to: [u8; 32]| format!(r#"{{"mediaType":"x","digest":"{}","size":1}}"#, Digest::sha256(to));
    let index = |entries: Vec<String>| {
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).into_bytes()
    };
    let target = Descriptor::new("x", digest(1), 1);
    let mut deep = Table::default();
    for at in 1..20 {
        deep.0.insert(digest(at), index(vec![entry([at + 1; 32])]));
    }
    let error = walk(&deep, &target).unwrap_err();
    assert!(error.to_string().contains("too deeply"), "{error}");

    let mut wide = Table::default();
    let name = |at: u32| {
        let mut name = [0; 32];
        name[..4].copy_from_slice(&at.to_le_bytes());
        name
    };
    wide.0.insert(digest(1), index((0..20_000).map(|at| entry(name(at))).collect()));
    let error = walk(&wide, &target).unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
}

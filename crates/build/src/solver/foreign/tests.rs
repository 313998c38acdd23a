use std::collections::BTreeMap;

use rorqual_content::{Descriptor, media_type};
use rorqual_core::{DiffId, Digest};

use super::document::{CacheDocument, Record};
use super::{mount_digest, record_digest};

fn digest(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

fn layer(number: u8) -> (Descriptor, DiffId, String) {
    let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, digest(number), u64::from(number));
    (blob, DiffId(digest(100 + number)), String::new())
}

fn tops(document: &CacheDocument, record: &Record) -> Option<Vec<Digest>> {
    let layers = document.result(record).unwrap()?;
    Some(layers.into_iter().map(|(blob, _)| blob.digest).collect())
}

#[test]
fn chains_share_what_lies_below() {
    let mut document = CacheDocument::default();
    let mut known = BTreeMap::new();
    let first = [layer(1), layer(2)];
    let second = [layer(1), layer(3)];
    assert_eq!(document.add_chain(first.iter(), &mut known), 1);
    assert_eq!(document.add_chain(second.iter(), &mut known), 2);
    assert_eq!(document.add_chain(first.iter(), &mut known), 1);
    assert_eq!(document.layers.len(), 3);
    let parents = document.layers.iter().map(|layer| layer.parent).collect::<Vec<_>>();
    assert_eq!(parents, [-1, 0, 0]);
    let text = String::from_utf8(document.to_bytes().unwrap()).unwrap();
    // COMPAT: the first layer as parent goes without saying.
    assert_eq!(text.matches("\"parent\"").count(), 1, "{text}");
    assert_eq!(CacheDocument::parse(text.as_bytes()).unwrap(), document);
}

#[test]
fn what_other_builders_write_is_read() {
    let text = format!(
        r#"{{"layers":[
            {{"blob":"{}","parent":-1,"annotations":{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","diffID":"{}","size":7,"createdAt":"2026-01-01T00:00:00Z"}}}},
            {{"blob":"{}","annotations":{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","diffID":"{}","size":8}}}}],
          "records":[
            {{"layers":[{{"layer":1,"createdAt":"2026-01-01T00:00:00Z"}}],"digest":"{}"}},
            {{"chains":[{{"layers":[1,0]}}],"digest":"{}","inputs":[[{{"selector":"x","link":0}}]]}},
            {{"digest":"{}"}}]}}"#,
        digest(1),
        digest(101),
        digest(2),
        digest(102),
        digest(50),
        digest(51),
        digest(52),
    );
    let document = CacheDocument::parse(text.as_bytes()).unwrap();
    assert_eq!(tops(&document, &document.records[0]), Some(vec![digest(1), digest(2)]));
    assert_eq!(tops(&document, &document.records[1]), Some(vec![digest(2), digest(1)]));
    assert_eq!(tops(&document, &document.records[2]), None);
}

#[test]
fn hostile_documents_are_refused() {
    let blob = digest(1);
    let diff = digest(2);
    let with = |parent: i64, top: usize| {
        format!(
            r#"{{"layers":[{{"blob":"{blob}","parent":{parent},"annotations":{{"diffID":"{diff}"}}}}],
               "records":[{{"layers":[{{"layer":{top}}}],"digest":"{blob}"}}]}}"#
        )
    };
    for (parent, top, is_fine) in
        [(-1, 0, true), (0, 0, false), (-1, 1, false), (7, 0, false), (-1, usize::MAX, false)]
    {
        let document = CacheDocument::parse(with(parent, top).as_bytes()).unwrap();
        let result = document.result(&document.records[0]);
        assert_eq!(result.is_ok_and(|found| found.is_some()), is_fine, "{parent} {top}");
    }
    for text in ["", "[]", "{\"layers\":3}", "{\"layers\":[{\"blob\":\"sha256:xy\"}]}"] {
        assert!(CacheDocument::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(CacheDocument::inline("no base64!", &[]).is_err());
}

#[test]
fn records_in_an_image_name_its_layers() {
    let mut document = CacheDocument::default();
    document.records.push(Record {
        results: vec![super::document::CacheResult { layer: 1, created_at: String::new() }],
        digest: Some(digest(9)),
        ..Record::default()
    });
    let text = document.to_inline().unwrap();
    let layers = [layer(1), layer(2), layer(3)].map(|(blob, diff, _)| (blob, diff));
    let read = CacheDocument::inline(&text, &layers).unwrap();
    assert_eq!(tops(&read, &read.records[0]), Some(vec![digest(1), digest(2)]));
    assert!(
        CacheDocument::inline(&text, &layers[..1])
            .is_ok_and(|read| { read.result(&read.records[0]).is_err() })
    );
}

#[test]
fn digests_of_records_tell_outputs_and_mounts_apart() {
    let all =
        [record_digest("a", 0), record_digest("a", 1), record_digest("b", 0), mount_digest("a")];
    for (number, one) in all.iter().enumerate() {
        assert!(!all[number + 1..].contains(one));
    }
}

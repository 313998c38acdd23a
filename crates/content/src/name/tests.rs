use super::*;
use crate::{Descriptor, ImageDocument};

fn digest(letter: char) -> Digest {
    format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
}

fn image(letter: char, names: &[&str]) -> ImageRecord {
    let descriptor = |digest: Digest| Descriptor::new("", digest, 1);
    let upper = char::from_digit(letter.to_digit(16).unwrap() ^ 8, 16).unwrap();
    ImageRecord {
        id: ImageId(digest(letter)),
        target: descriptor(digest(upper)),
        manifest: descriptor(digest(upper)),
        document: ImageDocument::default(),
        tags: names.iter().map(|name| name.parse().unwrap()).collect(),
        digests: Vec::new(),
        size: 0,
        tagged_at: None,
    }
}

#[test]
fn texts_mean_images() {
    let mut pulled = image('b', &["localhost:5000/app:1"]);
    pulled.digests.push(format!("localhost:5000/app@{}", digest('3')).parse().unwrap());
    let images = [image('a', &["debian:latest", "debian:12", "b:latest"]), pulled, image('c', &[])];
    let a64 = "a".repeat(64);
    let with_digest = format!("debian:whatever@{}", digest('2'));
    let table: &[(&str, Result<char, &str>)] = &[
        ("debian", Ok('a')),
        ("docker.io/library/debian:12", Ok('a')),
        ("debian:13", Err("No such image: debian:13")),
        ("nothing", Err("No such image: nothing:latest")),
        ("No/Good", Err("invalid reference format: repository name (Good) must be lowercase")),
        ("aaaa", Ok('a')),
        ("sha256:aaaa", Ok('a')),
        (&a64, Ok('a')),
        ("b", Ok('a')),
        ("bb", Ok('b')),
        ("localhost:5000/app:1", Ok('b')),
        (&with_digest, Ok('a')),
        ("c", Ok('c')),
        ("", Err("No such image: ")),
    ];
    for (text, expected) in table {
        let found = resolve(text, images.iter());
        match expected {
            Ok(letter) => assert_eq!(found.unwrap().id.0, digest(*letter), "{text}"),
            Err(message) => assert_eq!(found.unwrap_err().to_string(), *message, "{text}"),
        }
    }
    let by_digest = format!("localhost:5000/app@{}", digest('3'));
    assert_eq!(resolve(&by_digest, images.iter()).unwrap().id.0, digest('b'));
    let other = format!("localhost:5000/other@{}", digest('3'));
    assert!(resolve(&other, images.iter()).is_err());
    let twice = [image('a', &[]), {
        let mut i = image('b', &[]);
        i.id = ImageId(format!("sha256:a{}", "b".repeat(63)).parse().unwrap());
        i
    }];
    assert!(matches!(resolve("a", twice.iter()), Err(Error::Ambiguous(_))));
}

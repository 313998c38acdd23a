use serde_json::Value;

use super::{Manager, Scan, Subject, rpm, scan, spdx};

fn header(tags: &[(u32, &[u8])]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::<u8>::new(), Vec::<u8>::new());
    for (tag, bytes) in tags {
        for number in [*tag, 6, data.len() as u32, 1] {
            index.extend(number.to_be_bytes());
        }
        data.extend(*bytes);
    }
    let mut all = (tags.len() as u32).to_be_bytes().to_vec();
    all.extend((data.len() as u32).to_be_bytes());
    all.extend(index);
    all.extend(data);
    all
}

fn rpm_database(scratch: &std::path::Path) -> Vec<u8> {
    let path = scratch.join("made");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        .unwrap();
    let good = header(&[
        (1000, b"bash\0"),
        (1001, b"5.2\0"),
        (1002, b"1.fc40\0"),
        (1003, &[0, 0, 0, 2]),
        (1014, b"GPLv3+\0"),
        (1022, b"x86_64\0"),
    ]);
    for bytes in [good.as_slice(), &[0xff; 16], b"", &good[..20]] {
        connection.execute("INSERT INTO Packages (blob) VALUES (?1)", [bytes]).unwrap();
    }
    drop(connection);
    std::fs::read(path).unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn look(files: &[(&str, &[u8])]) -> Scan {
    let scratch = tempfile::tempdir().unwrap();
    let found = scan(tar(files).as_slice(), scratch.path()).unwrap();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing stays");
    found
}

const STATUS: &[u8] = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12\nDescription: x\n Package: no\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n";
const APK: &[u8] = b"C:Q1\nP:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT\nF:lib\n\nP:broken\n\n";

#[test]
fn each_manager_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let database = rpm_database(scratch.path());
    let found = look(&[
        ("./usr/lib/os-release", b"NAME=\"Debian\"\nID=debian\nVERSION_ID=\"13\"\n"),
        ("./var/lib/dpkg/status", STATUS),
        ("var/lib/dpkg/status.d/base", b"Package: base-files\nVersion: 13.8\n"),
        ("var/lib/dpkg/status.d/base.md5sums", b"Package: no\nVersion: 1\n"),
        ("lib/apk/db/installed", APK),
        ("var/lib/rpm/rpmdb.sqlite", &database),
        ("var/lib/rpm/Packages.db", b"other"),
        (
            "usr/lib/python3/dist-packages/Foo_Bar-1.0.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\nLicense: Apache-2.0\n\nName: no\n",
        ),
        ("app/node_modules/left-pad/package.json", b"{\"name\":\"left-pad\",\"version\":\"1.3.0\",\"license\":\"MIT\"}"),
        ("app/node_modules/@a/b/package.json", b"{\"name\":\"@a/b\",\"version\":\"2.0.0\",\"license\":{\"type\":\"ISC\"}}"),
        ("app/node_modules/@a/package.json", b"{\"name\":\"no\",\"version\":\"1\"}"),
        ("app/package.json", b"{\"name\":\"no\",\"version\":\"1\"}"),
        ("app/node_modules/broken/package.json", b"{"),
    ]);
    let all = found
        .packages
        .iter()
        .map(|one| format!("{} {} {} {}", one.manager.name(), one.name, one.version, one.license))
        .collect::<Vec<_>>();
    assert_eq!(
        all,
        [
            "deb base-files 13.8 ",
            "deb libc6 2.41-12 ",
            "apk musl 1.2.5-r9 MIT",
            "rpm bash 2:5.2-1.fc40 GPLv3+",
            "pypi foo-bar 1.0 Apache-2.0",
            "npm @a/b 2.0.0 ISC",
            "npm left-pad 1.3.0 MIT",
        ]
    );
    assert_eq!(found.system, ("debian".to_owned(), "13".to_owned()));
    assert_eq!(found.remarks.len(), 1, "{:?}", found.remarks);
}

#[test]
fn what_is_broken_is_told_and_no_failure() {
    let found = look(&[("var/lib/rpm/rpmdb.sqlite", b"no database")]);
    assert!(found.packages.is_empty());
    assert!(found.remarks[0].contains("rpmdb.sqlite"), "{:?}", found.remarks);
    let scratch = tempfile::tempdir().unwrap();
    let whole = tar(&[("var/lib/dpkg/status", STATUS)]);
    assert!(scan(&whole[..600], scratch.path()).is_err());
    for cut in 0..64 {
        // No header of any length is read beyond its end.
        assert!(rpm::package(&header(&[(1000, b"a\0")])[..cut.min(26)], "x").is_none());
    }
}

#[test]
fn the_document_says_each_package_with_its_address() {
    let mut found = look(&[
        ("etc/os-release", b"ID=debian\nVERSION_ID=13\n"),
        ("var/lib/dpkg/status", STATUS),
        (
            "app/node_modules/@a/b/package.json",
            b"{\"name\":\"@a/b\",\"version\":\"2.0.0\",\"license\":\"SEE LICENSE\"}",
        ),
    ]);
    assert_eq!(found.packages[0].manager, Manager::Deb);
    found.remarks.push("x".to_owned());
    let subject = Subject {
        name: "app".to_owned(),
        created: "2026-01-01T00:00:00Z".to_owned(),
        tool: "1".to_owned(),
    };
    let document = spdx(&found, &subject);
    assert_eq!(document, spdx(&found, &subject));
    let urls = document["packages"].as_array().unwrap().iter().skip(1);
    let urls = urls
        .map(|package| package["externalRefs"][0]["referenceLocator"].as_str().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(
        urls,
        ["pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13", "pkg:npm/%40a/b@2.0.0"]
    );
    let last = document["packages"].as_array().unwrap().last().unwrap();
    assert_eq!(last["licenseDeclared"], "NOASSERTION");
    assert_eq!(last["licenseComments"], "SEE LICENSE");
    let relations = document["relationships"].as_array().unwrap();
    let ids = document["packages"].as_array().unwrap();
    let ids = ids.iter().map(|package| &package["SPDXID"]).collect::<Vec<&Value>>();
    for relation in relations {
        assert!(ids.contains(&&relation["relatedSpdxElement"]), "{relation}");
    }
}

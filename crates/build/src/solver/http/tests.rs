use super::*;

#[test]
fn a_file_gets_one_name_of_no_directory() {
    let named = |url: &str, filename: Option<&str>| {
        let filename = filename.map(str::to_owned);
        file_name(&HttpSource { url: url.to_owned(), filename, ..HttpSource::default() })
    };
    for (url, filename, wanted) in [
        ("http://host/a/file.tar?x=/y#z", None, "file.tar"),
        ("http://host", None, "download"),
        ("http://host/a/", None, "download"),
        ("http://host/a/..", None, "download"),
        ("http://host/a", Some("../../etc/passwd"), "passwd"),
        ("http://host/a", Some("context"), "context"),
    ] {
        assert_eq!(named(url, filename), wanted, "{url} {filename:?}");
    }
}

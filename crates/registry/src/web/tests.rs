use super::html::{Html, escape};
use super::*;

#[test]
fn paths_of_pages() {
    assert_eq!(target("/"), Some(Target::Repositories));
    assert!(matches!(target("/r/a/b"), Some(Target::Repository(_))));
    assert!(matches!(target("/r/a/b/-/v1"), Some(Target::Image(..))));
    for none in ["/r/", "/r/A", "/x", "/r/a/-/", "/r/../x", "/r/a/-/b/c", "//"] {
        assert_eq!(target(none), None, "{none}");
    }
}

#[test]
fn text_is_escaped() {
    assert_eq!(
        escape("<a href=\"x\">'&'</a>"),
        "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;"
    );
    let mut html = Html::default();
    html.tag("p", "class", "\"><script>").text("</p><script>alert(1)</script>").raw("</p>");
    let text = html.finish("<title>");
    assert!(!text.contains("<script>alert") && !text.contains("<title><title>"), "{text}");
}

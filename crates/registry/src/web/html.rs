//! HTML in the making: text always passes through [`escape`].

/// Writes what means something in HTML so that it means itself.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The main part of a page.
#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup of ours.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text of whoever.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(&escape(text));
        self
    }

    /// Opens an element with an attribute.
    pub(super) fn tag(
        &mut self,
        element: &'static str,
        attribute: &'static str,
        value: &str,
    ) -> &mut Self {
        self.0.push_str(&format!("<{element} {attribute}=\"{}\">", escape(value)));
        self
    }

    /// Adds a link.
    pub(super) fn link(&mut self, to: &str, text: &str) -> &mut Self {
        self.tag("a", "href", to).text(text).raw("</a>")
    }

    /// Adds a cell of a table.
    pub(super) fn cell(&mut self, text: &str) -> &mut Self {
        self.raw("<td>").text(text).raw("</td>")
    }

    /// Adds a line of a description list.
    pub(super) fn fact(&mut self, what: &'static str, text: &str) -> &mut Self {
        if text.is_empty() {
            return self;
        }
        self.raw("<dt>").raw(what).raw("</dt><dd>").text(text).raw("</dd>")
    }

    /// Adds a command that can be copied.
    pub(super) fn command(&mut self, text: &str) -> &mut Self {
        self.raw("<div class=\"command\"><code>").text(text).raw("</code>");
        self.raw("<button type=\"button\" class=\"copy\" hidden>Copy</button></div>")
    }

    /// Makes the whole page.
    pub(super) fn finish(self, title: &str) -> String {
        let title = escape(title);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
             <link rel=\"stylesheet\" href=\"/style.css\"><script src=\"/copy.js\" defer></script></head>\
             <body><a class=\"skip\" href=\"#main\">Skip to content</a>\
             <header><a class=\"home\" href=\"/\">Registry</a>\
             <form role=\"search\" action=\"/\" method=\"get\"><label for=\"q\">Search repositories</label>\
             <input id=\"q\" type=\"search\" name=\"q\" placeholder=\"Search repositories\"><button>Search</button></form></header>\
             <main id=\"main\">{}</main></body></html>\n",
            self.0
        )
    }
}

//! The pages of repositories and of their tags.

use rorqual_core::{Timestamp, units};

use super::html::Html;
use crate::app::{App, Exchange};
use crate::document::Body;
use crate::error::{Code, Error, Result};
use crate::name::{Name, Tag};
use crate::repository::TagRecord;

// LIMIT: entries of a page.
const PAGE: usize = 100;

/// How long ago something was, in words.
pub(super) fn ago(time: Timestamp) -> String {
    let now = Timestamp::from(std::time::SystemTime::now());
    format!("{} ago", units::human_duration(now.since(time)))
}

/// A page that says why there is none.
pub(super) fn complaint(text: &str) -> String {
    let mut html = Html::default();
    html.raw("<h1>Not found</h1><p>").text(text).raw("</p>");
    html.finish("Not found")
}

fn next_page(html: &mut Html, to: &str) {
    html.raw("<nav aria-label=\"Pages\">").link(to, "Next page").raw("</nav>");
}

/// `/`: the repositories, those that contain what is searched for
pub(super) async fn repositories(app: &App, exchange: &Exchange) -> Result<String> {
    let query = exchange.query();
    let (wanted, after) = (query.text("q").trim().to_lowercase(), query.text("after"));
    let names = app.repositories.catalog().await?;
    let mut fitting = names.iter().filter(|name| {
        name.as_str() > after
            && name.as_str().contains(&wanted)
            && app.auth.may_see(&exchange.actor, name.as_str())
    });
    let page: Vec<&Name> = fitting.by_ref().take(PAGE).collect();
    let mut html = Html::default();
    html.raw("<h1>");
    match &*wanted {
        "" => html.raw("Repositories"),
        wanted => html.raw("Repositories with “").text(wanted).raw("”"),
    };
    html.raw("</h1>");
    if page.is_empty() {
        html.raw("<p>There is nothing here yet.</p>");
        return Ok(html.finish("Repositories"));
    }
    html.raw("<table><thead><tr><th scope=\"col\">Repository</th><th scope=\"col\">Tags</th></tr></thead><tbody>");
    for name in &page {
        let tags = app.repositories.tags(name, None, PAGE + 1).await?.len();
        let count = if tags > PAGE { format!("more than {PAGE}") } else { tags.to_string() };
        html.raw("<tr><th scope=\"row\">").link(&format!("/r/{name}"), name.as_str());
        html.raw("</th>").cell(&count).raw("</tr>");
    }
    html.raw("</tbody></table>");
    if let (Some(_), Some(last)) = (fitting.next(), page.last()) {
        let wanted: String =
            wanted.chars().filter(|c| c.is_ascii_alphanumeric() || "-._/".contains(*c)).collect();
        next_page(&mut html, &format!("/?q={wanted}&after={last}"));
    }
    Ok(html.finish("Repositories"))
}

/// `/r/<name>`: the tags of a repository
pub(super) async fn repository(app: &App, exchange: &Exchange, name: &Name) -> Result<String> {
    if !app.repositories.exists(name).await? {
        return Err(Error::refused(Code::NameUnknown, format!("There is no repository {name}.")));
    }
    let query = exchange.query();
    let after = query.find("after");
    let tags = app.repositories.tags(name, after, PAGE + 1).await?;
    let mut html = Html::default();
    html.raw("<h1>").text(name.as_str()).raw("</h1>");
    if tags.is_empty() {
        html.raw("<p>No tags.</p>");
        return Ok(html.finish(name.as_str()));
    }
    html.raw("<table><thead><tr><th scope=\"col\">Tag</th><th scope=\"col\">Digest</th><th scope=\"col\">Kind</th>\
        <th scope=\"col\">Size</th><th scope=\"col\">Pushed</th></tr></thead><tbody>");
    for tag in tags.iter().take(PAGE) {
        if let Some(record) = app.repositories.tag(name, tag).await? {
            row(app, &mut html, name, tag, &record).await?;
        }
    }
    html.raw("</tbody></table>");
    if tags.len() > PAGE {
        next_page(&mut html, &format!("/r/{name}?after={}", tags[PAGE - 1]));
    }
    Ok(html.finish(name.as_str()))
}

async fn row(app: &App, html: &mut Html, name: &Name, tag: &Tag, record: &TagRecord) -> Result<()> {
    let manifest = app.repositories.manifest(name, &record.digest).await?;
    let document = manifest.and_then(|manifest| manifest.document().ok());
    let (kind, size) = match document.as_ref().map(|document| &document.body) {
        Some(Body::Index { manifests }) => {
            (format!("{} platforms", manifests.len()), String::new())
        }
        Some(Body::Manifest { config, layers }) => {
            let bytes = config.size + layers.iter().map(|layer| layer.size).sum::<u64>();
            let artifact = document.as_ref().and_then(|document| document.artifact_type.clone());
            (artifact.unwrap_or_else(|| "image".to_owned()), units::human_size(bytes))
        }
        None => ("missing".to_owned(), String::new()),
    };
    html.raw("<tr><th scope=\"row\">").link(&format!("/r/{name}/-/{tag}"), tag.as_str());
    html.raw("</th><td><code>").text(record.digest.short()).raw("</code></td>");
    html.cell(&kind).cell(&size).raw("<td>");
    html.tag("time", "datetime", &record.pushed.to_string()).text(&ago(record.pushed));
    html.raw("</time></td></tr>");
    Ok(())
}

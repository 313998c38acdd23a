//! The page of one image: platforms or layers, history, what refers to it, and the command that pulls it.

use http::header;
use rorqual_content::ImageDocument;
use rorqual_core::units;

use super::html::Html;
use super::lists::ago;
use crate::app::{App, Exchange};
use crate::document::{Body, Descriptor};
use crate::error::{Code, Error, Result};
use crate::name::{Name, Reference};
use crate::repository::Manifest;

// LIMIT: referrers and steps of a history that are shown.
const SHOWN: usize = 200;

/// `/r/<name>/-/<reference>`
pub(super) async fn image(
    app: &App,
    exchange: &Exchange,
    name: &Name,
    reference: &Reference,
) -> Result<String> {
    let found = app.repositories.resolve(name, reference).await?;
    let manifest = found.ok_or_else(|| {
        Error::refused(Code::ManifestUnknown, format!("{name} has no manifest {reference}."))
    })?;
    let document = manifest.document()?;
    let separator = if matches!(reference, Reference::Digest(_)) { "@" } else { ":" };
    let title = match reference {
        Reference::Tag(tag) => format!("{name}:{tag}"),
        Reference::Digest(digest) => format!("{name}@{}", digest.short()),
    };
    let mut html = Html::default();
    html.raw("<nav aria-label=\"Breadcrumb\">").link(&format!("/r/{name}"), name.as_str());
    html.raw("</nav><h1>").text(&title).raw("</h1>");
    let host = exchange.header(&header::HOST).unwrap_or("localhost");
    html.command(&format!("docker pull {host}/{name}{separator}{reference}"));
    facts(&mut html, &manifest);
    if let Some(kind) = &document.artifact_type {
        html.raw("<p>Artifact of type <code>").text(kind).raw("</code></p>");
    }
    if let Some(subject) = &document.subject {
        html.raw("<p>Refers to ");
        html.link(&format!("/r/{name}/-/{subject}"), subject.short()).raw("</p>");
    }
    match &document.body {
        Body::Index { manifests } => platforms(&mut html, name, manifests),
        Body::Manifest { config, layers } => {
            show_layers(&mut html, layers);
            if let Some(config) = app.repositories.small_blob(&config.digest, config.size).await?
                && let Ok(config) = serde_json::from_slice::<ImageDocument>(&config)
            {
                show_config(&mut html, &config);
            }
        }
    }
    annotations(&mut html, &document.annotations);
    let (referrers, _) = app.repositories.referrers(name, &manifest.digest, None, SHOWN).await?;
    show_referrers(&mut html, name, &referrers);
    Ok(html.finish(&title))
}

fn facts(html: &mut Html, manifest: &Manifest) {
    html.raw("<dl>");
    html.fact("Digest", &manifest.digest.to_string());
    html.fact("Media type", &manifest.head.media_type);
    html.fact("Pushed", &ago(manifest.head.pushed));
    html.raw("</dl>");
}

fn platforms(html: &mut Html, name: &Name, manifests: &[Descriptor]) {
    html.raw(
        "<h2>Platforms</h2><table><thead><tr><th scope=\"col\">Platform</th>\
        <th scope=\"col\">Digest</th><th scope=\"col\">Media type</th></tr></thead><tbody>",
    );
    for entry in manifests {
        let platform = entry.platform.as_ref().map_or_else(
            || "any".to_owned(),
            |platform| {
                let parts = [&*platform.os, &*platform.architecture, &*platform.variant];
                parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
            },
        );
        html.raw("<tr><th scope=\"row\">");
        html.link(&format!("/r/{name}/-/{}", entry.digest), &platform).raw("</th><td><code>");
        html.text(entry.digest.short()).raw("</code></td>").cell(&entry.media_type).raw("</tr>");
    }
    html.raw("</tbody></table>");
}

fn show_layers(html: &mut Html, layers: &[Descriptor]) {
    let total: u64 = layers.iter().map(|layer| layer.size).sum();
    let count = match layers.len() {
        1 => "1 layer".to_owned(),
        count => format!("{count} layers"),
    };
    html.raw("<h2>Layers</h2><p>").text(&count).raw(", ");
    html.text(&units::human_size(total)).raw(
        "</p><table><thead><tr><th scope=\"col\">Digest</th>\
        <th scope=\"col\">Size</th><th scope=\"col\">Media type</th></tr></thead><tbody>",
    );
    for layer in layers {
        html.raw("<tr><th scope=\"row\"><code>").text(layer.digest.short()).raw("</code></th>");
        html.cell(&units::human_size(layer.size)).cell(&layer.media_type).raw("</tr>");
    }
    html.raw("</tbody></table>");
}

fn show_config(html: &mut Html, image: &ImageDocument) {
    let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default().join(" ");
    html.raw("<h2>Configuration</h2><dl>");
    html.fact("Platform", &format!("{}/{}", image.os, image.architecture));
    html.fact("Created", &image.created);
    html.fact("User", &image.config.user);
    html.fact("Working directory", &image.config.working_dir);
    html.fact("Entrypoint", &words(&image.config.entrypoint));
    html.fact("Command", &words(&image.config.cmd));
    let ports: Vec<_> =
        image.config.exposed_ports.iter().flatten().map(|(port, _)| &**port).collect();
    html.fact("Ports", &ports.join(" "));
    html.raw("</dl>");
    if image.history.is_empty() {
        return;
    }
    html.raw("<h2>History</h2><ol class=\"history\">");
    for step in image.history.iter().take(SHOWN) {
        html.raw("<li><code>").text(&step.created_by).raw("</code>");
        if step.empty_layer {
            html.raw(" <span class=\"note\">no layer</span>");
        }
        html.raw("</li>");
    }
    html.raw("</ol>");
}

fn annotations(html: &mut Html, annotations: &std::collections::BTreeMap<String, String>) {
    if annotations.is_empty() {
        return;
    }
    html.raw("<h2>Annotations</h2><dl>");
    for (name, value) in annotations.iter().take(SHOWN) {
        html.raw("<dt>").text(name).raw("</dt><dd>").text(value).raw("</dd>");
    }
    html.raw("</dl>");
}

fn show_referrers(html: &mut Html, name: &Name, referrers: &[Descriptor]) {
    if referrers.is_empty() {
        return;
    }
    html.raw(
        "<h2>Referrers</h2><table><thead><tr><th scope=\"col\">Type</th>\
        <th scope=\"col\">Digest</th></tr></thead><tbody>",
    );
    for referrer in referrers {
        let kind = referrer.artifact_type.as_deref().unwrap_or(&referrer.media_type);
        html.raw("<tr><th scope=\"row\">").text(kind).raw("</th><td>");
        html.link(&format!("/r/{name}/-/{}", referrer.digest), referrer.digest.short());
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table>");
}

//! The API page: the OpenAPI document as plain HTML, without scripts (docs/decisions.md says why no UI bundle).

use std::fmt::Write as _;

use serde_json::Value;
use utoipa::openapi::OpenApi;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1f;background:#fff}\
code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{background:#f4f4f6;padding:.7rem;overflow:auto;border-radius:6px}\
h2{border-bottom:1px solid #ccc;margin-top:2.5rem}h3 b{display:inline-block;min-width:4.5rem;color:#0a58ca}\
td,th{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}\
@media(prefers-color-scheme:dark){body{color:#e6e6ea;background:#16161a}pre{background:#24242a}h3 b{color:#7ab7ff}}";

/// The whole page.
pub(super) fn page(api: &OpenApi) -> String {
    let api = serde_json::to_value(api).unwrap_or_default();
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{0} API</title>\
         <style>{STYLE}</style><h1>{0} {1}</h1><p>{2} The same as JSON: <a href=/v1/openapi.json>/v1/openapi.json</a>. \
         Errors are <code>application/problem+json</code> (RFC 9457).</p>",
        text(&api["info"]["title"]),
        text(&api["info"]["version"]),
        text(&api["info"]["description"]),
    );
    for (tag, operations) in by_tag(&api) {
        let _ = write!(out, "<h2>{}</h2>", escape(&tag)); // writing to a String can't fail
        for (method, path, operation) in operations {
            render(&mut out, &method, &path, &operation);
        }
    }
    out.push_str("<h2>schemas</h2>");
    for (name, schema) in api["components"]["schemas"].as_object().into_iter().flatten() {
        let shown = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ = write!(out, "<h3 id='{0}'>{0}</h3><pre>{1}</pre>", escape(name), escape(&shown));
    }
    out
}

type Operation = (String, String, Value);

fn by_tag(api: &Value) -> Vec<(String, Vec<Operation>)> {
    let mut tags: Vec<(String, Vec<Operation>)> = Vec::new();
    for (path, item) in api["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten().filter(|(_, value)| value["responses"].is_object()) {
            let tag = operation["tags"][0].as_str().unwrap_or("other").to_owned();
            let entry = (method.to_uppercase(), path.clone(), operation.clone());
            match tags.iter_mut().find(|(name, _)| *name == tag) {
                Some((_, operations)) => operations.push(entry),
                None => tags.push((tag, vec![entry])),
            }
        }
    }
    tags
}

fn render(out: &mut String, method: &str, path: &str, operation: &Value) {
    let _ = write!(out, "<h3><b>{method}</b> <code>{}</code></h3><p>{}</p>", escape(path), text(&operation["summary"]));
    if !operation["description"].is_null() {
        let _ = write!(out, "<p>{}</p>", text(&operation["description"]).replace("\n\n", "</p><p>"));
    }
    out.push_str("<table>");
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let required = if parameter["required"] == true { "" } else { ", optional" };
        let _ = write!(
            out,
            "<tr><td><code>{}</code><td>{}{required}<td>{}",
            text(&parameter["name"]),
            text(&parameter["in"]),
            text(&parameter["description"])
        );
    }
    if let Some(schema) = body_schema(&operation["requestBody"]) {
        let _ = write!(out, "<tr><td>body<td>{schema}<td>{}", text(&operation["requestBody"]["description"]));
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _ = write!(
            out,
            "<tr><td>{status}<td>{}<td>{}",
            body_schema(response).unwrap_or_default(),
            text(&response["description"])
        );
    }
    out.push_str("</table>");
}

/// The schema's name as a link, or its type.
fn body_schema(body: &Value) -> Option<String> {
    let schema = &body["content"].as_object()?.values().next()?["schema"];
    let name = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    Some(name.map_or_else(|| text(&schema["type"]), |name| format!("<a href='#{0}'>{0}</a>", escape(name))))
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_operation_is_on_the_page() {
        let api = crate::http::openapi();
        let page = super::page(&api);
        for path in api.paths.paths.keys() {
            assert!(page.contains(&format!("<code>{}</code>", super::escape(path))), "{path}");
        }
    }
}

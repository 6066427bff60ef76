//! What servers answer, in one shape.

use std::collections::HashMap;
use std::path::PathBuf;

use language_client::{Encoding, path_of};
use serde_json::{Value, json};

use super::Ready;
use crate::lsp::texts::Text;
use crate::lsp::types::{Position, Range};
use crate::lsp::{Error, Lsp};

/// Places that are told at once.
const LOCATIONS_MAX: usize = 5_000;
/// LSP 3.17, `SymbolKind`, from 1.
const SYMBOL_KINDS: [&str; 26] = [
    "file",
    "module",
    "namespace",
    "package",
    "class",
    "method",
    "property",
    "field",
    "constructor",
    "enum",
    "interface",
    "function",
    "variable",
    "constant",
    "string",
    "number",
    "boolean",
    "array",
    "object",
    "key",
    "null",
    "enumMember",
    "struct",
    "event",
    "operator",
    "typeParameter",
];
/// LSP 3.17, `CompletionItemKind`, from 1.
const COMPLETION_KINDS: [&str; 25] = [
    "text",
    "method",
    "function",
    "constructor",
    "field",
    "variable",
    "class",
    "interface",
    "module",
    "property",
    "unit",
    "value",
    "enum",
    "keyword",
    "snippet",
    "color",
    "file",
    "reference",
    "folder",
    "enumMember",
    "constant",
    "struct",
    "event",
    "operator",
    "typeParameter",
];

fn word(kinds: &[&'static str], kind: &Value) -> Option<&'static str> {
    kinds.get(usize::try_from(kind.as_u64()?).ok()?.checked_sub(1)?).copied()
}

/// An object without what isn't there.
pub(super) fn without_nulls(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    value
}

/// `MarkupContent`, `MarkedString` or several of these, as Markdown.
pub(super) fn markdown(contents: &Value) -> String {
    match contents {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(markdown).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n"),
        Value::Object(part) => match (part.get("value").and_then(Value::as_str), part.get("language").and_then(Value::as_str)) {
            (Some(text), Some(language)) => format!("```{language}\n{text}\n```"),
            (Some(text), None) => text.to_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// Texts of files that an answer is about, read once.
pub(super) struct Texts<'a> {
    lsp: &'a Lsp,
    ready: &'a Ready<'a>,
    known: HashMap<PathBuf, Option<Text>>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(lsp: &'a Lsp, ready: &'a Ready<'a>) -> Self {
        Self { lsp, ready, known: HashMap::new() }
    }

    /// `{path,range,lineText}`, or `{uri,range}` of what is no file.
    pub(super) async fn location(&mut self, uri: &str, range: &Value) -> Option<Value> {
        let range: Range = serde_json::from_value(range.clone()).ok()?;
        let Some(path) = path_of(uri) else { return Some(json!({"uri": uri, "range": range})) };
        if !self.known.contains_key(&path) {
            let text = Text::of(&self.ready.client, &path, self.lsp.inner.bounds.lsp_file_max_bytes).await.ok();
            self.known.insert(path.clone(), text);
        }
        let text = self.known.get(&path).and_then(Option::as_ref);
        let (from, to) = (self.ready.client.encoding(), self.ready.encoding);
        let shown = text.map_or(range, |text| text.convert_range(range, from, to));
        let line = text.and_then(|text| text.line_shown(range.start.line));
        Some(without_nulls(json!({"path": path.to_string_lossy(), "range": shown, "lineText": line})))
    }
}

/// `Location`, `Location[]` or `LocationLink[]`.
pub(super) async fn locations(lsp: &Lsp, ready: &Ready<'_>, found: &Value) -> Result<Value, Error> {
    let all: Vec<&Value> = match found {
        Value::Array(items) => items.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let mut texts = Texts::new(lsp, ready);
    let mut shown = Vec::new();
    for one in all.iter().take(LOCATIONS_MAX) {
        let (uri, range) = match one["targetUri"].as_str() {
            Some(uri) => (uri, &one["targetSelectionRange"]),
            None => (one["uri"].as_str().unwrap_or_default(), &one["range"]),
        };
        shown.extend(texts.location(uri, range).await);
    }
    Ok(json!({"locations": shown, "leftOut": all.len().saturating_sub(LOCATIONS_MAX)}))
}

/// `DocumentSymbol[]` or `SymbolInformation[]`.
pub(super) fn document_symbols(found: &Value) -> Value {
    let one = |symbol: &Value| {
        let range = if symbol["range"].is_null() { &symbol["location"]["range"] } else { &symbol["range"] };
        let selection = if symbol["selectionRange"].is_null() { range } else { &symbol["selectionRange"] };
        without_nulls(json!({
            "name": symbol["name"], "kind": word(&SYMBOL_KINDS, &symbol["kind"]), "detail": symbol["detail"],
            "container": symbol["containerName"], "range": range, "selectionRange": selection,
            "children": symbol["children"].as_array().map(|_| document_symbols(&symbol["children"])),
        }))
    };
    found.as_array().into_iter().flatten().map(one).collect()
}

pub(super) async fn workspace_symbols(lsp: &Lsp, ready: &Ready<'_>, found: &Value) -> Result<Value, Error> {
    let mut texts = Texts::new(lsp, ready);
    let mut shown = Vec::new();
    let all = found.as_array().map(Vec::as_slice).unwrap_or_default();
    for symbol in all.iter().take(LOCATIONS_MAX) {
        let uri = symbol["location"]["uri"].as_str().unwrap_or_default();
        let place = texts.location(uri, &symbol["location"]["range"]).await;
        let mut one = place.unwrap_or_else(|| json!({"path": path_of(uri).map(|path| path.to_string_lossy().into_owned())}));
        one["name"] = symbol["name"].clone();
        one["kind"] = word(&SYMBOL_KINDS, &symbol["kind"]).into();
        one["container"] = symbol["containerName"].clone();
        shown.push(without_nulls(one));
    }
    Ok(json!({"symbols": shown, "leftOut": all.len().saturating_sub(LOCATIONS_MAX)}))
}

/// `CompletionItem[]` or `CompletionList`, as the server would have them sorted.
pub(super) fn completion(mut found: Value, limit: usize) -> Value {
    let is_incomplete = found["isIncomplete"] == true;
    let mut items = match if found.is_array() { found.take() } else { found["items"].take() } {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    items.sort_by_cached_key(|item| item["sortText"].as_str().or_else(|| item["label"].as_str()).unwrap_or_default().to_owned());
    let left_out = items.len().saturating_sub(limit);
    items.truncate(limit);
    let items: Vec<Value> = items.into_iter().map(completion_item).collect();
    json!({"items": items, "incomplete": is_incomplete || left_out > 0, "leftOut": left_out})
}

pub(super) fn completion_item(item: Value) -> Value {
    let edit = &item["textEdit"];
    let insert = edit["newText"].as_str().or_else(|| item["insertText"].as_str()).or_else(|| item["label"].as_str());
    let documentation = Some(markdown(&item["documentation"])).filter(|text| !text.is_empty());
    let range = if edit["range"].is_null() { edit["replace"].clone() } else { edit["range"].clone() };
    without_nulls(json!({
        "label": item["label"], "kind": word(&COMPLETION_KINDS, &item["kind"]), "detail": item["detail"],
        "documentation": documentation, "insertText": insert, "range": range, "additionalTextEdits": item["additionalTextEdits"],
        "item": item,
    }))
}

/// `SemanticTokens`: five numbers a token, each line and character counted from the last one's.
pub(super) fn semantic_tokens(found: &Value, legend: &Value, text: &Text, from: Encoding, to: Encoding) -> Value {
    let data: Vec<u32> = serde_json::from_value(found["data"].clone()).unwrap_or_default();
    let name = |list: &Value, index: usize| list[index].as_str().map(str::to_owned);
    let mut last = Position { line: 0, character: 0 };
    let mut shown = Vec::new();
    for token in data.chunks_exact(5) {
        let [line, character, length, kind, modifiers] = [token[0], token[1], token[2], token[3], token[4]];
        let begins = if line == 0 { last.character.saturating_add(character) } else { character };
        last = Position { line: last.line.saturating_add(line), character: begins };
        let end = Position { line: last.line, character: begins.saturating_add(length) };
        let range = text.convert_range(Range { start: last, end }, from, to);
        let modifiers: Vec<_> =
            (0..32).filter(|bit| modifiers >> bit & 1 == 1).filter_map(|bit| name(&legend["tokenModifiers"], bit)).collect();
        shown.push(json!({
            "line": range.start.line, "character": range.start.character,
            "length": range.end.character.saturating_sub(range.start.character),
            "type": name(&legend["tokenTypes"], usize::try_from(kind).unwrap_or(usize::MAX)), "modifiers": modifiers,
        }));
    }
    json!({"tokens": shown})
}

/// `CallHierarchyItem` and `TypeHierarchyItem`.
pub(super) async fn hierarchy_item(texts: &mut Texts<'_>, item: &Value) -> Value {
    let place = texts.location(item["uri"].as_str().unwrap_or_default(), &item["selectionRange"]).await;
    let mut shown = place.unwrap_or_else(|| json!({}));
    shown["name"] = item["name"].clone();
    shown["kind"] = word(&SYMBOL_KINDS, &item["kind"]).into();
    shown["detail"] = item["detail"].clone();
    without_nulls(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_hover_come_in_four_shapes() {
        let shapes =
            json!([{"kind": "markdown", "value": "*a*"}, "b", {"language": "rust", "value": "fn c()"}, ["d", "", "e"], null]);
        let expected = ["*a*", "b", "```rust\nfn c()\n```", "d\n\ne", ""];
        assert_eq!(shapes.as_array().expect("a list").iter().map(markdown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn symbols_are_a_tree_or_a_list() {
        let range = json!({"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 1}});
        let tree = json!([{"name": "A", "kind": 5, "range": range, "selectionRange": range, "children": [{"name": "b", "kind": 6, "range": range, "selectionRange": range}]}]);
        let shown = document_symbols(&tree);
        assert_eq!((&shown[0]["kind"], &shown[0]["children"][0]["kind"]), (&json!("class"), &json!("method")));
        let list = json!([{"name": "A", "kind": 99, "containerName": "B", "location": {"uri": "file:///x", "range": range}}]);
        assert_eq!(document_symbols(&list), json!([{"name": "A", "container": "B", "range": range, "selectionRange": range}]));
    }

    #[test]
    fn tokens_are_counted_from_one_another() {
        let found = json!({"data": [1, 2, 3, 0, 0, 0, 4, 1, 1, 3]});
        let legend = json!({"tokenTypes": ["variable", "function"], "tokenModifiers": ["static", "async"]});
        let text = Text::new("\nab cde f".into());
        let shown = semantic_tokens(&found, &legend, &text, Encoding::Utf16, Encoding::Utf16);
        let expected = json!([
            {"line": 1, "character": 2, "length": 3, "type": "variable", "modifiers": []},
            {"line": 1, "character": 6, "length": 1, "type": "function", "modifiers": ["static", "async"]},
        ]);
        assert_eq!(shown["tokens"], expected);
    }
}

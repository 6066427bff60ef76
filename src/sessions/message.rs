//! A message as ACP content blocks. Pure but for the attachments that are looked up before.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Error;
use super::types::MessageSpec;

/// The prompt of a message: its text first, then its blocks, then its attachments as links. `links` are the attachments.
///
/// # Errors
/// [`Error::Invalid`] when nothing is in it, or a block is none.
pub(super) fn prompt(spec: &MessageSpec, links: Vec<Value>) -> Result<Box<RawValue>, Error> {
    let mut blocks = Vec::new();
    if let Some(text) = &spec.text {
        blocks.push(json!({"type": "text", "text": text}));
    }
    for block in &spec.content {
        if !block["type"].is_string() {
            return Err(Error::invalid(format!("an element of content must be an ACP content block with a type, not {block}")));
        }
        blocks.push(block.clone());
    }
    blocks.extend(links);
    if blocks.is_empty() {
        return Err(Error::invalid("a message needs text, content or attachments"));
    }
    serde_json::value::to_raw_value(&blocks).map_err(|error| Error::invalid(error.to_string()))
}

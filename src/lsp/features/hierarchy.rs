//! Who calls what, and which type is made of which.

use serde_json::{Value, json};

use super::answers::{Texts, hierarchy_item};
use super::{Answer, Asking, Place};
use crate::lsp::{Error, Lsp};

/// Things at one place that are looked at.
const ITEMS_MAX: usize = 8;

impl Lsp {
    /// What calls the thing at a place, or is called by it: `{items:[{item,calls:[{…,ranges}]}]}`.
    ///
    /// # Errors
    /// As each question about a place.
    pub async fn calls(&self, asking: &Asking, place: &Place, is_incoming: bool) -> Result<Answer, Error> {
        let (method, side) =
            if is_incoming { ("callHierarchy/incomingCalls", "from") } else { ("callHierarchy/outgoingCalls", "to") };
        self.ask(asking, "textDocument/prepareCallHierarchy", async |ready| {
            let items = ready.request("textDocument/prepareCallHierarchy", &ready.at(place)?).await?;
            let mut texts = Texts::new(self, ready);
            let mut shown = Vec::new();
            for item in items.as_array().into_iter().flatten().take(ITEMS_MAX) {
                let found = ready.request(method, &json!({"item": item})).await?;
                let mut calls = Vec::new();
                for call in found.as_array().into_iter().flatten() {
                    let mut one = hierarchy_item(&mut texts, &call[side]).await;
                    one["ranges"] = call["fromRanges"].clone();
                    calls.push(one);
                }
                shown.push(json!({"item": hierarchy_item(&mut texts, item).await, "calls": calls}));
            }
            Ok(json!({"items": shown}))
        })
        .await
    }

    /// The types above the one at a place, or below it: `{items:[{item,types}]}`.
    ///
    /// # Errors
    /// As above.
    pub async fn types(&self, asking: &Asking, place: &Place, is_above: bool) -> Result<Answer, Error> {
        let method = if is_above { "typeHierarchy/supertypes" } else { "typeHierarchy/subtypes" };
        self.ask(asking, "textDocument/prepareTypeHierarchy", async |ready| {
            let items = ready.request("textDocument/prepareTypeHierarchy", &ready.at(place)?).await?;
            let mut texts = Texts::new(self, ready);
            let mut shown = Vec::new();
            for item in items.as_array().into_iter().flatten().take(ITEMS_MAX) {
                let found = ready.request(method, &json!({"item": item})).await?;
                let mut types: Vec<Value> = Vec::new();
                for one in found.as_array().into_iter().flatten() {
                    types.push(hierarchy_item(&mut texts, one).await);
                }
                shown.push(json!({"item": hierarchy_item(&mut texts, item).await, "types": types}));
            }
            Ok(json!({"items": shown}))
        })
        .await
    }
}

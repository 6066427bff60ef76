//! Events read back from their stored payloads.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::Key;

/// A stored event, as far as readers of it need.
#[derive(Deserialize)]
pub(super) struct Stored<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Key<'a>,
    #[serde(borrow, rename = "turnId")]
    pub turn_id: Option<Key<'a>>,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

impl<'a> Stored<'a> {
    /// None when it is no event.
    pub fn parse(payload: &'a str) -> Option<Self> {
        serde_json::from_str(payload).ok()
    }

    /// The item of `item.started` and `item.completed`: as it is written, and read.
    pub fn item(&self) -> Option<(&'a RawValue, Item<'a>)> {
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow)]
            item: &'a RawValue,
        }
        let raw = serde_json::from_str::<Data<'a>>(self.data.get()).ok()?.item;
        Some((raw, serde_json::from_str(raw.get()).ok()?))
    }
}

/// An item that was stored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub item_id: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    #[serde(borrow)]
    pub status: Cow<'a, str>,
    #[serde(borrow)]
    pub parts: Vec<&'a RawValue>,
    #[serde(borrow)]
    pub message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub tool_call: Option<&'a RawValue>,
    /// Of the whole text, when it is cut.
    pub bytes: Option<u64>,
    #[serde(borrow, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
}

/// One part of a message.
#[derive(Deserialize)]
pub(super) struct Part<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub text: Option<Key<'a>>,
    #[serde(borrow)]
    pub entries: Option<&'a RawValue>,
}

impl<'a> Part<'a> {
    /// None when it is no part.
    pub fn parse(part: &'a RawValue) -> Option<Self> {
        serde_json::from_str(part.get()).ok()
    }
}

/// `data` of `item.delta`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delta<'a> {
    #[serde(borrow)]
    pub item_id: Cow<'a, str>,
    #[serde(borrow)]
    pub delta: Option<Part<'a>>,
    #[serde(borrow)]
    pub update: Option<&'a RawValue>,
    #[serde(default)]
    pub late: bool,
}

impl<'a> Delta<'a> {
    /// None when it is no delta.
    pub fn parse(data: &'a RawValue) -> Option<Self> {
        serde_json::from_str(data.get()).ok()
    }
}

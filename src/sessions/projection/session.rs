//! Updates about the session itself: each is a `session.updated` with what changed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::{Members, is_array, is_null, text};
use super::noted::{Noted, Usage};

/// `data` of `session.updated`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed<'a> {
    /// A string, or null: taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_options: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_commands: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageShown<'a>>,
    /// ACP's `_meta` of the update.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct UsageShown<'a> {
    used: u64,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<&'a RawValue>,
}

/// What `update` of the given kind changes; None when it lacks what it must have.
pub(super) fn changed<'a, R>(kind: &str, update: &'a Members<'a>, then: impl FnOnce(&Changed<'_>, Noted) -> R) -> Option<R> {
    let mut changed = Changed { metadata: update.get("_meta"), ..Changed::default() };
    let noted = match kind {
        "session_info_update" => info(update, &mut changed),
        "current_mode_update" => {
            let mode = update.text("currentModeId")?;
            changed.mode = Some(mode.clone());
            Noted::Mode(mode.into_owned())
        }
        "available_commands_update" => {
            let commands = update.get("availableCommands").filter(|value| is_array(value))?;
            changed.available_commands = Some(commands);
            Noted::AvailableCommands(commands.get().to_owned())
        }
        "usage_update" => usage(update, &mut changed)?,
        "config_option_update" => {
            let options = update.get("configOptions").filter(|value| is_array(value))?;
            let (model, mode) = (chosen(options, "model"), chosen(options, "mode"));
            changed.config_options = Some(options);
            changed.mode = mode.clone().map(Cow::Owned);
            changed.model = model.as_deref();
            let noted = Noted::ConfigOptions { json: options.get().to_owned(), model: model.clone(), mode };
            return Some(then(&changed, noted));
        }
        _ => return None,
    };
    Some(then(&changed, noted))
}

fn info<'a>(update: &Members<'a>, changed: &mut Changed<'a>) -> Noted {
    let member = |key| update.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
    let or_null = |value: &&RawValue| is_null(value) || text(value).is_some();
    changed.title = member("title").filter(or_null);
    changed.updated_at = member("updatedAt").filter(or_null);
    changed.title.map_or(Noted::Nothing, |title| Noted::Title(text(title).map(Cow::into_owned)))
}

#[derive(Deserialize)]
struct Cost {
    amount: f64,
    currency: String,
}

fn usage<'a>(update: &Members<'a>, changed: &mut Changed<'a>) -> Option<Noted> {
    let number = |key| serde_json::from_str::<u64>(update.get(key)?.get()).ok();
    let (used, size) = (number("used")?, number("size")?);
    let read = update.get("cost").and_then(|raw| Some((raw, serde_json::from_str::<Cost>(raw.get()).ok()?)));
    let (shown, cost) = read.unzip();
    changed.usage = Some(UsageShown { used, size, cost: shown });
    let (cost_amount, cost_currency) = cost.map(|cost| (cost.amount, cost.currency)).unzip();
    Some(Noted::Usage(Usage { used, size, cost_amount, cost_currency }))
}

/// The value of the first option of a category (ACP v1, "Session Config Options").
fn chosen(options: &RawValue, category: &str) -> Option<String> {
    let options = super::json::elements(options)?;
    let mut options = options.iter().filter_map(|option| Members::parse(option.get()));
    let option = options.find(|option| option.text("category").as_deref() == Some(category))?;
    option.text("currentValue").map(Cow::into_owned)
}

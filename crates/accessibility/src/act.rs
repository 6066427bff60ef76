//! Actions, texts, values, focus.

use serde::Serialize;
use zbus::{DynamicType, Variant};

use crate::bus::Bus;
use crate::handle::Accessibility;
use crate::id::NodeId;
use crate::node::{actions, value};
use crate::{Error, Result};

/// Characters that one read or one write of a text may have.
const MAX_TEXT_CHARS: usize = 1_000_000;
/// What a default action is called, by toolkit, the likeliest first.
const DEFAULTS: &[&str] = &["click", "press", "activate", "dodefault", "toggle", "jump", "open", "select"];

/// Which action of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// What a click or Enter would do: `click`, `press`, `activate` and the like, or else the first.
    Default,
    /// By its name, letter case aside.
    Name(String),
    /// By its number in [`crate::Node::actions`].
    Index(usize),
}

impl Action {
    fn among(&self, names: &[String]) -> Option<usize> {
        let by_name = |wanted: &str| names.iter().position(|name| name.to_lowercase() == wanted.to_lowercase());
        match self {
            Self::Default => DEFAULTS.iter().find_map(|name| by_name(name)).or((!names.is_empty()).then_some(0)),
            Self::Name(name) => by_name(name),
            Self::Index(index) => (*index < names.len()).then_some(*index),
        }
    }
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRange {
    /// The characters from `start` on. Objects within the text are U+FFFC.
    pub text: String,
    /// Where it begins, in characters.
    pub start: usize,
    /// Where it ends; after it there may be more.
    pub end: usize,
    /// Characters that the whole text has.
    pub length: usize,
    /// Where the caret is, if it is in this text.
    pub caret: Option<usize>,
}

impl Accessibility {
    /// Does an action, and returns its name. That the application took it is all that is known then; its effect may come later.
    ///
    /// # Errors
    /// [`Error::NoAction`] lists those there are, also for a control that is switched off. [`Error::TimedOut`]: the action may
    /// have been done. [`Error::NoNode`], [`Error::Refused`], [`Error::Disconnected`].
    pub async fn act(&self, id: &NodeId, action: &Action) -> Result<String> {
        let bus = self.bus().await?;
        let mut names = match actions(&bus, id).await {
            Err(Error::Refused(_)) => Vec::new(),
            names => names?,
        };
        let Some(index) = action.among(&names) else {
            present(&bus, id).await?;
            let action = match action {
                Action::Default => "default".to_owned(),
                Action::Name(name) => name.chars().take(100).collect(),
                Action::Index(index) => index.to_string(),
            };
            return Err(Error::NoAction { node: id.to_string(), action, actions: names });
        };
        let number = i32::try_from(index).map_err(|_| Error::Invalid("an action's number".into()))?;
        let done = bus.call(id, "Action", "DoAction", &number).await?;
        taken(done, id, "the action")?;
        Ok(names.swap_remove(index))
    }

    /// Replaces all of the text.
    ///
    /// # Errors
    /// [`Error::Refused`] for what can't be edited so (Chromium's fields can't: focus them and type), [`Error::NoNode`], [`Error::TimedOut`], [`Error::Disconnected`],
    /// [`Error::Invalid`] for more than a million characters.
    pub async fn set_text(&self, id: &NodeId, text: &str) -> Result<()> {
        bounded(text)?;
        let bus = self.bus().await?;
        let done = edit(&bus, id, "SetTextContents", &text).await?;
        taken(done, id, "a text")
    }

    /// Puts `text` before the character number `position`; past the end is the end.
    ///
    /// # Errors
    /// As [`Self::set_text`].
    pub async fn insert_text(&self, id: &NodeId, position: usize, text: &str) -> Result<()> {
        bounded(text)?;
        let bus = self.bus().await?;
        let length: i32 = bus.get(id, "Text", "CharacterCount").await?;
        let position = i32::try_from(position).unwrap_or(i32::MAX).min(length);
        // the length to insert is one of bytes with GTK and what builds on its bridge, and one of UTF-16 units with Qt
        let toolkit: String = bus.get(&NodeId::root_of(id.bus_name()), "Application", "ToolkitName").await.unwrap_or_default();
        let length = if toolkit.eq_ignore_ascii_case("qt") { text.encode_utf16().count() } else { text.len() };
        let length = i32::try_from(length).map_err(|_| Error::Invalid("the text is too long".into()))?;
        let done = edit(&bus, id, "InsertText", &(position, text, length)).await?;
        taken(done, id, "a text")
    }

    /// The characters from `start` to before `end`, as far as there are any; a million at most.
    ///
    /// # Errors
    /// [`Error::Refused`] for what has no text; else as [`Self::set_text`].
    pub async fn text(&self, id: &NodeId, start: usize, end: Option<usize>) -> Result<TextRange> {
        let bus = self.bus().await?;
        let count: i32 = bus.get(id, "Text", "CharacterCount").await?;
        let caret: Option<i32> = bus.get(id, "Text", "CaretOffset").await.ok();
        let length = usize::try_from(count).unwrap_or_default();
        let start = start.min(length);
        let end = end.unwrap_or(length).clamp(start, length.min(start + MAX_TEXT_CHARS));
        let number = |at: usize| i32::try_from(at).unwrap_or(i32::MAX);
        let text = match start == end {
            true => String::new(),
            false => bus.call(id, "Text", "GetText", &(number(start), number(end))).await?,
        };
        Ok(TextRange { text, start, end, length, caret: caret.and_then(|at| usize::try_from(at).ok()) })
    }

    /// Sets the number of a slider, a spin button, a scroll bar, and returns what it is then: applications round.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of its range, [`Error::Refused`] for what has no value; else as [`Self::set_text`].
    pub async fn set_value(&self, id: &NodeId, number: f64) -> Result<f64> {
        let bus = self.bus().await?;
        let range = value(&bus, id).await?;
        if !number.is_finite() || range.minimum < range.maximum && !(range.minimum..=range.maximum).contains(&number) {
            return Err(Error::Invalid(format!("{number} isn't within {} to {}", range.minimum, range.maximum)));
        }
        bus.set(id, "Value", "CurrentValue", Variant::from(number)).await?;
        Ok(value(&bus, id).await?.current)
    }

    /// Gives it the keyboard.
    ///
    /// # Errors
    /// [`Error::Refused`] for what can't have it; else as [`Self::set_text`].
    pub async fn focus(&self, id: &NodeId) -> Result<()> {
        let done = self.bus().await?.call(id, "Component", "GrabFocus", &()).await?;
        taken(done, id, "the focus")
    }

    /// Scrolls it into view.
    ///
    /// # Errors
    /// [`Error::Refused`], also where the toolkit can't; else as [`Self::set_text`].
    pub async fn scroll_to(&self, id: &NodeId) -> Result<()> {
        const ANYWHERE: u32 = 6;
        let done = self.bus().await?.call(id, "Component", "ScrollTo", &ANYWHERE).await?;
        taken(done, id, "to scroll")
    }
}

/// A call of `EditableText`; not every toolkit has it for what is editable.
async fn edit<B: Serialize + DynamicType + Sync>(bus: &Bus, id: &NodeId, method: &str, body: &B) -> Result<bool> {
    let refused = match bus.call(id, "EditableText", method, body).await {
        Err(Error::Refused(why)) => why,
        done => return done,
    };
    let interfaces: Vec<String> = bus.call(id, "Accessible", "GetInterfaces", &()).await?;
    let can = interfaces.iter().any(|interface| interface == "org.a11y.atspi.EditableText");
    let instead = format!("{id} can't be edited through the tree; if it is editable, focus it and type");
    Err(Error::Refused(if can { refused } else { instead }))
}

/// [`Error::NoNode`] if it isn't there: an application may answer for its interface what it would for a node without it.
async fn present(bus: &Bus, id: &NodeId) -> Result<()> {
    bus.call::<_, u32>(id, "Accessible", "GetRole", &()).await.map(|_| ())
}

fn taken(done: bool, id: &NodeId, what: &str) -> Result<()> {
    if done { Ok(()) } else { Err(Error::Refused(format!("{id} doesn't take {what}"))) }
}

fn bounded(text: &str) -> Result<()> {
    let fits = text.chars().nth(MAX_TEXT_CHARS).is_none() && !text.contains('\0');
    fits.then_some(()).ok_or_else(|| Error::Invalid(format!("a text has up to {MAX_TEXT_CHARS} characters, none of them NUL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_action_is_what_a_click_does() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(Action::Default.among(&names(&["ShowMenu", "Press"])), Some(1));
        assert_eq!(Action::Default.among(&names(&["expand or contract"])), Some(0));
        assert_eq!(Action::Default.among(&[]), None);
        assert_eq!(Action::Name("CLICK".into()).among(&names(&["click"])), Some(0));
        assert_eq!(Action::Index(1).among(&names(&["click"])), None);
    }
}

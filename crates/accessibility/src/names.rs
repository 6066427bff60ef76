//! Roles and states by their standard names: `AtspiRole` and `AtspiStateType` of at-spi2-core 2.56 (atspi-constants.h), in lower
//! case with spaces for roles and hyphens for states.

/// By number.
#[rustfmt::skip]
const ROLES: &[&str] = &[
    "invalid", "accelerator label", "alert", "animation", "arrow", "calendar", "canvas", "check box", "check menu item",
    "color chooser", "column header", "combo box", "date editor", "desktop icon", "desktop frame", "dial", "dialog",
    "directory pane", "drawing area", "file chooser", "filler", "focus traversable", "font chooser", "frame", "glass pane",
    "html container", "icon", "image", "internal frame", "label", "layered pane", "list", "list item", "menu", "menu bar",
    "menu item", "option pane", "page tab", "page tab list", "panel", "password text", "popup menu", "progress bar", "button",
    "radio button", "radio menu item", "root pane", "row header", "scroll bar", "scroll pane", "separator", "slider",
    "spin button", "split pane", "status bar", "table", "table cell", "table column header", "table row header",
    "tearoff menu item", "terminal", "text", "toggle button", "tool bar", "tool tip", "tree", "tree table", "unknown",
    "viewport", "window", "extended", "header", "footer", "paragraph", "ruler", "application", "autocomplete", "edit bar",
    "embedded", "entry", "chart", "caption", "document frame", "heading", "page", "section", "redundant object", "form", "link",
    "input method window", "table row", "tree item", "document spreadsheet", "document presentation", "document text",
    "document web", "document email", "comment", "list box", "grouping", "image map", "notification", "info bar", "level bar",
    "title bar", "block quote", "audio", "video", "definition", "article", "landmark", "log", "marquee", "math", "rating",
    "timer", "static", "math fraction", "math root", "subscript", "superscript", "description list", "description term",
    "description value", "footnote", "content deletion", "content insertion", "mark", "suggestion", "push button menu",
    "switch",
];

/// By bit.
#[rustfmt::skip]
const STATES: &[&str] = &[
    "invalid", "active", "armed", "busy", "checked", "collapsed", "defunct", "editable", "enabled", "expandable", "expanded",
    "focusable", "focused", "has-tooltip", "horizontal", "iconified", "modal", "multi-line", "multiselectable", "opaque",
    "pressed", "resizable", "selectable", "selected", "sensitive", "showing", "single-line", "stale", "transient", "vertical",
    "visible", "manages-descendants", "indeterminate", "required", "truncated", "animated", "invalid-entry",
    "supports-autocompletion", "selectable-text", "is-default", "visited", "checkable", "has-popup", "read-only",
];

/// Other names for roles: older ones of the same standard.
const ALIASES: &[(&str, &str)] = &[("pushbutton", "button"), ("togglepushbutton", "togglebutton"), ("textbox", "entry")];

/// A role's name; a number newer than the table is `role <number>`.
pub(crate) fn role(number: u32) -> String {
    let known = usize::try_from(number).ok().and_then(|number| ROLES.get(number));
    known.map_or_else(|| format!("role {number}"), |name| (*name).to_owned())
}

/// A role's or state's name as it is compared: without case, spaces, hyphens, underscores; older names as today's.
pub(crate) fn folded(name: &str) -> String {
    let folded: String = name.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).flat_map(char::to_lowercase).take(100).collect();
    ALIASES.iter().find(|(alias, _)| *alias == folded).map_or(folded, |(_, name)| (*name).to_owned())
}

/// Whether there is such a role, however it is written; `role <number>` may be one that is newer than this table.
pub fn is_role(name: &str) -> bool {
    let name = folded(name);
    let number = name.strip_prefix("role").is_some_and(|number| number.parse::<u32>().is_ok());
    number || ROLES.iter().any(|known| folded(known) == name)
}

/// Whether there is such a state, however it is written.
pub fn is_state(name: &str) -> bool {
    STATES.iter().any(|known| folded(known) == folded(name))
}

/// The states of a node, a set of bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct States(u64);

impl States {
    /// From two words, the lower first, as they are on the bus. Fewer words mean that the rest is unset.
    pub(crate) fn from_words(words: &[u32]) -> Self {
        let word = |index: usize| u64::from(words.get(index).copied().unwrap_or_default());
        Self(word(0) | word(1) << 32)
    }

    pub(crate) fn has(self, name: &str) -> bool {
        STATES.iter().position(|known| *known == name).is_some_and(|bit| self.0 & (1 << bit) != 0)
    }

    /// Their names; those newer than the table are left out.
    pub(crate) fn names(self) -> Vec<&'static str> {
        STATES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name).collect()
    }

    /// Drawn on the screen, or in a part of it that is scrolled away.
    pub(crate) fn showing(self) -> bool {
        self.has("showing") && self.has("visible")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_the_numbers_of_the_standard() {
        let known = [(0, "invalid"), (23, "frame"), (35, "menu item"), (43, "button"), (61, "text"), (79, "entry")];
        let later = [(95, "document web"), (104, "title bar"), (116, "static"), (129, "push button menu")];
        for (number, name) in known.into_iter().chain(later) {
            assert_eq!(role(number), name);
        }
        assert_eq!(role(4_000), "role 4000");
        assert_eq!(folded("Push-Button"), folded("button"));
    }

    #[test]
    fn names_are_known_however_they_are_written() {
        for role in ["button", "Push Button", "menu_item", "role 400"] {
            assert!(is_role(role), "{role}");
        }
        assert!(is_state("Has-Popup") && is_state("read only"));
        assert!(!is_role("buton") && !is_role("role") && !is_state("shown") && !is_role(""));
    }

    #[test]
    fn states_have_the_bits_of_the_standard() {
        let states = States::from_words(&[1 << 7 | 1 << 25 | 1 << 30, 1 << 11]);
        assert_eq!(states.names(), ["editable", "showing", "visible", "read-only"]);
        assert!(states.showing() && States::from_words(&[]).names().is_empty());
    }
}

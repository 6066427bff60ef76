//! Names of keys: those of X (as XStringToKeysym has them), those of browsers and of people, and characters.

use std::collections::HashMap;
use std::sync::LazyLock;

use x11rb::protocol::xproto::Keysym;

use crate::{Error, Result};

/// Keysyms of Unicode characters above U+00FF are this and the code point (X11 protocol, appendix A).
const UNICODE: Keysym = 0x0100_0000;

/// From here on keysyms of the first page stand for functions: modifiers, dead keys, the keypad.
const FUNCTIONS: Keysym = 0xfe00;

/// Keys of a chord: a hand has five fingers, and two hands press more than anybody needs.
const KEYS_MAX: usize = 8;

/// How many similar names an error tells.
const SIMILAR_MAX: usize = 3;

/// What others call keys. Compared in lower case and without `_`, `-` and spaces.
const ALIASES: &[(&str, &str)] = &[
    ("alt", "Alt_L"),
    ("altgr", "ISO_Level3_Shift"),
    ("altgraph", "ISO_Level3_Shift"),
    ("apostrophe", "apostrophe"),
    ("arrowdown", "Down"),
    ("arrowleft", "Left"),
    ("arrowright", "Right"),
    ("arrowup", "Up"),
    ("cmd", "Super_L"),
    ("command", "Super_L"),
    ("contextmenu", "Menu"),
    ("control", "Control_L"),
    ("ctrl", "Control_L"),
    ("del", "Delete"),
    ("enter", "Return"),
    ("esc", "Escape"),
    ("hyper", "Hyper_L"),
    ("ins", "Insert"),
    ("meta", "Meta_L"),
    ("newline", "Return"),
    ("opt", "Alt_L"),
    ("option", "Alt_L"),
    ("os", "Super_L"),
    ("pgdn", "Page_Down"),
    ("pgdown", "Page_Down"),
    ("pgup", "Page_Up"),
    ("printscreen", "Print"),
    ("prtsc", "Print"),
    ("rightalt", "Alt_R"),
    ("rightctrl", "Control_R"),
    ("rightshift", "Shift_R"),
    ("shift", "Shift_L"),
    ("spacebar", "space"),
    ("super", "Super_L"),
    ("win", "Super_L"),
    ("windows", "Super_L"),
];

/// Caps Lock and Shift Lock: a key that locks isn't pressed with its lock lifted.
pub(super) const LOCKS: [Keysym; 2] = [0xffe5, 0xffe6];
const SPACE: Keysym = 0x20;
pub(super) const RETURN: Keysym = 0xff0d;
pub(super) const TAB: Keysym = 0xff09;
pub(super) const SHIFT: [Keysym; 2] = [0xffe1, 0xffe2];
pub(super) const LEVEL3_SHIFT: Keysym = 0xfe03;

struct Named {
    name: &'static str,
    symbol: Keysym,
}

struct Table {
    /// Sorted by name.
    names: Vec<Named>,
    characters: HashMap<Keysym, char>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { names: Vec::new(), characters: HashMap::new() };
    for line in include_str!("keysyms.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(' ');
        let name = fields.next().unwrap_or_default();
        let mut number = || fields.next().and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(symbol) = number() else { continue };
        if let Some(character) = number().and_then(char::from_u32) {
            table.characters.insert(symbol, character);
        }
        table.names.push(Named { name, symbol });
    }
    table
});

/// The character that a keysym stands for. `None` for functions, dead keys and the keypad.
pub(super) fn character_of(symbol: Keysym) -> Option<char> {
    match symbol {
        0x20..=0x7e | 0xa0..=0xff => char::from_u32(symbol),
        0x0100_0100..=0x0110_ffff => char::from_u32(symbol - UNICODE),
        0..FUNCTIONS => TABLE.characters.get(&symbol).copied(),
        _ => None,
    }
}

/// The keysym of a character; `None` for control characters.
pub(super) fn symbol_of(character: char) -> Option<Keysym> {
    match u32::from(character) {
        _ if character.is_control() => None,
        code @ 0..=0xff => Some(code),
        code => Some(UNICODE | code),
    }
}

/// The keysym that a name means: a keysym's name, `0x61`, `U20AC`, a character, or what others call the key.
///
/// # Errors
/// [`Error::Invalid`], with similar names.
pub(super) fn symbol_named(name: &str) -> Result<Keysym> {
    let mut characters = name.chars();
    if let (Some(character), None) = (characters.next(), characters.next())
        && let Some(symbol) = symbol_of(character)
    {
        return Ok(symbol);
    }
    let found = exact(name).or_else(|| by_number(name)).or_else(|| tolerant(name));
    found.ok_or_else(|| unknown(name))
}

fn exact(name: &str) -> Option<Keysym> {
    let names = &TABLE.names;
    names.binary_search_by_key(&name, |named| named.name).ok().map(|index| names[index].symbol)
}

fn by_number(name: &str) -> Option<Keysym> {
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    if let Some(digits) = name.strip_prefix("0x") {
        return number(digits).filter(|symbol| (1..=0x1fff_ffff).contains(symbol)); // X11 protocol: 29 bits
    }
    let digits = name.strip_prefix('U').filter(|digits| digits.len() >= 4)?;
    symbol_of(char::from_u32(number(digits)?)?)
}

fn plain(name: &str) -> String {
    name.chars().filter(|character| !matches!(character, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// A name in another spelling, if it can mean one key only.
fn tolerant(name: &str) -> Option<Keysym> {
    if !name.starts_with(char::is_alphanumeric) {
        return None;
    }
    let name = plain(name);
    if let Some((_, alias)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return exact(alias);
    }
    let mut meant = TABLE.names.iter().filter(|named| plain(named.name) == name).map(|named| named.symbol);
    let first = meant.next()?;
    meant.all(|symbol| symbol == first).then_some(first)
}

fn unknown(name: &str) -> Error {
    let wanted = plain(name);
    let known = TABLE.names.iter().map(|named| named.name).chain(ALIASES.iter().map(|(alias, _)| *alias));
    let mut similar: Vec<(usize, &str)> = known.map(|known| (distance(&wanted, &plain(known)), known)).collect();
    similar.retain(|(distance, _)| *distance <= wanted.len().div_ceil(3).min(3));
    similar.sort();
    let shown: String = name.chars().take(40).collect();
    let similar: Vec<&str> = similar.iter().take(SIMILAR_MAX).map(|(_, name)| *name).collect();
    Error::Invalid(match similar.is_empty() {
        true => format!("no key is called {shown:?}"),
        false => format!("no key is called {shown:?}; similar names: {}", similar.join(", ")),
    })
}

/// How many characters have to be put in, taken out or replaced (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, character) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, theirs) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *theirs);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// The keysyms of a chord such as `ctrl+shift+t`, in this order: at least one, at most eight. `+` is a key as well: `ctrl++`.
///
/// # Errors
/// [`Error::Invalid`]: nothing, too much, or a name that is no key's.
pub(super) fn chord(text: &str) -> Result<Vec<Keysym>> {
    let text = if text.chars().count() == 1 { text } else { text.trim() };
    let (front, plus) = match text.strip_suffix("++") {
        Some(front) if !front.is_empty() => (front, Some("+")),
        _ => (text, None),
    };
    let single = (text == "+").then_some("+");
    let names = single.into_iter().chain(front.split('+').filter(|_| single.is_none())).chain(plus);
    let named = |name: &str| match (name, name.trim()) {
        (" ", _) => Ok(SPACE),
        (_, "") => Err(Error::Invalid(format!("not a key or chord: {text:?}"))),
        (_, name) => symbol_named(name),
    };
    let symbols = names.map(named).collect::<Result<Vec<_>>>()?;
    if symbols.len() > KEYS_MAX {
        return Err(Error::Invalid(format!("a chord has at most {KEYS_MAX} keys, not {}", symbols.len())));
    }
    Ok(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(TABLE.names.is_sorted_by(|one, other| one.name < other.name));
        assert!(TABLE.names.len() > 2400);
        for (_, name) in ALIASES {
            assert!(exact(name).is_some(), "{name}");
        }
    }

    #[test]
    fn keys_have_the_names_of_x_of_browsers_and_of_people() {
        let same = [
            ("Return", 0xff0d),
            ("Enter", 0xff0d),
            ("enter", 0xff0d),
            ("KP_Enter", 0xff8d),
            ("Backspace", 0xff08),
            ("BackSpace", 0xff08),
            ("Esc", 0xff1b),
            ("escape", 0xff1b),
            ("Del", 0xffff),
            ("ArrowUp", 0xff52),
            ("PageUp", 0xff55),
            ("Page_Down", 0xff56),
            ("Prior", 0xff55),
            ("f5", 0xffc2),
            ("F12", 0xffc9),
            ("Ctrl", 0xffe3),
            ("Option", 0xffe9),
            ("Cmd", 0xffeb),
            ("Win", 0xffeb),
            ("Caps Lock", 0xffe5),
            ("space", 0x20),
            ("plus", 0x2b),
            ("!", 0x21),
            ("é", 0xe9),
            ("a", 0x61),
            ("A", 0x41),
            ("0x61", 0x61),
            ("U20AC", 0x0100_20ac),
            ("€", 0x0100_20ac),
            ("XF86AudioPlay", 0x1008_ff14),
            ("eacute", 0xe9),
            ("Eacute", 0xc9),
        ];
        for (name, symbol) in same {
            assert_eq!(symbol_named(name).unwrap(), symbol, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_similar_ones() {
        let says = |name: &str| symbol_named(name).unwrap_err().to_string();
        assert!(says("Retrun").contains("Return"), "{}", says("Retrun"));
        assert!(says("EACUTE").contains("eacute"), "{}", says("EACUTE"));
        assert_eq!(says("NoSuchKey"), "no key is called \"NoSuchKey\"");
        for name in ["", "0x", "0x0", "0xffffffffff", "UD800", "\n", "--help"] {
            assert!(matches!(symbol_named(name), Err(Error::Invalid(_))), "{name:?}");
        }
    }

    #[test]
    fn chords_are_keys_joined_by_plus() {
        assert_eq!(chord("ctrl+shift+t").unwrap(), [0xffe3, 0xffe1, 0x74]);
        assert_eq!(chord("Ctrl + Enter").unwrap(), [0xffe3, 0xff0d]);
        assert_eq!(chord("+").unwrap(), [0x2b]);
        assert_eq!(chord("ctrl++").unwrap(), [0xffe3, 0x2b]);
        assert_eq!(chord(" ").unwrap(), [0x20]);
        for text in ["", "   ", "ctrl+", "++", "+++", "ctrl+++", "+a", "a++b", "ctrl+nokey", "a+b+c+d+e+f+g+h+i"] {
            assert!(matches!(chord(text), Err(Error::Invalid(_))), "{text:?}: {:?}", chord(text));
        }
    }

    #[test]
    fn characters_and_keysyms_are_each_others() {
        for character in ['a', 'é', 'ф', 'Ω', '日', '😀', '€', '\u{200d}'] {
            assert_eq!(symbol_of(character).and_then(character_of), Some(character));
        }
        assert_eq!(character_of(0x6c1), Some('а')); // Cyrillic_a
        assert_eq!(character_of(0xffb1), None); // KP_1
        assert_eq!(symbol_of('\u{7}'), None);
    }
}

//! Which key gives which keysym, as the server has it now (XKB 1.0, sections 12 and 15).

use std::collections::HashMap;

use x11rb::protocol::xkb::{self, ConnectionExt as _, KeySymMap, KeyType, MapPart};
use x11rb::protocol::xproto::{Keycode, Keysym, ModMask};
use x11rb::rust_connection::RustConnection;

use super::names;
use super::pool::{Assignment, LEVELS};
use crate::{Error, Result};

/// "The keyboard", whichever it is.
pub(super) const CORE: xkb::DeviceSpec = 0x100;

/// The type of keys with two levels that only Shift tells apart: Caps Lock doesn't (XKB 1.0, section 15.2.1, canonical types).
const TWO_LEVEL: u8 = 1;

/// Modifiers that stay whatever is pressed, and the group (layout) in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Locked {
    pub group: u8,
    pub modifiers: u16,
}

impl Locked {
    pub fn caps(self) -> bool {
        self.modifiers & u16::from(ModMask::LOCK) != 0
    }
}

/// A key and what has to be held for it to give a certain keysym.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stroke {
    pub keycode: Keycode,
    pub shift: Option<Keycode>,
    pub level3: Option<Keycode>,
}

impl Stroke {
    pub fn plain(keycode: Keycode) -> Self {
        Self { keycode, shift: None, level3: None }
    }

    /// What has to be held.
    pub fn modifiers(self) -> impl DoubleEndedIterator<Item = Keycode> {
        [self.shift, self.level3].into_iter().flatten()
    }
}

/// What every key gives.
pub(super) struct Keymap {
    first: Keycode,
    /// The lowest and the highest keycode of the keyboard.
    range: (Keycode, Keycode),
    types: Vec<KeyType>,
    keys: Vec<KeySymMap>,
    /// Keycode and the modifiers that it sets.
    modifiers: Vec<(Keycode, u16)>,
    indexed: Option<Locked>,
    strokes: HashMap<Keysym, Stroke>,
    characters: HashMap<char, Stroke>,
    pub shift: Option<Keycode>,
}

impl Keymap {
    /// One round trip.
    pub fn fetch(conn: &RustConnection) -> Result<Self> {
        let parts = MapPart::KEY_TYPES | MapPart::KEY_SYMS | MapPart::MODIFIER_MAP;
        let none = MapPart::from(0u16);
        let virtual_modifiers = xkb::VMod::from(0u16);
        let reply = conn.xkb_get_map(CORE, parts, none, 0, 0, 0, 0, 0, 0, 0, 0, virtual_modifiers, 0, 0, 0, 0, 0, 0)?.reply()?;
        let map = reply.map;
        let missing = || Error::Refused("a keymap without keys".into());
        let modifiers = map.modmap_rtrn.unwrap_or_default();
        Ok(Self {
            first: reply.first_key_sym,
            range: (reply.min_key_code, reply.max_key_code),
            types: map.types_rtrn.ok_or_else(missing)?,
            keys: map.syms_rtrn.ok_or_else(missing)?,
            modifiers: modifiers.iter().map(|entry| (entry.keycode, u16::from(entry.mods))).collect(),
            indexed: None,
            strokes: HashMap::new(),
            characters: HashMap::new(),
            shift: None,
        })
    }

    /// The key that gives a keysym, or the same character as it.
    pub fn stroke(&self, symbol: Keysym) -> Option<Stroke> {
        let same = || names::character_of(symbol).and_then(|character| self.characters.get(&character));
        self.strokes.get(&symbol).or_else(same).copied()
    }

    /// The first two keysyms of each key that is no modifier and has none at all, or is among `ours`.
    pub fn spare(&self, ours: impl Fn(&Assignment) -> bool) -> Vec<Assignment> {
        let is_modifier = |keycode| self.modifiers.iter().any(|(key, mods)| *key == keycode && *mods != 0);
        let two = |syms: &[Keysym]| [0, 1].map(|level| syms.get(level).copied().unwrap_or_default());
        let keys = self.each().filter(|(keycode, _)| !is_modifier(*keycode));
        let keys = keys.map(|(keycode, key)| ((keycode, two(&key.syms)), key.syms.iter().all(|symbol| *symbol == 0)));
        keys.filter(|(key, is_empty)| *is_empty || ours(key)).map(|(key, _)| key).collect()
    }

    /// Gives keycodes other keysyms, all in one request: each change makes programs read the whole keymap again, and those of GTK
    /// rebuild their shortcuts. The keys between them are said to be what they are.
    pub fn assign(&mut self, conn: &RustConnection, assignments: &[Assignment]) -> Result<()> {
        let keycodes = || assignments.iter().map(|(keycode, _)| *keycode);
        let (Some(lowest), Some(highest)) = (keycodes().min(), keycodes().max()) else { return Ok(()) };
        for (keycode, symbols) in assignments {
            let Some(key) = keycode.checked_sub(self.first).and_then(|index| self.keys.get_mut(usize::from(index))) else {
                continue;
            };
            *key = match symbols {
                [0, 0] => KeySymMap { kt_index: [0; 4], group_info: 0, width: 0, syms: Vec::new() },
                symbols => KeySymMap { kt_index: [TWO_LEVEL; 4], group_info: 1, width: LEVELS as u8, syms: symbols.to_vec() },
            };
        }
        let keys = self.each().filter(|(keycode, _)| (lowest..=highest).contains(keycode));
        let keys: Vec<KeySymMap> = keys.map(|(_, key)| key.clone()).collect();
        let total = keys.iter().map(|key| key.syms.len() as u16).sum();
        let (count, (first, last)) = (highest - lowest + 1, self.range);
        let (flags, none) = (xkb::SetMapFlags::from(0u16), xkb::VMod::from(0u16));
        let values = xkb::SetMapAux { syms: Some(keys), ..xkb::SetMapAux::default() };
        let sent = conn.xkb_set_map(
            CORE, flags, first, last, 0, 0, lowest, count, total, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, none, &values,
        )?;
        Ok(sent.check()?)
    }

    fn each(&self) -> impl Iterator<Item = (Keycode, &KeySymMap)> {
        (self.first..=Keycode::MAX).zip(&self.keys)
    }

    /// Looks through all keys but `ours`. Cheap when nothing is different.
    pub fn index(&mut self, locked: Locked, ours: impl Fn(Keycode) -> bool) {
        if self.indexed.replace(locked) == Some(locked) {
            return;
        }
        // Caps Lock is lifted while keys are pressed.
        let locked = Locked { modifiers: locked.modifiers & !u16::from(ModMask::LOCK), ..locked };
        let sets = |(keycode, mods): &(Keycode, u16), symbol| {
            *mods != 0 && self.symbol(*keycode, locked.group, 0).is_some_and(|first| first == symbol)
        };
        let find = |symbol| self.modifiers.iter().find(|entry| sets(entry, symbol)).copied();
        let shift = names::SHIFT.into_iter().find_map(find);
        let level3 = find(names::LEVEL3_SHIFT);
        let mut strokes = HashMap::new();
        let mut characters = HashMap::new();
        // Whoever comes first stays: fewer modifiers, lower keycodes.
        for (with_shift, with_level3) in [(None, None), (shift, None), (None, level3), (shift, level3)] {
            let (shift, level3) = (with_shift.map(|(key, _)| key), with_level3.map(|(key, _)| key));
            let held = locked.modifiers | [with_shift, with_level3].iter().flatten().fold(0, |all, (_, mods)| all | mods);
            for (keycode, key) in self.each().filter(|(keycode, _)| !ours(*keycode)) {
                let Some(symbol) = self.given(keycode, key, locked.group, held) else { continue };
                let stroke = Stroke { keycode, shift, level3 };
                strokes.entry(symbol).or_insert(stroke);
                if let Some(character) = names::character_of(symbol) {
                    characters.entry(character).or_insert(stroke);
                }
            }
        }
        (self.strokes, self.characters) = (strokes, characters);
        self.shift = shift.map(|(key, _)| key);
    }

    fn given(&self, keycode: Keycode, key: &KeySymMap, group: u8, held: u16) -> Option<Keysym> {
        let group = group_of(key, group)?;
        let kind = self.types.get(usize::from(*key.kt_index.get(usize::from(group))?))?;
        let held = held & u16::from(kind.mods_mask);
        let entry = kind.map.iter().find(|entry| entry.active && u16::from(entry.mods_mask) == held);
        self.symbol(keycode, group, entry.map_or(0, |entry| entry.level))
    }

    fn symbol(&self, keycode: Keycode, group: u8, level: u8) -> Option<Keysym> {
        let key = self.keys.get(usize::from(keycode.checked_sub(self.first)?))?;
        let group = group_of(key, group)?;
        let index = usize::from(group) * usize::from(key.width) + usize::from(level);
        (level < key.width).then(|| key.syms.get(index).copied()).flatten().filter(|symbol| *symbol != 0)
    }
}

/// The key's own group when `group` is in force: keys with fewer groups wrap, clamp or redirect (XKB 1.0, section 15.3.2).
fn group_of(key: &KeySymMap, group: u8) -> Option<u8> {
    let count = key.group_info & 0x0f;
    match (count, key.group_info & 0xc0) {
        (0, _) => None,
        _ if group < count => Some(group),
        (_, 0x40) => Some(count - 1),
        (_, 0x80) => Some(Some((key.group_info >> 4) & 3).filter(|redirect| *redirect < count).unwrap_or(0)),
        _ => Some(group % count),
    }
}

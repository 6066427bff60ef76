//! Content by target, and the names that text goes by.

use std::sync::Arc;

use x11rb::protocol::xproto::Atom;

use super::task::Atoms;
use crate::text::{Encoding, to_latin1};

/// `STRING`, text in Latin-1: an atom that every server has from the start (X11 protocol, appendix B).
pub(super) const STRING: Atom = 31;

/// One form of a content.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub target: Atom,
    /// The type of the property that it is handed out in.
    pub kind: Atom,
    pub bytes: Arc<[u8]>,
}

/// Forms of one content, in the order they were given.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer {
    pub items: Vec<Item>,
}

impl Offer {
    pub fn find(&self, target: Atom) -> Option<&Item> {
        self.items.iter().find(|item| item.target == target)
    }

    /// The first of `targets` that there is.
    pub fn first_of(&self, targets: &[Atom]) -> Option<&Item> {
        targets.iter().find_map(|&target| self.find(target))
    }

    /// What `given` comes to with the other names of its text. What was given by name counts before what follows from it.
    pub fn new(given: Vec<(Atom, Vec<u8>)>, atoms: &Atoms) -> Self {
        let mut offer = Self::default();
        for (target, bytes) in given {
            offer.add(target, target, bytes.into());
        }
        let utf8 = [atoms.UTF8_STRING, atoms.TEXT_UTF8, atoms.TEXT_PLAIN];
        let Some(text) = offer.first_of(&utf8).map(|item| Arc::clone(&item.bytes)) else { return offer };
        for target in utf8 {
            offer.add(target, target, Arc::clone(&text));
        }
        offer.add(atoms.TEXT, atoms.UTF8_STRING, Arc::clone(&text));
        // Old programs know nothing else. To leave out what Latin-1 hasn't would be worse than to say no.
        if text.is_ascii() {
            offer.add(STRING, STRING, text);
        } else if let Some(latin1) = str::from_utf8(&text).ok().and_then(to_latin1) {
            offer.add(STRING, STRING, latin1.into());
        }
        offer
    }

    fn add(&mut self, target: Atom, kind: Atom, bytes: Arc<[u8]>) {
        if self.find(target).is_none() {
            self.items.push(Item { target, kind, bytes });
        }
    }
}

/// Targets of text, the one that loses least first.
pub(super) fn text_targets(atoms: &Atoms) -> [Atom; 7] {
    [atoms.UTF8_STRING, atoms.TEXT_UTF8, atoms.TEXT_UTF8_UPPER, atoms.COMPOUND_TEXT, atoms.TEXT_PLAIN, STRING, atoms.TEXT]
}

/// How the text of `item` is encoded: its type says it, else the name of its target.
pub(super) fn encoding(item: &Item, target: &str, atoms: &Atoms) -> Option<Encoding> {
    let target = target.to_ascii_lowercase();
    match item.kind {
        STRING => Some(Encoding::Latin1),
        kind if kind == atoms.UTF8_STRING => Some(Encoding::Utf8),
        kind if kind == atoms.COMPOUND_TEXT => Some(Encoding::Compound),
        _ if target.starts_with("text/") && target.ends_with("charset=iso-8859-1") => Some(Encoding::Latin1),
        _ if target.starts_with("text/") || target == "utf8_string" => Some(Encoding::Utf8),
        _ => None,
    }
}

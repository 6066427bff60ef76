//! Spare keycodes, which get the keysyms that no key of the layout gives. They stay mapped until they are needed for others.
//!
//! A program looks a keycode up when it handles the event, not when the key was pressed: a keycode gets another keysym only
//! after the program has surely handled what was pressed before ([`super::settle`]).

use x11rb::protocol::xproto::{Keycode, Keysym};

use super::keymap::Stroke;
use super::names;

/// Keysyms of a spare keycode: without and with Shift.
pub(super) const LEVELS: usize = 2;

#[derive(Debug, Clone)]
struct Slot {
    keycode: Keycode,
    /// Zero where there is none.
    symbols: [Keysym; LEVELS],
    /// When it was pressed last, by [`Pool::clock`].
    used: u64,
    /// Held down now.
    pinned: bool,
}

impl Slot {
    fn has(&self, symbol: Keysym) -> bool {
        self.symbols.contains(&symbol)
    }
}

/// All spare keycodes.
#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: Vec<Slot>,
    clock: u64,
    /// What was pressed until then was handled.
    settled: u64,
}

/// What a keycode is to give.
pub(super) type Assignment = (Keycode, [Keysym; LEVELS]);

impl Pool {
    pub fn owns(&self, keycode: Keycode) -> bool {
        self.slots.iter().any(|slot| slot.keycode == keycode && slot.symbols != [0; LEVELS])
    }

    /// Takes what the server's keymap says now: another client may have changed it.
    pub fn reconcile(&mut self, spare: Vec<Assignment>) {
        let before = std::mem::take(&mut self.slots);
        let known = |keycode| before.iter().find(|slot| slot.keycode == keycode);
        let slots = spare.into_iter().filter_map(|(keycode, symbols)| match known(keycode) {
            Some(slot) if slot.symbols == symbols || symbols == [0; LEVELS] => Some(Slot { symbols, ..slot.clone() }),
            Some(_) => None, // somebody else gave it a meaning
            None => Some(Slot { keycode, symbols, used: 0, pinned: false }),
        });
        self.slots = slots.collect();
    }

    /// How to give a keysym, if a spare keycode has it. `shift` is the key to hold for the second one.
    pub fn stroke(&self, symbol: Keysym, shift: Option<Keycode>) -> Option<Stroke> {
        let slot = self.slots.iter().find(|slot| slot.has(symbol))?;
        match slot.symbols[0] == symbol {
            true => Some(Stroke::plain(slot.keycode)),
            false => Some(Stroke { shift: Some(shift?), ..Stroke::plain(slot.keycode) }),
        }
    }

    /// Notes that a keycode is pressed or released, a spare one or not.
    pub fn press(&mut self, keycode: Keycode) {
        self.clock += 1;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.keycode == keycode) {
            slot.used = self.clock;
        }
    }

    /// A keycode that is held down keeps its keysym.
    pub fn pin(&mut self, keycode: Keycode, pinned: bool) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.keycode == keycode) {
            slot.pinned = pinned;
        }
    }

    /// Whether something was pressed that may not have been handled yet.
    pub fn is_settled(&self) -> bool {
        self.clock <= self.settled
    }

    /// Everything pressed so far has been handled.
    pub fn settle(&mut self, mark: u64) {
        self.settled = self.settled.max(mark);
    }

    /// What to [`Pool::settle`] once the programs have handled what was pressed until now.
    pub fn mark(&self) -> u64 {
        self.clock
    }

    /// How many of the keysyms that come next can be had without waiting, and what has to be mapped for them. `None` stands for
    /// one that the layout gives.
    pub fn fit(&self, symbols: impl Iterator<Item = Option<Keysym>>, has_shift: bool) -> (usize, Vec<Assignment>) {
        let mut free: Vec<&Slot> = self.slots.iter().filter(|slot| !slot.pinned && slot.used <= self.settled).collect();
        free.sort_by_key(|slot| (slot.symbols != [0; LEVELS], slot.used));
        let mut fresh: Vec<[Keysym; LEVELS]> = Vec::new();
        let mut count = 0;
        for symbol in symbols {
            let Some(symbol) = symbol else {
                count += 1;
                continue;
            };
            if self.slots.iter().any(|slot| slot.has(symbol)) {
                let without = free.iter().filter(|slot| !slot.has(symbol)).count();
                if without < fresh.len() {
                    break;
                }
                free.retain(|slot| !slot.has(symbol));
            } else if !fresh.iter().any(|pair| pair.contains(&symbol)) && !pair_up(&mut fresh, symbol, has_shift, free.len()) {
                break;
            }
            count += 1;
        }
        (count, free.iter().map(|slot| slot.keycode).zip(fresh).collect())
    }

    /// Notes what was mapped.
    pub fn assign(&mut self, assignments: &[Assignment]) {
        for (keycode, symbols) in assignments {
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.keycode == *keycode) {
                slot.symbols = *symbols;
            }
        }
    }

    /// What all keycodes were given.
    pub fn assigned(&self) -> Vec<Assignment> {
        let assigned = self.slots.iter().filter(|slot| slot.symbols != [0; LEVELS]);
        assigned.map(|slot| (slot.keycode, slot.symbols)).collect()
    }

    /// The keycodes that were mapped, none of which is held.
    pub fn mapped(&self) -> Vec<Keycode> {
        let mapped = self.slots.iter().filter(|slot| slot.symbols != [0; LEVELS] && !slot.pinned);
        mapped.map(|slot| slot.keycode).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// Characters share keycodes, one with Shift; functions such as modifiers have their own.
fn pair_up(fresh: &mut Vec<[Keysym; LEVELS]>, symbol: Keysym, has_shift: bool, room: usize) -> bool {
    let is_character = |symbol| names::character_of(symbol).is_some();
    if has_shift && is_character(symbol) {
        // Alike in both places: still half empty.
        let half = fresh.iter_mut().find(|pair| pair[0] == pair[1] && is_character(pair[0]));
        if let Some(pair) = half {
            pair[1] = symbol;
            return true;
        }
    }
    let has_room = fresh.len() < room;
    if has_room {
        fresh.push([symbol; LEVELS]); // with Shift or Caps Lock, too
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(keycodes: &[Keycode]) -> Pool {
        let mut pool = Pool::default();
        pool.reconcile(keycodes.iter().map(|keycode| (*keycode, [0; LEVELS])).collect());
        pool
    }

    fn symbols(text: &str) -> Vec<Keysym> {
        text.chars().filter_map(names::symbol_of).collect()
    }

    fn fit(pool: &mut Pool, text: &str) -> usize {
        let (count, assignments) = pool.fit(symbols(text).into_iter().map(Some), true);
        pool.assign(&assignments);
        for symbol in symbols(text).into_iter().take(count) {
            let stroke = pool.stroke(symbol, Some(50)).unwrap();
            pool.press(stroke.keycode);
        }
        count
    }

    #[test]
    fn a_keycode_gets_another_meaning_only_after_what_was_pressed_has_been_handled() {
        let mut pool = pool(&[8, 93]);
        assert_eq!(fit(&mut pool, "日本日語文字"), 5);
        assert_eq!(fit(&mut pool, "字"), 0);
        assert_eq!(fit(&mut pool, "日文字"), 2);
        pool.settle(pool.mark());
        assert_eq!(fit(&mut pool, "字"), 1);
        assert!(pool.stroke(symbols("日")[0], Some(50)).is_none(), "least recently used");
        assert!(pool.stroke(symbols("本")[0], Some(50)).is_none(), "it shared the keycode");
        assert!(pool.stroke(symbols("文")[0], Some(50)).is_some());
    }

    #[test]
    fn what_is_needed_is_not_taken() {
        let mut pool = pool(&[8, 93]);
        assert_eq!(fit(&mut pool, "日本語文"), 4);
        pool.settle(pool.mark());
        assert_eq!(fit(&mut pool, "字文日"), 2, "one for the new, one for the old: no third");
    }

    #[test]
    fn held_keycodes_stay() {
        let mut pool = pool(&[8]);
        assert_eq!(fit(&mut pool, "日"), 1);
        pool.pin(8, true);
        pool.settle(pool.mark());
        assert_eq!(fit(&mut pool, "本"), 0);
        assert_eq!(pool.mapped(), []);
        pool.pin(8, false);
        assert_eq!(fit(&mut pool, "本"), 1);
    }

    #[test]
    fn another_layout_takes_what_it_needs() {
        let mut pool = pool(&[8, 93, 97]);
        assert_eq!(fit(&mut pool, "日"), 1);
        pool.reconcile(vec![(93, [0, 0]), (97, [0, 0])]);
        assert!(!pool.owns(8));
        assert!(pool.stroke(symbols("日")[0], Some(50)).is_none());
    }
}

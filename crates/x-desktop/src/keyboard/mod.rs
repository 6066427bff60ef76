//! Keys: pressed and released by name, and text typed.
//!
//! A keysym that the layout gives is had with the layout's own key, and Shift or AltGr where they are needed; any other gets a
//! spare keycode ([`pool`]). Caps Lock is lifted while keys are pressed. Keys that stay down are counted, so that whoever holds
//! a modifier already keeps it when somebody else needs it for a moment.
//!
//! ```text
//! name ─▶ names ─▶ keysym ─▶ keymap ───────────▶ stroke ─▶ XTEST
//! text ─▶ typing ─┘           └─ else: pool ──────┘
//!                                   └ full: settle, then other keysyms for its keycodes
//! ```

mod keymap;
mod names;
mod pool;
mod press;
mod settle;
mod typing;

use std::collections::BTreeMap;
use std::time::Duration;

use x11rb::connection::RequestConnection as _;
use x11rb::protocol::xkb::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{self, AtomEnum, ConnectionExt as _, Keycode, Keysym, ModMask, PropMode, Window};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::wrapper::ConnectionExt as _;

use keymap::{CORE, Keymap, Locked, Stroke};
use pool::{Assignment, LEVELS, Pool};

pub(crate) use press::modifiers_named;
pub use press::{KeyChange, Press};
pub use typing::Typing;

use crate::{Display, Error, Result};

/// Now: XTEST's delay of an event, in milliseconds.
const AT_ONCE: u32 = 0;

/// Three numbers for each keycode.
const NOTED_MAX: u32 = 3 * 256;

/// Windows that are waited for; one that got keys before these had time enough.
const UNSETTLED_MAX: usize = 4;

/// So often the keymap is read again when it changes while it is read.
const READS_MAX: usize = 8;

/// What is known of the keyboard, and what is held down.
#[derive(Default)]
pub(crate) struct Keyboard {
    map: Option<Keymap>,
    locked: Locked,
    pool: Pool,
    /// How many hold a key down.
    held: BTreeMap<Keycode, u32>,
    /// What was asked to stay down.
    down: Vec<(Keysym, Vec<Keycode>)>,
    /// The window in focus at the last look.
    focus: Window,
    /// Where keys went since the last time that all had been handled.
    unsettled: Vec<Window>,
    settling: Option<settle::Settling>,
    pings: u32,
    pong: Option<u32>,
}

impl Keyboard {
    /// Somebody changed the keymap, maybe we.
    pub(crate) fn forget_map(&mut self) {
        self.map = None;
    }

    /// An answer to `_NET_WM_PING`.
    pub(crate) fn take_pong(&mut self, token: u32) {
        self.pong = Some(token);
    }

    /// Keys are about to go to the window in focus.
    fn note_focus(&mut self) {
        self.unsettled.retain(|window| *window != self.focus);
        self.unsettled.push(self.focus);
        if self.unsettled.len() > UNSETTLED_MAX {
            self.unsettled.remove(0);
        }
    }

    fn stroke(&self, symbol: Keysym) -> Option<Stroke> {
        let map = self.map.as_ref()?;
        map.stroke(symbol).or_else(|| self.pool.stroke(symbol, map.shift))
    }
}

/// What [`Display::prepare`] says.
enum Prepared {
    /// So many can be pressed now.
    Now(usize),
    /// To be asked again after this time.
    Later(Duration),
}

impl Display {
    /// Asks to be told of other layouts.
    pub(crate) fn follow_keymap(&self) -> Result<()> {
        if self.conn.extension_information(xkb::X11_EXTENSION_NAME)?.is_some() {
            let all = xkb::MapPart::from(0xffu16);
            let events = xkb::EventType::NEW_KEYBOARD_NOTIFY | xkb::EventType::MAP_NOTIFY;
            let none = xkb::EventType::from(0u16);
            self.conn.xkb_select_events(CORE, none, events, all, all, &xkb::SelectEventsAux::new())?;
        }
        Ok(())
    }

    /// Learns the layout, if it is another one since, and which locks are on.
    fn look_at_keyboard(&mut self) -> Result<()> {
        if self.conn.extension_information(xkb::X11_EXTENSION_NAME)?.is_none() {
            return Err(Error::Missing(xkb::X11_EXTENSION_NAME));
        }
        for _ in 0..READS_MAX {
            let focus = self.conn.get_input_focus()?;
            let state = self.conn.xkb_get_state(CORE)?.reply()?;
            self.keyboard.focus = focus.reply()?.focus;
            self.keyboard.locked = Locked { group: state.group.into(), modifiers: state.locked_mods.into() };
            self.drain()?; // what changed the layout before that answer
            if self.keyboard.map.is_none() {
                let (left, map) = (self.left_behind()?, Keymap::fetch(&self.conn)?);
                let pool = &mut self.keyboard.pool;
                pool.reconcile(map.spare(|key| pool.owns(key.0) || left.contains(key)));
                self.keyboard.map = Some(map);
                self.drain()?;
            }
            let Keyboard { map, pool, locked, .. } = &mut self.keyboard;
            if let Some(map) = map {
                map.index(*locked, |keycode| pool.owns(keycode));
                return Ok(());
            }
        }
        Err(Error::Refused("the keymap doesn't stop changing".into()))
    }

    /// Sees to it that the first of these keysyms, `at_least` so many, can be pressed.
    fn prepare(&mut self, symbols: &[Keysym], at_least: usize) -> Result<Prepared> {
        self.look_at_keyboard()?;
        for _ in 0..2 {
            let Keyboard { map: Some(map), pool, .. } = &mut self.keyboard else { break };
            let wanted = symbols.iter().map(|symbol| map.stroke(*symbol).is_none().then_some(*symbol));
            let (count, assignments) = pool.fit(wanted, map.shift.is_some());
            if count >= at_least {
                if !assignments.is_empty() {
                    map.assign(&self.conn, &assignments)?;
                    pool.assign(&assignments);
                    self.note_keycodes()?;
                }
                self.keyboard.note_focus();
                return Ok(Prepared::Now(count));
            }
            if pool.is_empty() {
                break;
            }
            if let Some(wait) = self.settle()? {
                return Ok(Prepared::Later(wait));
            }
        }
        Err(Error::Refused("the keyboard has too few keycodes without a meaning".into()))
    }

    /// What an earlier connection gave spare keycodes and couldn't take back, since its process was killed.
    fn left_behind(&self) -> Result<Vec<Assignment>> {
        let (name, kind, length) = (self.atoms._X_DESKTOP_KEYCODES, AtomEnum::CARDINAL, NOTED_MAX);
        let property = self.conn.get_property(false, self.root, name, kind, 0, length)?.reply()?;
        let values: Vec<u32> = property.value32().map(Iterator::collect).unwrap_or_default();
        let entries = values.as_chunks::<3>().0.iter();
        Ok(entries.filter_map(|[keycode, first, second]| Some((u8::try_from(*keycode).ok()?, [*first, *second]))).collect())
    }

    fn note_keycodes(&self) -> Result<()> {
        let entries = self.keyboard.pool.assigned();
        let values: Vec<u32> =
            entries.iter().flat_map(|(keycode, [first, second])| [(*keycode).into(), *first, *second]).collect();
        let (name, kind) = (self.atoms._X_DESKTOP_KEYCODES, AtomEnum::CARDINAL);
        self.conn.change_property32(PropMode::REPLACE, self.root, name, kind, &values)?;
        Ok(())
    }

    /// How keysyms that have been prepared are pressed.
    fn strokes(&self, symbols: &[Keysym]) -> Result<Vec<Stroke>> {
        let stroke = |symbol: &Keysym| self.keyboard.stroke(*symbol);
        let missing = |symbol: &Keysym| Error::Refused(format!("no key gives the keysym {symbol:#x}"));
        symbols.iter().map(|symbol| stroke(symbol).ok_or_else(|| missing(symbol))).collect()
    }

    fn fake_key(&mut self, keycode: Keycode, is_down: bool) -> Result<()> {
        let event = if is_down { xproto::KEY_PRESS_EVENT } else { xproto::KEY_RELEASE_EVENT };
        self.keyboard.pool.press(keycode);
        self.conn.xtest_fake_input(event, keycode, AT_ONCE, self.root, 0, 0, 0)?;
        Ok(())
    }

    /// Presses a key if nobody holds it.
    fn hold_key(&mut self, keycode: Keycode) -> Result<()> {
        let holders = self.keyboard.held.entry(keycode).or_default();
        *holders += 1;
        if *holders == 1 {
            self.keyboard.pool.pin(keycode, true);
            self.fake_key(keycode, true)?;
        }
        Ok(())
    }

    /// Releases a key if nobody else holds it.
    fn let_go(&mut self, keycode: Keycode) -> Result<()> {
        match self.keyboard.held.get_mut(&keycode) {
            Some(holders) if *holders > 1 => *holders -= 1,
            Some(_) => {
                self.keyboard.held.remove(&keycode);
                self.keyboard.pool.pin(keycode, false);
                self.fake_key(keycode, false)?;
            }
            None => {} // everything was released meanwhile
        }
        Ok(())
    }

    /// Presses and releases.
    fn tap(&mut self, stroke: Stroke) -> Result<()> {
        for modifier in stroke.modifiers() {
            self.hold_key(modifier)?;
        }
        if self.keyboard.held.contains_key(&stroke.keycode) {
            self.fake_key(stroke.keycode, false)?; // held already: up and down again is what can be seen of it
            self.fake_key(stroke.keycode, true)?;
        } else {
            self.fake_key(stroke.keycode, true)?;
            self.fake_key(stroke.keycode, false)?;
        }
        for modifier in stroke.modifiers().rev() {
            self.let_go(modifier)?;
        }
        Ok(())
    }

    /// Does something with Caps Lock off, and puts it on again if it was.
    fn without_caps_lock(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if !self.keyboard.locked.caps() {
            return act(self);
        }
        self.lock_caps(false)?;
        let done = act(self);
        self.lock_caps(true)?;
        done
    }

    fn lock_caps(&self, is_on: bool) -> Result<()> {
        let locks = if is_on { ModMask::LOCK } else { ModMask::from(0u16) };
        self.conn.xkb_latch_lock_state(
            CORE,
            ModMask::LOCK,
            locks,
            false,
            xkb::Group::from(0u8),
            ModMask::from(0u16),
            false,
            0,
        )?;
        Ok(())
    }

    /// Releases all keys and buttons that this connection holds down, whoever asked for it.
    ///
    /// # Errors
    /// The server is gone.
    pub fn release_all(&mut self) -> Result<()> {
        self.keyboard.down.clear();
        for (keycode, _) in std::mem::take(&mut self.keyboard.held) {
            self.keyboard.pool.pin(keycode, false);
            self.fake_key(keycode, false)?;
        }
        self.release_buttons()?;
        self.sync()
    }

    /// Takes the keysyms from the spare keycodes. Programs must have handled what was typed, or it is lost: false, and nothing is
    /// done, when that isn't known yet. Some time later it is.
    ///
    /// # Errors
    /// The server is gone; the program in focus hangs.
    pub fn restore_keymap(&mut self) -> Result<bool> {
        if self.keyboard.pool.mapped().is_empty() {
            return Ok(true);
        }
        if self.settle()?.is_some() {
            return Ok(false);
        }
        self.look_at_keyboard()?;
        let Keyboard { map, pool, .. } = &mut self.keyboard;
        let cleared: Vec<_> = pool.mapped().into_iter().map(|keycode| (keycode, [0; LEVELS])).collect();
        if let Some(map) = map {
            map.assign(&self.conn, &cleared)?;
        }
        pool.assign(&cleared);
        self.note_keycodes()?;
        Ok(true)
    }
}

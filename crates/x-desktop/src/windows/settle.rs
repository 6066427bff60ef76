//! Whether a window manager has done what it was asked.

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ChangeWindowAttributesAux, ConnectionExt as _, CreateWindowAux, EventMask, WindowClass};

use super::desk::{LAST_NO_WINDOW, Manager};
use super::{Placement, WindowId, WindowInfo, WindowState, Workspace};
use crate::{Display, Error, Result};

/// Questions to the window manager that are open at once; the answer to older ones counts as given.
const MAX_PROBES: u64 = 16;

/// What a window should become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// It has the keyboard.
    Active,
    /// It is at that place; the window manager may round sizes and keep windows on the screen.
    Placed(Placement),
    /// It is above, or below, the others; the window manager may keep it within a layer.
    Stacked,
    /// It is put away, or back.
    Minimised(bool),
    /// It has all of these states, or none of them.
    States(Vec<WindowState>, bool),
    /// It is on that workspace.
    On(Workspace),
    /// It is no more.
    Gone,
}

/// What was asked of a window. It holds nothing: it may be dropped at any time.
#[derive(Debug, Clone)]
pub struct WindowWatch {
    /// The window.
    pub id: WindowId,
    /// What it should become.
    pub wanted: Wanted,
    question: Question,
}

/// What the window manager was asked. It holds nothing: it may be dropped at any time.
#[derive(Debug, Clone, Copy)]
pub struct ManagerQuestion(u64);

/// How to know that the window manager has come to our request.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// The X server did it.
    Done,
    /// By a later request that it answers.
    Asked(u64),
    /// By nothing but the effect.
    Open,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// As wanted, or as the window manager makes of it; `None` when the window is gone and that was wanted.
    Yes(Option<WindowInfo>),
    /// It is still like this.
    NotYet(WindowInfo),
}

/// Windows that nobody sees, whose frames the window manager is asked about: it answers in the order of the requests, so
/// with the answer, everything asked before is done.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    windows: Vec<WindowId>,
    next: u64,
}

impl Display {
    /// Looks whether the window is as wanted. One to three round trips; doesn't wait: ask again when
    /// [`crate::Happened::windows`] is told, until your deadline. Then [`Settled::NotYet`] has what became of it. Pump before
    /// you wait for the descriptor: what came while this waited for its answers is already read.
    ///
    /// # Errors
    /// [`Error::NoWindow`] when it went and that wasn't wanted.
    pub fn settled(&mut self, watch: &WindowWatch) -> Result<Settled> {
        // Before the window is read: what is done when the answer is there is done when the window is read.
        let is_handled = self.is_handled(watch.question)?;
        let window = match self.window(watch.id) {
            Ok(window) => window,
            Err(Error::NoWindow(_)) if watch.wanted == Wanted::Gone => return Ok(Settled::Yes(None)),
            Err(error) => return Err(error),
        };
        let is_done = match &watch.wanted {
            // The manager asks a program to leave, or gives it the keyboard: the effect comes after the manager's part.
            Wanted::Active => window.is_active && !window.is_minimised && self.is_keyboard_used()?,
            // Some hide their window to show it again: to the manager it is gone, and off its list.
            Wanted::Gone => !window.is_visible && window.stacking.is_none(),
            Wanted::Minimised(wanted) => window.is_minimised == *wanted && window.is_visible != *wanted,
            // An effect that is there may be only the first of several.
            _ if is_handled.is_some() => is_handled == Some(true),
            Wanted::Placed(place) => place.is_of(&window),
            Wanted::Stacked => false,
            Wanted::States(states, wanted) => states.iter().all(|state| window.states.contains(state) == *wanted),
            Wanted::On(workspace) => window.workspace == Some(*workspace),
        };
        Ok(if is_done { Settled::Yes(Some(window).filter(|_| watch.wanted != Wanted::Gone)) } else { Settled::NotYet(window) })
    }

    /// To be called right after the request.
    pub(super) fn watch(&mut self, id: WindowId, wanted: Wanted, manager: &Manager) -> Result<WindowWatch> {
        let question = match manager {
            Manager { is_there: false, .. } => Question::Done,
            manager if manager.supports(self.atoms._NET_REQUEST_FRAME_EXTENTS) => Question::Asked(self.ask_manager()?),
            _ => Question::Open,
        };
        // So that its states wake the caller. It may be gone: then there is nothing to hear.
        let news = ChangeWindowAttributesAux::new().event_mask(EventMask::PROPERTY_CHANGE | EventMask::STRUCTURE_NOTIFY);
        self.conn.change_window_attributes(id, &news)?;
        self.conn.flush()?;
        Ok(WindowWatch { id, wanted, question })
    }

    /// Asks the window manager something that it answers once it does its work, and has taken over the windows that were there
    /// before it. `None` while nobody manages windows, or doesn't say yet what it knows. openbox forgets what it is asked while
    /// it starts: ask again when no answer comes.
    ///
    /// # Errors
    /// The server refuses or is gone.
    pub fn question_manager(&mut self) -> Result<Option<ManagerQuestion>> {
        if !self.manager()?.supports(self.atoms._NET_REQUEST_FRAME_EXTENTS) {
            return Ok(None);
        }
        let question = ManagerQuestion(self.ask_manager()?);
        self.conn.flush()?;
        Ok(Some(question))
    }

    /// Whether it has answered.
    ///
    /// # Errors
    /// The server refuses or is gone.
    pub fn has_answered(&self, question: ManagerQuestion) -> Result<bool> {
        Ok(self.is_handled(Question::Asked(question.0))? == Some(true))
    }

    /// Whether anybody has the keyboard: a window manager that has died leaves its word on who is active, and nobody with keys.
    /// Not whether this window has it: programs give it to other windows of theirs.
    fn is_keyboard_used(&self) -> Result<bool> {
        let focus = self.conn.get_input_focus()?.reply()?.focus;
        Ok(focus > LAST_NO_WINDOW && focus != self.root)
    }

    fn ask_manager(&mut self) -> Result<u64> {
        let number = self.probes.next;
        self.probes.next += 1;
        let slot = slot(number);
        if self.probes.windows.len() <= slot {
            let window = self.conn.generate_id()?;
            let aux = CreateWindowAux::new().override_redirect(1).event_mask(EventMask::PROPERTY_CHANGE);
            self.conn.create_window(0, window, self.root, -1, -1, 1, 1, 0, WindowClass::INPUT_ONLY, 0, &aux)?;
            self.probes.windows.push(window);
        }
        let probe = self.probes.windows[slot];
        self.conn.delete_property(probe, self.atoms._NET_FRAME_EXTENTS)?;
        self.tell_manager(probe, self.atoms._NET_REQUEST_FRAME_EXTENTS, [0; 5])?;
        Ok(number)
    }

    /// Whether the window manager has come to our request; `None` when that can't be known.
    fn is_handled(&self, question: Question) -> Result<Option<bool>> {
        let number = match question {
            Question::Done => return Ok(Some(true)),
            Question::Open => return Ok(None),
            Question::Asked(number) if self.probes.next - number > MAX_PROBES => return Ok(Some(true)),
            Question::Asked(number) => number,
        };
        let answer = self.ask(self.probes.windows[slot(number)], self.atoms._NET_FRAME_EXTENTS, 4)?.reply()?;
        Ok(Some(answer.value_len > 0))
    }
}

fn slot(number: u64) -> usize {
    (number % MAX_PROBES) as usize
}

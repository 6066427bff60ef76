//! What can be done with pointer and keyboard, as clients say it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x_desktop::{Button, Click, Drag, KeyChange, Plan, Press, Scroll, Typing};

use super::space::{Point, View, place};
use super::{ActSpec, Error};

/// A key or button is held no longer.
const HOLD_MAX_MS: u64 = 10_000;
/// Between two characters at most.
const DELAY_MAX_MS: u64 = 60_000;
/// An action waits no longer.
pub(super) const WAIT_MAX_MS: u64 = 60_000;
/// Between two characters, unless something else is asked for.
const DELAY_MS: u64 = 0;

/// A button of the pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ActionButton {
    #[default]
    Left,
    Middle,
    Right,
    Back,
    Forward,
}

impl From<ActionButton> for Button {
    fn from(button: ActionButton) -> Self {
        match button {
            ActionButton::Left => Self::Left,
            ActionButton::Middle => Self::Middle,
            ActionButton::Right => Self::Right,
            ActionButton::Back => Self::Back,
            ActionButton::Forward => Self::Forward,
        }
    }
}

/// Keys that are held meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Modifiers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctrl: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alt: Option<bool>,
    /// The Super key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<bool>,
}

impl Modifiers {
    /// As key names, in the order in which they are pressed.
    fn names(self) -> Vec<&'static str> {
        let all = [(self.ctrl, "ctrl"), (self.shift, "shift"), (self.alt, "alt"), (self.cmd, "super")];
        all.into_iter().filter(|(is_down, _)| *is_down == Some(true)).map(|(_, name)| name).collect()
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Moves the pointer.
    Move {
        /// Pixels from the left.
        x: i32,
        /// Pixels from above.
        y: i32,
    },
    /// Clicks, where the pointer is or at a place.
    Click {
        /// With `y`: where.
        #[serde(default)]
        x: Option<i32>,
        /// With `x`: where.
        #[serde(default)]
        y: Option<i32>,
        /// Which button.
        #[serde(default)]
        button: ActionButton,
        /// 1 to 1 000; 2 is a double click.
        #[serde(default)]
        click_count: Option<u32>,
        /// Held meanwhile.
        #[serde(default)]
        modifiers: Modifiers,
        /// How long each is, 0 to 10 000.
        #[serde(default)]
        hold_ms: u64,
    },
    /// Presses a button, to stay down.
    MouseDown {
        /// With `y`: where.
        #[serde(default)]
        x: Option<i32>,
        /// With `x`: where.
        #[serde(default)]
        y: Option<i32>,
        /// Which button.
        #[serde(default)]
        button: ActionButton,
    },
    /// Releases a button.
    MouseUp {
        /// With `y`: where.
        #[serde(default)]
        x: Option<i32>,
        /// With `x`: where.
        #[serde(default)]
        y: Option<i32>,
        /// Which button.
        #[serde(default)]
        button: ActionButton,
    },
    /// Moves the pointer along a path with a button down.
    Drag {
        /// 2 to 10 000 points.
        path: Vec<Point>,
        /// Which button.
        #[serde(default)]
        button: ActionButton,
        /// How long it takes; by its length when absent.
        #[serde(default)]
        duration_ms: Option<u64>,
        /// Motions in between; enough for programs to follow when absent.
        #[serde(default)]
        steps: Option<u32>,
        /// Held meanwhile.
        #[serde(default)]
        modifiers: Modifiers,
    },
    /// Turns the wheel, where the pointer is or at a place.
    Scroll {
        /// With `y`: where.
        #[serde(default)]
        x: Option<i32>,
        /// With `x`: where.
        #[serde(default)]
        y: Option<i32>,
        /// Notches to the right; negative to the left.
        #[serde(default)]
        delta_x: Option<i32>,
        /// Notches down; negative up.
        #[serde(default)]
        delta_y: Option<i32>,
        /// Held meanwhile.
        #[serde(default)]
        modifiers: Modifiers,
    },
    /// Types text.
    Type {
        /// Any text; a line break presses Return, a tab Tab.
        text: String,
        /// Between two characters, 0 to 60 000.
        #[serde(default)]
        delay_ms: Option<u64>,
    },
    /// Presses and releases a key, or several at once (`ctrl+shift+t`).
    Key {
        /// Names of keys, as xdotool knows them, and common others.
        key: String,
        /// Held meanwhile.
        #[serde(default)]
        modifiers: Option<Modifiers>,
        /// How often, 1 to 1 000.
        #[serde(default)]
        count: Option<u32>,
        /// How long each time, 0 to 10 000.
        #[serde(default)]
        hold_ms: u64,
    },
    /// Presses keys, to stay down.
    KeyDown {
        /// As of `key`.
        key: String,
    },
    /// Releases keys.
    KeyUp {
        /// As of `key`.
        key: String,
    },
    /// Waits.
    Wait {
        /// 0 to 60 000.
        ms: u64,
    },
    /// Waits until the screen has been still for a while.
    WaitStill {
        /// For so long; 300 when absent.
        #[serde(default)]
        quiet_ms: Option<u64>,
        /// At most; 10 000 when absent.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// Does something with a node of the accessibility tree.
    Node(Box<ActSpec>),
}

/// What has to be done for an action, in this order.
pub(super) enum Step {
    Move(i32, i32),
    Button(Button, bool),
    Follow(Box<dyn Plan>),
    Wait(Duration),
    Still { quiet: Duration, timeout: Duration },
    Node(Box<ActSpec>),
}

impl Action {
    /// The steps, with coordinates of the screen.
    ///
    /// # Errors
    /// [`Error::Invalid`]: what is out of range, or a name that no key has.
    pub(super) fn steps(&self, view: View) -> Result<Vec<Step>, Error> {
        let invalid = |error: x_desktop::Error| Error::of_x(error, Error::Invalid);
        let mut steps = Vec::new();
        match self {
            Self::Move { x, y } => {
                let (x, y) = place(*x, *y, view)?;
                steps.push(Step::Move(x, y));
            }
            Self::Click { x, y, button, click_count, modifiers, hold_ms } => {
                steps.extend(at(*x, *y, view)?);
                let hold = within("holdMs", *hold_ms, HOLD_MAX_MS)?;
                let click = Click::new((*button).into(), click_count.unwrap_or(1), hold, &modifiers.names());
                steps.push(Step::Follow(Box::new(click.map_err(invalid)?)));
            }
            Self::MouseDown { x, y, button } | Self::MouseUp { x, y, button } => {
                steps.extend(at(*x, *y, view)?);
                steps.push(Step::Button((*button).into(), matches!(self, Self::MouseDown { .. })));
            }
            Self::Drag { path, button, duration_ms, steps: motions, modifiers } => {
                let path = path.iter().map(|point| place(point.x, point.y, view)).collect::<Result<Vec<_>, _>>()?;
                let duration = duration_ms.map(|ms| within("durationMs", ms, WAIT_MAX_MS)).transpose()?;
                let drag = Drag::new((*button).into(), &path, *motions, duration, &modifiers.names());
                steps.push(Step::Follow(Box::new(drag.map_err(invalid)?)));
            }
            Self::Scroll { x, y, delta_x, delta_y, modifiers } => {
                let scroll = Scroll::new(delta_x.unwrap_or(0), delta_y.unwrap_or(0), &modifiers.names());
                steps.extend(at(*x, *y, view)?);
                steps.push(Step::Follow(Box::new(scroll.map_err(invalid)?)));
            }
            Self::Type { text, delay_ms } => {
                if text.is_empty() {
                    return Err(Error::Invalid("text is empty".to_owned()));
                }
                let pause = within("delayMs", delay_ms.unwrap_or(DELAY_MS), DELAY_MAX_MS)?;
                steps.push(Step::Follow(Box::new(Typing::new(text, pause).map_err(invalid)?)));
            }
            Self::Key { key, modifiers, count, hold_ms } => {
                let chord = chord(key, modifiers.unwrap_or_default())?;
                let hold = within("holdMs", *hold_ms, HOLD_MAX_MS)?;
                let press = Press::new(&chord, count.unwrap_or(1), hold);
                steps.push(Step::Follow(Box::new(press.map_err(invalid)?)));
            }
            Self::KeyDown { key } => steps.push(Step::Follow(Box::new(KeyChange::down(named(key)?).map_err(invalid)?))),
            Self::KeyUp { key } => steps.push(Step::Follow(Box::new(KeyChange::up(named(key)?).map_err(invalid)?))),
            Self::Wait { ms } => steps.push(Step::Wait(within("ms", *ms, WAIT_MAX_MS)?)),
            Self::WaitStill { quiet_ms, timeout_ms } => {
                let quiet = within("quietMs", quiet_ms.unwrap_or(300), WAIT_MAX_MS)?;
                let timeout = within("timeoutMs", timeout_ms.unwrap_or(10_000), WAIT_MAX_MS)?;
                steps.push(Step::Still { quiet, timeout });
            }
            Self::Node(spec) => {
                spec.check()?;
                steps.push(Step::Node(spec.clone()));
            }
        }
        Ok(steps)
    }
}

fn within(name: &str, ms: u64, max: u64) -> Result<Duration, Error> {
    if ms > max {
        return Err(Error::Invalid(format!("{name} is at most {max}, not {ms}")));
    }
    Ok(Duration::from_millis(ms))
}

fn named(key: &str) -> Result<&str, Error> {
    Some(key).filter(|key| !key.trim().is_empty()).ok_or_else(|| Error::Invalid("key is empty".to_owned()))
}

fn chord(key: &str, modifiers: Modifiers) -> Result<String, Error> {
    let mut names = modifiers.names();
    names.push(named(key)?);
    Ok(names.join("+"))
}

/// Both or none.
fn at(x: Option<i32>, y: Option<i32>, view: View) -> Result<Option<Step>, Error> {
    match (x, y) {
        (None, None) => Ok(None),
        (Some(x), Some(y)) => {
            let (x, y) = place(x, y, view)?;
            Ok(Some(Step::Move(x, y)))
        }
        _ => Err(Error::Invalid("x and y belong together: give both or none".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: serde_json::Value) -> Result<Vec<Step>, Error> {
        serde_json::from_value::<Action>(json).expect("an action").steps(View::default())
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_done() {
        let wrong = [
            serde_json::json!({"type": "move", "x": -1, "y": 0}),
            serde_json::json!({"type": "click", "x": 3}),
            serde_json::json!({"type": "click", "x": 3, "y": 3, "clickCount": 0}),
            serde_json::json!({"type": "scroll", "x": 3, "y": 3}),
            serde_json::json!({"type": "type", "text": ""}),
            serde_json::json!({"type": "key", "key": "  "}),
            serde_json::json!({"type": "key", "key": "NoSuchKey"}),
            serde_json::json!({"type": "drag", "path": [{"x": 1, "y": 1}]}),
            serde_json::json!({"type": "wait", "ms": 60_001}),
            serde_json::json!({"type": "node", "node": "x", "find": {"name": "y"}, "action": "click"}),
            serde_json::json!({"type": "node", "find": {"name": "y"}, "action": "setText"}),
        ];
        for action in wrong {
            assert!(matches!(parsed(action.clone()), Err(Error::Invalid(_))), "{action}");
        }
    }

    #[test]
    fn a_click_moves_first() {
        let steps = parsed(serde_json::json!({"type": "click", "x": 3, "y": 4, "modifiers": {"ctrl": true}})).expect("steps");
        assert!(matches!(steps[..], [Step::Move(3, 4), Step::Follow(_)]));
        let steps = parsed(serde_json::json!({"type": "click"})).expect("steps");
        assert!(matches!(steps[..], [Step::Follow(_)]));
    }
}

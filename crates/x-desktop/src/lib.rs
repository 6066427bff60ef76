//! An X11 desktop, seen and used without a program being started: each call is one or a few round trips on one connection.
//!
//! Everything here blocks for as long as the X server takes to answer, and belongs to one thread, which calls
//! [`Display::pump`] when the connection's descriptor is readable. Protocols: X11R6 (core), XTEST 2.2, MIT-SHM 1.2, XFIXES 5,
//! RANDR 1.5, DAMAGE 1.1, XKB 1.0, EWMH 1.5, ICCCM 2.0.
//!
//! | module | what |
//! |---|---|
//! | `display` | the connection: extensions, atoms, events |
//! | `plan` | what takes time, in steps |
//! | `pointer` | where it is, moving it, its buttons |
//! | `gestures` | plans: clicks, drags, turns of the wheel |
//! | `keyboard` | plans: chords by name, keys down and up, text |
//! | `capture` | pictures of the screen, by shared memory |
//! | `picture` | frames: scaling, pointer, encoding, what changed |

mod capture;
mod display;
mod error;
mod gestures;
mod keyboard;
pub mod picture;
mod plan;
mod pointer;

pub use display::{Display, Happened, Size};
pub use error::{Error, Result};
pub use gestures::{Click, Drag, Scroll};
pub use keyboard::{KeyChange, Press, Typing};
pub use picture::{Frame, Rect};
pub use plan::Plan;
pub use pointer::{Button, Position};

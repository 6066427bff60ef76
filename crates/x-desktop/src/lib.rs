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
//! | `backdrop` | what is seen where there is no window |
//! | `capture` | pictures of the screen, by shared memory |
//! | `cursor` | the pointer: where it is, what it looks like |
//! | `windows` | windows: which there are, what is asked of them |
//! | `clipboard` | selections, on a connection and a thread of its own |
//! | `modes`, `monitors` | the size of the screen, and how it is divided |
//! | `picture` | frames: scaling, placing, pointer, encoding, decoding, what changed |

mod backdrop;
mod capture;
pub mod clipboard;
mod cursor;
mod display;
mod error;
mod gestures;
mod keyboard;
mod modes;
mod monitors;
pub mod picture;
mod plan;
mod pointer;
mod text;
pub mod windows;

pub use backdrop::{Backdrop, Colour};
pub use clipboard::{Clipboard, Selection};
pub use cursor::{CursorImage, Pointer};
pub use display::{Display, Happened, Size};
pub use error::{Error, Result};
pub use gestures::{Click, Drag, Scroll};
pub use keyboard::{KeyChange, Press, Typing};
pub use modes::ScreenInfo;
pub use monitors::Monitor;
pub use picture::{Frame, Rect};
pub use plan::Plan;
pub use pointer::{Button, Position};
pub use text::{Decoded, Encoding};
pub use windows::{WindowInfo, WindowList};

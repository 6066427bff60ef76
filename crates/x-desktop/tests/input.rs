//! Pointer and keys, as other clients of a real X server see them.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use support::Screen;

#[test]
fn a_window_is_found_under_a_window_manager() {
    let mut screen = Screen::start();
    screen.openbox();
    screen.spawn("xterm", &[]);
    assert_ne!(screen.wait_for_window("XTerm"), 0);
    screen.open().sync().unwrap();
}

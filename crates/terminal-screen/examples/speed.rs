//! How fast a screen takes output: MB/s for lines with and without CR, in small and large pieces.

use std::time::Instant;
use terminal_screen::{Screen, TerminalSize};
fn main() {
    for (name, line) in [
        ("crlf", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"),
        ("lf", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"),
        ("lf60", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"),
        ("nolf", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ] {
        let text = line.repeat(20_000_000 / line.len());
        for piece in [4096, 1 << 20] {
            let mut s = Screen::new(TerminalSize { cols: 80, rows: 24 }, 1000);
            let t = Instant::now();
            for c in text.as_bytes().chunks(piece) {
                s.feed(c);
            }
            println!("{name} {piece}: {:.0} MB/s", 20.0 / t.elapsed().as_secs_f64());
        }
    }
}

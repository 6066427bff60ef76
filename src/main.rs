//! The one binary: flags → config → app → exit code.

fn main() {}

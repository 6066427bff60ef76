//! What programs need so that they show their tree.

/// The package that brings the accessibility bus and its registry; the name is the same for apt, dnf and apk.
pub const PACKAGE: &str = "at-spi2-core";

/// Variables for every program of a desktop whose tree is to be read. GTK 3 and 4 need none of them.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    // GTK 2 loads the bridge as a module; GTK 3 has it built in and passes over the name
    ("GTK_MODULES", "gail:atk-bridge"),
    // Qt 4, and Chromium and Electron, which look for it, too
    ("QT_ACCESSIBILITY", "1"),
    // Qt 5 and 6: without it only when a screen reader is announced
    ("QT_LINUX_ACCESSIBILITY_ALWAYS_ON", "1"),
    // Chromium and Electron; the switch `--force-renderer-accessibility` also turns on the content of pages
    ("ACCESSIBILITY_ENABLED", "1"),
    // Firefox and LibreOffice
    ("GNOME_ACCESSIBILITY", "1"),
];

/// Variables that keep programs away from the bus, or lead them to another one, with the values that don't.
pub const ENVIRONMENT_NEUTRAL: &[(&str, &str)] = &[
    // GTK 2 and 3 stay away with 1
    ("NO_AT_BRIDGE", "0"),
    // GTK 4 does with `none`
    ("GTK_A11Y", "atspi"),
    // may name the bus of another session; an empty one is passed over
    ("AT_SPI_BUS_ADDRESS", ""),
];

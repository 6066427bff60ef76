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

/// Variables that must not be set: with `NO_AT_BRIDGE` GTK 3 keeps away from the bus, `GTK_A11Y=none` does so for GTK 4, and
/// `AT_SPI_BUS_ADDRESS` may name a bus of another session.
pub const ENVIRONMENT_UNSET: &[&str] = &["NO_AT_BRIDGE", "GTK_A11Y", "AT_SPI_BUS_ADDRESS"];

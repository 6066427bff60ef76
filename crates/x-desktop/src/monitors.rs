//! Several monitors on one screen (RANDR 1.5): window managers take each for a display of its own.

use x11rb::protocol::randr::{self, ConnectionExt as _, Rotation, SetConfig};
use x11rb::protocol::xproto::{Atom, ConnectionExt as _};

use crate::modes::{MM_PER_INCH, Target};
use crate::{Display, Error, Rect, Result, Size};

/// A monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Its name; that of the X server's output where nobody divided the screen.
    pub name: String,
    /// Its part of the screen.
    pub rect: Rect,
    /// Where programs begin.
    pub is_primary: bool,
}

impl Display {
    /// The monitors, the primary one first.
    ///
    /// # Errors
    /// The server refuses or is gone, or lacks RANDR.
    pub fn monitors(&self) -> Result<Vec<Monitor>> {
        self.need_randr()?;
        let told = self.conn.randr_get_monitors(self.root, true)?.reply()?.monitors;
        let names: Vec<_> =
            told.iter().map(|monitor| self.conn.get_atom_name(monitor.name)).collect::<std::result::Result<_, _>>()?;
        let mut monitors = Vec::with_capacity(told.len());
        for (monitor, name) in told.iter().zip(names) {
            let side = |value: i16| u32::try_from(value).unwrap_or(0);
            let (width, height) = (monitor.width.into(), monitor.height.into());
            monitors.push(Monitor {
                name: String::from_utf8_lossy(&name.reply()?.name).into_owned(),
                rect: Rect { x: side(monitor.x), y: side(monitor.y), width, height },
                is_primary: monitor.primary,
            });
        }
        monitors.sort_by_key(|monitor| !monitor.is_primary);
        if let Some(first) = monitors.first_mut() {
            first.is_primary = true; // where nobody has named one
        }
        Ok(monitors)
    }

    /// Divides the screen into these monitors, the first being the primary one, and gives it the size that holds them. Without
    /// any, the screen is one monitor again and keeps its size. `dpi` is as of [`Display::resize`].
    ///
    /// # Errors
    /// [`Error::Invalid`]: a name that is not one, or taken by the X server's output; a size that [`Display::resize`] refuses.
    /// Then nothing has changed; when the server refuses them, the screen is one monitor.
    pub fn set_monitors(&mut self, monitors: &[(String, Rect)], dpi: f64) -> Result<()> {
        self.need_randr()?;
        let target = self.target()?;
        let info = self.conn.randr_get_output_info(target.output, target.resources.config_timestamp)?.reply()?;
        if let Some((name, _)) = monitors.iter().find(|(name, _)| name.is_empty() || name.as_bytes() == info.name) {
            return Err(Error::Invalid(format!("{name:?} is the name of the X server's own output: take another one")));
        }
        let end = |start: u32, length: u32| u16::try_from(start.saturating_add(length)).unwrap_or(u16::MAX);
        let width = monitors.iter().map(|(_, rect)| end(rect.x, rect.width)).max().unwrap_or(0);
        let height = monitors.iter().map(|(_, rect)| end(rect.y, rect.height)).max().unwrap_or(0);
        if !monitors.is_empty() {
            self.able(Size { width, height })?;
        }
        let mut old = self.conn.randr_get_monitors(self.root, false)?.reply()?.monitors;
        old.retain(|monitor| !monitor.automatic);
        for monitor in &old {
            self.conn.randr_delete_monitor(self.root, monitor.name)?.ignore_error(); // gone meanwhile
        }
        if monitors.is_empty() {
            // The output shows the screen again.
            return if old.is_empty() { Ok(()) } else { self.resize(self.size, dpi) };
        }
        self.resize(Size { width, height }, dpi)?;
        for (index, (name, rect)) in monitors.iter().enumerate() {
            let name = self.conn.intern_atom(false, name.as_bytes())?.reply()?.atom;
            let set = self.conn.randr_set_monitor(self.root, info_of(name, *rect, index == 0, dpi))?.check();
            if let Err(error) = set {
                self.set_monitors(&[], dpi)?;
                return Err(error.into());
            }
        }
        self.switch_off(&target)
    }

    /// The only output shows nothing, so it is no monitor. GTK takes for monitors what has an output: had one of ours the only
    /// one, menus of windows on all others would open there. So it takes the screen for one monitor.
    fn switch_off(&self, target: &Target) -> Result<()> {
        let time = target.resources.config_timestamp;
        let set =
            self.conn.randr_set_crtc_config(target.crtc, x11rb::CURRENT_TIME, time, 0, 0, x11rb::NONE, Rotation::ROTATE0, &[])?;
        match set.reply()?.status {
            SetConfig::SUCCESS => self.sync(),
            status => Err(Error::Refused(format!("the output stays: {status:?}"))),
        }
    }
}

/// All within the screen, whose sides X has as 16 bits.
fn info_of(name: Atom, rect: Rect, is_primary: bool, dpi: f64) -> randr::MonitorInfo {
    let place = |value: u32| i16::try_from(value).unwrap_or(i16::MAX);
    let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let mm = |pixels: u32| (f64::from(pixels) * MM_PER_INCH / dpi).round().max(1.0) as u32;
    randr::MonitorInfo {
        name,
        primary: is_primary,
        automatic: false,
        x: place(rect.x),
        y: place(rect.y),
        width: side(rect.width),
        height: side(rect.height),
        width_in_millimeters: mm(rect.width),
        height_in_millimeters: mm(rect.height),
        outputs: Vec::new(),
    }
}

//! The size of the screen, while it runs (RANDR 1.5).
//!
//! Xvfb has one output, and its largest mode is the size that it was started with: start it large, then set what is wanted.

use x11rb::connection::RequestConnection;
use x11rb::protocol::randr::{
    self, ConnectionExt as _, Crtc, GetScreenResourcesCurrentReply, Mode, ModeInfo, Rotation, SetConfig,
};
use x11rb::protocol::xproto::ConnectionExt as _;

use crate::{Display, Error, Result, Size};

/// What our own modes are called, before their size. Those that are out of use are removed.
const OURS: &str = "sandboxd-";
/// Modes of a screen that nobody sees have a refresh rate nonetheless.
const REFRESH_HZ: u32 = 60;
pub(crate) const MM_PER_INCH: f64 = 25.4;

/// The screen as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ScreenInfo {
    /// In pixels.
    pub size: Size,
    /// The largest size that [`Display::resize`] can set.
    pub max: Size,
    /// The smallest one.
    pub min: Size,
    /// Pixels per inch, from the width that the screen claims; `None` when it claims none.
    pub dpi: Option<f64>,
    /// Sizes that outputs have as modes, largest first. [`Display::resize`] makes others.
    pub sizes: Vec<Size>,
}

/// What a mode is set on.
pub(crate) struct Target {
    pub(crate) crtc: Crtc,
    pub(crate) output: randr::Output,
    pub(crate) resources: GetScreenResourcesCurrentReply,
}

impl Display {
    /// The size of the screen, and which it can have.
    ///
    /// # Errors
    /// The server refuses or is gone, or lacks RANDR.
    pub fn screen(&self) -> Result<ScreenInfo> {
        self.need_randr()?;
        let range = self.conn.randr_get_screen_size_range(self.root)?;
        let resources = self.conn.randr_get_screen_resources_current(self.root)?;
        let info = self.conn.randr_get_screen_info(self.root)?;
        let geometry = self.conn.get_geometry(self.root)?.reply()?;
        let (range, resources, info) = (range.reply()?, resources.reply()?, info.reply()?);
        let mut sizes: Vec<_> = resources.modes.iter().map(|mode| Size { width: mode.width, height: mode.height }).collect();
        sizes.sort_by_key(|size| std::cmp::Reverse((u32::from(size.width) * u32::from(size.height), size.width)));
        sizes.dedup();
        let size = Size { width: geometry.width, height: geometry.height };
        let mm = info.sizes.get(usize::from(info.size_id)).map_or(0, |size| size.mwidth);
        let dpi = (mm > 0).then(|| f64::from(size.width) * MM_PER_INCH / f64::from(mm));
        let max = Size { width: range.max_width, height: range.max_height };
        Ok(ScreenInfo { size, max, min: Size { width: range.min_width, height: range.min_height }, dpi, sizes })
    }

    /// Gives the screen another size; the modes that it needs are made. `dpi` is what the screen claims, in pixels per inch.
    /// From then on [`Display::size`] is the new one. Windows stay where they are: moving them is the window manager's.
    ///
    /// # Errors
    /// [`Error::Invalid`] beyond [`ScreenInfo::max`]; [`Error::Refused`] when the server has no output, or says no.
    pub fn resize(&mut self, size: Size, dpi: f64) -> Result<()> {
        let screen = self.able(size)?;
        if !(dpi.is_finite() && dpi >= 1.0) {
            return Err(Error::Invalid(format!("{dpi} pixels per inch are not possible: 1 or more are")));
        }
        let target = self.target()?;
        let mode = self.mode_of(size, &target)?;
        // Nobody sees the steps between, and the server sends its events when all are done.
        self.conn.grab_server()?;
        let done = self.set_mode(size, dpi, mode, &target, screen.size);
        self.conn.ungrab_server()?;
        done?;
        self.sync()?;
        self.size = size;
        self.unsaid.resized |= size != screen.size;
        self.remove_unused(mode, &target)
    }

    /// The screen as it is, if it can have that size.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it can't.
    pub(crate) fn able(&self, size: Size) -> Result<ScreenInfo> {
        let screen = self.screen()?;
        let (max, min) = (screen.max, screen.min);
        let fits = |wanted, min, max| (min..=max).contains(&wanted) && wanted > 0;
        if fits(size.width, min.width, max.width) && fits(size.height, min.height, max.height) {
            return Ok(screen);
        }
        Err(Error::Invalid(format!(
            "{}x{} is not possible: {}x{} to {}x{} are",
            size.width, size.height, min.width, min.height, max.width, max.height
        )))
    }

    pub(crate) fn need_randr(&self) -> Result<()> {
        self.conn.extension_information(randr::X11_EXTENSION_NAME)?.ok_or(Error::Missing(randr::X11_EXTENSION_NAME))?;
        Ok(())
    }

    pub(crate) fn target(&self) -> Result<Target> {
        let resources = self.conn.randr_get_screen_resources_current(self.root)?.reply()?;
        let found = resources.crtcs.first().copied().zip(resources.outputs.first().copied());
        let (crtc, output) = found.ok_or_else(|| Error::Refused("the screen has no output".into()))?;
        Ok(Target { crtc, output, resources })
    }

    /// A mode of that size that the output has.
    fn mode_of(&self, size: Size, target: &Target) -> Result<Mode> {
        let of_output = self.conn.randr_get_output_info(target.output, target.resources.config_timestamp)?.reply()?.modes;
        let is_right = |mode: &&ModeInfo| (mode.width, mode.height) == (size.width, size.height);
        if let Some(mode) = target.resources.modes.iter().filter(is_right).find(|mode| of_output.contains(&mode.id)) {
            return Ok(mode.id);
        }
        let name = format!("{OURS}{}x{}", size.width, size.height);
        let known = named(&target.resources).find(|(_, known)| *known == name.as_bytes()).map(|(mode, _)| mode);
        let mode = match known {
            Some(mode) => mode,
            None => self.conn.randr_create_mode(self.root, timings(size, name.len()), name.as_bytes())?.reply()?.mode,
        };
        self.conn.randr_add_output_mode(target.output, mode)?.check()?;
        Ok(mode)
    }

    /// The screen is at least as large as what the output shows at every step, or the server refuses it.
    fn set_mode(&self, size: Size, dpi: f64, mode: Mode, target: &Target, now: Size) -> Result<()> {
        let both = Size { width: size.width.max(now.width), height: size.height.max(now.height) };
        if both != now {
            self.set_screen(both, dpi)?;
        }
        let Target { crtc, output, resources } = target;
        let (time, rotation) = (resources.config_timestamp, Rotation::ROTATE0);
        let set = self.conn.randr_set_crtc_config(*crtc, x11rb::CURRENT_TIME, time, 0, 0, mode, rotation, &[*output])?.reply()?;
        if set.status != SetConfig::SUCCESS {
            return Err(Error::Refused(format!("the mode {}x{}: {:?}", size.width, size.height, set.status)));
        }
        self.set_screen(size, dpi)
    }

    fn set_screen(&self, size: Size, dpi: f64) -> Result<()> {
        let mm = |pixels: u16| (f64::from(pixels) * MM_PER_INCH / dpi).round().max(1.0) as u32;
        self.conn.randr_set_screen_size(self.root, size.width, size.height, mm(size.width), mm(size.height))?.check()?;
        Ok(())
    }

    /// Modes that were made for sizes before would stay as long as the server does.
    fn remove_unused(&self, used: Mode, target: &Target) -> Result<()> {
        for (mode, name) in named(&target.resources) {
            if mode != used && name.starts_with(OURS.as_bytes()) {
                self.conn.randr_delete_output_mode(target.output, mode)?.ignore_error();
                self.conn.randr_destroy_mode(mode)?.ignore_error();
            }
        }
        self.sync()
    }
}

/// Modes with their names, which the reply has in one piece.
fn named(resources: &GetScreenResourcesCurrentReply) -> impl Iterator<Item = (Mode, &[u8])> {
    let mut rest = resources.names.as_slice();
    resources.modes.iter().map(move |mode| {
        let (name, after) = rest.split_at(usize::from(mode.name_len).min(rest.len()));
        rest = after;
        (mode.id, name)
    })
}

/// Without blanking: there is no beam.
fn timings(size: Size, name_len: usize) -> ModeInfo {
    let Size { width, height } = size;
    ModeInfo {
        width,
        height,
        dot_clock: (u32::from(width) * u32::from(height)).saturating_mul(REFRESH_HZ),
        hsync_start: width,
        hsync_end: width,
        htotal: width,
        vsync_start: height,
        vsync_end: height,
        vtotal: height,
        name_len: u16::try_from(name_len).unwrap_or(u16::MAX),
        ..ModeInfo::default()
    }
}

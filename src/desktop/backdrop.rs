//! What is seen where there is no window: chosen by a client, kept in the desktop's directory.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x_desktop::picture::{Frame, Placing, decode};
use x_desktop::{Backdrop, Colour, Size};

use super::home::Home;
use super::session::Session;
use super::{Desktop, Error};
use crate::config::Bounds;

/// What was chosen, and the picture itself: its file may go.
const FILE: &str = "backdrop.json";
const PICTURE: &str = "backdrop.picture";

/// What is seen where there is no window. Nothing of it is the desktop's own backdrop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackdropSpec {
    /// `#rrggbb`: all of it, or what is around a picture and seen through it (black when absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// A picture: the absolute path of a PNG, JPEG or WebP. A copy of it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How the picture is placed; `fill` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<BackdropMode>,
}

/// How a picture is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackdropMode {
    /// Scaled to cover the screen; what is too much is cut off.
    #[default]
    Fill,
    /// Scaled to be seen whole.
    Fit,
    /// As it is, again and again.
    Tile,
    /// As it is, in the middle.
    Center,
}

impl From<BackdropMode> for Placing {
    fn from(mode: BackdropMode) -> Self {
        match mode {
            BackdropMode::Fill => Self::Fill,
            BackdropMode::Fit => Self::Fit,
            BackdropMode::Tile => Self::Tile,
            BackdropMode::Center => Self::Center,
        }
    }
}

impl Desktop {
    /// The backdrop that was chosen.
    ///
    /// # Errors
    /// [`Error::Home`].
    pub async fn backdrop(&self) -> Result<BackdropSpec, Error> {
        let home = self.home()?;
        blocking(move || Ok(home.kept(FILE).unwrap_or_default())).await
    }

    /// Shows another backdrop, from now on.
    ///
    /// # Errors
    /// What is no colour or picture; there is no desktop; the disk refuses.
    pub async fn set_backdrop(&self, spec: BackdropSpec) -> Result<BackdropSpec, Error> {
        let (session, home, bounds) = (self.session()?, self.home()?, self.parts().bounds.clone());
        let _alone = session.looks.lock().await;
        let asked = spec.clone();
        let (backdrop, file) = blocking(move || {
            let file = asked.path.as_deref().map(|path| read(Path::new(path), bounds.desktop_backdrop_max_bytes)).transpose()?;
            Ok((made(&asked, file.as_deref(), &bounds)?, file))
        })
        .await?;
        session.show_backdrop(backdrop).await?;
        let kept = spec.clone();
        blocking(move || {
            if let Some(file) = file {
                home.place(PICTURE, &file).map_err(|error| Error::Home(error.to_string()))?;
            }
            home.keep(FILE, Some(&kept).filter(|kept| **kept != BackdropSpec::default()));
            Ok(())
        })
        .await?;
        Ok(spec)
    }

    /// The directory of the desktop, or where it would be.
    ///
    /// # Errors
    /// [`Error::Home`]: nobody says where.
    pub(super) fn home(&self) -> Result<Home, Error> {
        let home = self.shown().home.clone().or_else(|| self.parts().home.clone());
        home.ok_or_else(|| Error::Home("neither HOME nor XDG_STATE_HOME is set".to_owned()))
    }

    /// Shows the chosen backdrop on a screen of another size, for whoever holds `looks`.
    pub(super) async fn dress_again(&self, session: &Session) -> Result<(), Error> {
        let (home, bounds) = (self.home()?, self.parts().bounds.clone());
        let backdrop = blocking(move || Ok(chosen(&home, &bounds))).await?;
        session.show_backdrop(backdrop).await
    }
}

impl Session {
    async fn show_backdrop(&self, backdrop: Backdrop) -> Result<(), Error> {
        let size = self.link.call("the screen's size", Error::Invalid, |display| Ok(display.size())).await?;
        // Not on the thread that everybody waits for.
        let backdrop = blocking(move || fitted(backdrop, size)).await?;
        self.link.call("the backdrop", Error::Invalid, move |display| display.set_backdrop(&backdrop)).await
    }
}

/// Does something that blocks.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Invalid(format!("it could not be done: {error}")))?
}

/// The backdrop that was chosen; the usual one when that can't be had any more. Blocks.
pub(super) fn chosen(home: &Home, bounds: &Bounds) -> Backdrop {
    let Some(spec) = home.kept::<BackdropSpec>(FILE) else { return Backdrop::default() };
    let file = spec.path.is_some().then(|| read(&home.path(PICTURE), bounds.desktop_backdrop_max_bytes)).transpose();
    file.and_then(|file| made(&spec, file.as_deref(), bounds)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the desktop's backdrop can't be shown");
        Backdrop::default()
    })
}

fn made(spec: &BackdropSpec, file: Option<&[u8]>, bounds: &Bounds) -> Result<Backdrop, Error> {
    let color = spec.color.as_deref().map(colour).transpose()?;
    match (file, color) {
        (Some(file), color) => {
            let around = color.unwrap_or_default();
            let picture = decode(file, bounds.desktop_backdrop_max_pixels, around);
            let picture: Frame = picture.map_err(|error| Error::of_x(error, Error::Invalid))?;
            Ok(Backdrop::Picture(picture, spec.mode.unwrap_or_default().into(), around))
        }
        (None, _) if spec.mode.is_some() => Err(Error::Invalid("mode is that of a picture: give its path".to_owned())),
        (None, Some(color)) => Ok(Backdrop::Plain(color)),
        (None, None) => Ok(Backdrop::default()),
    }
}

/// As it will be seen on a screen of that size.
fn fitted(backdrop: Backdrop, size: Size) -> Result<Backdrop, Error> {
    let Backdrop::Picture(picture, placing, around) = backdrop else { return Ok(backdrop) };
    let placed = picture.placed(size.width.into(), size.height.into(), placing, around);
    Ok(Backdrop::Picture(placed.map_err(|error| Error::of_x(error, Error::Invalid))?, Placing::Fill, around))
}

/// `#rrggbb`.
fn colour(text: &str) -> Result<Colour, Error> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let [_, red, green, blue] = number.ok_or_else(|| Error::Invalid(format!("color is #rrggbb, not {text:?}")))?.to_be_bytes();
    Ok((red, green, blue))
}

/// A file of at most so many bytes; nothing that one waits for. Blocks.
fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let invalid = |why: &dyn std::fmt::Display| Error::Invalid(format!("{}: {why}", path.display()));
    if !path.is_absolute() {
        return Err(invalid(&"a path begins with /"));
    }
    let opened = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| invalid(&error))?;
    let about = file.metadata().map_err(|error| invalid(&error))?;
    if !about.is_file() {
        return Err(invalid(&"it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| invalid(&error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(invalid(&format!("it has more than {max_bytes} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_six_digits() {
        assert_eq!(colour("#0a64Ff").expect("a colour"), (10, 100, 255));
        for text in ["0a64ff", "#fff", "#0a64fg", "#+a64ff", "red", "", "#0a64ff0"] {
            assert!(matches!(colour(text), Err(Error::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn what_was_chosen_is_shown_again_or_the_usual() {
        let dir = tempfile::tempdir().expect("a directory");
        let (home, bounds) = (Home::at(dir.path().to_path_buf()), Bounds::default());
        assert_eq!(chosen(&home, &bounds), Backdrop::default());
        home.keep(FILE, Some(&BackdropSpec { color: Some("#010203".into()), ..BackdropSpec::default() }));
        assert_eq!(chosen(&home, &bounds), Backdrop::Plain((1, 2, 3)));
        home.keep(FILE, Some(&BackdropSpec { path: Some("/gone.png".into()), ..BackdropSpec::default() }));
        assert_eq!(chosen(&home, &bounds), Backdrop::default(), "the picture is gone");
        home.place(PICTURE, b"rubbish").expect("written");
        assert_eq!(chosen(&home, &bounds), Backdrop::default(), "it is none");
    }

    #[test]
    fn only_files_are_read_and_no_large_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        std::fs::write(&path, [7; 10]).expect("written");
        assert_eq!(read(&path, 10).expect("read"), [7; 10]);
        assert!(read(&path, 9).is_err());
        assert!(read(dir.path(), 10).is_err());
        assert!(read(Path::new("a"), 10).is_err());
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
        assert!(read(&pipe, 10).is_err(), "at once");
    }
}

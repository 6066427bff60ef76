//! What openbox alone knows.

use super::property::text;
use crate::{Display, Result};

/// `_OB_CONTROL`: what `openbox --reconfigure` sends.
const RECONFIGURE: u32 = 1;

impl Display {
    /// Has openbox read its configuration again, as `openbox --reconfigure` does; nothing happens without it. It does so later:
    /// [`Display::openbox_theme`] tells.
    ///
    /// # Errors
    /// The server is gone.
    pub fn reconfigure_openbox(&self) -> Result<()> {
        self.tell_manager(self.root, self.atoms._OB_CONTROL, [RECONFIGURE, 0, 0, 0, 0])?;
        self.sync()
    }

    /// The theme that openbox shows; `None` without it.
    ///
    /// # Errors
    /// The server is gone.
    pub fn openbox_theme(&self) -> Result<Option<String>> {
        let theme = self.ask_text(self.root, self.atoms._OB_THEME)?.reply()?;
        Ok(Some(text(&theme, &self.atoms)).filter(|theme| !theme.is_empty()))
    }
}

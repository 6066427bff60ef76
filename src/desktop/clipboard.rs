//! The clipboard and the primary selection.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x_desktop::Selection;
use x_desktop::clipboard::{Clipboard, Content, Target};

use super::{Desktop, Error};

/// How long a program has for what it holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SelectionName {
    /// What was copied.
    #[default]
    Clipboard,
    /// What is marked.
    Primary,
    /// Both of them; only to be set.
    Both,
}

/// What a selection holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClipboardText {
    /// Empty when there is no text.
    pub text: String,
    /// Which selection.
    pub selection: SelectionName,
    /// True when not all of it was text in its encoding: what wasn't is `�`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lossy: bool,
    /// In which other forms it can be had, such as `image/png`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

/// What a selection is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct SetSelection {
    /// The text.
    pub text: String,
    /// Where; the clipboard when absent.
    #[serde(default)]
    pub selection: Option<SelectionName>,
}

impl Desktop {
    /// Reads a selection. Dropping the future drops the answer only.
    ///
    /// # Errors
    /// [`Error::Clipboard`]: its owner doesn't answer, or it is too large. There is no desktop.
    pub async fn clipboard(&self, selection: SelectionName) -> Result<ClipboardText, Error> {
        let from = one(selection)?;
        let (content, targets) = self
            .with_clipboard(move |clipboard| {
                let content = clipboard.get(from, Target::Text, PATIENCE)?;
                Ok((content, clipboard.targets(from, PATIENCE)?))
            })
            .await?;
        let text = content.as_ref().and_then(Content::text);
        let lossy = text.as_ref().is_some_and(|text| text.is_lossy);
        let targets = targets.into_iter().filter(|target| target.contains('/')).collect();
        Ok(ClipboardText { text: text.map(|text| text.text).unwrap_or_default(), selection, lossy, targets })
    }

    /// Reads a selection in one form, such as `image/png`; `None` when it can't be had in that.
    ///
    /// # Errors
    /// As [`Desktop::clipboard`].
    pub async fn clipboard_content(&self, selection: SelectionName, target: String) -> Result<Option<Content>, Error> {
        let from = one(selection)?;
        self.with_clipboard(move |clipboard| clipboard.get(from, Target::Named(target), PATIENCE)).await
    }

    /// Sets the text of a selection; returns once everybody gets it who asks.
    ///
    /// # Errors
    /// [`Error::Clipboard`]: it is too large. There is no desktop.
    pub async fn set_clipboard(&self, set: SetSelection) -> Result<(), Error> {
        self.set_clipboard_content(set.selection.unwrap_or_default(), "UTF8_STRING".to_owned(), set.text.into_bytes()).await
    }

    /// The same in another form, such as `image/png`.
    ///
    /// # Errors
    /// As [`Desktop::set_clipboard`].
    pub async fn set_clipboard_content(&self, selection: SelectionName, target: String, bytes: Vec<u8>) -> Result<(), Error> {
        let selections: &[Selection] = match selection {
            SelectionName::Clipboard => &[Selection::Clipboard],
            SelectionName::Primary => &[Selection::Primary],
            SelectionName::Both => &Selection::ALL,
        };
        self.with_clipboard(move |clipboard| clipboard.set(selections, vec![(target, bytes)])).await
    }

    async fn with_clipboard<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Clipboard) -> x_desktop::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let clipboard = Arc::clone(&self.session()?.clipboard);
        let done = tokio::task::spawn_blocking(move || work(&clipboard)).await;
        done.map_err(|error| Error::Clipboard(error.to_string()))?.map_err(|error| match error {
            x_desktop::Error::Invalid(why) => Error::Clipboard(why),
            x_desktop::Error::TimedOut { what, timeout_ms } => Error::Clipboard(format!("{what} took more than {timeout_ms} ms")),
            error => Error::of_x(error, Error::Clipboard),
        })
    }
}

fn one(selection: SelectionName) -> Result<Selection, Error> {
    match selection {
        SelectionName::Clipboard => Ok(Selection::Clipboard),
        SelectionName::Primary => Ok(Selection::Primary),
        SelectionName::Both => Err(Error::Invalid("read one selection: clipboard or primary".to_owned())),
    }
}

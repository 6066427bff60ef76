//! The files that a server was given, and what the disk has of them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use language_client::{Client, uri_of};

use crate::lsp::error::Error;

/// Files that are open, the one used for the longest time first.
pub(in crate::lsp) struct Open {
    files: Mutex<VecDeque<(PathBuf, String)>>,
    max: usize,
    file_max_bytes: u64,
}

impl Open {
    pub(super) fn new(max: usize, file_max_bytes: u64) -> Self {
        Self { files: Mutex::default(), max, file_max_bytes }
    }

    /// Gives the server a file's text, from the disk unless there is one here.
    pub(super) async fn sync(
        &self,
        client: &Client,
        path: &Path,
        language: &str,
        text: Option<Arc<str>>,
    ) -> Result<(i32, bool), Error> {
        let text = match text {
            Some(text) => text,
            None => read(path.to_owned(), self.file_max_bytes).await?,
        };
        let synced = client.sync(&uri_of(path), language, text).await?;
        if let Some((oldest, _)) = self.used(path, language) {
            client.close(&uri_of(&oldest)).await?;
        }
        Ok(synced)
    }

    /// Takes note of a use; gives the file that has to be closed for it.
    fn used(&self, path: &Path, language: &str) -> Option<(PathBuf, String)> {
        let mut files = self.files();
        files.retain(|(known, _)| known != path);
        files.push_back((path.to_owned(), language.to_owned()));
        if files.len() > self.max { files.pop_front() } else { None }
    }

    /// What the disk has of open files goes to the server; those that are gone are closed.
    pub(in crate::lsp) async fn refresh(&self, client: &Client, is_of: impl Fn(&Path) -> bool) {
        let files: Vec<_> = self.files().iter().filter(|(path, _)| is_of(path)).cloned().collect();
        for (path, language) in files {
            let done = match read(path.clone(), self.file_max_bytes).await {
                Ok(text) => client.sync(&uri_of(&path), &language, text).await.map(drop),
                Err(_) => {
                    self.files().retain(|(known, _)| *known != path);
                    client.close(&uri_of(&path)).await.map(drop)
                }
            };
            if done.is_err() {
                return; // it is gone
            }
        }
    }

    /// All that are open, with their languages.
    pub(super) fn all(&self) -> Vec<(PathBuf, String)> {
        self.files().iter().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.files().len()
    }

    fn files(&self) -> MutexGuard<'_, VecDeque<(PathBuf, String)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }
}

/// The text of a file. Who may read it was looked at before.
pub(in crate::lsp) async fn read(path: PathBuf, max_bytes: u64) -> Result<Arc<str>, Error> {
    let reading = tokio::task::spawn_blocking(move || {
        let size = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(crate::fs::Error::NotFound(path).into()),
            Err(error) => return Err(Error::NotText { path, why: error.to_string() }),
            Ok(meta) => meta.len(),
        };
        if size > max_bytes {
            return Err(Error::TooLarge { path, size, max: max_bytes });
        }
        let text = crate::rt::files::read_bounded(&path, max_bytes);
        text.map(Arc::from).map_err(|error| Error::NotText { path, why: error.to_string() })
    });
    reading.await.map_err(|_| Error::Stopping)?
}

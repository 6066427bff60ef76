//! Files that are uploaded to go with messages. They lie in a folder per session and go with it.

use std::path::PathBuf;

use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use utoipa::ToSchema;

use super::types::AttachmentRef;
use super::{Error, Sessions};
use crate::rt::ids::new_id;

/// Longer names are cut.
const NAME_MAX_CHARS: usize = 100;

/// An uploaded file.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `att_…`: name it in a message's `attachments`.
    pub id: String,
    /// Where it lies in the sandbox.
    pub path: String,
    /// The same as a URI.
    pub uri: String,
    /// What it is called.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its media type, when its sender said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

impl Sessions {
    /// Writes an upload into the session's folder, as it comes in. Nothing is left of one that breaks off or is too large.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], [`Error::TooLarge`] beyond `attachment_max_bytes` and `attachments_max`, [`Error::File`].
    pub async fn attach<S, E>(
        &self,
        id: &str,
        name: Option<&str>,
        mime_type: Option<String>,
        body: S,
    ) -> Result<Attachment, Error>
    where
        S: futures_util::Stream<Item = Result<bytes::Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        self.live(id).await?;
        self.has_room_for_one(id).await?;
        let name = plain_name(name.unwrap_or("attachment"));
        let attachment_id = new_id("att");
        let folder = self.attachments_of(id).join(&attachment_id);
        let failed = |what: &str, cause: &dyn std::fmt::Display| Error::File { what: what.to_owned(), cause: cause.to_string() };
        tokio::fs::create_dir_all(&folder).await.map_err(|error| failed("can't make the attachment's folder", &error))?;
        let path = folder.join(&name);
        let unfinished = Unfinished(Some(folder));
        let mut file = tokio::fs::File::create(&path).await.map_err(|error| failed("can't make the attachment", &error))?;
        let max = self.bounds().attachment_max_bytes;
        let mut size_bytes = 0;
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| failed("the upload broke off", &error))?;
            size_bytes += chunk.len() as u64;
            if size_bytes > max {
                return Err(Error::TooLarge { why: format!("an attachment may have {max} bytes (attachment_max_bytes)") });
            }
            file.write_all(&chunk).await.map_err(|error| failed("can't write the attachment", &error))?;
        }
        file.flush().await.map_err(|error| failed("can't write the attachment", &error))?;
        self.live(id).await?; // its folder may have gone with it meanwhile
        unfinished.keep();
        let path = path.to_string_lossy().into_owned();
        Ok(Attachment { id: attachment_id, uri: file_uri(&path), path, name, size_bytes, mime_type })
    }

    async fn has_room_for_one(&self, id: &str) -> Result<(), Error> {
        let max = self.bounds().attachments_max;
        let Ok(mut entries) = tokio::fs::read_dir(self.attachments_of(id)).await else { return Ok(()) }; // none yet
        let mut count = 0;
        while let Ok(Some(_)) = entries.next_entry().await {
            count += 1;
        }
        let why = || format!("a session may have {max} attachments (attachments_max): use another session, or paths of files");
        if count < max { Ok(()) } else { Err(Error::TooLarge { why: why() }) }
    }

    /// Attachments as ACP `resource_link` blocks.
    pub(super) async fn links(&self, session_id: &str, attachments: &[AttachmentRef]) -> Result<Vec<Value>, Error> {
        let mut links = Vec::with_capacity(attachments.len());
        for attachment in attachments {
            let (uri, name, size) = self.found(session_id, attachment).await?;
            let mut link = json!({"type": "resource_link", "uri": uri, "name": attachment.name.clone().unwrap_or(name)});
            if let Some(mime_type) = &attachment.mime_type {
                link["mimeType"] = mime_type.clone().into();
            }
            if let Some(size) = size {
                link["size"] = size.into();
            }
            links.push(link);
        }
        Ok(links)
    }

    async fn found(&self, session_id: &str, attachment: &AttachmentRef) -> Result<(String, String, Option<u64>), Error> {
        let path = match (&attachment.id, &attachment.path, &attachment.uri) {
            (Some(id), None, None) => self.uploaded(session_id, id).await?,
            (None, Some(path), None) if path.starts_with('/') => PathBuf::from(path),
            (None, None, Some(uri)) => return Ok((uri.clone(), uri.rsplit('/').next().unwrap_or(uri).to_owned(), None)),
            _ => return Err(Error::invalid("an attachment needs one of id, path (absolute) and uri")),
        };
        let shown = path.to_string_lossy().into_owned();
        let found = tokio::fs::metadata(&path).await.map_err(|_| Error::UnknownAttachment { id: shown.clone() })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((file_uri(&shown), name, Some(found.len())))
    }

    async fn uploaded(&self, session_id: &str, id: &str) -> Result<PathBuf, Error> {
        let unknown = || Error::UnknownAttachment { id: id.to_owned() };
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(unknown());
        }
        let folder = self.attachments_of(session_id).join(id);
        let mut entries = tokio::fs::read_dir(folder).await.map_err(|_| unknown())?;
        let entry = entries.next_entry().await.map_err(|_| unknown())?;
        entry.map(|entry| entry.path()).ok_or_else(unknown)
    }

    fn attachments_of(&self, session_id: &str) -> PathBuf {
        self.inner.parts.data.join("attachments").join(session_id)
    }

    /// In the background: nobody waits for it, and what is left is only disk space.
    pub(super) fn remove_attachments(&self, session_id: &str) {
        let folder = self.attachments_of(session_id);
        crate::rt::spawn_owned("attachments-remove", async move {
            let _ = tokio::fs::remove_dir_all(folder).await; // most sessions have none
        });
    }
}

/// Removes what an upload left, unless it is kept.
struct Unfinished(Option<PathBuf>);

impl Unfinished {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            let _ = std::fs::remove_dir_all(folder); // a few files at most
        }
    }
}

/// A name without folders and control characters.
fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().filter(|c| !c.is_control()).take(NAME_MAX_CHARS).collect();
    if matches!(name.as_str(), "" | "." | "..") { "attachment".to_owned() } else { name }
}

/// RFC 8089, with what a path may not hold in a URI encoded.
fn file_uri(path: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');
    format!("file://{}", percent_encoding::utf8_percent_encode(path, KEPT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        let cases = [
            ("a.txt", "a.txt"),
            ("../../etc/passwd", "passwd"),
            ("..", "attachment"),
            ("C:\\x\\y.png", "y.png"),
            ("", "attachment"),
        ];
        for (given, kept) in cases {
            assert_eq!(plain_name(given), kept);
        }
        assert_eq!(file_uri("/a b/ü.txt"), "file:///a%20b/%C3%BC.txt");
    }
}

//! Edits that servers propose (LSP 3.17, `WorkspaceEdit`): worked out first, all of them, then made through the files room, so that each
//! is in the history and can be taken back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use language_client::{Client, Encoding, path_of};
use lsp_types::{DocumentChangeOperation, DocumentChanges, OneOf, ResourceOp, WorkspaceEdit};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::server::read;
use super::texts::Text;
use super::types::{Position, Range};
use super::{Error, Lsp};
use crate::fs::{EditOptions, EditSpec, Located, Reach};

/// Files of one change.
const FILES_MAX: usize = 2_000;

/// What a change comes to.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceChange {
    /// It was made.
    pub applied: bool,
    /// Of each file, in order.
    pub files: Vec<FileEdit>,
}

/// What happens to a file.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileEdit {
    /// The file.
    pub path: String,
    /// `edit`, `create`, `rename` or `delete`.
    pub kind: &'static str,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_path: Option<String>,
    /// What changes in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<TextEdit>,
    /// What the history calls it, once it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit_id: Option<String>,
    #[serde(skip)]
    step: Step,
}

/// One place of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TextEdit {
    /// Where.
    pub range: Range,
    /// What is there.
    pub old_text: String,
    /// What shall be.
    pub new_text: String,
}

#[derive(Debug, Clone)]
enum Step {
    Edit { path: PathBuf, before: Arc<str>, after: Arc<str> },
    Create { path: PathBuf, overwrite: bool },
    Rename { from: PathBuf, to: PathBuf, overwrite: bool },
    Delete { path: PathBuf, recursive: bool },
}

/// Makes what a server asked for by itself, with the rights of this server.
pub(super) async fn apply(lsp: &Lsp, client: &Client, edit: &Value) -> Result<WorkspaceChange, Error> {
    let reach = lsp.inner.fs.reach().clone();
    let change = plan(lsp, client, edit, Encoding::Utf16).await?;
    make(lsp, &reach, change).await
}

/// Works out what an edit comes to.
///
/// # Errors
/// It makes no sense, or a file can't be read.
pub(super) async fn plan(lsp: &Lsp, client: &Client, edit: &Value, shown_in: Encoding) -> Result<WorkspaceChange, Error> {
    let edit: WorkspaceEdit = serde_json::from_value(edit.clone()).map_err(|error| nonsense(&error.to_string()))?;
    let mut planned =
        Planned { lsp, encoding: client.encoding(), shown_in, texts: BTreeMap::new(), change: WorkspaceChange::default() };
    match (edit.document_changes, edit.changes) {
        (Some(DocumentChanges::Edits(edits)), _) => {
            for edit in edits {
                planned.document(edit.text_document.uri.as_str(), edit.edits).await?;
            }
        }
        (Some(DocumentChanges::Operations(operations)), _) => {
            for operation in operations {
                match operation {
                    DocumentChangeOperation::Edit(edit) => planned.document(edit.text_document.uri.as_str(), edit.edits).await?,
                    DocumentChangeOperation::Op(op) => planned.resource(op)?,
                }
            }
        }
        (None, Some(changes)) => {
            let mut changes: Vec<_> = changes.into_iter().collect();
            changes.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
            for (uri, edits) in changes {
                planned.document(uri.as_str(), edits.into_iter().map(OneOf::Left).collect()).await?;
            }
        }
        (None, None) => {}
    }
    Ok(planned.change)
}

/// `TextEdit[]` of one file.
pub(super) async fn plan_text(
    lsp: &Lsp,
    client: &Client,
    uri: &str,
    edits: &Value,
    shown_in: Encoding,
) -> Result<WorkspaceChange, Error> {
    let edits = if edits.is_null() { Value::Array(Vec::new()) } else { edits.clone() };
    plan(lsp, client, &serde_json::json!({"changes": {uri: edits}}), shown_in).await
}

/// Makes it, one file after the other. What comes after one that fails isn't made.
///
/// # Errors
/// As edits of files; what was made until then is in the history.
pub(super) async fn make(lsp: &Lsp, reach: &Reach, mut change: WorkspaceChange) -> Result<WorkspaceChange, Error> {
    let fs = &lsp.inner.fs;
    for file in &mut change.files {
        match file.step.clone() {
            Step::Edit { path, before, after } => {
                let new = (*after).to_owned();
                let spec = match before.is_empty() {
                    true => EditSpec::Lines { start_line: 1, end_line: 0, new },
                    false => EditSpec::Text { old: (*before).to_owned(), new, occurrence: None },
                };
                let edited = fs.edit(reach, Located::from(path), spec, EditOptions::default()).await?;
                file.edit_id = edited.id;
            }
            Step::Create { path, overwrite } => {
                let there = path.exists();
                if !there || overwrite {
                    let at = Located::from(path);
                    let draft = fs.begin_write(reach, at, crate::fs::Fsync::No, &crate::fs::Expected::Anything).await?;
                    file.edit_id = fs.commit(draft, crate::fs::Expected::Anything).await?.edit_id;
                }
            }
            Step::Rename { from, to, overwrite } => fs.relocate(reach, Located::from(from), Located::from(to), overwrite).await?,
            Step::Delete { path, recursive } => fs.remove(reach, Located::from(path), recursive).await?,
        }
    }
    change.applied = true;
    Ok(change)
}

struct Planned<'a> {
    lsp: &'a Lsp,
    encoding: Encoding,
    shown_in: Encoding,
    /// What files will have, as far as they were looked at.
    texts: BTreeMap<PathBuf, Arc<str>>,
    change: WorkspaceChange,
}

type Edits = Vec<OneOf<lsp_types::TextEdit, lsp_types::AnnotatedTextEdit>>;

impl Planned<'_> {
    async fn document(&mut self, uri: &str, edits: Edits) -> Result<(), Error> {
        let path = file_of(uri)?;
        let before = self.text(&path).await?;
        let text = Text::new(Arc::clone(&before));
        let mut places = Vec::new();
        for edit in edits {
            let edit = match edit {
                OneOf::Left(edit) => edit,
                OneOf::Right(annotated) => annotated.text_edit,
            };
            let at = |position: lsp_types::Position| Position { line: position.line, character: position.character };
            let range = Range { start: at(edit.range.start), end: at(edit.range.end) };
            let bytes = (text.byte_of(range.start, self.encoding), text.byte_of(range.end, self.encoding));
            places.push((bytes, range, edit.new_text));
        }
        places.sort_by_key(|((start, _), ..)| *start); // stable: several at one place stay in their order
        let (mut after, mut done, mut shown) = (String::with_capacity(before.len()), 0, Vec::new());
        for ((start, end), range, new_text) in places {
            if start < done || end < start {
                return Err(nonsense("its edits overlap"));
            }
            after.push_str(&before[done..start]);
            after.push_str(&new_text);
            done = end;
            let range = text.convert_range(range, self.encoding, self.shown_in);
            shown.push(TextEdit { range, old_text: before[start..end].to_owned(), new_text });
        }
        after.push_str(&before[done..]);
        let after: Arc<str> = after.into();
        if before == after {
            return Ok(());
        }
        self.texts.insert(path.clone(), Arc::clone(&after));
        self.add(&path, "edit", None, shown, Step::Edit { path: path.clone(), before, after })
    }

    fn resource(&mut self, op: ResourceOp) -> Result<(), Error> {
        match op {
            ResourceOp::Create(create) => {
                let path = file_of(create.uri.as_str())?;
                let overwrite = create.options.is_some_and(|options| options.overwrite == Some(true));
                self.texts.insert(path.clone(), "".into());
                self.add(&path, "create", None, Vec::new(), Step::Create { path: path.clone(), overwrite })
            }
            ResourceOp::Rename(rename) => {
                let (from, to) = (file_of(rename.old_uri.as_str())?, file_of(rename.new_uri.as_str())?);
                let overwrite = rename.options.is_some_and(|options| options.overwrite == Some(true));
                if let Some(text) = self.texts.remove(&from) {
                    self.texts.insert(to.clone(), text);
                }
                self.add(&from.clone(), "rename", Some(to.clone()), Vec::new(), Step::Rename { from, to, overwrite })
            }
            ResourceOp::Delete(delete) => {
                let path = file_of(delete.uri.as_str())?;
                let recursive = delete.options.is_some_and(|options| options.recursive == Some(true));
                self.texts.remove(&path);
                self.add(&path, "delete", None, Vec::new(), Step::Delete { path: path.clone(), recursive })
            }
        }
    }

    fn add(
        &mut self,
        path: &Path,
        kind: &'static str,
        to: Option<PathBuf>,
        edits: Vec<TextEdit>,
        step: Step,
    ) -> Result<(), Error> {
        if self.change.files.len() >= FILES_MAX {
            return Err(Error::Invalid(format!("the change is of more than {FILES_MAX} files")));
        }
        let new_path = to.map(|to| to.display().to_string());
        self.change.files.push(FileEdit { path: path.display().to_string(), kind, new_path, edits, edit_id: None, step });
        Ok(())
    }

    /// What a file will have by now: what the disk has, until something of this changes it.
    async fn text(&self, path: &Path) -> Result<Arc<str>, Error> {
        match self.texts.get(path) {
            Some(text) => Ok(Arc::clone(text)),
            None => read(path.to_owned(), self.lsp.inner.bounds.lsp_file_max_bytes).await,
        }
    }
}

fn file_of(uri: &str) -> Result<PathBuf, Error> {
    path_of(uri).ok_or_else(|| nonsense(&format!("{uri} is no file")))
}

fn nonsense(why: &str) -> Error {
    language_client::Error::Nonsense { method: "an edit".to_owned(), why: why.to_owned() }.into()
}

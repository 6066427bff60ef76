//! What servers have to say of files: of one, of those below a directory, and of all that they know.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ignore::WalkBuilder;
use language_client::{Client, Encoding, path_of, uri_of};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::error::Error;
use super::server::Server;
use super::texts::Text;
use super::types::{Diagnostic, Range};
use super::{Asked, Lsp};
use crate::config::{as_duration, as_usize};

/// What is asked of diagnostics.
#[derive(Debug, Clone)]
pub struct DiagnosticsSpec {
    /// How long they are waited for.
    pub wait: Duration,
    /// One server only.
    pub server: Option<String>,
    /// What characters are counted in.
    pub encoding: Encoding,
    /// A text that the file would have.
    pub text: Option<String>,
}

/// The diagnostics of a file.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileDiagnostics {
    /// The file.
    pub path: String,
    /// All of them are for the text that the file had when this was asked, as far as servers say.
    pub current: bool,
    /// By place.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there were.
    pub left_out: usize,
    /// Servers that could not be asked: `{server,code,message}`.
    pub problems: Vec<Value>,
}

impl Lsp {
    /// The diagnostics of a file as it is now, or would be with another text. Waits for servers that are still at it.
    ///
    /// # Errors
    /// No server knows its language or is installed; what is wrong with the file.
    pub async fn diagnostics(&self, asked: &Asked, spec: &DiagnosticsSpec) -> Result<FileDiagnostics, Error> {
        let servers = self.for_file(asked, spec.server.as_deref()).await?;
        let each = servers.iter().map(|(server, language)| self.diagnostics_by(server, language, &asked.path, spec));
        let mut found = FileDiagnostics {
            path: asked.path.display().to_string(),
            current: true,
            diagnostics: Vec::new(),
            left_out: 0,
            problems: Vec::new(),
        };
        for ((server, _), outcome) in servers.iter().zip(join_all(each).await) {
            match outcome {
                Ok((diagnostics, left_out, is_current)) => {
                    found.diagnostics.extend(diagnostics);
                    found.left_out += left_out;
                    found.current &= is_current;
                }
                Err(error @ (Error::Fs(_) | Error::TooLarge { .. } | Error::NotText { .. })) => return Err(error),
                Err(error) if servers.len() == 1 => return Err(error),
                Err(error) => {
                    found.current = false;
                    found
                        .problems
                        .push(json!({"server": server.manifest.id, "code": error.code(), "message": error.to_string()}));
                }
            }
        }
        found.diagnostics.sort_by_key(|diagnostic| (diagnostic.range.start, severity_order(diagnostic.severity)));
        Ok(found)
    }

    async fn diagnostics_by(
        &self,
        server: &Arc<Server>,
        language: &str,
        path: &Path,
        spec: &DiagnosticsSpec,
    ) -> Result<(Vec<Diagnostic>, usize, bool), Error> {
        let client = server.client(as_duration(self.inner.bounds.lsp_start_timeout_ms)).await?;
        let _texts = server.texts(spec.text.is_some()).await;
        let uri = uri_of(path);
        let count = client.published_count();
        let (version, is_other) = server.sync(&client, path, language, spec.text.as_deref().map(Arc::from)).await?;
        let since = if is_other { count } else { 0 };
        let waited = client.wait_for_diagnostics(&uri, version, since, spec.wait).await;
        let shown = match &waited {
            Ok(waited) => {
                let diagnostics =
                    waited.published.as_ref().map(|published| Arc::clone(&published.diagnostics)).unwrap_or_default();
                shown_in(self, &server.manifest.id, &client, path, &diagnostics, spec.encoding).await
            }
            Err(_) => Vec::new(),
        };
        if spec.text.is_some() {
            server.sync(&client, path, language, None).await?; // what the disk has, again
        }
        let waited = waited?;
        Ok((shown, waited.published.map_or(0, |published| published.left_out), waited.is_current))
    }

    /// The diagnostics of all files below a directory that servers know the language of; and how many files there were besides.
    ///
    /// # Errors
    /// No file there has a language of a server that is installed.
    pub async fn folder_diagnostics(
        &self,
        folder: &Asked,
        spec: &DiagnosticsSpec,
    ) -> Result<(Vec<FileDiagnostics>, usize), Error> {
        let max = as_usize(self.inner.bounds.lsp_folder_files_max);
        let (inner, root) = (Arc::clone(&self.inner), folder.path.clone());
        let listed = tokio::task::spawn_blocking(move || {
            let roster = inner.registry.roster();
            let known = |path: &PathBuf| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !roster.for_file(name).is_empty())
            };
            let files = WalkBuilder::new(root).hidden(true).require_git(false).build().filter_map(Result::ok);
            let files =
                files.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file())).map(ignore::DirEntry::into_path);
            let mut files: Vec<_> = files.filter(known).collect();
            files.sort();
            let more = files.len().saturating_sub(max);
            files.truncate(max);
            (files, more)
        });
        let (files, more) = listed.await.map_err(|_| Error::Stopping)?;
        let each = files.into_iter().map(|path| {
            let asked = Asked { path, base: folder.base.clone() };
            async move { (self.diagnostics(&asked, spec).await, asked.path) }
        });
        let mut found = Vec::new();
        for (outcome, path) in join_all(each).await {
            match outcome {
                Ok(diagnostics) => found.push(diagnostics),
                Err(Error::NotInstalled { .. } | Error::NoServer { .. }) => {} // a language that nobody here has a server for
                Err(error) => found.push(FileDiagnostics {
                    path: path.display().to_string(),
                    current: false,
                    diagnostics: Vec::new(),
                    left_out: 0,
                    problems: vec![json!({"code": error.code(), "message": error.to_string()})],
                }),
            }
        }
        Ok((found, more))
    }

    /// What all servers that run have published so far.
    pub async fn known_diagnostics(&self, below: &Path, encoding: Encoding) -> Vec<FileDiagnostics> {
        let mut found: std::collections::BTreeMap<PathBuf, FileDiagnostics> = std::collections::BTreeMap::new();
        for server in self.all() {
            let Some(client) = server.running() else { continue };
            for (uri, published) in client.all_diagnostics() {
                let Some(path) = path_of(&uri).filter(|path| path.starts_with(below)) else { continue };
                let shown = shown_in(self, &server.manifest.id, &client, &path, &published.diagnostics, encoding).await;
                let file = found.entry(path.clone()).or_insert_with(|| FileDiagnostics {
                    path: path.display().to_string(),
                    current: false,
                    diagnostics: Vec::new(),
                    left_out: 0,
                    problems: Vec::new(),
                });
                file.diagnostics.extend(shown);
                file.left_out += published.left_out;
            }
        }
        found.into_values().collect()
    }
}

/// For events: in UTF-16, as most clients count.
pub(super) async fn shown(lsp: &Lsp, server: &str, client: &Client, path: &Path, diagnostics: &[Value]) -> Vec<Diagnostic> {
    shown_in(lsp, server, client, path, diagnostics, Encoding::Utf16).await
}

async fn shown_in(lsp: &Lsp, server: &str, client: &Client, path: &Path, diagnostics: &[Value], to: Encoding) -> Vec<Diagnostic> {
    if diagnostics.is_empty() {
        return Vec::new();
    }
    let text = Text::of(client, path, lsp.inner.bounds.lsp_file_max_bytes).await.unwrap_or_else(|_| Text::new("".into())); // it is gone
    diagnostics.iter().filter_map(|diagnostic| one(server, diagnostic, &text, client.encoding(), to)).collect()
}

fn one(server: &str, diagnostic: &Value, text: &Text, from: Encoding, to: Encoding) -> Option<Diagnostic> {
    let range: Range = serde_json::from_value(diagnostic["range"].clone()).ok()?;
    let words = |value: &Value| value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()));
    let tags = diagnostic["tags"].as_array().into_iter().flatten();
    let related = diagnostic["relatedInformation"].as_array().into_iter().flatten();
    Some(Diagnostic {
        server: server.to_owned(),
        range: text.convert_range(range, from, to),
        severity: match diagnostic["severity"].as_u64() {
            Some(2) => "warning",
            Some(3) => "info",
            Some(4) => "hint",
            _ => "error", // LSP leaves it to the client
        },
        message: diagnostic["message"].as_str().unwrap_or_default().to_owned(),
        code: words(&diagnostic["code"]),
        source: words(&diagnostic["source"]),
        code_href: words(&diagnostic["codeDescription"]["href"]),
        tags: tags
            .filter_map(|tag| {
                [None, Some("unnecessary"), Some("deprecated")].get(usize::try_from(tag.as_u64()?).ok()?).copied()?
            })
            .collect(),
        line_text: text.line_shown(range.start.line),
        related: related
            .filter_map(|other| {
                let path = path_of(other["location"]["uri"].as_str()?)?;
                Some(json!({"path": path.to_string_lossy(), "range": other["location"]["range"], "message": other["message"]}))
            })
            .collect(),
    })
}

fn severity_order(severity: &str) -> usize {
    ["error", "warning", "info", "hint"].iter().position(|known| *known == severity).unwrap_or(0)
}

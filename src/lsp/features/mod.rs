//! What is asked about a place in a file, or about names: by the first of its servers that can answer.

mod actions;
mod answers;
mod hierarchy;

use std::sync::Arc;
use std::time::Duration;

use language_client::{Client, Encoding, uri_of};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::server::{Server, Texts};
use super::texts::Text;
use super::types::{Position, Range};
use super::{Asked, Error, Lsp};
use crate::config::as_duration;

/// Where in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Counted from 0.
    At(Position),
    /// Where this text begins in a line; which of several, from 1.
    Text {
        /// From 0.
        line: u32,
        /// What is there.
        text: String,
        /// Which of several.
        occurrence: usize,
    },
}

/// A question about a file.
#[derive(Debug, Clone)]
pub struct Asking {
    /// The file.
    pub file: Asked,
    /// A text that it would have, instead of what the disk has.
    pub text: Option<String>,
    /// One server only.
    pub server: Option<String>,
    /// What characters are counted in, both ways.
    pub encoding: Encoding,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// What a server says.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Which one, as the catalogue calls it.
    pub server: String,
    /// What it says.
    pub value: Value,
}

/// A server that has the file and can answer; nobody changes its texts while this is there.
struct Ready<'a> {
    server: &'a Arc<Server>,
    client: Client,
    uri: String,
    text: Text,
    timeout: Duration,
    encoding: Encoding,
    _texts: Texts<'a>,
}

/// Questions whose answer has something missing while a server still looks at the project.
const WIDE: [&str; 8] = [
    "textDocument/references",
    "textDocument/implementation",
    "textDocument/rename",
    "workspace/symbol",
    "callHierarchy/incomingCalls",
    "callHierarchy/outgoingCalls",
    "typeHierarchy/supertypes",
    "typeHierarchy/subtypes",
];
/// So long it may look before what it has is taken.
const LOADING: Duration = Duration::from_secs(15);

impl Ready<'_> {
    /// Asks; again once the server has looked at the project, where it was still at that and the answer shows it.
    async fn request(&self, method: &str, params: &Value) -> Result<Value, Error> {
        let deadline = Instant::now() + self.timeout.min(LOADING);
        loop {
            let answer: Value = self.client.request(method, params, self.timeout).await?;
            let is_less = WIDE.contains(&method) || answer.is_null() || answer.as_array().is_some_and(Vec::is_empty);
            let left = deadline.saturating_duration_since(Instant::now());
            if !is_less || self.client.progress().is_empty() || left.is_zero() || !self.client.idle(left).await {
                return Ok(answer);
            }
        }
    }

    /// Where something is, as the server counts.
    fn position(&self, place: &Place) -> Result<Position, Error> {
        let position = match place {
            Place::At(position) => self.text.convert(*position, self.encoding, self.client.encoding()),
            Place::Text { line, text, occurrence } => {
                let missing = |why: &str| Error::Invalid(format!("line {line} {why}"));
                let content = self.text.line(*line).ok_or_else(|| missing("isn't there: lines count from 0"))?;
                let found = content.match_indices(text.as_str()).nth(occurrence.saturating_sub(1));
                let (byte, _) = found.ok_or_else(|| missing(&format!("has no {text:?}, or not {occurrence} times")))?;
                let character = self.client.encoding().character_of(content, byte);
                Position { line: *line, character: u32::try_from(character).unwrap_or(u32::MAX) }
            }
        };
        match self.text.line(position.line) {
            Some(_) => Ok(position),
            None => Err(Error::Invalid(format!("line {} isn't there: lines count from 0", position.line))),
        }
    }

    fn range(&self, range: Range) -> Range {
        self.text.convert_range(range, self.encoding, self.client.encoding())
    }

    /// Everything in the lines of this very file, as who asked counts.
    fn as_asked(&self, mut value: Value) -> Value {
        self.text.convert_all(&mut value, self.client.encoding(), self.encoding);
        value
    }

    fn document(&self) -> Value {
        json!({"uri": self.uri})
    }

    fn at(&self, place: &Place) -> Result<Value, Error> {
        Ok(json!({"textDocument": self.document(), "position": self.position(place)?}))
    }

    fn answer(&self, value: Value) -> Answer {
        Answer { server: self.server.manifest.id.clone(), value }
    }
}

impl Lsp {
    /// Hover: `{contents,range?}` with Markdown, or null.
    ///
    /// # Errors
    /// As each question here: no server for the file, none that can; what it refuses, or that it takes too long.
    pub async fn hover(&self, asking: &Asking, place: &Place) -> Result<Answer, Error> {
        self.ask(asking, "textDocument/hover", async |ready| {
            let hover = ready.request("textDocument/hover", &ready.at(place)?).await?;
            if hover.is_null() {
                return Ok(Value::Null);
            }
            let range = ready.as_asked(hover["range"].clone());
            Ok(answers::without_nulls(json!({"contents": answers::markdown(&hover["contents"]), "range": range})))
        })
        .await
    }

    /// Where a name is defined, declared, implemented, or its type is: `method` is LSP's. A list of `{path,range,lineText}`.
    ///
    /// # Errors
    /// As above.
    pub async fn locations(&self, asking: &Asking, method: &'static str, place: &Place) -> Result<Answer, Error> {
        self.ask(asking, method, async |ready| {
            let mut params = ready.at(place)?;
            if method == "textDocument/references" {
                params["context"] = json!({"includeDeclaration": true});
            }
            let found = ready.request(method, &params).await?;
            answers::locations(self, ready, &found).await
        })
        .await
    }

    /// What a file defines: a tree of `{name,kind,detail?,range,selectionRange,children}`.
    ///
    /// # Errors
    /// As above.
    pub async fn document_symbols(&self, asking: &Asking) -> Result<Answer, Error> {
        self.ask(asking, "textDocument/documentSymbol", async |ready| {
            let found = ready.request("textDocument/documentSymbol", &json!({"textDocument": ready.document()})).await?;
            Ok(answers::document_symbols(&ready.as_asked(found)))
        })
        .await
    }

    /// Names in the whole root of a file's servers: a list of `{name,kind,container?,path,range?}`.
    ///
    /// # Errors
    /// As above.
    pub async fn workspace_symbols(&self, asking: &Asking, query: &str) -> Result<Answer, Error> {
        self.ask(asking, "workspace/symbol", async |ready| {
            let found = ready.request("workspace/symbol", &json!({"query": query})).await?;
            answers::workspace_symbols(self, ready, &found).await
        })
        .await
    }

    /// What could be written here: `{items,incomplete,leftOut}`, at most `limit` items.
    ///
    /// # Errors
    /// As above.
    pub async fn completion(&self, asking: &Asking, place: &Place, trigger: Option<&str>, limit: usize) -> Result<Answer, Error> {
        self.ask(asking, "textDocument/completion", async |ready| {
            let mut params = ready.at(place)?;
            params["context"] = match trigger {
                Some(trigger) => json!({"triggerKind": 2, "triggerCharacter": trigger}),
                None => json!({"triggerKind": 1}),
            };
            let found = ready.request("textDocument/completion", &params).await?;
            Ok(answers::completion(ready.as_asked(found), limit))
        })
        .await
    }

    /// More of an item of the above, which is its `item`.
    ///
    /// # Errors
    /// As above.
    pub async fn resolve_completion(&self, asking: &Asking, item: &Value) -> Result<Answer, Error> {
        self.ask(asking, "textDocument/completion", async |ready| {
            if ready.client.options("textDocument/completion")["resolveProvider"] != true {
                return Ok(answers::completion_item(item.clone()));
            }
            Ok(answers::completion_item(ready.as_asked(ready.request("completionItem/resolve", item).await?)))
        })
        .await
    }

    /// LSP's answer to a question about a place, a range, or the whole file, counted as who asks counts.
    ///
    /// # Errors
    /// As above.
    pub async fn plain(
        &self,
        asking: &Asking,
        method: &'static str,
        place: Option<&Place>,
        range: Option<Range>,
    ) -> Result<Answer, Error> {
        self.ask(asking, method, async |ready| {
            let mut params = match place {
                Some(place) => ready.at(place)?,
                None => json!({"textDocument": ready.document()}),
            };
            if let Some(range) = range {
                params["range"] = json!(ready.range(range));
            }
            Ok(ready.as_asked(ready.request(method, &params).await?))
        })
        .await
    }

    /// Inlay hints of a range, or of the whole file.
    ///
    /// # Errors
    /// As above.
    pub async fn inlay_hints(&self, asking: &Asking, range: Option<Range>) -> Result<Answer, Error> {
        self.ask(asking, "textDocument/inlayHint", async |ready| {
            let end = Position { line: u32::try_from(ready.text.as_str().lines().count()).unwrap_or(u32::MAX), character: 0 };
            let range = range.map_or(Range { start: Position { line: 0, character: 0 }, end }, |range| ready.range(range));
            let params = json!({"textDocument": ready.document(), "range": range});
            Ok(ready.as_asked(ready.request("textDocument/inlayHint", &params).await?))
        })
        .await
    }

    /// What each word of a file is: a list of `{line,character,length,type,modifiers}`.
    ///
    /// # Errors
    /// As above.
    pub async fn semantic_tokens(&self, asking: &Asking) -> Result<Answer, Error> {
        self.ask(asking, "textDocument/semanticTokens/full", async |ready| {
            let params = json!({"textDocument": ready.document()});
            let found = ready.request("textDocument/semanticTokens/full", &params).await?;
            let legend = ready.client.options("textDocument/semanticTokens/full")["legend"].clone();
            Ok(answers::semantic_tokens(&found, &legend, &ready.text, ready.client.encoding(), ready.encoding))
        })
        .await
    }

    /// Asks the first server of a file that can do a method.
    async fn ask<F>(&self, asking: &Asking, method: &'static str, question: F) -> Result<Answer, Error>
    where
        F: AsyncFnOnce(&Ready<'_>) -> Result<Value, Error>,
    {
        let servers = self.for_file(&asking.file, asking.server.as_deref()).await?;
        let mut unable = None;
        for (server, language) in &servers {
            let client = server.client(as_duration(self.inner.bounds.lsp_start_timeout_ms)).await?;
            if !client.can(method) {
                let _ = unable
                    .get_or_insert_with(|| Error::Unsupported { server: server.manifest.id.clone(), method: method.to_owned() });
                continue;
            }
            let ready = self.ready(server, client, language, asking).await?;
            let outcome = question(&ready).await;
            self.done(&ready, language, asking).await;
            return Ok(ready.answer(outcome?));
        }
        Err(unable.unwrap_or(Error::Stopping)) // there was one at least
    }

    async fn ready<'a>(
        &self,
        server: &'a Arc<Server>,
        client: Client,
        language: &str,
        asking: &Asking,
    ) -> Result<Ready<'a>, Error> {
        let texts = server.texts(asking.text.is_some()).await;
        let path = &asking.file.path;
        server.sync(&client, path, language, asking.text.as_deref().map(Arc::from)).await?;
        let text = Text::of(&client, path, self.inner.bounds.lsp_file_max_bytes).await?;
        let timeout = asking.timeout.unwrap_or(as_duration(self.inner.bounds.lsp_request_timeout_ms));
        Ok(Ready { server, client, uri: uri_of(path), text, timeout, encoding: asking.encoding, _texts: texts })
    }

    /// The server has the text of the disk again.
    async fn done(&self, ready: &Ready<'_>, language: &str, asking: &Asking) {
        if asking.text.is_some() && ready.server.sync(&ready.client, &asking.file.path, language, None).await.is_err() {
            let _ = ready.client.close(&ready.uri).await; // the disk has none
        }
    }
}

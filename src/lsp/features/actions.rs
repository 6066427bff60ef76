//! What changes files: renames, formatting, and what a server proposes for a place.

use lsp_types::FormattingOptions;
use serde_json::{Value, json};

use super::answers::without_nulls;
use super::{Asking, Place, Ready};
use crate::fs::Reach;
use crate::lsp::applying::{WorkspaceChange, make, plan, plan_text};
use crate::lsp::types::Range;
use crate::lsp::{Error, Lsp};

impl Lsp {
    /// Gives a thing another name, everywhere: as a plan, or, with where edits may lead, at once.
    ///
    /// # Errors
    /// As each question about a place, and as edits of files.
    pub async fn rename(
        &self,
        asking: &Asking,
        place: &Place,
        name: &str,
        apply: Option<&Reach>,
    ) -> Result<(String, WorkspaceChange), Error> {
        self.change(asking, "textDocument/rename", apply, async |ready| {
            let mut params = ready.at(place)?;
            params["newName"] = name.into();
            let edit = ready.request("textDocument/rename", &params).await?;
            if edit.is_null() {
                return Err(Error::Invalid("there is nothing here that can be renamed".to_owned()));
            }
            plan(self, &ready.client, &edit, ready.encoding).await
        })
        .await
    }

    /// Formats a file, or a range of it.
    ///
    /// # Errors
    /// As above.
    pub async fn format(
        &self,
        asking: &Asking,
        range: Option<Range>,
        options: &FormattingOptions,
        apply: Option<&Reach>,
    ) -> Result<(String, WorkspaceChange), Error> {
        let method = if range.is_some() { "textDocument/rangeFormatting" } else { "textDocument/formatting" };
        self.change(asking, method, apply, async |ready| {
            let mut params = json!({"textDocument": ready.document(), "options": options});
            if let Some(range) = range {
                params["range"] = json!(ready.range(range));
            }
            let edits = ready.request(method, &params).await?;
            plan_text(self, &ready.client, &ready.uri, &edits, ready.encoding).await
        })
        .await
    }

    /// What servers propose for a range, by all of a file's servers: `{actions:[{title,kind?,preferred?,disabled?,server,action}]}`.
    ///
    /// # Errors
    /// As each question.
    pub async fn code_actions(&self, asking: &Asking, range: Range, only: &[String]) -> Result<Value, Error> {
        let servers = self.for_file(&asking.file, asking.server.as_deref()).await?;
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        for (server, _) in &servers {
            let one = Asking { server: Some(server.manifest.id.clone()), ..asking.clone() };
            match self.ask(&one, "textDocument/codeAction", async |ready| code_actions_of(ready, range, only).await).await {
                Ok(answer) => {
                    all.extend(answer.value.as_array().into_iter().flatten().cloned().map(|action| shown(&answer.server, action)))
                }
                Err(Error::Unsupported { .. }) => {}
                Err(error) if servers.len() == 1 => return Err(error),
                Err(error) => {
                    problems.push(json!({"server": server.manifest.id, "code": error.code(), "message": error.to_string()}))
                }
            }
        }
        Ok(json!({"actions": all, "problems": problems}))
    }

    /// Makes what an action of the above comes to, or plans it. A command that belongs to it is run, which may change more.
    ///
    /// # Errors
    /// As above.
    pub async fn apply_action(
        &self,
        asking: &Asking,
        action: &Value,
        apply: Option<&Reach>,
    ) -> Result<(String, WorkspaceChange), Error> {
        let changed = self.change(asking, "textDocument/codeAction", apply, async |ready| {
            let action = resolved(ready, action).await?;
            if let Some(why) = action["disabled"]["reason"].as_str() {
                return Err(Error::Invalid(format!("the action is disabled: {why}")));
            }
            plan(self, &ready.client, &action["edit"], ready.encoding).await
        });
        let (server, change) = changed.await?;
        let command = if action["command"].is_object() { &action["command"] } else { action };
        if let (Some(name), Some(_)) = (command["command"].as_str(), apply) {
            let params = json!({"command": name, "arguments": command["arguments"].as_array().cloned().unwrap_or_default()});
            let one = Asking { server: Some(server.clone()), ..asking.clone() };
            self.ask(&one, "workspace/executeCommand", async |ready| ready.request("workspace/executeCommand", &params).await)
                .await?;
        }
        Ok((server, change))
    }

    async fn change<F>(
        &self,
        asking: &Asking,
        method: &'static str,
        apply: Option<&Reach>,
        question: F,
    ) -> Result<(String, WorkspaceChange), Error>
    where
        F: AsyncFnOnce(&Ready<'_>) -> Result<WorkspaceChange, Error>,
    {
        if apply.is_some() && asking.text.is_some() {
            return Err(Error::Invalid(
                "what is worked out on another text can't be made on the file's: leave out `text` or `apply`".to_owned(),
            ));
        }
        let mut planned = WorkspaceChange::default();
        let answer = self
            .ask(asking, method, async |ready| {
                planned = question(ready).await?;
                Ok(Value::Null)
            })
            .await?;
        let change = match apply {
            Some(reach) => make(self, reach, planned).await?,
            None => planned,
        };
        Ok((answer.server, change))
    }
}

async fn code_actions_of(ready: &Ready<'_>, range: Range, only: &[String]) -> Result<Value, Error> {
    let range = ready.range(range);
    let known = ready.client.diagnostics(&ready.uri);
    let meets = |other: &Value| {
        serde_json::from_value::<Range>(other["range"].clone())
            .is_ok_and(|other| other.start <= range.end && range.start <= other.end)
    };
    let all = known.iter().flat_map(|published| published.diagnostics.iter());
    let diagnostics: Vec<_> = all.filter(|diagnostic| meets(diagnostic)).collect();
    let mut context = json!({"diagnostics": diagnostics, "triggerKind": 1});
    if !only.is_empty() {
        context["only"] = json!(only);
    }
    ready.request("textDocument/codeAction", &json!({"textDocument": ready.document(), "range": range, "context": context})).await
}

fn shown(server: &str, action: Value) -> Value {
    without_nulls(json!({
        "title": action["title"], "kind": action["kind"], "preferred": action["isPreferred"], "disabled": action["disabled"]["reason"],
        "server": server, "action": action,
    }))
}

async fn resolved(ready: &Ready<'_>, action: &Value) -> Result<Value, Error> {
    let is_bare = action["edit"].is_null() && !action["command"].is_string();
    if is_bare && ready.client.options("textDocument/codeAction")["resolveProvider"] == true {
        return ready.request("codeAction/resolve", action).await;
    }
    Ok(action.clone())
}

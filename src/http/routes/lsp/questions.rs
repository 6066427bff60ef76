//! Questions about places in files, and about names.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::fs::target::Reached;
use super::question::Question;
use crate::http::extract::ApiJson;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::lsp::Answer;

/// Items of completion when nothing else is asked for.
const ITEMS: usize = 100;
const ITEMS_MAX: usize = 1_000;

/// What a language server says.
#[derive(Debug, Serialize, ToSchema)]
struct LspAnswer {
    /// Which one, as the catalogue calls it.
    server: String,
    /// What it says.
    result: Value,
}

impl From<Answer> for Json<LspAnswer> {
    fn from(Answer { server, value }: Answer) -> Self {
        Self(LspAnswer { server, result: value })
    }
}

type Answered = Result<Json<LspAnswer>, ApiError>;

/// One question: its path, what it is called, what its body is and what is done for it.
macro_rules! questions {
    ($($(#[doc = $doc:literal])+ $name:ident($path:literal, $operation:literal, $body:ident) |$state:ident, $asking:ident, $asked:ident| $done:expr;)+) => {
        pub(super) fn router() -> OpenApiRouter<AppState> {
            OpenApiRouter::new()$(.routes(routes!($name)))+
        }

        $($(#[doc = $doc])+
        #[utoipa::path(post, path = $path, tag = "lsp", operation_id = $operation, request_body = $body,
            responses((status = 200, body = LspAnswer), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
                      (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
        async fn $name(State($state): State<AppState>, Reached(reach): Reached, ApiJson($asked): ApiJson<$body>) -> Answered {
            let $asking = AsRef::<Question>::as_ref(&$asked).asking(&$state, &reach).await?;
            Ok($done.await?.into())
        })+
    };
}

impl AsRef<Question> for Question {
    fn as_ref(&self) -> &Question {
        self
    }
}

/// A question about names.
#[derive(Debug, Deserialize, ToSchema)]
struct LspNames {
    #[serde(flatten)]
    question: Question,
    /// A part of the name.
    #[serde(default)]
    query: String,
}

/// A question about what could be written.
#[derive(Debug, Deserialize, ToSchema)]
struct LspCompletion {
    #[serde(flatten)]
    question: Question,
    /// The character that was just typed and asks for it.
    trigger: Option<String>,
    /// Items at most: 100 when absent, 1 to 1000.
    limit: Option<usize>,
}

/// A question for more of an item of completion.
#[derive(Debug, Deserialize, ToSchema)]
struct LspCompletionItem {
    #[serde(flatten)]
    question: Question,
    /// `item` of one of the items.
    item: Value,
}

/// Which way a hierarchy is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CallDirection {
    Incoming,
    Outgoing,
}

/// A question about calls.
#[derive(Debug, Deserialize, ToSchema)]
struct LspCalls {
    #[serde(flatten)]
    question: Question,
    /// What calls it, or what it calls.
    direction: CallDirection,
}

/// Which way types are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TypeDirection {
    Supertypes,
    Subtypes,
}

/// A question about types.
#[derive(Debug, Deserialize, ToSchema)]
struct LspTypes {
    #[serde(flatten)]
    question: Question,
    /// What it is made of, or what is made of it.
    direction: TypeDirection,
}

macro_rules! about_a_question {
    ($($body:ident)+) => {$(
        impl AsRef<Question> for $body {
            fn as_ref(&self) -> &Question {
                &self.question
            }
        }
    )+};
}

about_a_question!(LspNames LspCompletion LspCompletionItem LspCalls LspTypes);

questions! {
    /// What is known of the thing at a place: `{contents,range?}` with Markdown, or null.
    hover("/v1/lsp/hover", "lsp_hover", Question) |state, asking, asked| state.lsp.hover(&asking, &asked.place()?);
    /// Where it is defined: `{locations:[{path,range,lineText}],leftOut}`.
    definition("/v1/lsp/definition", "lsp_definition", Question) |state, asking, asked|
        state.lsp.locations(&asking, "textDocument/definition", &asked.place()?);
    /// Where it is declared: as `definition`.
    declaration("/v1/lsp/declaration", "lsp_declaration", Question) |state, asking, asked|
        state.lsp.locations(&asking, "textDocument/declaration", &asked.place()?);
    /// Where its type is defined: as `definition`.
    type_definition("/v1/lsp/type-definition", "lsp_type_definition", Question) |state, asking, asked|
        state.lsp.locations(&asking, "textDocument/typeDefinition", &asked.place()?);
    /// Where it is implemented: as `definition`.
    implementation("/v1/lsp/implementation", "lsp_implementation", Question) |state, asking, asked|
        state.lsp.locations(&asking, "textDocument/implementation", &asked.place()?);
    /// Where it is used, its declaration among them: as `definition`.
    references("/v1/lsp/references", "lsp_references", Question) |state, asking, asked|
        state.lsp.locations(&asking, "textDocument/references", &asked.place()?);
    /// What a file defines: a tree of `{name,kind,detail?,range,selectionRange,children?}`.
    document_symbols("/v1/lsp/document-symbols", "lsp_document_symbols", Question) |state, asking, asked| state.lsp.document_symbols(&asking);
    /// Names anywhere in the root of a file's servers: `{symbols:[{name,kind,container?,path,range}],leftOut}`.
    workspace_symbols("/v1/lsp/workspace-symbols", "lsp_workspace_symbols", LspNames) |state, asking, asked|
        state.lsp.workspace_symbols(&asking, &asked.query);
    /// What could be written: `{items:[{label,kind,detail?,documentation?,insertText,range?,item}],incomplete,leftOut}`.
    completion("/v1/lsp/completion", "lsp_completion", LspCompletion) |state, asking, asked| {
        let limit = asked.limit.unwrap_or(ITEMS).clamp(1, ITEMS_MAX);
        let place = asked.question.place()?;
        async move { state.lsp.completion(&asking, &place, asked.trigger.as_deref(), limit).await }
    };
    /// More of an item of completion.
    completion_resolve("/v1/lsp/completion/resolve", "lsp_resolve_completion", LspCompletionItem) |state, asking, asked|
        state.lsp.resolve_completion(&asking, &asked.item);
    /// The parameters of the call at a place, as LSP's `SignatureHelp`.
    signature_help("/v1/lsp/signature-help", "lsp_signature_help", Question) |state, asking, asked|
        state.lsp.plain(&asking, "textDocument/signatureHelp", Some(&asked.place()?), None);
    /// What calls the thing at a place, or is called by it: `{items:[{item,calls:[{name,kind,path,range,ranges}]}]}`.
    call_hierarchy("/v1/lsp/call-hierarchy", "lsp_call_hierarchy", LspCalls) |state, asking, asked|
        state.lsp.calls(&asking, &asked.question.place()?, asked.direction == CallDirection::Incoming);
    /// The types above or below the one at a place: `{items:[{item,types:[{name,kind,path,range}]}]}`.
    type_hierarchy("/v1/lsp/type-hierarchy", "lsp_type_hierarchy", LspTypes) |state, asking, asked|
        state.lsp.types(&asking, &asked.question.place()?, asked.direction == TypeDirection::Supertypes);
    /// What an editor shows between the words of a range, or of the whole file, as LSP's `InlayHint[]`.
    inlay_hints("/v1/lsp/inlay-hints", "lsp_inlay_hints", Question) |state, asking, asked| state.lsp.inlay_hints(&asking, asked.range);
    /// What each word of a file is: `{tokens:[{line,character,length,type,modifiers}]}`.
    semantic_tokens("/v1/lsp/semantic-tokens", "lsp_semantic_tokens", Question) |state, asking, asked| state.lsp.semantic_tokens(&asking);
    /// What of a file can be folded, as LSP's `FoldingRange[]`.
    folding("/v1/lsp/folding-ranges", "lsp_folding_ranges", Question) |state, asking, asked|
        state.lsp.plain(&asking, "textDocument/foldingRange", None, None);
}

//! What we say we can (LSP 3.17, "Initialize Request"), and what of a server's answer matters here.

use serde_json::{Value, json};

use crate::document::SyncKind;
use crate::position::Encoding;
use crate::state::Registration;
use crate::{Setup, state::State};

/// `InitializeParams`. UTF-8 comes first: it is what texts are here.
pub(crate) fn initialize_params(setup: &Setup) -> Value {
    let folders = json!([{"uri": setup.root_uri, "name": setup.name}]);
    let dynamic = json!({"dynamicRegistration": true});
    let links = json!({"dynamicRegistration": true, "linkSupport": true});
    let kinds = |last: u32| json!({"valueSet": (1..=last).collect::<Vec<_>>()});
    json!({
        "processId": setup.process_id,
        "clientInfo": {"name": "sandboxd", "version": env!("CARGO_PKG_VERSION")},
        "rootUri": setup.root_uri,
        "workspaceFolders": folders,
        "initializationOptions": setup.initialization_options,
        "capabilities": {
            "general": {
                "positionEncodings": ["utf-8", "utf-16", "utf-32"],
                "staleRequestSupport": {"cancel": true, "retryOnContentModified": []},
                "markdown": {"parser": "commonmark"},
            },
            "window": {"workDoneProgress": true, "showMessage": {}, "showDocument": {"support": false}},
            "workspace": {
                "applyEdit": true,
                "workspaceEdit": {
                    "documentChanges": true,
                    "resourceOperations": ["create", "rename", "delete"],
                    "failureHandling": "abort",
                    "normalizesLineEndings": false,
                    "changeAnnotationSupport": {},
                },
                "configuration": true,
                "workspaceFolders": true,
                "didChangeConfiguration": dynamic,
                "didChangeWatchedFiles": {"dynamicRegistration": true, "relativePatternSupport": true},
                "symbol": {"dynamicRegistration": true, "symbolKind": kinds(26)},
                "executeCommand": dynamic,
                "diagnostics": {"refreshSupport": true},
                "semanticTokens": {"refreshSupport": true},
                "inlayHint": {"refreshSupport": true},
            },
            "textDocument": {
                "synchronization": {"dynamicRegistration": true, "didSave": true},
                "publishDiagnostics": {
                    "relatedInformation": true, "versionSupport": true, "codeDescriptionSupport": true, "dataSupport": true,
                    "tagSupport": {"valueSet": [1, 2]},
                },
                "diagnostic": {"dynamicRegistration": true, "relatedDocumentSupport": true},
                "completion": {
                    "dynamicRegistration": true, "contextSupport": true,
                    "completionItem": {
                        "snippetSupport": false, "documentationFormat": ["markdown", "plaintext"], "labelDetailsSupport": true,
                        "resolveSupport": {"properties": ["documentation", "detail", "additionalTextEdits"]},
                        "insertReplaceSupport": true, "deprecatedSupport": true, "tagSupport": {"valueSet": [1]},
                    },
                    "completionItemKind": kinds(25),
                },
                "hover": {"dynamicRegistration": true, "contentFormat": ["markdown", "plaintext"]},
                "signatureHelp": {
                    "dynamicRegistration": true,
                    "signatureInformation": {
                        "documentationFormat": ["markdown", "plaintext"], "activeParameterSupport": true,
                        "parameterInformation": {"labelOffsetSupport": true},
                    },
                },
                "declaration": links, "definition": links, "typeDefinition": links, "implementation": links,
                "references": dynamic,
                "documentSymbol": {"dynamicRegistration": true, "hierarchicalDocumentSymbolSupport": true, "symbolKind": kinds(26)},
                "codeAction": {
                    "dynamicRegistration": true, "isPreferredSupport": true, "disabledSupport": true, "dataSupport": true,
                    "resolveSupport": {"properties": ["edit"]},
                    "codeActionLiteralSupport": {"codeActionKind": {"valueSet": [
                        "", "quickfix", "refactor", "refactor.extract", "refactor.inline", "refactor.rewrite", "source",
                        "source.organizeImports", "source.fixAll",
                    ]}},
                },
                "formatting": dynamic, "rangeFormatting": dynamic,
                "rename": {"dynamicRegistration": true, "prepareSupport": true},
                "foldingRange": {"dynamicRegistration": true, "lineFoldingOnly": false},
                "callHierarchy": dynamic, "typeHierarchy": dynamic,
                "inlayHint": {"dynamicRegistration": true, "resolveSupport": {"properties": ["tooltip", "label.tooltip"]}},
                "semanticTokens": {
                    "dynamicRegistration": true, "requests": {"full": true, "range": true}, "formats": ["relative"],
                    "tokenTypes": TOKEN_TYPES, "tokenModifiers": TOKEN_MODIFIERS, "overlappingTokenSupport": false,
                    "multilineTokenSupport": true,
                },
            },
        },
    })
}

/// LSP 3.17, `SemanticTokenTypes`.
const TOKEN_TYPES: [&str; 23] = [
    "namespace",
    "type",
    "class",
    "enum",
    "interface",
    "struct",
    "typeParameter",
    "parameter",
    "variable",
    "property",
    "enumMember",
    "event",
    "function",
    "method",
    "macro",
    "keyword",
    "modifier",
    "comment",
    "string",
    "number",
    "regexp",
    "operator",
    "decorator",
];

/// LSP 3.17, `SemanticTokenModifiers`.
const TOKEN_MODIFIERS: [&str; 10] = [
    "declaration",
    "definition",
    "readonly",
    "static",
    "deprecated",
    "abstract",
    "async",
    "modification",
    "documentation",
    "defaultLibrary",
];

/// What a server can.
#[derive(Debug, Clone)]
pub(crate) struct Abilities {
    /// `ServerCapabilities`.
    pub(crate) capabilities: Value,
    /// `serverInfo`.
    pub(crate) info: Value,
    pub(crate) encoding: Encoding,
    pub(crate) sync: SyncKind,
    pub(crate) hears_saves: bool,
}

impl Abilities {
    /// Of an `InitializeResult`.
    pub(crate) fn of(result: &Value) -> Self {
        let capabilities = result["capabilities"].clone();
        let sync = &capabilities["textDocumentSync"];
        let kind = match sync.as_u64().or_else(|| sync["change"].as_u64()) {
            Some(1) => SyncKind::Full,
            Some(2) => SyncKind::Incremental,
            _ => SyncKind::None,
        };
        let encoding = capabilities["positionEncoding"].as_str().and_then(Encoding::named).unwrap_or_default();
        let hears_saves = !matches!(sync["save"], Value::Null | Value::Bool(false));
        Self { info: result["serverInfo"].clone(), encoding, sync: kind, hears_saves, capabilities }
    }

    /// Whether it answers a method, by what it said at first or has registered since.
    pub(crate) fn can(&self, method: &str, state: &State) -> bool {
        let said = provider(method).is_none_or(|name| !matches!(self.capabilities[name], Value::Null | Value::Bool(false)));
        said || state.registrations().iter().any(|registration| registration.method == registered_as(method))
    }

    /// What it said of a method, or has registered.
    pub(crate) fn options(&self, method: &str, state: &State) -> Value {
        let said = provider(method).map(|name| self.capabilities[name].clone()).filter(Value::is_object);
        let registered = || {
            let found =
                state.registrations().into_iter().find(|Registration { method: known, .. }| known == registered_as(method));
            found.map(|registration| registration.options)
        };
        said.or_else(registered).unwrap_or_default()
    }
}

fn registered_as(method: &str) -> &str {
    match method {
        "textDocument/prepareRename" => "textDocument/rename",
        "callHierarchy/incomingCalls" | "callHierarchy/outgoingCalls" => "textDocument/prepareCallHierarchy",
        "typeHierarchy/supertypes" | "typeHierarchy/subtypes" => "textDocument/prepareTypeHierarchy",
        "textDocument/semanticTokens/full" | "textDocument/semanticTokens/range" => "textDocument/semanticTokens",
        "completionItem/resolve" => "textDocument/completion",
        "codeAction/resolve" => "textDocument/codeAction",
        "workspace/diagnostic" => "textDocument/diagnostic",
        other => other,
    }
}

/// The capability that says so; `None` for methods without one.
fn provider(method: &str) -> Option<&'static str> {
    Some(match registered_as(method) {
        "textDocument/completion" => "completionProvider",
        "textDocument/hover" => "hoverProvider",
        "textDocument/signatureHelp" => "signatureHelpProvider",
        "textDocument/declaration" => "declarationProvider",
        "textDocument/definition" => "definitionProvider",
        "textDocument/typeDefinition" => "typeDefinitionProvider",
        "textDocument/implementation" => "implementationProvider",
        "textDocument/references" => "referencesProvider",
        "textDocument/documentSymbol" => "documentSymbolProvider",
        "textDocument/codeAction" => "codeActionProvider",
        "textDocument/formatting" => "documentFormattingProvider",
        "textDocument/rangeFormatting" => "documentRangeFormattingProvider",
        "textDocument/rename" => "renameProvider",
        "textDocument/foldingRange" => "foldingRangeProvider",
        "textDocument/prepareCallHierarchy" => "callHierarchyProvider",
        "textDocument/prepareTypeHierarchy" => "typeHierarchyProvider",
        "textDocument/semanticTokens" => "semanticTokensProvider",
        "textDocument/inlayHint" => "inlayHintProvider",
        "textDocument/diagnostic" => "diagnosticProvider",
        "workspace/symbol" => "workspaceSymbolProvider",
        "workspace/executeCommand" => "executeCommandProvider",
        _ => return None,
    })
}

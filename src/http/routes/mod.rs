//! All routes: one file per resource.

mod acp;
pub(super) mod acp_remote;
mod agents;
mod desktop;
mod directory_config;
mod events;
mod fs;
mod git;
mod lsp;
mod processes;
mod requests;
mod restart;
mod server;
mod sessions;
mod traces;
mod ui;

pub use restart::{KeeperStatus, Restarting, UpgradeRequest};
use serde::Serialize;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};
use utoipa::{Modify, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::AppState;

/// An RFC 9457 problem, for the API description.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDetails {
    /// `urn:sandbox-agent:error:<kind>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:sandbox-agent:error:invalid_request")]
    kind: String,
    /// The kind in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened and what to do.
    detail: String,
    /// `urn:sandboxd:request:<id>`: the log knows the request by it.
    instance: String,
}

/// The routes and what describes them.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(base())
        .merge(server::router())
        .merge(restart::router())
        .merge(agents::router())
        .merge(acp::router())
        .merge(acp_remote::router())
        .merge(processes::router())
        .merge(sessions::router())
        .merge(events::router())
        .merge(directory_config::router())
        .merge(fs::router())
        .merge(git::router())
        .merge(lsp::router())
        .merge(desktop::router())
        .merge(requests::router())
        .merge(traces::router())
        .merge(ui::router())
}

/// The OpenAPI document, from the same registration as the routes.
pub fn openapi() -> OpenApi {
    routes().split_for_parts().1
}

fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("sandboxd")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The agent runtime that lives inside a sandbox."))
        .license(Some(utoipa::openapi::License::new("Apache-2.0")))
        .build();
    let mut api =
        OpenApiBuilder::new().info(info).security(Some([SecurityRequirement::new("token", Vec::<String>::new())])).build();
    BearerToken.modify(&mut api);
    api
}

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, api: &mut OpenApi) {
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

//! `/openapi.json`, made from the handlers. `/docs` shows it to people.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::web::App;

/// What is the same for all paths.
#[derive(OpenApi)]
#[openapi(
    info(title = "tenant-operator web", description = "Signups, progress and webhooks of a multi-tenant RAG service."),
    modifiers(&Security)
)]
pub struct Doc;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, doc: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let token = token.description(Some("The token that the answer to a signup holds")).build();
        let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let key = key.description(Some("The tenant's API key, sk_live_...")).build();
        let components = doc.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(key));
        components.add_security_scheme("signup_token", SecurityScheme::Http(token));
    }
}

impl App {
    /// The document.
    pub fn api_document(&self) -> utoipa::openapi::OpenApi {
        self.openapi.get().cloned().unwrap_or_else(Doc::openapi)
    }
}

/// `GET /openapi.json`
pub async fn json(State(app): State<Arc<App>>) -> Json<utoipa::openapi::OpenApi> {
    Json(app.api_document())
}

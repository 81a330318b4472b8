//! `/openapi.json`, made from the handlers, and a page that shows it to people.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Html;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::App;
use super::problem::Problem;

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

/// The document.
pub async fn json(State(app): State<Arc<App>>) -> Json<utoipa::openapi::OpenApi> {
    Json(app.openapi.get().cloned().unwrap_or_else(Doc::openapi))
}

/// The page.
pub async fn page(State(app): State<Arc<App>>) -> Result<Html<String>, Problem> {
    let doc = app.openapi.get().cloned().unwrap_or_else(Doc::openapi);
    let env = minijinja::Environment::new();
    let template = include_str!("openapi.html");
    let page = env.render_named_str("openapi.html", template, minijinja::context! { doc });
    page.map(Html).map_err(|e| Problem::internal("openapi.html", &e))
}

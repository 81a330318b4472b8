//! `GET /docs`: the API's reference for people. Swagger UI shows `/openapi.json` there.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use minijinja::context;
use minijinja::value::Serde;

use super::PageResult;
use crate::web::App;

/// `GET /docs`
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> PageResult {
    let assets = app.pages.assets.reference();
    app.page(StatusCode::OK, "api.html", &headers, context! { assets => Serde(assets) })
}

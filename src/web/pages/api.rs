//! `GET /docs`: the API's reference for people.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use minijinja::context;

use crate::web::App;

/// `GET /docs`
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.show(StatusCode::OK, "api.html", &headers, context! { doc => app.api_document() })
}

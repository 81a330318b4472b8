//! `/account/export`: asks for an export of everything, and downloads it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Form};

use super::account::Confirm;
use crate::web::App;
use crate::web::reader::End;

/// Asks for one.
pub async fn ask(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<Confirm>) -> Response {
    let tenant = match app.own_customer(&headers, form.csrf()).await {
        Ok(tenant) => tenant,
        Err(other) => return other,
    };
    match app.ask_export(&tenant).await {
        Ok(_) => super::go("/account#export"),
        Err(problem) => app.sorry(&headers, problem),
    }
}

/// Downloads it.
pub async fn download(State(app): State<Arc<App>>, Extension(end): Extension<End>, headers: HeaderMap) -> Response {
    match app.customer(&headers).await {
        Ok(tenant) => match app.send_export(&tenant, &end).await {
            Ok(sent) => sent,
            Err(problem) => app.sorry(&headers, problem),
        },
        Err(other) => other,
    }
}

//! Logging in with e-mail address and password, and out.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum_client_ip::ClientIp;
use minijinja::context;
use serde::Deserialize;

use super::extract::{Button, CsrfForm};
use super::{PageResult, go};
use crate::web::App;

use crate::web::serving::problem::WRONG_PASSWORD;

#[derive(Deserialize)]
pub struct LoginForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
}

/// The form.
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> PageResult {
    page(&app, &headers, StatusCode::OK, "", "")
}

fn page(app: &App, headers: &HeaderMap, status: StatusCode, email: &str, error: &str) -> PageResult {
    app.page(status, "login.html", headers, context! { email, error })
}

/// Logs in.
pub async fn submit(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    CsrfForm(form): CsrfForm<LoginForm>,
) -> PageResult {
    let Some((tenant, generation)) = app.by_password(client, &form.email, form.password).await? else {
        return page(&app, &headers, StatusCode::UNAUTHORIZED, &form.email, WRONG_PASSWORD);
    };
    tracing::info!(target: "audit", event = "logged_in", tenant = tenant.place().name);
    let mut response = go("/account");
    app.log_in_of(&tenant, generation, response.headers_mut());
    Ok(response)
}

/// Logs out.
pub async fn leave(State(app): State<Arc<App>>, headers: HeaderMap, _: CsrfForm<Button>) -> PageResult {
    if let Some(session) = app.session(&headers) {
        app.streams.end(&session);
    }
    let mut response = go("/login");
    app.log_out(response.headers_mut());
    Ok(response)
}

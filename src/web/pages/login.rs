//! Logging in with e-mail address and password, and out.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum_client_ip::ClientIp;
use minijinja::context;
use serde::Deserialize;

use crate::web::App;
use crate::web::problem::WRONG_PASSWORD;

#[derive(Deserialize)]
pub struct LoginForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
}

/// The form.
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    form(&app, &headers, StatusCode::OK, "", "")
}

fn form(app: &App, headers: &HeaderMap, status: StatusCode, email: &str, error: &str) -> Response {
    app.show(status, "login.html", headers, context! { email, error })
}

/// Logs in.
pub async fn submit(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    Form(form_data): Form<LoginForm>,
) -> Response {
    if !app.is_own_form(&headers, &form_data.csrf) {
        return app.stale(&headers);
    }
    match app.by_password(client, &form_data.email, form_data.password.clone()).await {
        Ok(Some((tenant, generation))) => {
            tracing::info!(target: "audit", event = "logged_in", tenant = tenant.place().name);
            let mut response = super::go("/account");
            app.log_in_of(&tenant, generation, response.headers_mut());
            response
        }
        Ok(None) => form(&app, &headers, StatusCode::UNAUTHORIZED, &form_data.email, WRONG_PASSWORD),
        Err(problem) => app.sorry(&headers, problem),
    }
}

#[derive(Deserialize)]
pub struct LogoutForm {
    #[serde(default)]
    csrf: String,
}

/// Logs out.
pub async fn leave(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<LogoutForm>) -> Response {
    if !app.is_own_form(&headers, &form.csrf) {
        return app.stale(&headers);
    }
    if let Some(session) = app.session(&headers) {
        app.streams.end(&session);
    }
    let mut response = super::go("/login");
    app.log_out(response.headers_mut());
    response
}

//! Setting a new password with a link from an e-mail.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use minijinja::context;
use serde::Deserialize;
use serde_json::json;

use super::extract::CsrfForm;
use super::links::Token;
use super::{PageResult, go};
use crate::api::tenant::{Login, Terms};
use crate::api::{LinkKind, Tenant, login_secret};
use crate::web::App;

use crate::web::public::password::acceptable;
use crate::web::serving::problem::Problem;

/// `GET /password/new`
pub async fn show(State(app): State<Arc<App>>, Query(query): Query<Token>, headers: HeaderMap) -> PageResult {
    ask(&app, LinkKind::PasswordReset, &query, &headers).await
}

/// `GET /invitation`
pub async fn invitation(State(app): State<Arc<App>>, Query(query): Query<Token>, headers: HeaderMap) -> PageResult {
    ask(&app, LinkKind::Invitation, &query, &headers).await
}

async fn ask(app: &App, kind: LinkKind, query: &Token, headers: &HeaderMap) -> PageResult {
    let tenant = app.by_link(kind, query.token()).await?;
    form(app, kind, headers, StatusCode::OK, (query.token(), &tenant.spec.company_name), "")
}

fn form(
    app: &App,
    kind: LinkKind,
    headers: &HeaderMap,
    status: StatusCode,
    (token, company): (&str, &str),
    error: &str,
) -> PageResult {
    let invited = kind == LinkKind::Invitation;
    app.page(status, "password.html", headers, context! { token, company, error, invited, action => kind.page() })
}

#[derive(Deserialize)]
pub struct PasswordForm {
    #[serde(default)]
    token: String,
    #[serde(default)]
    password: String,
    /// `on` where the terms are accepted.
    #[serde(default)]
    accept_terms: String,
}

/// `POST /password/new`: the link is used up first, so that of two who have it one sets the password.
pub async fn submit(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    CsrfForm(data): CsrfForm<PasswordForm>,
) -> PageResult {
    take(&app, LinkKind::PasswordReset, &headers, &data).await
}

/// `POST /invitation`
pub async fn accept(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    CsrfForm(data): CsrfForm<PasswordForm>,
) -> PageResult {
    take(&app, LinkKind::Invitation, &headers, &data).await
}

async fn take(app: &App, kind: LinkKind, headers: &HeaderMap, data: &PasswordForm) -> PageResult {
    if !acceptable(&data.password) {
        let error = "Must have 8 to 256 characters.";
        return form(app, kind, headers, StatusCode::BAD_REQUEST, (&data.token, ""), error);
    }
    if kind == LinkKind::Invitation && data.accept_terms.is_empty() {
        let error = "Accept the terms to continue.";
        return form(app, kind, headers, StatusCode::BAD_REQUEST, (&data.token, ""), error);
    }
    let tenant = set(app, kind, data).await?;
    tracing::info!(target: "audit", event = "password_changed", tenant = tenant.name_any());
    let mut response = go("/account");
    app.log_in(&tenant, response.headers_mut());
    Ok(response)
}

async fn set(app: &App, kind: LinkKind, data: &PasswordForm) -> Result<Tenant, Problem> {
    // Before the work of a hash, and before the link is used up for nothing.
    app.by_link(kind, &data.token).await?;
    let hash = app.passwords.hash(data.password.clone()).await?;
    let tenant = app.use_link(kind, &data.token).await?;
    app.set_password(&tenant, hash).await?;
    // A log-in with the old password may have come between the use of the link and the new password.
    let tenant = app.end_sessions(&tenant).await?;
    if kind == LinkKind::Invitation { accepted(app, &tenant).await } else { Ok(tenant) }
}

/// What an invited customer has agreed to, and the login of one whose Tenant was applied as a manifest.
async fn accepted(app: &App, tenant: &Tenant) -> Result<Tenant, Problem> {
    let terms = Terms { accepted_at: app.now(), version: app.config.terms_version.clone() };
    let login = Login { secret_name: login_secret(&tenant.name_any()) };
    let change = json!({"spec": {"terms": terms, "login": login}});
    let changed = app.change_by_link(tenant, |_| Ok(Some(change.clone()))).await?;
    Ok(changed.unwrap_or_else(|| tenant.clone()))
}

//! Pages that links in e-mails open, and the forms that ask for such a link.
//!
//! Opening a link changes nothing: programs that look through e-mails open links too. A button does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_client_ip::ClientIp;
use minijinja::context;
use serde::Deserialize;
use serde_json::json;

use super::extract::{Button, CsrfForm, Customer};
use super::{PageResult, go, wants_page};
use crate::api::{LinkKind, Tenant, UNSUBSCRIBED_ANNOTATION};
use crate::serve::client::network;
use crate::web::App;
use crate::web::public::links::{Confirmation, Confirmed, dead};
use crate::web::serving::extract::Then;
use crate::web::serving::problem::{Code, Problem, ProblemBody};

#[derive(Deserialize)]
pub struct Token {
    #[serde(default)]
    token: String,
}

impl Token {
    /// The link's token.
    pub fn token(&self) -> &str {
        &self.token
    }
}

#[derive(Deserialize)]
pub struct TokenForm {
    #[serde(default)]
    token: String,
}

/// `GET /verify-email`: confirms at once where the same customer is logged in, and else asks for a click.
pub async fn verify(State(app): State<Arc<App>>, Query(query): Query<Token>, headers: HeaderMap) -> PageResult {
    let tenant = app.by_link(LinkKind::VerifyEmail, &query.token).await?;
    if app.session(&headers).is_some_and(|session| app.opens(&session, &tenant)) {
        return confirmed(&app, &headers, &query.token).await;
    }
    let text = "Confirm that this is your e-mail address, and we set up your account.";
    app.confirm_page(&headers, "Confirm your e-mail address", text, "Confirm my address", "/verify-email", &query.token)
}

/// Confirms the e-mail address of a signup with the token of the link that was sent to it. The first time, earlier
/// tokens and sessions of the account end; a request with the account's token as `Authorization: Bearer` is answered a
/// new one.
#[utoipa::path(
    post, path = "/verify-email", tag = "account", request_body = Confirmation,
    responses((status = 200, body = Confirmed), (status = 400, body = ProblemBody), (status = 410, body = ProblemBody, description = "The link is no longer valid", example = json!(dead().body())))
)]
pub async fn verify_email(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    if wants_page(&headers) {
        return Ok(verify_submit(&app, &headers, &body).await.into_response());
    }
    let malformed = |e| Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, format!("send {{\"token\": ...}}: {e}"));
    let Confirmation { token } = serde_json::from_slice(&body).map_err(malformed)?;
    let bearer = app.bearer(&headers);
    let (tenant, own) = app.confirm(&token, bearer.as_ref()).await?;
    let confirmed = Confirmed {
        tenant_id: tenant.tenant_id().into(),
        message: "The e-mail address is confirmed.",
        token: own.then(|| app.token(&tenant)),
    };
    Ok(Json(confirmed).into_response())
}

/// Confirms the address.
async fn verify_submit(app: &App, headers: &HeaderMap, body: &[u8]) -> PageResult {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    app.check_form(headers, field("csrf"))?;
    confirmed(app, headers, field("token")).await
}

async fn confirmed(app: &App, headers: &HeaderMap, token: &str) -> PageResult {
    let (tenant, own) = app.confirm(token, app.session(headers).as_ref()).await?;
    if own {
        let mut response = go("/account");
        app.log_in(&tenant, response.headers_mut());
        return Ok(response);
    }
    // A link in an e-mail that is good for a day is no way to log in.
    let text = "Thank you. Your e-mail address is confirmed. Log in to continue.";
    app.message(StatusCode::OK, headers, "Address confirmed", text)
}

/// Sends the confirmation e-mail again.
pub async fn resend(
    State(app): State<Arc<App>>,
    Then(_, Customer(tenant)): Then<CsrfForm<Button>, Customer>,
) -> PageResult {
    let sent = app.request_link(&tenant, LinkKind::VerifyEmail).await?;
    Ok(go(if sent { "/account?sent=now" } else { "/account?sent=before" }))
}

/// What one asks for with an e-mail address.
struct Ask {
    kind: LinkKind,
    title: &'static str,
    text: &'static str,
    button: &'static str,
    action: &'static str,
}

const LOGIN: Ask = Ask {
    kind: LinkKind::LoginLink,
    title: "Log in by e-mail",
    text: "We will send you a link that logs you in. It is valid for 15 minutes.",
    button: "Send me a link",
    action: "/login/mail",
};
const RESET: Ask = Ask {
    kind: LinkKind::PasswordReset,
    title: "Set a new password",
    text: "We will send you a link to set a new password. It is valid for an hour.",
    button: "Send me a link",
    action: "/password/forgot",
};

#[derive(Deserialize)]
pub struct AskForm {
    #[serde(default)]
    email: String,
}

/// `GET /login/mail`
pub async fn ask_login(State(app): State<Arc<App>>, headers: HeaderMap) -> PageResult {
    ask(&app, &headers, &LOGIN)
}

/// `GET /password/forgot`
pub async fn ask_reset(State(app): State<Arc<App>>, headers: HeaderMap) -> PageResult {
    ask(&app, &headers, &RESET)
}

fn ask(app: &App, headers: &HeaderMap, ask: &Ask) -> PageResult {
    let &Ask { title, text, button, action, .. } = ask;
    app.page(StatusCode::OK, "ask.html", headers, context! { title, text, button, action })
}

/// `POST /login/mail`
pub async fn send_login(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    CsrfForm(form): CsrfForm<AskForm>,
) -> PageResult {
    send(&app, client, &headers, &form, &LOGIN).await
}

/// `POST /password/forgot`
pub async fn send_reset(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    CsrfForm(form): CsrfForm<AskForm>,
) -> PageResult {
    send(&app, client, &headers, &form, &RESET).await
}

/// The same answer, as quickly, whether the address is known or not.
async fn send(app: &Arc<App>, client: IpAddr, headers: &HeaderMap, form: &AskForm, ask: &Ask) -> PageResult {
    if let Some(tenant) = known(app, client, &form.email).await? {
        // A customer who has no password yet is invited to set the first one.
        let kind = if tenant.spec.login.is_some() { ask.kind } else { LinkKind::Invitation };
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(problem) = app.request_link(&tenant, kind).await {
                tracing::error!(problem = problem.detail(), kind = kind.name(), "a link was not asked for");
            }
        });
    }
    let text = "If there is an account for this address, an e-mail is on its way. It may take a minute; please check \
        your spam folder too.";
    app.message(StatusCode::OK, headers, "Check your mail", text)
}

async fn known(app: &App, client: IpAddr, email: &str) -> Result<Option<Tenant>, Problem> {
    app.signups.take(&network(client)).map_err(Problem::too_many)?;
    let Ok(email) = crate::email::parse(email) else { return Ok(None) };
    app.by_email(&email).await
}

/// `GET /login/link`
pub async fn login(State(app): State<Arc<App>>, Query(query): Query<Token>, headers: HeaderMap) -> PageResult {
    app.by_link(LinkKind::LoginLink, &query.token).await?;
    let text = "Click to log in. The link works once. If your password was set before you confirmed your address, it stops working; \
                you can set a new one at any time.";
    app.confirm_page(&headers, "Log in", text, "Log in", "/login/link", &query.token)
}

/// `POST /login/link`
pub async fn login_submit(State(app): State<Arc<App>>, CsrfForm(form): CsrfForm<TokenForm>) -> PageResult {
    let tenant = app.use_link(LinkKind::LoginLink, &form.token).await?;
    let mut response = go("/account");
    app.log_in(&tenant, response.headers_mut());
    Ok(response)
}

/// `GET /unsubscribe`
pub async fn unsubscribe(State(app): State<Arc<App>>, Query(query): Query<Token>, headers: HeaderMap) -> PageResult {
    app.identity.open_unsubscribe_link(&query.token).ok_or_else(Problem::not_found)?;
    let text =
        "You will get no more tips by e-mail. You will still get what your account needs, such as payment notices.";
    let action = format!("/unsubscribe?token={}", query.token);
    app.confirm_page(&headers, "Unsubscribe from tips", text, "Unsubscribe", &action, &query.token)
}

/// `POST /unsubscribe`: from the page, or from a mail program with one click (RFC 8058), which knows no cookie. The
/// link proves who it is for, and the worst it can do is to end tips.
pub async fn unsubscribe_submit(
    State(app): State<Arc<App>>,
    Query(query): Query<Token>,
    headers: HeaderMap,
) -> PageResult {
    let (name, uid) = app.identity.open_unsubscribe_link(&query.token).ok_or_else(Problem::not_found)?;
    let change = json!({"metadata": {"uid": uid, "annotations": {UNSUBSCRIBED_ANNOTATION: "true"}}});
    match app.patch_tenant(name, change).await {
        Ok(_) => app.message(StatusCode::OK, &headers, "Unsubscribed", "You will get no more tips by e-mail."),
        // The customer is gone, or the name is another customer's now.
        Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) => Err(Problem::not_found().into()),
        Err(error) => Err(error.into()),
    }
}

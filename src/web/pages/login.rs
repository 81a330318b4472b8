//! Logging in with e-mail address and password, and out.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum_client_ip::ClientIp;
use kube::ResourceExt;
use minijinja::context;
use serde::Deserialize;

use crate::api::{Tenant, login_secret};
use crate::web::App;
use crate::web::limits::network;
use crate::web::problem::Problem;

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
    match check(&app, client, &form_data).await {
        Ok(Some(tenant)) => {
            let mut response = super::go("/account");
            app.log_in(&tenant, response.headers_mut());
            response
        }
        Ok(None) => {
            let error = "E-mail address or password is wrong.";
            form(&app, &headers, StatusCode::UNAUTHORIZED, &form_data.email, error)
        }
        Err(problem) => app.sorry(&headers, problem),
    }
}

/// The tenant, if the password is right. Whether the address is known cannot be told from the answer or its time.
async fn check(app: &App, client: IpAddr, form: &LoginForm) -> Result<Option<Tenant>, Problem> {
    app.signups.take(&network(client)).map_err(Problem::too_many)?;
    let password = form.password.clone();
    let Ok(email) = crate::email::parse(&form.email) else {
        app.passwords.pretend(password).await?;
        return Ok(None);
    };
    let secrets = app.secrets();
    let tenant = app.by_email(&email).await?;
    let secret = match &tenant {
        Some(tenant) => secrets.get_opt(&login_secret(&tenant.name_any())).await?,
        None => None,
    };
    let Some(secret) = secret else {
        app.passwords.pretend(password).await?;
        return Ok(None);
    };
    if !app.passwords.verify(&secrets, &secret, password).await? {
        return Ok(None);
    }
    Ok(tenant)
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
    let mut response = super::go("/login");
    app.log_out(response.headers_mut());
    response
}

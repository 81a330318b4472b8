//! `POST /signup`: a company signs up. The API server alone decides who was first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::App;
use super::problem::Problem;
use crate::api::tenant::{Billing, Login, Terms};
use crate::api::{EMAIL_LABEL, Phase, Plan, TENANT_LABEL, Tenant, TenantSpec, Timestamp, login_secret};

const HASH_FIELD: &str = "password-hash";

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Form {
    email: String,
    company_name: String,
    password: String,
    plan: Option<String>,
    #[serde(deserialize_with = "yes")]
    accept_terms: bool,
}

/// A JSON true, or what an HTML checkbox sends.
fn yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Bool(bool),
        Text(String),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Bool(b) => b,
        Either::Text(t) => matches!(t.as_str(), "on" | "true" | "yes" | "1"),
    })
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Form, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let bad = |e: String| Problem::new(StatusCode::BAD_REQUEST, "malformed", e);
    if kind.starts_with("application/json") {
        serde_json::from_slice(body).map_err(|e| bad(format!("the body is not the JSON of a signup: {e}")))
    } else if kind.starts_with("application/x-www-form-urlencoded") {
        let pairs: serde_json::Map<_, _> =
            url::form_urlencoded::parse(body).map(|(k, v)| (k.into_owned(), json!(v))).collect();
        serde_json::from_value(pairs.into()).map_err(|e| bad(format!("the form is not a signup: {e}")))
    } else {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", "send application/json or a form"))
    }
}

fn check(form: &Form) -> Result<(), Problem> {
    let mut fields = BTreeMap::new();
    let email = form.email.trim();
    let domain = email.split_once('@').map(|(_, d)| d).unwrap_or_default();
    let odd = |c: char| c.is_whitespace() || "<>,;".contains(c);
    let dots = domain.contains('.') && !domain.split('.').any(str::is_empty) && !domain.contains('@');
    if email.len() > 254 || email.starts_with('@') || !dots || email.contains(odd) {
        fields.insert("email", "must be an e-mail address, such as ada@example.com".into());
    }
    let company = form.company_name.trim();
    if company.is_empty() || company.chars().count() > 120 || company.chars().any(char::is_control) {
        fields.insert("company_name", "must have 1 to 120 characters".into());
    }
    if form.password.chars().count() < 8 || form.password.len() > 256 {
        fields.insert("password", "must have 8 to 256 characters".into());
    }
    if !form.accept_terms {
        fields.insert("accept_terms", "the terms must be accepted".into());
    }
    if fields.is_empty() { Ok(()) } else { Err(Problem::invalid(fields)) }
}

fn taken() -> Problem {
    let message = "this e-mail address is already registered: log in, or finish an open signup with the same password";
    Problem::new(StatusCode::BAD_REQUEST, "email_taken", message)
}

/// Makes or resumes a signup.
pub async fn signup(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let form = parse(&headers, &body)?;
    check(&form)?;
    let plan = form.plan.clone().unwrap_or_else(|| "starter".into());
    for_sale(&app, &plan).await?;
    let hash = app.identity.email_hash(&form.email);
    let name = format!("t-{hash}");
    let same_address = ListParams::default().labels(&format!("{EMAIL_LABEL}={hash}"));
    if app.tenants().list_metadata(&same_address).await?.items.iter().any(|t| t.name_any() != name) {
        return Err(taken());
    }
    let login = login_secret(&name);
    keep_password(&app, &name, &login, form.password.clone()).await?;
    let (tenant, new) = create(&app, &name, login, &form, plan).await?;
    if !matches!(tenant.status.as_ref().and_then(|s| s.phase), None | Some(Phase::PendingPayment)) {
        return Err(taken());
    }
    if new {
        app.metrics.signups.inc();
    }
    answer(&app, &tenant, new).await
}

async fn for_sale(app: &App, name: &str) -> Result<(), Problem> {
    let refuse = |why: String| Err(Problem::invalid(BTreeMap::from([("plan", why)])));
    let plan = match Api::<Plan>::all(app.client.clone()).get_opt(name).await {
        Ok(plan) => plan,
        // A name that cannot be an object's.
        Err(kube::Error::Api(e)) if e.code < 500 => None,
        Err(e) => return Err(e.into()),
    };
    match plan {
        None => refuse(format!("there is no plan named {:?}", name.chars().take(60).collect::<String>())),
        Some(p) if p.spec.stripe_price_id.is_none() => {
            refuse("this plan is sold by our sales team; please write to us".into())
        }
        Some(_) => Ok(()),
    }
}

/// Whoever first makes the Secret sets the password; everybody after must know it.
async fn keep_password(app: &App, tenant: &str, name: &str, password: String) -> Result<(), Problem> {
    let api: Api<Secret> = Api::namespaced(app.client.clone(), &app.config.namespace);
    if let Some(there) = api.get_opt(name).await? {
        return verify(app, &there, password).await;
    }
    let hash = on_hasher(app, {
        let password = password.clone();
        move || {
            Argon2::default()
                .hash_password(password.as_bytes(), &SaltString::generate(&mut OsRng))
                .map(|h| h.to_string())
        }
    })
    .await?
    .map_err(|e| Problem::internal("argon2", &e))?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(BTreeMap::from([(TENANT_LABEL.into(), tenant.into())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(HASH_FIELD.into(), ByteString(hash.into_bytes()))])),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 409 => verify(app, &api.get(name).await?, password).await,
        Err(e) => Err(e.into()),
    }
}

async fn verify(app: &App, secret: &Secret, password: String) -> Result<(), Problem> {
    let hash = secret.data.as_ref().and_then(|d| d.get(HASH_FIELD)).map(|b| b.0.clone()).unwrap_or_default();
    let right = on_hasher(app, move || {
        let hash = String::from_utf8(hash).unwrap_or_default();
        PasswordHash::new(&hash).is_ok_and(|h| Argon2::default().verify_password(password.as_bytes(), &h).is_ok())
    })
    .await?;
    if right { Ok(()) } else { Err(taken()) }
}

/// Runs a password hash where it cannot starve the rest.
async fn on_hasher<T: Send + 'static>(app: &App, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let _turn = app.hashers.acquire().await.map_err(|e| Problem::internal("hashers", &e))?;
    tokio::task::spawn_blocking(work).await.map_err(|e| Problem::internal("argon2", &e))
}

async fn create(app: &App, name: &str, login: String, form: &Form, plan: String) -> Result<(Tenant, bool), Problem> {
    let spec = TenantSpec {
        company_name: form.company_name.trim().into(),
        admin_email: form.email.trim().into(),
        plan,
        billing: Billing::default(),
        tenant_id: None,
        login: Some(Login { secret_name: login }),
        terms: Some(Terms { accepted_at: Timestamp::now(), version: app.config.terms_version.clone() }),
        api_key_generation: 1,
    };
    let mut tenant = Tenant::new(name, spec);
    tenant.labels_mut().insert(EMAIL_LABEL.into(), app.identity.email_hash(&form.email));
    let params = PostParams { field_manager: Some("tenant-operator-web".into()), ..PostParams::default() };
    match app.tenants().create(&params, &tenant).await {
        Ok(made) => Ok((made, true)),
        Err(kube::Error::Api(e)) if e.code == 409 => Ok((app.tenants().get(name).await?, false)),
        Err(e) => Err(e.into()),
    }
}

async fn answer(app: &App, tenant: &Tenant, new: bool) -> Result<Response, Problem> {
    let name = tenant.name_any();
    let link = tokio::time::timeout(app.config.checkout_wait, payment_link(app, &name)).await.unwrap_or(None);
    let id = tenant.tenant_id();
    let (status, message) = match (&link, new) {
        (Some(_), true) => (StatusCode::CREATED, "Open checkout_url to pay; your account is set up right after."),
        (Some(_), false) => (StatusCode::OK, "Welcome back. Open checkout_url to finish your signup."),
        (None, _) => (StatusCode::ACCEPTED, "Your signup is kept. The payment link follows at progress_url."),
    };
    let body = json!({
        "tenant_id": id,
        "status": "pending_payment",
        "checkout_url": link,
        "token": app.identity.status_token(&name),
        "progress_url": format!("/tenant/{id}"),
        "message": message,
    });
    Ok((status, Json(body)).into_response())
}

/// Waits for the controller's payment link.
async fn payment_link(app: &App, name: &str) -> Option<String> {
    let mut changes = std::pin::pin!(watch_object(app.tenants(), name));
    loop {
        match changes.try_next().await {
            Ok(Some(Some(tenant))) => {
                if let Some(checkout) = tenant.status.and_then(|s| s.checkout) {
                    return Some(checkout.url);
                }
            }
            Ok(None) => return None,
            Ok(Some(None)) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

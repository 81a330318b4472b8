//! A signup: the account is made, or the open one of the same address and password is found. The API server alone
//! decides who was first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::signup_form::{SignupForm, check};
use super::{accounts, admission};
use crate::api::facts::Awaited;
use crate::api::tenant::{Billing, Login, Terms};
use crate::api::{
    COMPONENT_LABEL, EMAIL_LABEL, LOGIN_COMPONENT, PASSWORD_HASH, Phase, Plan, SIGNUP_ANNOTATION, TENANT_LABEL, Tenant,
    TenantSpec, login_secret,
};
use crate::events::Event;
use crate::lifecycle::link_on_request;
use crate::serve::client::network;
use crate::telemetry::{Span, trace_id};
use crate::web::App;
use crate::web::customer::payment_link;
use crate::web::customer::progress::Progress;
use crate::web::serving::problem::{Code, Problem};
use crate::web::serving::tokens::{Generation, TOKEN_LIFE};

/// An accepted signup.
#[derive(Serialize, ToSchema)]
pub struct SignupAnswer {
    /// The tenant's id.
    #[schema(example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")]
    tenant_id: String,
    /// Always `pending_payment`.
    #[schema(example = "pending_payment")]
    status: &'static str,
    /// Where to pay; absent while the link is being made.
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_live_a1B2c3")]
    checkout_url: Option<String>,
    /// Opens this account: its progress, its setup and its end. `POST /tenant/token` answers another one.
    #[schema(example = "analytical-engines.0b8f6f0e.1764403200.c2VhbA")]
    token: String,
    /// Seconds until the token ends.
    #[schema(example = 86400)]
    expires_in: i64,
    /// Where the progress is.
    #[schema(example = "/tenant/0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")]
    progress_url: String,
    /// What to do next.
    #[schema(example = "Please complete your payment.")]
    message: &'static str,
}

/// The name of a Plan, or of any other object: an RFC 1123 subdomain.
fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    text.len() <= 253 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}

fn taken() -> Problem {
    let detail = "This e-mail address is already registered. Log in, or finish an open signup with the same password.";
    Problem::new(StatusCode::BAD_REQUEST, Code::EmailTaken, detail)
}

/// Makes the account, or finds the open signup of the same address and password; true when it is new. The generation is
/// that of the passes that the password opens.
pub async fn enroll(
    app: &App,
    client: IpAddr,
    headers: &HeaderMap,
    form: SignupForm,
) -> Result<(Tenant, Generation, bool), Problem> {
    let started = SystemTime::now();
    app.signups.take(&network(client)).map_err(Problem::too_many)?;
    let email = check(&form, &app.admission.disposable)?;
    // Before a password is hashed, which takes a core.
    admission::admit_person(app, &form.captcha_token, client).await?;
    admission::admit_address(app, &email).await?;
    let plan = form.plan.clone().unwrap_or_else(|| "starter".into());
    for_sale(app, &plan).await?;
    let hash = app.identity.email_hash(&email);
    let (name, there) = app.signup_place(&hash).await?;
    // Erased, and suspended by an admin before: the suspension outlives the account.
    if there.as_ref().is_some_and(accounts::is_erased) {
        app.passwords.pretend(form.password).await?;
        return Err(taken());
    }
    if accounts::other(&app.tenants(), &hash, &name).await?.is_some() {
        // As slow as a wrong password, so that the time of the answer does not tell which of the two it was.
        app.passwords.pretend(form.password).await?;
        return Err(taken());
    }
    // Read before the password is checked: see `Generation`.
    let generation = there.as_ref().map_or_else(|| app.first_generation(), |there| app.generation(there));
    keep_password(app, &name, form.password.clone()).await?;
    let record = Record { client, request_id: request_id(headers) };
    let (tenant, new) = create(app, &name, &form, email, plan.clone(), &record).await?;
    if !matches!(tenant.status.as_ref().and_then(|s| s.phase), None | Some(Phase::PendingPayment)) {
        return Err(taken());
    }
    let tenant = if tenant.spec.plan == plan { tenant } else { change_plan(app, &tenant, &plan).await? };
    let uid = tenant.uid().unwrap_or_default();
    let _span = new.then(|| Span::of_tenant(&uid, "signup", started));
    if new {
        app.metrics.signups.inc();
        app.happened(&Event::milestone(&tenant, "signup", app.now()));
        let trace_id = trace_id(&uid);
        tracing::info!(target: "audit", event = "signup", tenant = name, trace_id, %client, request_id = record.request_id, plan = tenant.spec.plan);
    }
    Ok((tenant, generation, new))
}

impl App {
    /// Where a signup with this address is: see [`accounts::place`].
    async fn signup_place(&self, hash: &str) -> Result<(String, Option<Tenant>), Problem> {
        accounts::place(&self.tenants(), hash).await?.ok_or_else(taken)
    }

    /// The customer of this address: the one who signed up with it, or whose address was changed to it. Reads the same
    /// for every address, so that the time of an answer does not tell which addresses are known.
    pub async fn by_email(&self, email: &str) -> Result<Option<Tenant>, Problem> {
        let hash = self.identity.email_hash(email);
        let (tenants, same_address) = (self.tenants(), accounts::of_address(&hash).limit(2));
        let moved = async { Ok(tenants.list(&same_address).await?.items) };
        let ((_, signed_up), moved) = futures::try_join!(self.signup_place(&hash), moved)?;
        if signed_up.is_some() {
            return Ok(signed_up);
        }
        // A tenant that was applied as a manifest has no login yet. Of several with one address, none is guessed.
        let only = if moved.len() == 1 { moved.first().cloned() } else { None };
        Ok(moved.into_iter().find(|t| t.spec.login.is_some()).or(only))
    }
}

/// Who signed up, and by which request.
struct Record {
    client: IpAddr,
    request_id: String,
}

fn request_id(headers: &HeaderMap) -> String {
    headers.get("x-request-id").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

async fn for_sale(app: &App, name: &str) -> Result<(), Problem> {
    let refuse = |why: String| Err(Problem::invalid(BTreeMap::from([("plan", why)])));
    let known = if is_name(name) { Api::<Plan>::all(app.client.clone()).get_opt(name).await? } else { None };
    let plan = known.filter(|p| p.metadata.deletion_timestamp.is_none());
    match plan {
        None => refuse(format!(
            "must be one of our plans; there is none named {:?}",
            name.chars().take(60).collect::<String>()
        )),
        Some(p) if p.spec.stripe_price_id.is_none() => refuse("is sold by our sales team; please write to us".into()),
        Some(_) => Ok(()),
    }
}

/// The first signup with an address creates the login Secret and sets the password; later signups must send the same
/// password. The controller deletes a Secret whose Tenant was never created, so that the address can sign up again.
async fn keep_password(app: &App, tenant: &str, password: String) -> Result<(), Problem> {
    let (api, name) = (app.secrets(), login_secret(tenant));
    let verify = async |there: Secret, password| {
        let right = app.passwords.verify(&api, &there, password, app.now()).await?;
        if right { Ok(()) } else { Err(taken()) }
    };
    if let Some(there) = api.get_opt(&name).await? {
        return verify(there, password).await;
    }
    let hash = app.passwords.hash(password.clone()).await?;
    let labels = [(TENANT_LABEL, tenant), (COMPONENT_LABEL, LOGIN_COMPONENT)];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels.map(|(k, v)| (k.into(), v.into())).into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(PASSWORD_HASH.into(), ByteString(hash.into_bytes()))])),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 409 => verify(api.get(&name).await?, password).await,
        Err(e) => Err(e.into()),
    }
}

async fn create(
    app: &App,
    name: &str,
    form: &SignupForm,
    email: String,
    plan: String,
    record: &Record,
) -> Result<(Tenant, bool), Problem> {
    let accepted_at = app.now();
    let terms = Terms { accepted_at, version: app.config.terms_version.clone() };
    let audit = json!({"at": accepted_at, "client": record.client, "requestId": record.request_id, "terms": terms.version,
        "marketing": form.marketing_opt_in});
    let mut tenant = Tenant::new(
        name,
        TenantSpec {
            plan_in_force: None,
            data: None,
            export_request: None,
            wish: None,
            suspension: None,
            deletion_policy: None,
            company_name: form.company_name.trim().into(),
            admin_email: email,
            plan,
            billing: Billing::default(),
            tenant_id: None,
            login: Some(Login { secret_name: login_secret(name) }),
            terms: Some(terms),
            desired: Default::default(),
            settings: Default::default(),
            api_key_generation: 1,
        },
    );
    let hash = app.identity.email_hash(&tenant.spec.admin_email);
    tenant.labels_mut().insert(EMAIL_LABEL.into(), hash);
    tenant.annotations_mut().insert(SIGNUP_ANNOTATION.into(), audit.to_string());
    let params = PostParams { field_manager: Some(crate::web::FIELD_MANAGER.into()), ..PostParams::default() };
    match app.tenants().create(&params, &tenant).await {
        Ok(made) => Ok((made, true)),
        Err(kube::Error::Api(e)) if e.code == 409 => Ok((app.tenants().get(name).await?, false)),
        Err(e) => Err(e.into()),
    }
}

/// A signup that is not paid for takes the plan that was asked for last.
async fn change_plan(app: &App, tenant: &Tenant, plan: &str) -> Result<Tenant, Problem> {
    let change = json!({"metadata": {"resourceVersion": tenant.resource_version()}, "spec": {"plan": plan}});
    Ok(app.patch_tenant(&tenant.name_any(), change).await?)
}

pub async fn answer(app: &App, tenant: &Tenant, generation: Generation, new: bool) -> Result<Response, Problem> {
    if tenant.status.as_ref().is_some_and(link_on_request) {
        payment_link::ask(app, tenant).await?;
    }
    let known = app.wait_until(tenant, |there| next_step(there, tenant.metadata.generation)).await;
    let link = known.as_ref().and_then(|next| next.link.clone());
    let id = tenant.tenant_id();
    let status = match (&link, new) {
        (Some(_), true) => StatusCode::CREATED,
        (Some(_), false) => StatusCode::OK,
        (None, _) => StatusCode::ACCEPTED,
    };
    let message = match (&link, known.is_some_and(|next| next.confirm), new) {
        (Some(_), true, _) => {
            "Open checkout_url to pay, and the link in our e-mail to confirm your address. Your account is set up right after."
        }
        (Some(_), false, true) => "Open checkout_url to pay. Your account is set up right after.",
        (Some(_), false, false) => "Welcome back. Open checkout_url to finish your signup.",
        (None, true, _) => {
            "Open the link in our e-mail to confirm your address. The payment link follows at progress_url."
        }
        (None, false, _) => "Your signup is saved. The payment link follows at progress_url.",
    };
    let body = SignupAnswer {
        tenant_id: id.into(),
        status: "pending_payment",
        checkout_url: link,
        token: app.token_of(tenant, generation),
        expires_in: TOKEN_LIFE,
        progress_url: format!("/tenant/{id}"),
        message,
    };
    Ok((status, Json(body)).into_response())
}

/// What the customer has to do next.
struct NextStep {
    /// Where to pay.
    link: Option<String>,
    /// Whether to confirm the e-mail address.
    confirm: bool,
}

/// That, for the spec as it is now or later: the controller's payment link, or that it wants the address confirmed
/// first.
fn next_step(tenant: &Tenant, generation: Option<i64>) -> Option<NextStep> {
    let status = tenant.status.as_ref().filter(|s| s.observed_generation >= generation)?;
    let confirm = Progress::of(tenant).awaits_confirmation();
    let link = status.checkout.as_ref().map(|checkout| checkout.url.clone());
    let first = status.awaiting.is_some_and(|awaiting| awaiting.what == Awaited::Confirmation);
    (link.is_some() || first).then_some(NextStep { link, confirm })
}

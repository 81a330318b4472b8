//! `/signup`: the form, and the answer to it, a page for a browser and JSON for a program.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_client_ip::ClientIp;
use kube::ResourceExt;
use minijinja::context;
use serde::Deserialize;

use super::pricing::offer;
use super::{PageResult, go, leads, wants_page};
use crate::web::App;
use crate::web::public::leads::LeadKind;
use crate::web::public::signup::{SignupAnswer, answer, enroll};
use crate::web::public::signup_form::{SignupForm, parse};
use crate::web::serving::offers::for_sale;
use crate::web::serving::problem::{Code, Problem, ProblemBody};

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    plan: String,
    #[serde(default)]
    cancelled: bool,
    /// A person from the waitlist who was admitted.
    #[serde(default)]
    admitted: bool,
}

/// The form.
pub async fn show(State(app): State<Arc<App>>, Query(asked): Query<Asked>, headers: HeaderMap) -> PageResult {
    let values = BTreeMap::from([("plan".to_owned(), asked.plan)]);
    if app.admission.waitlist && !asked.admitted && !asked.cancelled {
        return leads::form(&app, &headers, LeadKind::Waitlist, StatusCode::OK, &values, &BTreeMap::new());
    }
    form(&app, &headers, StatusCode::OK, &values, &BTreeMap::new(), asked.cancelled).await
}

async fn form(
    app: &App,
    headers: &HeaderMap,
    status: StatusCode,
    values: &BTreeMap<String, String>,
    errors: &BTreeMap<&'static str, String>,
    cancelled: bool,
) -> PageResult {
    let plans = for_sale(app).await?;
    let plans: Vec<_> = plans.iter().filter(|plan| plan.spec.stripe_price_id.is_some()).collect();
    let known = values.get("plan").filter(|name| plans.iter().any(|plan| plan.name_any() == **name));
    let chosen = known.cloned().or_else(|| plans.first().map(|plan| plan.name_any())).unwrap_or_default();
    let plans: Vec<_> = plans.into_iter().map(offer).collect();
    let page = context! {
        plans, chosen, errors, cancelled, captcha => app.admission.captcha_values(),
        email => values.get("email"), company_name => values.get("company_name"),
    };
    app.page(status, "signup.html", headers, page).map(|page| app.admission.allow_captcha(page))
}

/// Makes or resumes a signup: JSON or an HTML form.
#[utoipa::path(
    post, path = "/signup", operation_id = "sign_up", tag = "account", request_body = SignupForm,
    responses(
        (status = 201, body = SignupAnswer, description = "The account is made. Pay at `checkout_url`"),
        (status = 200, body = SignupAnswer, description = "The signup with the same address and password continues"),
        (status = 202, body = SignupAnswer, description = "The account is made. The payment link follows at `progress_url`"),
        (status = 400, body = ProblemBody),
    )
)]
pub async fn signup(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    if wants_page(&headers) {
        return Ok(submit(&app, &headers, client, &body).await.into_response());
    }
    let form = parse(&headers, &body)?;
    let (tenant, generation, new) = enroll(&app, client, &headers, form).await?;
    answer(&app, &tenant, generation, new).await
}

/// A form from a browser: the errors come back beside the fields, and what was entered stays, but for the password.
async fn submit(app: &App, headers: &HeaderMap, client: IpAddr, body: &[u8]) -> PageResult {
    let mut values: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    let token = values.remove("csrf").unwrap_or_default();
    app.check_form(headers, &token)?;
    let filled = SignupForm::of_page(&values, app.admission.captcha_answer(&values));
    match enroll(app, client, headers, filled).await {
        Ok((tenant, generation, _)) => {
            let mut response = go("/account");
            app.log_in_of(&tenant, generation, response.headers_mut());
            Ok(response)
        }
        Err(problem) => refused(app, headers, &values, problem).await,
    }
}

async fn refused(app: &App, headers: &HeaderMap, values: &BTreeMap<String, String>, problem: Problem) -> PageResult {
    let mut errors = problem.fields().clone();
    if errors.is_empty() {
        if problem.status() != StatusCode::BAD_REQUEST {
            return Err(problem.into());
        }
        errors.insert(if problem.is(Code::Captcha) { "captcha" } else { "email" }, problem.detail().to_owned());
    }
    form(app, headers, problem.status(), values, &errors, false).await
}

//! `/sales` and `/waitlist`: forms for people who are not customers yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum_client_ip::ClientIp;
use minijinja::context;
use serde::Deserialize;

use super::PageResult;
use super::extract::CsrfForm;
use crate::serve::client::network;
use crate::web::App;

use crate::web::public::admission::admit_person;
use crate::web::public::leads::{Lead, LeadKind, keep_lead};
use crate::web::serving::problem::Problem;

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    plan: String,
}

/// `GET /sales`
pub async fn sales(State(app): State<Arc<App>>, Query(asked): Query<Asked>, headers: HeaderMap) -> PageResult {
    let values = BTreeMap::from([("plan".to_owned(), asked.plan)]);
    form(&app, &headers, LeadKind::Sales, StatusCode::OK, &values, &BTreeMap::new())
}

/// `GET /waitlist`
pub async fn waitlist(State(app): State<Arc<App>>, headers: HeaderMap) -> PageResult {
    form(&app, &headers, LeadKind::Waitlist, StatusCode::OK, &BTreeMap::new(), &BTreeMap::new())
}

/// `POST /sales`
pub async fn ask_sales(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    CsrfForm(values): CsrfForm<BTreeMap<String, String>>,
) -> PageResult {
    submit(&app, client, &headers, LeadKind::Sales, &values).await
}

/// `POST /waitlist`
pub async fn join_waitlist(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    headers: HeaderMap,
    CsrfForm(values): CsrfForm<BTreeMap<String, String>>,
) -> PageResult {
    submit(&app, client, &headers, LeadKind::Waitlist, &values).await
}

/// The form of a kind.
pub fn form(
    app: &App,
    headers: &HeaderMap,
    kind: LeadKind,
    status: StatusCode,
    values: &BTreeMap<String, String>,
    errors: &BTreeMap<&'static str, String>,
) -> PageResult {
    let page = context! { kind => kind.name(), values, errors, captcha => app.admission.captcha_values() };
    app.page(status, "lead.html", headers, page).map(|page| app.admission.allow_captcha(page))
}

async fn submit(
    app: &App,
    client: IpAddr,
    headers: &HeaderMap,
    kind: LeadKind,
    values: &BTreeMap<String, String>,
) -> PageResult {
    let value = |name: &str| values.get(name).cloned().unwrap_or_default();
    let lead = Lead { email: value("email"), company: value("company_name"), text: value("text"), plan: value("plan") };
    let kept = async {
        app.signups.take(&network(client)).map_err(Problem::too_many)?;
        admit_person(app, &app.admission.captcha_answer(values), client).await?;
        keep_lead(app, kind, &lead).await
    };
    match kept.await {
        Ok(()) if kind == LeadKind::Sales => {
            let text = format!("Thank you. Our team writes to you {}.", app.config.brand.sales_reply);
            app.message(StatusCode::OK, headers, "We got your message", &text)
        }
        Ok(()) => {
            let text = "Thank you. We will write to you as soon as it is your turn.";
            app.message(StatusCode::OK, headers, "You are on the waitlist", text)
        }
        Err(problem) if problem.status() == StatusCode::BAD_REQUEST => {
            let mut errors = problem.fields().clone();
            if errors.is_empty() {
                errors.insert("captcha", problem.detail().to_owned());
            }
            form(app, headers, kind, problem.status(), values, &errors)
        }
        Err(problem) => Err(problem.into()),
    }
}

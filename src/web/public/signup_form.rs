//! What a visitor enters to sign up, and what is wrong with it.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use utoipa::ToSchema;

use super::admission::Domains;
use super::password::acceptable;
use crate::email;
use crate::web::serving::names::is_visible;
use crate::web::serving::problem::{Code, Problem};

/// A signup.
#[derive(Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct SignupForm {
    /// Where to write to.
    #[schema(example = "ada@example.com")]
    pub email: String,
    /// The company's name.
    #[schema(example = "Analytical Engines Ltd")]
    pub company_name: String,
    /// 8 to 256 characters.
    #[schema(example = "correct horse battery staple")]
    pub password: String,
    /// The name of a plan; starter when absent.
    #[schema(example = "starter")]
    pub plan: Option<String>,
    /// Whether the terms are accepted.
    #[serde(deserialize_with = "yes")]
    #[schema(example = true)]
    pub accept_terms: bool,
    /// Whether news of the product are wanted; no e-mail of the service depends on it.
    #[serde(deserialize_with = "yes")]
    #[schema(example = false)]
    pub marketing_opt_in: bool,
    /// What the captcha answered, where one is asked for.
    #[schema(example = "")]
    pub captcha_token: String,
}

impl SignupForm {
    /// What a page's form sent.
    pub fn of_page(values: &BTreeMap<String, String>, captcha_token: String) -> Self {
        let text = |name: &str| values.get(name).cloned().unwrap_or_default();
        let ticked = |name: &str| values.get(name).is_some_and(|v| is_yes(v));
        Self {
            email: text("email"),
            company_name: text("company_name"),
            password: text("password"),
            plan: values.get("plan").filter(|plan| !plan.is_empty()).cloned(),
            accept_terms: ticked("accept_terms"),
            marketing_opt_in: ticked("marketing_opt_in"),
            captcha_token,
        }
    }
}

fn is_yes(text: &str) -> bool {
    matches!(text, "on" | "true" | "yes" | "1")
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
        Either::Text(t) => is_yes(&t),
    })
}

/// What a request's body says, as JSON or as a form.
pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<SignupForm, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let bad = |e: String| Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, e);
    if kind.starts_with("application/json") {
        serde_json::from_slice(body).map_err(|e| bad(format!("the body is not the JSON of a signup: {e}")))
    } else if kind.starts_with("application/x-www-form-urlencoded") {
        let pairs: serde_json::Map<_, _> =
            url::form_urlencoded::parse(body).map(|(k, v)| (k.into_owned(), json!(v))).collect();
        serde_json::from_value(pairs.into()).map_err(|e| bad(format!("the form is not a signup: {e}")))
    } else {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::MediaType, "send application/json or a form"))
    }
}

/// What is wrong with each field; the normalized address when nothing is.
pub fn check(form: &SignupForm, disposable: &Domains) -> Result<String, Problem> {
    let mut fields = BTreeMap::new();
    let email = email::parse(&form.email).map_err(|why| fields.insert("email", why.to_string()));
    if email.as_ref().is_ok_and(|email| disposable.hold(email)) {
        fields.insert("email", "must not be a disposable address: you could not log in again".into());
    }
    let company = form.company_name.trim();
    if company.is_empty() || company.chars().count() > 120 || !is_visible(company) {
        fields.insert("company_name", "must have 1 to 120 visible characters".into());
    }
    if !acceptable(&form.password) {
        fields.insert("password", "must have 8 to 256 characters".into());
    }
    if !form.accept_terms {
        fields.insert("accept_terms", "must be accepted".into());
    }
    match email {
        Ok(email) if fields.is_empty() => Ok(email),
        _ => Err(Problem::invalid(fields)),
    }
}

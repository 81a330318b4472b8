//! The setup: three steps to the first useful answer, and what a customer has reached.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::milestones::reached;
use super::progress::sentence;
use crate::api::{Phase, SAMPLE_QUESTION, SETUP_SKIPPED_ANNOTATION, Tenant, Timestamp, reached_at, time_to_activate};
use crate::events::Variant;
use crate::rag::{Answer, Document};
use crate::web::App;
use crate::web::api::documents::{self, Stored};
use crate::web::api::file;
use crate::web::api::query::{self, Answered};
use crate::web::serving::directory::Served;
use crate::web::serving::extract::{SignupToken, Then};
use crate::web::serving::problem::{Code, Problem, ProblemBody};

/// The steps: the milestone that completes each, its title, and its purpose.
const STEPS: [(&str, &str, &str); 3] = [
    (
        "sample-query",
        "Ask a first question",
        "Your account holds sample documents. Ask about them, and see how an answer names its sources.",
    ),
    (
        "first-document",
        "Add a document of your own",
        "A PDF or a text. It is cut into passages, which only your account can read.",
    ),
    (
        "own-query",
        "Ask a question about your document",
        "The answer comes from your document alone. If the document does not say, the answer says so.",
    ),
];
/// How long a customer works at the setup before a call is offered, in seconds.
const PATIENCE: i64 = 600;

/// How far the setup is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Setup {
    /// The steps, in their order.
    pub steps: Vec<SetupStep>,
    /// How much of it is done.
    #[schema(example = 33)]
    pub completion_percentage: usize,
    /// The name of the next step; absent when all are done.
    #[schema(example = "first-document")]
    pub next_step: Option<&'static str>,
    /// When it was completed.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-12-09T17:31:36Z")]
    pub completed_at: Option<Timestamp>,
    /// Seconds from the ready account to the completed setup.
    #[schema(example = 240)]
    pub time_to_activate: Option<i64>,
    /// Whether the customer put it aside.
    #[schema(example = false)]
    pub skipped: bool,
    /// `simple` or `detailed`: how the pages guide this customer.
    #[schema(value_type = String, example = "detailed")]
    pub variant: Variant,
    /// Where customers whose setup takes long book a call.
    #[schema(example = "https://example.com/book-a-call")]
    pub call_url: Option<String>,
}

/// A step.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetupStep {
    /// Names the step.
    #[schema(example = "sample-query")]
    name: &'static str,
    /// In words.
    #[schema(example = "Ask a first question")]
    title: &'static str,
    /// What it is good for.
    #[schema(
        example = "Your account holds sample documents. Ask about them, and see how an answer names its sources."
    )]
    explanation: &'static str,
    /// Whether it is done.
    #[schema(example = true)]
    done: bool,
}

impl Setup {
    /// Of a tenant.
    pub fn of(app: &App, tenant: &Tenant) -> Self {
        Self::at(tenant, app.now(), &app.config.call_url)
    }

    fn at(tenant: &Tenant, now: Timestamp, call_url: &str) -> Self {
        let step = |(name, title, explanation)| SetupStep {
            name,
            title,
            explanation,
            done: reached_at(tenant, name).is_some(),
        };
        let steps: Vec<_> = STEPS.into_iter().map(step).collect();
        let done = steps.iter().filter(|step| step.done).count();
        let completed_at = reached_at(tenant, "completed");
        let long = reached_at(tenant, "first-login").is_some_and(|at| now.since(at) > PATIENCE);
        Self {
            completion_percentage: done * 100 / STEPS.len(),
            next_step: steps.iter().find(|step| !step.done).map(|step| step.name),
            completed_at,
            time_to_activate: time_to_activate(tenant),
            skipped: tenant.annotations().get(SETUP_SKIPPED_ANNOTATION).is_some_and(|v| v == "true"),
            variant: Variant::of(&tenant.uid().unwrap_or_default()),
            call_url: (long && completed_at.is_none() && !call_url.is_empty()).then(|| call_url.to_owned()),
            steps,
        }
    }
}

impl App {
    /// What is served of a tenant: nothing unless it is in service and proven to be who it says it is.
    pub fn served(&self, tenant: &Tenant) -> Option<Served> {
        let served = tenant.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_served);
        Served::of(tenant, &self.identity).filter(|_| served)
    }
}

/// What is served of a tenant that must be ready to be used.
fn ready(app: &App, tenant: Tenant) -> Result<Served, Problem> {
    app.served(&tenant).ok_or_else(|| {
        let status = tenant.status.unwrap_or_default();
        Problem::new(StatusCode::CONFLICT, Code::NotReady, sentence(&status))
    })
}

/// How far the setup is.
#[utoipa::path(
    get, path = "/tenant/{id}/setup", operation_id = "get_setup", tag = "setup",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")),
    security(("signup_token" = [])),
    responses((status = 200, body = Setup))
)]
pub async fn show(State(app): State<Arc<App>>, SignupToken(tenant): SignupToken) -> Json<Setup> {
    Json(Setup::of(&app, &tenant))
}

/// Completes the setup, once its steps are done.
#[utoipa::path(
    post, path = "/tenant/{id}/setup/complete", operation_id = "complete_setup", tag = "setup",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")),
    security(("signup_token" = [])),
    responses((status = 200, body = Setup),
        (status = 400, body = ProblemBody, description = "A step is left", example = json!(incomplete().body())))
)]
pub async fn complete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Setup>, Problem> {
    let tenant = app.by_token(&headers, &id).await?;
    if Setup::of(&app, &tenant).next_step.is_some() {
        return Err(incomplete());
    }
    reached(&app, &tenant, "completed").await;
    Ok(Json(Setup::of(&app, &app.by_token(&headers, &id).await?)))
}

fn incomplete() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::Incomplete, "complete all setup steps first")
}

/// Whether to put the setup aside.
#[derive(Deserialize, ToSchema)]
pub struct Skip {
    /// False to come back to it.
    #[serde(default = "yes")]
    #[schema(example = true)]
    skipped: bool,
}

fn yes() -> bool {
    true
}

/// Puts the setup aside, or comes back to it. What was done stays done.
#[utoipa::path(
    post, path = "/tenant/{id}/setup/skip", operation_id = "skip_setup", tag = "setup", request_body = Skip,
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")),
    security(("signup_token" = [])),
    responses((status = 200, body = Setup))
)]
pub async fn skip(
    State(app): State<Arc<App>>,
    Then(Json(body), SignupToken(tenant)): Then<Json<Skip>, SignupToken>,
) -> Result<Json<Setup>, Problem> {
    let changed = set_skipped(&app, &tenant, body.skipped).await?;
    Ok(Json(Setup::of(&app, changed.as_ref().unwrap_or(&tenant))))
}

/// Puts the setup aside, or comes back to it; None when it is so already.
pub async fn set_skipped(app: &App, tenant: &Tenant, skipped: bool) -> Result<Option<Tenant>, Problem> {
    let set = |tenant: &Tenant| {
        let before = tenant.annotations().get(SETUP_SKIPPED_ANNOTATION).is_some_and(|v| v == "true");
        let value = skipped.then_some("true");
        Ok((before != skipped).then(|| json!({"metadata": {"annotations": {SETUP_SKIPPED_ANNOTATION: value}}})))
    };
    let changed = app.change_tenant(tenant, set).await?;
    if changed.is_some() {
        app.tries(tenant, if skipped { "setup-skipped" } else { "setup-resumed" });
    }
    Ok(changed)
}

/// A question.
#[derive(Deserialize, ToSchema)]
pub struct Question {
    /// The plan's sample question when absent.
    #[schema(example = "What is RAG?")]
    question: Option<String>,
}

/// Answers a question from the tenant's own documents.
#[utoipa::path(
    post, path = "/tenant/{id}/setup/sample-query", tag = "setup", request_body = Question,
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")),
    security(("signup_token" = [])),
    responses((status = 200, body = Answer), (status = 409, body = ProblemBody), (status = 502, body = ProblemBody))
)]
pub async fn sample_query(
    State(app): State<Arc<App>>,
    Then(Json(body), SignupToken(tenant)): Then<Json<Question>, SignupToken>,
) -> Result<Json<Answer>, Problem> {
    let served = Arc::new(ready(&app, tenant)?);
    let question = body.question.unwrap_or_else(|| sample_question(&served));
    let Answered { answer, basis, .. } = query::ask(&app, &served, &question).await?;
    app.asked(&served, basis).await;
    Ok(Json(answer))
}

/// What a customer of the plan is invited to ask first.
pub fn sample_question(served: &Served) -> String {
    served.config.as_ref().map_or_else(|| SAMPLE_QUESTION.into(), |config| config.sample_question.to_string())
}

/// Stores a document: as the field `file` of a form, or as the body itself.
#[utoipa::path(
    post, path = "/tenant/{id}/setup/upload-document", tag = "setup",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")), security(("signup_token" = [])),
    request_body(content = file::FileForm, content_type = "multipart/form-data"),
    responses((status = 201, body = Document), (status = 200, body = Document, description = "This content is stored already"),
        (status = 400, body = ProblemBody), (status = 403, body = ProblemBody, description = "The plan is full"),
        (status = 408, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 413, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "The file gives no text; `code` says why"),
        (status = 415, body = ProblemBody), (status = 502, body = ProblemBody))
)]
pub async fn upload_document(
    State(app): State<Arc<App>>,
    SignupToken(tenant): SignupToken,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let served = ready(&app, tenant)?;
    // Before the body is read: many bodies at once would fill the memory.
    let place = app.uploads.take(&served.uid).await?;
    let file = place.deadline.arrived(request, |request| file::file(&headers, request)).await?;
    let Stored { document, counted, .. } = documents::stored(&app, &served, file, None, place).await?;
    let status = if counted { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(document)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reached_annotation;

    fn tenant(reached: &[(&str, i64)]) -> Tenant {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        for (name, at) in reached {
            let at = Timestamp::from_second(*at).to_string();
            tenant.annotations_mut().insert(reached_annotation(name), at);
        }
        tenant
    }

    #[test]
    fn a_call_is_offered_only_to_a_customer_whose_setup_takes_long() {
        let call = |reached: &[(&str, i64)], now: i64, url: &str| {
            Setup::at(&tenant(reached), Timestamp::from_second(now), url).call_url
        };
        let url = "https://cal.example/us";
        assert_eq!(call(&[("first-login", 1000)], 1601, url).as_deref(), Some(url));
        assert_eq!(call(&[("first-login", 1000)], 1600, url), None, "ten minutes are not over");
        assert_eq!(call(&[("first-login", 1000), ("completed", 1500)], 1601, url), None);
        assert_eq!(call(&[("first-login", 1000)], 1601, ""), None, "no calls are offered");
        assert_eq!(call(&[], 9999, url), None);
    }

    #[test]
    fn the_time_to_activate_counts_from_the_ready_account() {
        let mut tenant = tenant(&[("completed", 1300)]);
        assert_eq!(Setup::at(&tenant, Timestamp::from_second(0), "").time_to_activate, None);
        tenant.status =
            Some(crate::api::TenantStatus { provisioned_at: Some(Timestamp::from_second(1000)), ..Default::default() });
        assert_eq!(Setup::at(&tenant, Timestamp::from_second(0), "").time_to_activate, Some(300));
    }
}

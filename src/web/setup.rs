//! The setup: three steps to the first useful answer, and what a customer has reached.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::App;
use super::api::query;
use super::customer::sentence;
use super::directory::Served;
use super::problem::{Problem, ProblemBody};
use crate::api::{MILESTONES, Phase, SAMPLE_QUESTION, Tenant, Timestamp, reached_annotation, reached_at};
use crate::rag::Answer;

/// The steps, by the milestone that completes each.
const STEPS: [(&str, &str); 3] = [
    ("sample-query", "Ask a first question"),
    ("first-document", "Add a document of your own"),
    ("own-query", "Ask a question about your document"),
];

/// How far the setup is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Setup {
    /// The steps, in their order.
    pub steps: Vec<SetupStep>,
    /// How much of it is done.
    pub completion_percentage: usize,
    /// The name of the next step; absent when all are done.
    pub next_step: Option<&'static str>,
    /// When it was completed.
    #[schema(value_type = Option<String>)]
    pub completed_at: Option<Timestamp>,
}

/// A step.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetupStep {
    /// Names the step.
    name: &'static str,
    /// In words.
    title: &'static str,
    /// Whether it is done.
    done: bool,
}

impl Setup {
    /// Of a tenant.
    pub fn of(tenant: &Tenant) -> Self {
        let steps: Vec<_> = STEPS
            .iter()
            .map(|(name, title)| SetupStep { name, title, done: reached_at(tenant, name).is_some() })
            .collect();
        let done = steps.iter().filter(|step| step.done).count();
        Self {
            completion_percentage: done * 100 / STEPS.len(),
            next_step: steps.iter().find(|step| !step.done).map(|step| step.name),
            completed_at: reached_at(tenant, "completed"),
            steps,
        }
    }

    /// Whether a step is done.
    pub fn has(&self, name: &str) -> bool {
        self.steps.iter().any(|step| step.name == name && step.done)
    }
}

/// Notes a milestone with its time, the first time that it is reached. It is of use, and not worth an error to a customer.
pub async fn reached(app: &App, tenant: &Tenant, milestone: &'static str) {
    debug_assert!(MILESTONES.contains(&milestone));
    if reached_at(tenant, milestone).is_some() {
        return;
    }
    let at = Timestamp::now();
    let change = json!({"metadata": {"uid": tenant.uid(), "annotations": {reached_annotation(milestone): at}}});
    match app.patch_tenant(&tenant.name_any(), change).await {
        Ok(_) => tracing::info!(target: "audit", event = milestone, tenant = tenant.name_any()),
        Err(error) => tracing::warn!(%error, milestone, "a milestone was not noted"),
    }
}

/// How far the setup is.
#[utoipa::path(
    get, path = "/tenant/{id}/setup", tag = "setup", params(("id" = String, Path, description = "The tenant's id")),
    security(("signup_token" = [])),
    responses((status = 200, body = Setup), (status = 404, body = ProblemBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Setup>, Problem> {
    Ok(Json(Setup::of(&app.by_token(&headers, &id).await?)))
}

/// Completes the setup, once its steps are done.
#[utoipa::path(
    post, path = "/tenant/{id}/setup/complete", tag = "setup", params(("id" = String, Path, description = "The tenant's id")),
    security(("signup_token" = [])),
    responses((status = 200, body = Setup), (status = 400, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn complete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Setup>, Problem> {
    let tenant = app.by_token(&headers, &id).await?;
    if Setup::of(&tenant).next_step.is_some() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "incomplete", "complete all setup steps first"));
    }
    reached(&app, &tenant, "completed").await;
    Ok(Json(Setup::of(&app.by_token(&headers, &id).await?)))
}

/// A question.
#[derive(Deserialize, ToSchema)]
pub struct Question {
    /// "What is RAG?" when absent.
    question: Option<String>,
}

/// Answers a question from the tenant's own documents.
#[utoipa::path(
    post, path = "/tenant/{id}/setup/sample-query", tag = "setup", request_body = Question,
    params(("id" = String, Path, description = "The tenant's id")),
    security(("signup_token" = [])),
    responses((status = 200, body = Answer), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 502, body = ProblemBody))
)]
pub async fn sample_query(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Question>,
) -> Result<Json<Answer>, Problem> {
    let tenant = app.by_token(&headers, &id).await?;
    let status = tenant.status.clone().unwrap_or_default();
    let served = Served::of(&tenant, &app.identity).filter(|_| status.phase == Some(Phase::Active));
    let Some(served) = served else {
        return Err(Problem::new(StatusCode::CONFLICT, "not_ready", sentence(&status)));
    };
    let question = body.question.unwrap_or_else(|| SAMPLE_QUESTION.into());
    let answer = query::ask(&app, &served, &question).await?;
    reached(&app, &tenant, "sample-query").await;
    Ok(Json(answer))
}

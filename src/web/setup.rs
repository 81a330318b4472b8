//! The setup wizard's calls.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use super::App;
use super::customer::sentence;
use super::problem::{Problem, ProblemBody};
use crate::api::Phase;
use crate::rag::{self, Answer};

const SAMPLE_QUESTION: &str = "What is RAG?";
/// The longest question, in characters.
const LONGEST: usize = 2000;

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
    let status = tenant.status.unwrap_or_default();
    let ready = status.phase == Some(Phase::Active);
    let (Some(namespace), Some(config)) = (&status.namespace, status.config.as_ref().filter(|_| ready)) else {
        return Err(Problem::new(StatusCode::CONFLICT, "not_ready", sentence(&status)));
    };
    let question = body.question.unwrap_or_else(|| SAMPLE_QUESTION.into());
    if question.trim().is_empty() || question.chars().count() > LONGEST {
        let detail = format!("question must have 1 to {LONGEST} characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", detail));
    }
    app.pinecone.prepare().await?;
    let asked = rag::Asked {
        openai: &app.openai,
        pinecone: &app.pinecone,
        models: &config.models,
        namespace,
        question: &question,
    };
    Ok(Json(rag::answer(asked).await?))
}

//! The setup wizard's calls.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::App;
use super::problem::Problem;
use super::tenant::authorized;
use crate::api::Phase;
use crate::rag::{self, Answer};

const SAMPLE_QUESTION: &str = "What is RAG?";

#[derive(Deserialize)]
pub struct Question {
    question: Option<String>,
}

/// Answers a question from the tenant's own documents.
pub async fn sample_query(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Question>,
) -> Result<Json<Answer>, Problem> {
    let tenant = authorized(&app, &headers, &id).await?;
    let status = tenant.status.unwrap_or_default();
    let (Some(Phase::Active), Some(namespace), Some(config)) = (status.phase, status.namespace, status.config) else {
        let message = status.message.unwrap_or_else(|| "the account is not ready yet".into());
        return Err(Problem::new(StatusCode::CONFLICT, "not_ready", message));
    };
    let question = body.question.unwrap_or_else(|| SAMPLE_QUESTION.into());
    if question.trim().is_empty() || question.chars().count() > 2000 {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", "question must have 1 to 2000 characters"));
    }
    Ok(Json(rag::answer(&app.openai, &app.pinecone, &config.models, &namespace, &question).await?))
}

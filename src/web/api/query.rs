//! `POST /v1/query`: a question over the tenant's own documents.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::usage::{self, Taken};
use crate::providers::ProviderError;
use crate::providers::pinecone::Pinecone;
use crate::rag::{self, Answer, Asked, Chunk};
use crate::web::App;
use crate::web::directory::Served;
use crate::web::problem::{Problem, ProblemBody};

/// The longest question, in characters.
const LONGEST: usize = 2000;

/// A question.
#[derive(Deserialize, ToSchema)]
pub struct Query {
    /// The question: 1 to 2,000 characters.
    question: String,
    /// Answer piece by piece, as server-sent events: `sources`, then `text` as often as it takes, then `done`; or `error`.
    #[serde(default)]
    stream: bool,
}

/// Answers a question from the tenant's documents, with the passages that the answer rests on.
#[utoipa::path(
    post, path = "/v1/query", tag = "tenant API", request_body = Query, security(("api_key" = [])),
    responses((status = 200, body = Answer, description = "The answer; with `stream`, server-sent events"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 429, body = ProblemBody), (status = 502, body = ProblemBody))
)]
pub async fn query(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Json(query): Json<Query>,
) -> Result<Response, Problem> {
    let tenant = app.admitted(&headers).await?;
    let answer = if query.stream {
        ask_stream(&app, &tenant, &query.question).await?
    } else {
        Json(ask(&app, &tenant, &query.question).await?).into_response()
    };
    app.asked_by_api(&tenant, |app, served, tenant| usage::of(app, served, tenant).queries());
    Ok(answer)
}

/// Answers a question, counted against the plan.
pub async fn ask(app: &App, tenant: &Served, text: &str) -> Result<Answer, Problem> {
    let (question, pinecone, taken) = begin(app, tenant, text).await?;
    let models = tenant.models();
    let answer = rag::answer(asked(app, pinecone, (&tenant.data, &models), question)).await;
    settle(app, taken, answer.is_ok());
    Ok(answer?)
}

/// The same, piece by piece as server-sent events.
pub async fn ask_stream(app: &App, tenant: &Served, text: &str) -> Result<Response, Problem> {
    let (question, pinecone, taken) = begin(app, tenant, text).await?;
    let models = tenant.models();
    let chunks = rag::stream(asked(app, pinecone, (&tenant.data, &models), question)).await;
    settle(app, taken, chunks.is_ok());
    let mut failed = false;
    // Nothing comes after an error.
    let chunks = chunks?.take_while(move |chunk| std::future::ready(!std::mem::replace(&mut failed, chunk.is_err())));
    let events = chunks.map(|chunk| Ok::<_, Infallible>(event(chunk)));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

async fn begin<'a>(app: &'a App, tenant: &Served, text: &'a str) -> Result<(&'a str, &'a Pinecone, Taken), Problem> {
    let question = question(text)?;
    let pinecone = app.index(tenant).await?;
    Ok((question, pinecone, app.take_query(tenant).await?))
}

/// Counts a question, against the plan only if it was answered.
fn settle(app: &App, taken: Taken, answered: bool) {
    taken.answered_if(answered);
    let kind = if answered { "answered" } else { "failed" };
    app.metrics.queries.get_or_create(&kind.into()).inc();
}

/// A question that can be asked.
fn question(text: &str) -> Result<&str, Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST {
        let detail = format!("question must have 1 to {LONGEST} characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", detail));
    }
    Ok(text)
}

fn asked<'a>(
    app: &'a App,
    pinecone: &'a Pinecone,
    (namespace, models): (&'a str, &'a crate::api::plan::Models),
    question: &'a str,
) -> Asked<'a> {
    Asked { openai: &app.openai, pinecone, models, namespace, question }
}

fn event(chunk: Result<Chunk, ProviderError>) -> Event {
    let event = |name| Event::default().event(name);
    let event = match chunk {
        Ok(Chunk::Sources(sources)) => event("sources").json_data(sources),
        Ok(Chunk::Text(text)) => event("text").json_data(json!({"text": text})),
        Ok(Chunk::Done(tokens)) => event("done").json_data(tokens),
        Err(error) => {
            tracing::warn!(%error, "an answer broke off");
            event("error").json_data(json!({"detail": "The answer broke off. Please ask again."}))
        }
    };
    event.unwrap_or_default()
}

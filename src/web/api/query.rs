//! `POST /v1/query`: a question over the tenant's own documents.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::keys::Admitted;
use super::usage::Taken;
use crate::providers::models::Tokens;
use crate::providers::vector_store::VectorStore;
use crate::providers::{Party, ProviderError};
use crate::rag::{self, Answer, Asked, Basis, Chunk};
use crate::web::App;
use crate::web::serving::directory::Served;
use crate::web::serving::extract::Then;
use crate::web::serving::problem::{Code, Problem, ProblemBody};

/// The longest question, in characters.
const LONGEST: usize = 2000;

/// A question.
#[derive(Deserialize, ToSchema)]
pub struct Query {
    /// The question: 1 to 2,000 characters.
    #[schema(example = "How many days of vacation are there?")]
    question: String,
    /// Answer piece by piece, as server-sent events: `sources`, then `text` as often as it takes, then `done`; or `error`.
    #[serde(default)]
    #[schema(example = false)]
    stream: bool,
}

/// Answers a question from the tenant's documents, with the passages that the answer rests on.
#[utoipa::path(
    post, path = "/v1/query", tag = "tenant API", request_body = Query, security(("api_key" = [])),
    responses((status = 200, body = Answer, description = "The answer; with `stream`, server-sent events"),
        (status = 400, body = ProblemBody),
        (status = 502, body = ProblemBody, example = json!(unanswered(Problem::provider()).body())))
)]
pub async fn query(
    State(app): State<Arc<App>>,
    Then(Json(query), Admitted(tenant)): Then<Json<Query>, Admitted>,
) -> Result<Response, Problem> {
    if query.stream {
        return ask_stream(&app, &tenant, &query.question).await;
    }
    let (answer, basis) = ask(&app, &tenant, &query.question).await?;
    // The client does not wait for what the operator notes.
    tokio::spawn(async move { app.asked(&tenant, basis).await });
    Ok(Json(answer).into_response())
}

/// Answers a question, counted against the plan, and says what the answer rests on. The caller notes the milestones.
pub async fn ask(app: &Arc<App>, tenant: &Arc<Served>, text: &str) -> Result<(Answer, Basis), Problem> {
    app.asks(tenant);
    let outcome = Party::scope(&tenant.uid, answer_of(app, tenant, text)).await.map_err(unanswered);
    match &outcome {
        Ok((_, Basis::Nothing)) => app.asked_in_vain(tenant, NOTHING_FOUND),
        Ok(_) => {}
        Err(problem) => app.asked_in_vain(tenant, problem.code()),
    }
    outcome
}

async fn answer_of(app: &App, tenant: &Served, text: &str) -> Result<(Answer, Basis), Problem> {
    let (question, index, taken) = begin(app, tenant, text).await?;
    let models = tenant.models();
    let answer = rag::answer(asked(app, index, (&tenant.data, &models), question)).await;
    let basis = answer.as_ref().ok().map(Answer::basis);
    settle(app, taken, basis);
    let answer = answer?;
    Ok((answer, basis.unwrap_or(Basis::Nothing)))
}

/// The same, piece by piece as server-sent events. What it comes to is known, counted and noted at its end.
pub async fn ask_stream(app: &Arc<App>, tenant: &Arc<Served>, text: &str) -> Result<Response, Problem> {
    app.asks(tenant);
    let opened = Party::scope(&tenant.uid, open_stream(app, tenant, text)).await.map_err(unanswered);
    let (chunks, question) = opened.inspect_err(|problem| app.asked_in_vain(tenant, problem.code()))?;
    let events = chunks.scan(Some(question), |open, chunk| {
        let event = open.take().map(|mut question| {
            let event = question.event(chunk);
            // Nothing comes after an error or the end.
            *open = question.goes_on();
            event
        });
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

async fn open_stream(
    app: &Arc<App>,
    tenant: &Arc<Served>,
    text: &str,
) -> Result<(impl Stream<Item = Result<Chunk, ProviderError>> + use<>, Open), Problem> {
    let (question, index, taken) = begin(app, tenant, text).await?;
    let models = tenant.models();
    match rag::stream(asked(app, index, (&tenant.data, &models), question)).await {
        Ok(chunks) => Ok((chunks, Open { app: app.clone(), tenant: tenant.clone(), taken: Some(taken), basis: None })),
        Err(error) => {
            settle(app, taken, None);
            Err(error.into())
        }
    }
}

/// Why a question came to nothing, in the events of the customer's way.
const NOTHING_FOUND: &str = "nothing_found";
const BROKEN_OFF: &str = "broken_off";

/// A question whose answer is on its way in pieces.
struct Open {
    app: Arc<App>,
    tenant: Arc<Served>,
    /// None once the question is settled. A client that hangs up leaves it, and is charged: the providers are asked already.
    taken: Option<Taken>,
    basis: Option<Basis>,
}

impl Open {
    fn event(&mut self, chunk: Result<Chunk, ProviderError>) -> Event {
        self.basis = self.basis.or(chunk.as_ref().ok().and_then(Chunk::basis));
        match &chunk {
            Ok(Chunk::Done(_)) => self.settle(self.basis),
            Ok(_) => {}
            Err(_) => self.settle(None),
        }
        event(chunk)
    }

    fn goes_on(self) -> Option<Self> {
        self.taken.is_some().then_some(self)
    }

    fn settle(&mut self, basis: Option<Basis>) {
        let Some(taken) = self.taken.take() else { return };
        settle(&self.app, taken, basis);
        match basis {
            None => self.app.asked_in_vain(&self.tenant, BROKEN_OFF),
            Some(Basis::Nothing) => self.app.asked_in_vain(&self.tenant, NOTHING_FOUND),
            Some(basis) => {
                let (app, tenant) = (self.app.clone(), self.tenant.clone());
                tokio::spawn(async move { app.asked(&tenant, basis).await });
            }
        }
    }
}

async fn begin<'a>(
    app: &'a App,
    tenant: &Served,
    text: &'a str,
) -> Result<(&'a str, &'a dyn VectorStore, Taken), Problem> {
    let question = question(text)?;
    let index = app.index(tenant).await?;
    Ok((question, index, app.take_query(tenant).await?.sent()))
}

/// Counts a question, against the plan only if its answer rests on something. None when it failed.
fn settle(app: &App, taken: Taken, basis: Option<Basis>) {
    let kind = match basis {
        Some(Basis::Samples | Basis::OwnDocuments) => "answered",
        Some(Basis::Nothing) => "nothing_found",
        None => "failed",
    };
    if !matches!(basis, Some(Basis::Samples | Basis::OwnDocuments)) {
        taken.give_back();
    }
    app.metrics.queries.get_or_create(&kind.into()).inc();
}

/// A provider's failure in the words of a question.
fn unanswered(problem: Problem) -> Problem {
    if problem.is(Code::Provider) {
        problem.told("The answer could not be found at the moment. Please try again.")
    } else {
        problem
    }
}

/// A question that can be asked.
fn question(text: &str) -> Result<&str, Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST {
        let detail = format!("question must have 1 to {LONGEST} characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, Code::Invalid, detail));
    }
    Ok(text)
}

fn asked<'a>(
    app: &'a App,
    index: &'a dyn VectorStore,
    (namespace, models): (&'a str, &'a crate::api::plan::Models),
    question: &'a str,
) -> Asked<'a> {
    Asked { embedder: &*app.embedder, chat: &*app.chat, index, models, namespace, question }
}

/// The last event of a stream that came to its end.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    tokens: Tokens,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

fn event(chunk: Result<Chunk, ProviderError>) -> Event {
    let event = |name| Event::default().event(name);
    let event = match chunk {
        Ok(Chunk::Sources(sources)) => event("sources").json_data(sources),
        Ok(Chunk::Text(text)) => event("text").json_data(json!({"text": text})),
        Ok(Chunk::Done(end)) => event("done").json_data(Done { tokens: end.tokens, truncated: end.truncated }),
        Err(error) => {
            tracing::warn!(%error, "an answer broke off");
            event("error").json_data(json!({"detail": "The answer broke off. Please ask again."}))
        }
    };
    event.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Provider;

    #[test]
    fn only_a_question_is_told_that_its_answer_could_not_be_found() {
        let failed = || Problem::from(ProviderError::garbage(Provider::VectorStore, "half a word"));
        let (upload, question) = (failed(), unanswered(failed()));
        assert!(!upload.detail().contains("answer"), "an upload, a list and a deletion have no answer: {upload:?}");
        assert!(question.detail().contains("answer could not be found"), "{question:?}");
        assert_eq!((question.status(), question.code()), (upload.status(), upload.code()));
        let closed = Problem::unavailable();
        assert_eq!(unanswered(closed.clone()).detail(), closed.detail(), "no provider failed");
    }
}

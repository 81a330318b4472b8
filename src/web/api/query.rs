//! `POST /v1/query`: a question over the tenant's own documents.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::idempotency::{self, IdempotencyKey};
use super::keys::Admitted;
use crate::api::plan::Models;
use crate::lifecycle::Fault;
use crate::providers::models::Tokens;
use crate::providers::vector_store::VectorStore;
use crate::providers::{Party, ProviderError};
use crate::rag::{self, Answer, Asked, Basis, Chunk, Found};
use crate::web::App;
use crate::web::metering::{Expected, Question};
use crate::web::routes::ANSWER_LIMIT;
use crate::web::serving::directory::Served;
use crate::web::serving::extract::Then;
use crate::web::serving::problem::{Code, Problem, ProblemBody};
use crate::web::serving::standing::Standing;

/// The longest question, in characters.
const LONGEST: usize = 2000;

/// A question.
#[derive(Deserialize, ToSchema)]
pub struct Query {
    /// The question: 1 to 2,000 characters.
    #[schema(example = "How many days of vacation are there?")]
    question: String,
    /// Answer piece by piece, as server-sent events: `sources`, then `text` as often as it takes, then `done`; or
    /// `error`.
    #[serde(default)]
    #[schema(example = false)]
    stream: bool,
}

/// Answers a question from the tenant's documents, with the passages that the answer rests on.
#[utoipa::path(
    post, path = "/v1/query", tag = "tenant API", request_body = Query, security(("api_key" = [])),
    params(("Idempotency-Key" = Option<String>, Header, example = "8e03978e-40d5-43dd-bc93-6894a57f9324",
        description = "A key of your own, for this question alone: 1 to 255 visible ASCII characters. The same question with the \
            same key within 24 hours gets the same answer, with `Idempotency-Replayed: true`, and counts nothing. Not with `stream`")),
    responses((status = 200, body = Answer, description = "The answer; with `stream`, server-sent events"),
        (status = 400, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "The idempotency key belongs to another request",
            example = json!(idempotency::reused().body())),
        (status = 502, body = ProblemBody, example = json!(unanswered(Problem::provider()).body())),
        (status = 503, body = ProblemBody, description = "Usage cannot be counted at the moment"))
)]
pub async fn query(
    State(app): State<Arc<App>>,
    IdempotencyKey(key): IdempotencyKey,
    Then(Json(query), Admitted(tenant)): Then<Json<Query>, Admitted>,
) -> Result<Response, Problem> {
    match key {
        Some(_) if query.stream => {
            Err(idempotency::invalid("keeps no stream: leave it out, or ask without \"stream\": true"))
        }
        Some(key) => {
            let request = key.stands_for(&tenant.id, "POST /v1/query", &[query.question.as_bytes()]);
            let begun = app.metering.begin_question(request).await?;
            let asking = answer_once(app.clone(), tenant, query.question);
            // No connection ends it.
            let asking = async { timeout(ANSWER_LIMIT, asking).await.map_err(|_| Problem::unavailable())? };
            app.once(begun, asking.boxed()).await
        }
        None if query.stream => ask_stream(&app, &tenant, &query.question).await,
        None => answer_once(app, tenant, query.question).await,
    }
}

async fn answer_once(app: Arc<App>, tenant: Arc<Served>, text: String) -> Result<Response, Problem> {
    let Answered { answer, basis, standing } = ask(&app, &tenant, &text).await?;
    // The client does not wait for what the operator notes.
    tokio::spawn(async move { app.asked(&tenant, basis).await });
    Ok((standing, Json(answer)).into_response())
}

/// A question that was answered.
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// What it rests on.
    pub basis: Basis,
    /// How much of the plan is left. None if the ledger was away.
    pub standing: Option<Standing>,
}

/// Answers a question, counted against the plan, and says what the answer rests on. The caller notes the milestones.
pub async fn ask(app: &Arc<App>, tenant: &Arc<Served>, text: &str) -> Result<Answered, Problem> {
    app.asks(tenant);
    let outcome = Party::scope(&tenant.uid, answer_of(app, tenant, text)).await.map_err(unanswered);
    match &outcome {
        Ok(Answered { basis: Basis::Nothing, .. }) => app.asked_in_vain(tenant, NOTHING_FOUND),
        Ok(_) => {}
        Err(problem) => app.asked_in_vain(tenant, problem.code()),
    }
    outcome
}

async fn answer_of(app: &App, tenant: &Served, text: &str) -> Result<Answered, Problem> {
    let mut asked = Asking::begin(app, tenant, text, false).await?;
    let answered = asked.answer().await;
    let standing = asked.question.standing();
    settle(app, asked.question, answered.as_ref().map(|(_, basis)| *basis)).await;
    let (answer, basis) = answered?;
    Ok(Answered { answer, basis, standing })
}

/// The same, piece by piece as server-sent events. What it comes to is known, counted and noted at its end.
pub async fn ask_stream(app: &Arc<App>, tenant: &Arc<Served>, text: &str) -> Result<Response, Problem> {
    app.asks(tenant);
    let opened = Party::scope(&tenant.uid, open_stream(app, tenant, text)).await.map_err(unanswered);
    let open = opened.inspect_err(|problem| app.asked_in_vain(tenant, problem.code()))?;
    let standing = open.question.as_ref().and_then(Question::standing);
    let events = stream::unfold(open, |mut open| async move {
        // Nothing comes after an error or the end.
        open.question.as_ref()?;
        let chunk = open.chunks.next().await?;
        let event = open.event(chunk).await;
        Some((Ok::<_, Infallible>(event), open))
    });
    Ok((standing, Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

async fn open_stream(app: &Arc<App>, tenant: &Arc<Served>, text: &str) -> Result<Open, Problem> {
    let mut asked = Asking::begin(app, tenant, text, true).await?;
    match asked.stream().await {
        Ok(chunks) => {
            let (app, tenant) = (app.clone(), tenant.clone());
            Ok(Open { app, tenant, question: Some(asked.question), basis: Basis::Nothing, chunks })
        }
        Err(error) => {
            settle(app, asked.question, Err(&error)).await;
            Err(error.into())
        }
    }
}

/// Why a question came to nothing, in the events of the customer's way.
const NOTHING_FOUND: &str = "nothing_found";
const BROKEN_OFF: &str = "broken_off";

/// The pieces of an answer.
type Chunks = BoxStream<'static, Result<Chunk, ProviderError>>;

/// A question whose answer is on its way in pieces.
struct Open {
    app: Arc<App>,
    tenant: Arc<Served>,
    /// None once the question has ended. A client that hangs up leaves it, and is charged for what was asked so far.
    question: Option<Question>,
    /// What the answer rests on, from its first piece on.
    basis: Basis,
    chunks: Chunks,
}

impl Open {
    async fn event(&mut self, chunk: Result<Chunk, ProviderError>) -> Event {
        match &chunk {
            Ok(Chunk::Sources(sources)) => self.basis = Basis::of(sources),
            Ok(Chunk::Text(text)) if self.basis != Basis::Nothing => {
                if let Some(question) = &mut self.question {
                    question.wrote(text.len());
                    question.checkpoint_meanwhile();
                }
            }
            Ok(Chunk::Text(_)) => {}
            Ok(Chunk::Done(end)) => {
                self.question.iter_mut().for_each(|question| question.answered(end.tokens));
                self.end(Ok(self.basis)).await;
            }
            Err(error) => self.end(Err(error)).await,
        }
        event(chunk)
    }

    /// Counts the question before its last event leaves.
    async fn end(&mut self, outcome: Result<Basis, &ProviderError>) {
        let Some(question) = self.question.take() else { return };
        settle(&self.app, question, outcome).await;
        match outcome {
            Err(_) => self.app.asked_in_vain(&self.tenant, BROKEN_OFF),
            Ok(Basis::Nothing) => self.app.asked_in_vain(&self.tenant, NOTHING_FOUND),
            Ok(basis) => {
                let (app, tenant) = (self.app.clone(), self.tenant.clone());
                tokio::spawn(async move { app.asked(&tenant, basis).await });
            }
        }
    }
}

/// A question on its way to an answer, with its place in the plan.
struct Asking<'a> {
    app: &'a App,
    index: &'a dyn VectorStore,
    namespace: &'a str,
    models: Models,
    text: &'a str,
    question: Question,
}

impl<'a> Asking<'a> {
    /// Takes a question's place in the plan.
    async fn begin(app: &'a App, tenant: &'a Served, text: &'a str, in_pieces: bool) -> Result<Self, Problem> {
        let text = question(text)?;
        let index = app.index(tenant).await?;
        let models = tenant.models();
        let passage = usize::try_from(tenant.chunking.max_characters).unwrap_or(usize::MAX);
        let (embedding, prompt) = rag::expected(text, passage);
        let answer = app.chat.longest_answer(&models.chat);
        let expected = Expected { embedding, prompt, answer, in_pieces };
        let question = app.metering.question(tenant, expected, app.now()).await?;
        Ok(Self { app, index, namespace: &tenant.data, models, text, question })
    }

    async fn answer(&mut self) -> Result<(Answer, Basis), ProviderError> {
        let (asked, question) = self.parts();
        let found = find(asked, question).await?;
        let basis = found.basis();
        let answer = found.answer().await?;
        question.answered(answer.usage);
        Ok((answer, basis))
    }

    /// The chat model begins while the ledger notes the question.
    async fn stream(&mut self) -> Result<Chunks, ProviderError> {
        let (asked, question) = self.parts();
        let found = find(asked, question).await?;
        match found.basis() {
            Basis::Nothing => found.stream().await,
            _ => tokio::join!(found.stream(), question.checkpoint()).0,
        }
    }

    fn parts(&mut self) -> (Asked<'_>, &mut Question) {
        let Self { app, index, namespace, models, text, question } = self;
        let asked =
            Asked { embedder: &*app.embedder, chat: &*app.chat, index: *index, models, namespace, question: text };
        (asked, question)
    }
}

/// Finds the passages that a question's answer rests on, and notes what that cost and what the answer will.
async fn find<'a>(asked: Asked<'a>, question: &mut Question) -> Result<Found<'a>, ProviderError> {
    let (looked, tokens) = asked.embed().await?;
    question.embedded(tokens);
    let found = asked.find(looked).await?;
    if let Some(tokens) = found.prompt_tokens() {
        question.is_asked(tokens);
    }
    Ok(found)
}

/// Counts a question, against the plan only if its answer rests on something, or is empty: the model is paid for it.
async fn settle(app: &App, mut question: Question, outcome: Result<Basis, &ProviderError>) {
    let kind = match outcome {
        Ok(Basis::Samples | Basis::OwnDocuments) => "answered",
        Ok(Basis::Nothing) => {
            question.in_vain();
            "nothing_found"
        }
        Err(ProviderError { tokens: Some(tokens), .. }) => {
            question.answered(*tokens);
            "answered"
        }
        // The customer's own words were refused, such as by a content filter.
        Err(error) if error.reason == Fault::Refused => {
            question.in_vain();
            "failed"
        }
        Err(_) => {
            question.failed();
            "failed"
        }
    };
    question.end().await;
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

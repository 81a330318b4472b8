//! Requests with an idempotency key: the ledger says whether a request is the first one with its key, and keeps its
//! answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{AGAIN, Metering, pending, refusal};
use crate::ledger::client::CallError;
use crate::ledger::wire::{AnswerState, BeginAnswer, FinishAnswer, KeptAnswer};
use crate::web::serving::problem::Problem;

/// A key of a tenant, with the request that it stands for. Hashes, so the ledger never sees what a customer wrote.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// The tenant's id.
    pub tenant: String,
    /// The hash of the key.
    pub key: String,
    /// The hash of the request.
    pub request: String,
}

/// What the ledger says of a key.
pub enum Begun {
    /// No request had it: this one is to be served.
    Now(Attempt),
    /// The first request with it is still being served.
    InProgress,
    /// The first request was answered.
    Answered(KeptAnswer),
    /// The key belongs to a request with other content.
    OtherRequest,
}

/// A request that is being served under its key. Dropped while it is open, it frees the key: a retry runs again.
pub struct Attempt {
    metering: Arc<Metering>,
    request: KeyedRequest,
    /// Its name: the ledger gives the same answer to a call that is repeated.
    name: String,
    /// How long the ledger holds the key for it.
    held: Duration,
    open: bool,
}

impl Metering {
    /// Begins a question under a key.
    pub async fn begin_question(self: &Arc<Self>, request: KeyedRequest) -> Result<Begun, Problem> {
        self.begin(request, self.question_expiry).await
    }

    /// Begins the upload of a document under a key.
    pub async fn begin_upload(self: &Arc<Self>, request: KeyedRequest) -> Result<Begun, Problem> {
        self.begin(request, self.document_expiry).await
    }

    async fn begin(self: &Arc<Self>, request: KeyedRequest, held: Duration) -> Result<Begun, Problem> {
        let name = hex::encode(rand::random::<[u8; 16]>());
        let body =
            BeginAnswer { request_hash: request.request.clone(), attempt: name.clone(), expires_after: pending(held) };
        let known_away = self.is_away();
        // Made before the ledger is asked: a client that hangs up now leaves no key that is in progress.
        let mut attempt = Attempt { metering: self.clone(), request, name, held, open: true };
        let KeyedRequest { tenant, key, .. } = &attempt.request;
        let begun = match self.ask(self.ledger.begin_answer(tenant, key, &body)).await {
            Ok(AnswerState::New) => return Ok(Begun::Now(attempt)),
            Ok(AnswerState::InProgress) => Begun::InProgress,
            Ok(AnswerState::Done(answer)) => Begun::Answered(answer),
            Ok(AnswerState::OtherRequest) => Begun::OtherRequest,
            Err(CallError::Unavailable(_)) => {
                self.count_unavailable("refused");
                // A ledger that was not asked holds no key.
                attempt.open = !known_away;
                return Err(refusal::no_key_without_ledger());
            }
            Err(error) => {
                attempt.open = false;
                return Err(Problem::internal("an idempotency key", &error));
            }
        };
        attempt.open = false;
        Ok(begun)
    }
}

impl Attempt {
    /// The id of the tenant whose request it is.
    pub fn tenant(&self) -> &str {
        &self.request.tenant
    }

    /// Keeps the answer; without one, frees the key. Answers whether it is kept for certain.
    pub async fn finish(mut self, answer: Option<KeptAnswer>) -> bool {
        let body = self.body(answer);
        let KeyedRequest { tenant, key, .. } = &self.request;
        let finished = self.metering.ask(self.metering.ledger.finish_answer(tenant, key, &body)).await;
        self.open = false;
        match finished {
            Ok(finished) => finished.kept,
            Err(CallError::Unavailable(_)) => {
                self.finish_later(body);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "an answer is not kept under its idempotency key");
                false
            }
        }
    }

    fn body(&self, answer: Option<KeptAnswer>) -> FinishAnswer {
        FinishAnswer { request_hash: self.request.request.clone(), attempt: self.name.clone(), answer }
    }

    /// Tells the ledger once it is back, for as long as the key is held.
    fn finish_later(&self, body: FinishAnswer) {
        let (metering, request, end) = (self.metering.clone(), self.request.clone(), Instant::now() + self.held);
        self.metering.spawn(async move {
            let KeyedRequest { tenant, key, .. } = &request;
            while Instant::now() < end
                && let Err(CallError::Unavailable(_)) =
                    metering.ask(metering.ledger.finish_answer(tenant, key, &body)).await
            {
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            self.finish_later(self.body(None));
        }
    }
}

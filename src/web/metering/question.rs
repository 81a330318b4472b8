//! A question that is counted. What it may use is set aside before the providers are asked, and what it used is counted
//! when it has ended, however it ends: answered, in vain, broken off, or left by its reader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::account::Account;
use super::journal::Entry;
use super::{Metering, pending, refusal, reserve, settled, void};
use crate::api::{Timestamp, Unit};
use crate::ledger::client::CallError;
use crate::ledger::units::{Amounts, LARGEST};
use crate::ledger::wire::{Checkpoint, CommandOutcome};
use crate::providers::models::{Tokens, estimate};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;
use crate::web::serving::standing::Standing;

/// What a question may use, in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Of its embedding.
    pub embedding: u64,
    /// Of the question and its passages.
    pub prompt: u64,
    /// Of the answer, at most.
    pub answer: u64,
    /// Whether the answer is written in pieces, which may take as long as [`LONGEST_STREAM`](crate::providers::http::LONGEST_STREAM).
    pub in_pieces: bool,
}

/// How many times longer than an answer in one piece an answer in pieces may take.
const IN_PIECES: u32 = 5;
/// The shortest time between two notes of an answer that is being written. If web is killed, what was written since the
/// last one is not counted.
const NOTED_EVERY: Duration = Duration::from_secs(2);

/// What is known of a question's use.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Tokens of its embedding.
    embedding: u64,
    /// Tokens that the chat model reads, estimated. None while it is not asked.
    prompt: Option<u64>,
    /// Bytes that it wrote so far.
    written: usize,
    /// What the provider says, or its estimate.
    told: Option<Tokens>,
    /// Whether it came to nothing.
    in_vain: bool,
    /// Whether it did because a provider failed.
    failed: bool,
}

impl Known {
    fn amounts(&self) -> Amounts {
        let asked = self.prompt.is_some() && !self.in_vain;
        // A model that failed before its first word is not paid for.
        let prompt = self.prompt.filter(|_| asked || self.written > 0).unwrap_or_default();
        let (prompt, answer) = match self.told {
            Some(tokens) => (tokens.prompt_tokens, tokens.completion_tokens),
            None => (prompt, estimate(self.written)),
        };
        Amounts::of(Unit::Queries, i64::from(asked))
            .with(Unit::EmbeddingTokens, amount(self.embedding))
            .with(Unit::PromptTokens, amount(prompt))
            .with(Unit::CompletionTokens, amount(answer))
    }

    /// Whether it takes a line of the ledger and none of the plan's queries, and no provider is at fault.
    fn is_free_line(&self) -> bool {
        let used = self.amounts();
        !self.failed && !used.is_zero() && used[Unit::Queries] == 0
    }
}

/// A number of tokens as an amount.
pub(super) fn amount(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(LARGEST).min(LARGEST)
}

/// A question that is counted. Dropped while it is open, it is ended with what is known: its reader has left.
pub struct Question {
    metering: Arc<Metering>,
    account: Account,
    operation: String,
    /// What it may use.
    amounts: Amounts,
    known: Known,
    standing: Option<Standing>,
    /// Whether the ledger has set something aside. If not, it was away.
    reserved: bool,
    /// Whether there is nothing left to tell the ledger.
    ended: bool,
    /// When the ledger was told last what is known.
    noted: Instant,
    /// The note that is on its way.
    noting: Option<JoinHandle<()>>,
}

impl Metering {
    /// Sets aside what a question may use. Refused where the plan leaves too little, and where too many of the tenant's
    /// questions came to nothing.
    pub async fn question(
        self: &Arc<Self>,
        tenant: &Served,
        expected: Expected,
        now: Timestamp,
    ) -> Result<Question, Problem> {
        self.vain.check(&tenant.id).map_err(refusal::in_vain)?;
        let account = self.account(tenant, now).await?;
        let amounts = Amounts::of(Unit::Queries, 1)
            .with(Unit::EmbeddingTokens, amount(expected.embedding))
            .with(Unit::PromptTokens, amount(expected.prompt))
            .with(Unit::CompletionTokens, amount(expected.answer));
        let times = if expected.in_pieces { IN_PIECES } else { 1 };
        let body = reserve(&account, amounts, pending(self.question_expiry * times));
        // Made before the ledger is asked: a client that hangs up now leaves nothing set aside.
        let mut question = Question {
            metering: self.clone(),
            account,
            operation: format!("q-{}", hex::encode(rand::random::<[u8; 16]>())),
            amounts,
            known: Known::default(),
            standing: None,
            reserved: false,
            ended: false,
            noted: Instant::now(),
            noting: None,
        };
        let known_away = self.is_away();
        match self.ask(self.ledger.reserve(&question.operation, &body)).await {
            Ok(CommandOutcome::Reserved { period, left }) => {
                question.reserved = true;
                question.standing = Some(question.account.standing(&left, period));
            }
            Err(CallError::Unavailable(_)) => {
                let served = self.without_ledger(&question.account);
                // A ledger that was not asked has nothing to give back.
                question.ended = served.is_err() && known_away;
                served?;
            }
            Ok(other) => return Err(Problem::internal("a reservation", &format!("{other:?}"))),
            Err(error) => {
                // Nothing was set aside.
                question.ended = true;
                return Err(refusal::of(&error, &question.account, now));
            }
        }
        Ok(question)
    }
}

impl Question {
    /// How much of the plan is left. None if the ledger was away.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// Its embedding took so many tokens.
    pub fn embedded(&mut self, tokens: u64) {
        self.known.embedding = tokens;
    }

    /// Its sources are known, and the chat model is asked, which reads about so many tokens. The question counts from
    /// now on, also if its reader leaves.
    pub fn is_asked(&mut self, prompt: u64) {
        self.known.prompt = Some(prompt);
    }

    /// The chat model wrote so many bytes more.
    pub fn wrote(&mut self, bytes: usize) {
        self.known.written += bytes;
    }

    /// It was answered, for so many tokens.
    pub fn answered(&mut self, tokens: Tokens) {
        self.known.told = Some(tokens);
    }

    /// Nothing was found, or the model refused it. It does not count; the tokens that it took do.
    pub fn in_vain(&mut self) {
        self.known.in_vain = true;
    }

    /// A provider failed. It does not count; the tokens that it took do.
    pub fn failed(&mut self) {
        (self.known.in_vain, self.known.failed) = (true, true);
    }

    /// Notes at the ledger what is known so far. It counts if this process is killed.
    pub async fn checkpoint(&self) {
        if self.reserved {
            let noted = note(&self.metering, &self.operation, &self.progress()).await;
            if let Err(error) = noted {
                let operation = &self.operation;
                tracing::warn!(%error, operation, "a question is not noted at the ledger before it has ended");
            }
        }
    }

    /// The same while its answer is written: every few seconds, and without a wait.
    pub fn checkpoint_meanwhile(&mut self) {
        let is_noting = self.noting.as_ref().is_some_and(|noting| !noting.is_finished());
        if !self.reserved || is_noting || self.noted.elapsed() < NOTED_EVERY {
            return;
        }
        let (metering, operation, progress) = (self.metering.clone(), self.operation.clone(), self.progress());
        self.noted = Instant::now();
        self.noting = Some(tokio::spawn(async move {
            // While the ledger is away, each stream meets this every few seconds. The metric of its absence says so once.
            if let Err(error) = note(&metering, &operation, &progress).await {
                tracing::debug!(%error, operation, "what was written of an answer is not noted at the ledger");
            }
        }));
    }

    fn progress(&self) -> Checkpoint {
        Checkpoint { tenant: self.account.tenant.clone(), amounts: self.known.amounts() }
    }

    /// Counts what it used.
    pub async fn end(mut self) {
        self.metering.end(self.ending()).await;
        self.ended = true;
    }

    fn ending(&self) -> Vec<Entry> {
        let used = self.known.amounts();
        let tenant = String::from(self.account.tenant.clone());
        if self.known.is_free_line() {
            self.metering.vain.note(&tenant);
        } else if used[Unit::Queries] > 0 {
            // The plan's queries limit the ledger's lines of it. A busy tenant of whose questions some find nothing is
            // not kept from asking.
            self.metering.vain.give_back(&tenant);
        }
        if used.is_zero() {
            return vec![void(&self.account, &self.operation)];
        }
        settled(&self.account, &self.operation, used, self.amounts)
    }
}

async fn note(metering: &Arc<Metering>, operation: &str, progress: &Checkpoint) -> Result<(), CallError> {
    metering.ask(metering.ledger.checkpoint(operation, progress)).await.map(drop)
}

impl Drop for Question {
    fn drop(&mut self) {
        // The ledger refuses a note that comes after the end.
        self.noting.iter().for_each(JoinHandle::abort);
        if !self.ended {
            let (metering, ending) = (self.metering.clone(), self.ending());
            self.metering.spawn(async move { metering.end(ending).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::http::LONGEST_STREAM;
    use crate::web::routes::ANSWER_LIMIT;

    #[test]
    fn a_question_is_open_twice_as_long_as_its_answer_may_take() {
        assert!(ANSWER_LIMIT * IN_PIECES >= LONGEST_STREAM);
    }

    fn used(known: Known) -> [i64; 4] {
        let amounts = known.amounts();
        [Unit::Queries, Unit::EmbeddingTokens, Unit::PromptTokens, Unit::CompletionTokens].map(|unit| amounts[unit])
    }

    #[test]
    fn a_question_counts_once_the_model_is_asked_and_not_if_it_comes_to_nothing() {
        let embedded = Known { embedding: 5, ..Known::default() };
        assert_eq!(used(Known::default()), [0; 4]);
        assert_eq!(used(embedded), [0, 5, 0, 0], "left before its sources are known");
        let asked = Known { prompt: Some(400), ..embedded };
        assert_eq!(used(asked), [1, 5, 400, 0], "left before the first word");
        let read = Known { written: 41, ..asked };
        assert_eq!(used(read), [1, 5, 400, 11], "left after some words");
        let told = Tokens { prompt_tokens: 390, completion_tokens: 12, estimated: false };
        assert_eq!(used(Known { told: Some(told), ..read }), [1, 5, 390, 12], "the provider's numbers");
        assert_eq!(used(Known { in_vain: true, ..asked }), [0, 5, 0, 0], "the model failed at once");
        assert_eq!(used(Known { in_vain: true, ..read }), [0, 5, 400, 11], "the answer broke off");
    }

    #[test]
    fn a_question_that_takes_no_query_and_leaves_a_line_is_a_tenants_own_unless_a_provider_failed() {
        let embedded = Known { embedding: 5, ..Known::default() };
        assert!(embedded.is_free_line(), "its reader left");
        assert!(Known { in_vain: true, ..embedded }.is_free_line(), "nothing was found");
        assert!(!Known { in_vain: true, failed: true, ..embedded }.is_free_line(), "the vector store failed");
        assert!(!Known::default().is_free_line(), "it was not embedded, and is voided");
        assert!(!Known { prompt: Some(400), ..embedded }.is_free_line(), "it counts");
    }
}

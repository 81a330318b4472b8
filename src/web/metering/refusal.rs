//! What the ledger refuses, in a customer's words.

use std::time::Duration;

use axum::http::StatusCode;

use super::account::Account;
use crate::api::money::thousands;
use crate::api::{Timestamp, Unit, size};
use crate::ledger::PERIOD_AHEAD;
use crate::ledger::account::Period;
use crate::ledger::client::CallError;
use crate::ledger::units::Limits;
use crate::web::serving::problem::{Code, Problem};

/// When to ask again while the ledger is away.
const AGAIN: Duration = Duration::from_secs(5);

/// A call that did not do what it should.
pub fn of(error: &CallError, account: &Account, now: Timestamp) -> Problem {
    match error {
        CallError::LimitReached { unit, left, .. } => beyond(account, *unit, *left, now),
        CallError::Refused { code, .. } if code == PERIOD_AHEAD => {
            tracing::error!(%error, "this machine's clock and the ledger's differ");
            unavailable()
        }
        CallError::Refused { .. } => Problem::internal("the ledger", error),
        CallError::Unavailable(_) => unavailable(),
    }
}

/// The use cannot be read.
pub fn unreadable(error: &CallError) -> Problem {
    match error {
        CallError::Unavailable(_) => {
            unavailable().told("The usage is not known at the moment. Please try again in a few seconds.")
        }
        other => Problem::internal("the ledger", other),
    }
}

/// The ledger is away.
pub fn unavailable() -> Problem {
    let detail =
        "Usage cannot be counted at the moment, so this request is not served. Please try again in a few seconds.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::LedgerUnavailable, detail).after(AGAIN)
}

/// The ledger is away, and cannot say whether a request is the first one with its idempotency key.
pub fn no_key_without_ledger() -> Problem {
    unavailable().told(
        "Idempotency keys cannot be checked at the moment, so this request is not served: it might run twice. Please try \
         again with the same key in a few seconds.",
    )
}

/// Too many of the tenant's questions came to nothing.
pub fn in_vain(wait: Duration) -> Problem {
    Problem::too_many_of("Too many of your questions found nothing, or were left before their answer.", wait)
}

/// A limit leaves too little.
pub fn beyond(account: &Account, unit: Unit, left: i64, now: Timestamp) -> Problem {
    let limit = account.limit(unit).unwrap_or_default();
    let period = Period::from(account.period);
    let end = period.end;
    let detail = match unit {
        Unit::Queries => {
            format!(
                "Your plan's {} questions of this period are used up. Upgrade, or wait until {end}.",
                thousands(limit)
            )
        }
        Unit::EmbeddedBytes => format!(
            "Your plan reads {} of text in a period, and this document has more than what is left. Upgrade, or wait until {end}.",
            size(limit)
        ),
        Unit::PromptTokens => used_up(limit, "tokens of questions and their passages", end),
        Unit::CompletionTokens => used_up(limit, "tokens of answers", end),
        Unit::EmbeddingTokens => used_up(limit, "tokens of embedded text", end),
        Unit::Documents => return full(&format!("{} documents", thousands(limit))),
        Unit::Bytes => return full(&format!("{} of documents", size(limit))),
    };
    let wait = Duration::from_secs(end.since(now).max(1).unsigned_abs());
    Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::QuotaExceeded, detail)
        .after(wait)
        .standing(account.standing(&Limits::default().with(unit, left), account.period.into()))
}

fn used_up(limit: i64, what: &str, end: Timestamp) -> String {
    let limit = thousands(limit);
    format!("Your plan's {limit} {what} of this period are used up, or too few are left. Upgrade, or wait until {end}.")
}

fn full(what: &str) -> Problem {
    let detail = format!("Your plan holds {what}. Delete some, or upgrade.");
    Problem::new(StatusCode::FORBIDDEN, Code::QuotaExceeded, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::quota::WhenUnavailable;

    #[test]
    fn customers_read_numbers_as_people_write_them() {
        let period: Period =
            serde_json::from_value(json!({"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}))
                .expect("one");
        let refused = |asked: Unit, limit: i64| {
            let account = Account {
                tenant: "acme".to_owned().try_into().expect("a name"),
                period: period.try_into().expect("a period"),
                limits: Limits::default().with(asked, limit),
                given_back: 0,
                when_unavailable: WhenUnavailable::Serve,
            };
            beyond(&account, asked, 0, period.start).detail().to_owned()
        };
        assert_eq!(
            refused(Unit::Bytes, 1_100_000_000),
            "Your plan holds 1.1 GB of documents. Delete some, or upgrade."
        );
        assert_eq!(refused(Unit::Documents, 12_000), "Your plan holds 12,000 documents. Delete some, or upgrade.");
        let tokens = refused(Unit::PromptTokens, 2_500_000);
        assert!(tokens.starts_with("Your plan's 2,500,000 tokens of questions and their passages"), "{tokens}");
    }

    #[test]
    fn a_question_that_must_wait_is_told_why_and_how_long() {
        let problem = in_vain(Duration::from_millis(2100));
        assert_eq!((problem.status(), problem.code()), (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"));
        assert!(
            problem.detail().contains("found nothing") && problem.detail().ends_with("in 3 seconds."),
            "{problem:?}"
        );
    }
}

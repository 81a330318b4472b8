//! Why a call to a provider failed, who can fix it, and whether a retry can help.

use std::time::Duration;

use reqwest::StatusCode;

use super::breaker::Away;
use super::models::Tokens;
use crate::lifecycle::{Blame, Fault, Provider};

/// Why a call to a provider failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{provider}: {message}")]
pub struct ProviderError {
    /// Which provider.
    pub provider: Provider,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// One word for programs.
    pub reason: Fault,
    /// A sentence for people; it holds no secret.
    pub message: String,
    /// Who can fix this.
    pub blame: Blame,
    /// Whether trying again can help.
    pub retryable: bool,
    /// The wait that the provider asks for.
    pub retry_after: Option<Duration>,
    /// What the provider is paid for although it failed.
    pub tokens: Option<Tokens>,
}

impl ProviderError {
    /// An answer that is not of the protocol.
    pub fn garbage(provider: Provider, what: impl std::fmt::Display) -> Self {
        Self {
            provider,
            status: None,
            reason: Fault::BadAnswer,
            message: format!("answered something that is not of its protocol: {what}"),
            blame: Blame::Call,
            retryable: true,
            retry_after: None,
            tokens: None,
        }
    }

    /// The provider is known to be away, and was not called.
    pub fn away(provider: Provider, away: Away) -> Self {
        Self {
            provider,
            status: None,
            reason: Fault::Unavailable,
            message: format!("has not answered since {}", away.since),
            blame: Blame::Outage,
            retryable: true,
            retry_after: Some(away.again),
            tokens: None,
        }
    }

    /// Whether this is an earlier answer, which the provider saved under the idempotency key: that call has ended, and
    /// failed.
    pub fn is_saved(&self) -> bool {
        self.reason == Fault::SavedAnswer
    }

    /// Whether the provider said that it did not execute the call: too many calls, or another one under the same key.
    pub(super) fn not_begun(&self) -> bool {
        matches!(self.status, Some(409 | 429))
    }

    /// Whether the provider said that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// There was no answer, or only a part of one.
    pub(super) fn unreachable(provider: Provider, error: &reqwest::Error) -> Self {
        let (reason, what) = if error.is_timeout() {
            (Fault::Timeout, "gave no answer in time")
        } else {
            (Fault::Unreachable, "cannot be reached")
        };
        Self {
            provider,
            status: None,
            reason,
            message: what.into(),
            blame: Blame::Call,
            retryable: true,
            retry_after: None,
            tokens: None,
        }
    }

    /// The provider answered, and not with success.
    pub(super) fn refused(provider: Provider, status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let detail = detail(body);
        let (reason, retryable) = match status.as_u16() {
            // Pinecone: 403 QUOTA_EXCEEDED, and 429 for the read and write units of a month; OpenAI: 429
            // insufficient_quota. None goes away by waiting for seconds.
            403 | 429 if quota_exceeded(body) => (Fault::QuotaExceeded, false),
            401 | 403 => (Fault::Unauthorized, false),
            300..=399 => (Fault::Redirected, false),
            408 => (Fault::Timeout, true),
            404 => (Fault::NotFound, false),
            409 => (Fault::Conflict, true),
            402 if action_required(body) => (Fault::ActionRequired, false),
            429 => (Fault::RateLimited, true),
            500.. => (Fault::ProviderError, true),
            _ => (Fault::Refused, false),
        };
        Self {
            provider,
            status: Some(status.as_u16()),
            reason,
            message: match reason {
                Fault::Redirected => {
                    format!("answered {status}, a redirect that is not followed: set its URL to the redirect's target")
                }
                _ => format!("answered {status}{detail}"),
            },
            blame: match reason {
                Fault::QuotaExceeded | Fault::Unauthorized | Fault::Redirected => Blame::Admin,
                _ => Blame::Call,
            },
            retryable,
            retry_after,
            tokens: None,
        }
    }
}

/// Stripe: the customer's bank asks for the customer. See <https://docs.stripe.com/error-codes>.
fn action_required(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("subscription_payment_intent_requires_action") || text.contains("authentication_required")
}

fn quota_exceeded(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    // "You've reached your read unit limit for the current month (...)":
    // https://docs.pinecone.io/reference/api/database-limits
    ["QUOTA_EXCEEDED", "insufficient_quota", "unit limit for the current month"].iter().any(|told| text.contains(told))
}

/// The message of an error answer, in the shapes of Stripe and `OpenAI` (`error.message`) and Pinecone (`message`).
fn detail(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["error"]["message"].as_str().or(json["message"].as_str()).unwrap_or_default();
    let short: String = message.chars().take(400).collect();
    if short.is_empty() { short } else { format!(": {short}") }
}

//! Why an effect failed: which step it belongs to, what the provider said, who can end it, and the words for all of it
//! in conditions, metrics and alerts.

use std::fmt;

use strum::{Display, EnumString, IntoStaticStr};

use super::Harm;

/// A part of a tenant that an effect works on. `status.provisioning.failedStep` shows it by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, EnumString, IntoStaticStr)]
pub enum Step {
    /// The namespace of the tenant's data.
    Namespace,
    /// The Secret with the API key.
    ApiKey,
    /// The sample documents of the plan.
    SampleData,
    /// E-mails and alerts.
    Notice,
    /// The object itself: its id, finalizer and end.
    Identity,
    /// The export of everything that belongs to the tenant.
    Export,
    /// The move of the data to another namespace.
    Data,
    /// What the ledger counted.
    Usage,
    /// The transitions for the transition log.
    Outbox,
    /// Customer, subscription and payments.
    Billing,
    /// What happens to too many tenants at once, and is held.
    Brake,
    /// The account and the indexes that the tenants are in.
    Pin,
    /// The proof of the customer's e-mail address.
    EmailVerification,
}

/// A system that the operator calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, IntoStaticStr)]
pub enum Provider {
    /// Payments.
    Stripe,
    /// Vectors.
    #[strum(to_string = "Pinecone")]
    VectorStore,
    /// Embeddings and answers.
    #[strum(to_string = "OpenAI")]
    Models,
    /// The mail server.
    Mail,
    /// The service that tells people from programs.
    #[strum(to_string = "CAPTCHA")]
    Captcha,
    /// Where alerts are posted.
    #[strum(to_string = "Alert webhook")]
    AlertWebhook,
    /// The API server.
    Kubernetes,
}

/// Why a provider did not do what was asked, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, IntoStaticStr)]
pub enum Fault {
    /// The key is of another account than the one that the tenants are in.
    AccountMismatch,
    /// The customer has to confirm the payment with their bank.
    ActionRequired,
    /// The answer is not of the provider's protocol.
    BadAnswer,
    /// The e-mail could not be composed.
    BadMessage,
    /// Another call of the same kind is under way.
    Conflict,
    /// The provider does not know the customer that the operator knows.
    CustomerUnknown,
    /// The model's answer holds no text.
    EmptyAnswer,
    /// The customer belongs to another tenant.
    ForeignCustomer,
    /// The index is another one than the one that the tenants are in.
    IndexMismatch,
    /// The index does not exist.
    IndexMissing,
    /// The key does not say whether it is for test or live mode.
    NoMode,
    /// The deletion was accepted, and the thing still exists.
    NotDeleted,
    /// The thing does not exist.
    NotFound,
    /// The payment is disputed.
    PaymentDisputed,
    /// The account and the indexes that the tenants are in could not be read.
    PinsUnread,
    /// The provider failed.
    ProviderError,
    /// The account is full, or its budget is spent.
    QuotaExceeded,
    /// Too many calls.
    RateLimited,
    /// The provider answers at another URL.
    Redirected,
    /// The refund failed.
    RefundFailed,
    /// The refund is not completed.
    RefundPending,
    /// The provider refused this call.
    Refused,
    /// There is no index for the region.
    RegionUnsupported,
    /// An earlier answer, which the provider saved under the idempotency key.
    SavedAnswer,
    /// The mail server refuses every e-mail.
    ServerRefused,
    /// The answer ended with an error.
    StreamError,
    /// No answer in time.
    Timeout,
    /// The key is refused.
    Unauthorized,
    /// The provider is known to be away.
    Unavailable,
    /// No connection.
    Unreachable,
}

/// Why an effect failed, as the one word that conditions, metrics and alerts show.
#[derive(Clone, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
pub enum Reason {
    /// A provider did not do it. The word is made of both, such as `PineconeQuotaExceeded`.
    Provider(Provider, Fault),
    /// Kubernetes refused it, with this word of its own, such as `Forbidden`.
    Kubernetes(String),
    /// The export storage did not do it.
    ExportStorage,
    /// The ledger did not do it.
    Ledger,
    /// A namespace holds more, or other, data than it did when the effect was decided.
    DataChanged,
    /// No model of any Plan made the vectors of a namespace.
    EmbeddingModelUnknown,
    /// A Secret of that name does not belong to the tenant.
    SecretConflict,
    /// The attempt took longer than its limit.
    Timeout,
    /// A task still writes what is to be deleted.
    StillWritten,
    /// The file for transitions or activation events cannot be written.
    OutboxNotWritten,
    /// Too many customers would get an e-mail about their usage.
    UsageMailsHeld,
    /// The brake holds it.
    Held(Harm),
}

impl Reason {
    /// The provider, where one is the cause.
    pub fn provider(&self) -> Option<Provider> {
        match self {
            Self::Provider(provider, _) => Some(*provider),
            Self::Kubernetes(_) => Some(Provider::Kubernetes),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(provider, fault) => {
                let provider: &str = provider.into();
                write!(f, "{}{fault}", provider.replace(' ', ""))
            }
            Self::Kubernetes(word) => write!(f, "Kubernetes{word}"),
            Self::Held(harm) => f.write_str(harm.reason()),
            // The others are words by their names.
            word => f.write_str(word.into()),
        }
    }
}

/// Who can end a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The call was made and failed: a failed attempt.
    Call,
    /// Only an admin can fix it: a refused key, a missing index, a full account, a Secret in the way.
    Admin,
    /// No call was made: the provider is known to be away.
    Outage,
    /// What the provider says does not agree with what the operator knows: another account or index, a customer that
    /// Stripe never heard of. A person decides; until then the tenant waits, without a limit.
    Mismatch,
}

/// Why an effect failed, after the quick retries inside the call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The step that failed.
    pub step: Step,
    /// Why, as one word.
    pub reason: Reason,
    /// Why, as a sentence that holds no secret.
    pub message: String,
    /// Who can end it.
    pub blame: Blame,
    /// Whether trying again can help.
    pub retryable: bool,
    /// The provider's own wish, in seconds.
    pub retry_after: Option<i64>,
}

impl Failure {
    /// One that trying again may end, at any time.
    pub fn new(step: Step, reason: Reason, message: impl Into<String>, blame: Blame) -> Self {
        Self { step, reason, message: message.into(), blame, retryable: true, retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_word() {
        for (reason, word) in [
            (Reason::Provider(Provider::VectorStore, Fault::QuotaExceeded), "PineconeQuotaExceeded"),
            (Reason::Provider(Provider::Models, Fault::Unauthorized), "OpenAIUnauthorized"),
            (Reason::Provider(Provider::AlertWebhook, Fault::Timeout), "AlertwebhookTimeout"),
            (Reason::Kubernetes("Forbidden".into()), "KubernetesForbidden"),
            (Reason::Held(Harm::Erase), "ErasureHeld"),
            (Reason::SecretConflict, "SecretConflict"),
        ] {
            assert_eq!(reason.to_string(), word);
        }
        assert_eq!(Reason::Kubernetes("Forbidden".into()).provider(), Some(Provider::Kubernetes));
        assert_eq!(Reason::SecretConflict.provider(), None);
        assert_eq!("SampleData".parse(), Ok(Step::SampleData));
    }
}

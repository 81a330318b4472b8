//! Why a step failed, and who can fix it.

use crate::export::ExportError;
use crate::ledger::client::CallError;
use crate::lifecycle::{Blame, Failure, Provider, Reason, Step};
use crate::providers::ProviderError;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A provider.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The export storage.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The ledger.
    #[error("ledger: {0}")]
    Ledger(#[from] CallError),
    /// Kubernetes.
    #[error("Kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// A namespace that is to be deleted holds more than it did when that was decided.
    #[error(
        "namespace {name} holds {there} vectors, more than the {seen} that were counted before, so it is kept until they are \
         counted again"
    )]
    MoreData {
        /// The namespace.
        name: String,
        /// The vectors that were counted.
        seen: u64,
        /// The vectors that are there.
        there: u64,
    },
    /// The namespace that is to be served from is gone.
    #[error("{store} has no namespace {0}", store = Provider::VectorStore)]
    NoSuchData(String),
    /// No model of any Plan made the vectors of the namespace.
    #[error(
        "no embedding model of any Plan made the vectors in namespace {0}. Apply the Plan that names their model; the \
         tenant then continues"
    )]
    UnknownModel(String),
    /// A Secret of that name does not belong to the tenant.
    #[error(
        "Secret {0} exists and does not belong to this Tenant, so it is left as it is. Delete or rename it, or label it \
         tenant-operator.dev/tenant={1} to hand it over"
    )]
    SecretConflict(String, String),
}

impl StepError {
    /// What decisions make of it. An error that says nothing about the step (a conflict, an API server that is away)
    /// ends the reconcile instead.
    pub fn failure(self, step: Step) -> Result<Failure, kube::Error> {
        let message = self.to_string();
        let of = |reason, message, blame| Failure::new(step, reason, message, blame);
        Ok(match self {
            Self::Provider(error) => Failure {
                retryable: error.retryable,
                retry_after: error.retry_after.map(|d| i64::try_from(d.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)),
                ..of(
                    Reason::Provider(error.provider, error.reason),
                    format!("{}: {}", error.provider, error.message),
                    error.blame,
                )
            },
            Self::Export(error) => {
                Failure { retryable: error.retryable(), ..of(Reason::ExportStorage, message, Blame::Admin) }
            }
            Self::Ledger(_) => of(Reason::Ledger, message, Blame::Call),
            Self::MoreData { .. } | Self::NoSuchData(_) => of(Reason::DataChanged, message, Blame::Call),
            Self::UnknownModel(_) => of(Reason::EmbeddingModelUnknown, message, Blame::Admin),
            Self::SecretConflict(..) => of(Reason::SecretConflict, message, Blame::Admin),
            Self::Kube(kube::Error::Api(status)) if refused(status.code) => {
                let word = if status.reason.is_empty() { "Refused".into() } else { status.reason };
                let message = format!("Kubernetes refused it: {}", status.message);
                of(Reason::Kubernetes(word), message, Blame::Admin)
            }
            Self::Kube(error) => return Err(error),
        })
    }
}

/// Whether the API server looked at the request and will say the same again: RBAC, admission, quota, an immutable
/// field.
fn refused(code: u16) -> bool {
    matches!(code, 400 | 401 | 403 | 405 | 413 | 415 | 422)
}

//! Everything on one machine: a private control plane, the sandbox in place of the providers, `tenant-operator ledger`,
//! `controller` and `web` as they are shipped, and a table of their progress. The tests use the control plane.

mod access;
mod apply;
mod certificate;
pub mod cli;
pub mod cluster;
mod demo;
mod endpoint;
mod env_file;
mod operator;
mod process;
mod providers;
mod run;
mod table;

pub use apply::{apply_crds, apply_yaml};
pub use certificate::SelfSigned;

/// Where the operator's own keys are, apart from the customers in `default`.
pub(crate) const OPERATOR_NAMESPACE: &str = "tenant-operator";

/// Where a user looks.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub web: String,
    pub metrics: String,
    pub sandbox: String,
    pub admin: String,
}

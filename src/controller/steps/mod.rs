//! One file for each thing that a tenant owns.

pub mod billing;
pub mod data;
pub mod erasure;
mod error;
pub mod identity;
pub mod namespace;
pub mod notices;
pub mod samples;
pub mod secrets;
pub mod usage;
mod usage_mail;

pub use error::StepError;

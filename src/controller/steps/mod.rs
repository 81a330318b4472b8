//! One file for each thing that a tenant owns.

pub mod api_key;
pub mod billing;
pub mod cleanup;
pub mod identity;
pub mod namespace;
pub mod notices;
pub mod samples;

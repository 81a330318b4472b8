//! The tenant API, opened by a tenant's API key: `/v1`.

pub mod documents;
pub mod file;
pub mod idempotency;
pub mod jwks;
pub mod keys;
pub mod moves;
pub mod openapi;
pub mod query;
pub mod removal;
mod shelf;
pub mod usage;

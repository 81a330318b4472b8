//! How web counts what tenants use, through the ledger.

pub mod journal;

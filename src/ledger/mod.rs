//! The ledger counts what tenants use, so that no unit is lost, counted twice, or used beyond a limit.
//!
//! One process owns the counting. Web reserves what a request may use, settles what it used, and voids what failed,
//! each under a name of its own: the same name again gets the same answer. An answer leaves after the commit.
//!
//! Data flows one way: a store reads the facts that a command rests on, [`decision::decide`] is pure, and the store
//! writes what it says in the same transaction.

pub mod account;
pub mod answers;
pub mod beginning;
pub mod client;
mod command;
pub mod decision;
pub mod events;
mod forgetting;
pub mod history;
pub mod names;
mod orphans;
mod service;
pub mod snapshots;
pub mod store;
pub mod units;
pub mod wire;

pub use command::PERIOD_AHEAD;
pub use service::{KeyError, Ledger, LedgerConfig, LedgerError, LedgerKey, LedgerPlace};

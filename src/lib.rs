//! A Kubernetes operator that manages the customers of a multi-tenant RAG service. `docs/architecture.md` tells how
//! the parts fit together.

pub mod access_tokens;
pub mod admin;
pub mod analytics;
pub mod api;
pub mod cli;
mod clock;
pub mod controller;
pub mod email;
pub mod events;
pub mod export;
pub mod keys;
pub mod ledger;
pub mod lifecycle;
mod links;
pub mod operator_keys;
mod pages;
pub mod pins;
mod plain;
mod plots;
pub mod preflight;
pub mod providers;
pub mod rag;
pub mod serve;
pub mod telemetry;
mod watches;
pub mod web;

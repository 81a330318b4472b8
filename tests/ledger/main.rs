//! What the ledger must do: any store by the same contracts, its files in every bad state, its program under `kill -9`,
//! two of them over one Postgres, its snapshots in S3, and its HTTP API with what no client of ours sends. So is web's journal of what the ledger did not answer, and
//! the events store, on a file of `SQLite` and on `ClickHouse`'s engine. Each
//! contract is also seen to fail, by a store with a seeded fault.

mod answers;
mod beginning;
mod conformance;
mod connections;
mod docs;
mod events;
mod events_store;
mod files;
mod hour_lines;
mod http;
mod journal;
mod process;
mod replicas;
mod s3;
mod snapshots;
mod snapshots_in_s3;
mod status;
mod support;

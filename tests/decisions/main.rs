//! What `lifecycle::decide` answers to each phase and observation: one file a phase, and a sweep over all of them.

mod active;
mod case;
mod deleting;
mod dunning;
mod failed;
mod identity;
mod pending_payment;
mod provisioning;
mod sweep;
mod verification;

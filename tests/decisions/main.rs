//! What `lifecycle::decide` answers to each phase and observation: one file a phase, and a sweep over all of them.

mod active;
mod address;
mod beside;
mod billed;
mod case;
mod clock;
mod deleting;
mod dispute;
mod due;
mod dunning;
mod export;
mod failed;
mod generations;
mod held;
mod identity;
mod key_generation;
mod leaving;
mod migration;
mod outbox;
mod pending_payment;
mod plan_change;
mod plan_in_force;
mod provisioning;
mod region;
mod sweep;
mod verification;

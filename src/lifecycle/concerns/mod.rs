//! What a tenant needs beside its phase, whatever the phase is or in several of them: each file is one concern, which
//! says what it wants and when it wants to be asked again. `lifecycle/mod.rs` and the phases decide between them.

pub mod address;
pub mod billed;
pub mod courtesies;
pub mod dispute;
pub mod dunning;
pub mod erasure;
pub mod export;
pub mod generations;
pub mod identity;
pub mod key_generation;
pub mod migration;
pub mod notices;
pub mod payment_link;
pub mod place;
pub mod plan_change;
pub mod plan_obstacles;
pub mod renewal;
pub mod requested;
pub mod usage_notices;
pub mod verification;

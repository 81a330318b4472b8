//! What a tenant needs in each phase: a file for each, Upgrading and Downgrading in one. The files of Suspended and
//! Deleting also say how a tenant comes back. A tenant in Deleted is a record, and needs nothing.

pub mod active;
pub mod changing_plan;
pub mod deleting;
pub mod failed;
pub mod pending_payment;
pub mod provisioning;
pub mod suspended;

use super::agenda::first_due;
use super::{Decision, Input};
use crate::api::Phase;

/// Decides by the phase.
pub fn decide(input: &Input) -> Decision {
    match input.tenant.status.phase {
        None | Some(Phase::PendingPayment) => pending_payment::decide(input),
        Some(Phase::Provisioning) => provisioning::decide(input),
        Some(Phase::Active) => active::decide(input),
        // A tenant is served while its plan changes, which may take hours.
        Some(Phase::Upgrading | Phase::Downgrading) => {
            first_due(input, &[active::key, |input| Some(changing_plan::decide(input)), active::tell])
        }
        Some(Phase::Suspended) => suspended::decide(input),
        Some(Phase::Failed) => failed::decide(input),
        Some(Phase::Deleting) => deleting::decide(input),
        Some(Phase::Deleted) => Decision::Wait(None),
    }
}

//! Delays the write of Provisioning and merges it with the one that ends Provisioning, if that follows soon. This saves
//! one of five API writes for each tenant. The later write holds both transitions. A crash before it loses the start of
//! the run, and the next run repeats its effects, which are idempotent.

use super::Effect;
use crate::api::{Phase, TenantStatus};

/// Whether the controller may keep this status in memory, to be merged with the next one: it begins the first run of a
/// tenant that has just paid or been approved. Every other status is written at once.
pub fn may_merge(before: &TenantStatus, status: &TenantStatus) -> bool {
    matches!(before.phase, None | Some(Phase::PendingPayment)) && status.phase == Some(Phase::Provisioning)
}

/// Whether these effects may run before such a status is written. After a crash, a controller that does not find the
/// status repeats them; none of them sends an e-mail or charges a customer.
pub fn may_precede(effects: &[Effect]) -> bool {
    effects.iter().all(|effect| {
        matches!(effect, Effect::EnsureApiKey | Effect::EnsureNamespace | Effect::StoreSamples | Effect::VerifySamples)
    })
}

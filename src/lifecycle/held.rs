//! The write of Provisioning waits for the one that ends it, while nobody would see it in between. That saves one of
//! five API writes for each tenant. Both transitions are in the later write; a crash before it costs the beginning of a
//! run that did nothing but what is done again idempotently.

use super::Effect;
use crate::api::{Phase, TenantStatus};

/// Whether the driver may keep this status in memory: it begins the first run of a tenant that has just paid or been
/// approved. Every other status is written at once.
pub fn may_hold(before: &TenantStatus, status: &TenantStatus) -> bool {
    matches!(before.phase, None | Some(Phase::PendingPayment)) && status.phase == Some(Phase::Provisioning)
}

/// Whether these may be done while such a status is not written. Whoever finds them done without it does them again,
/// and nobody outside was told or charged.
pub fn may_precede(effects: &[Effect]) -> bool {
    effects.iter().all(|effect| {
        matches!(effect, Effect::EnsureApiKey | Effect::EnsureNamespace | Effect::StoreSamples | Effect::VerifySamples)
    })
}

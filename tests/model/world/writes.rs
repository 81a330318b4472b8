//! What the controller writes to the object.

use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{Phase, TenantStatus};

use super::{LARGER, Small, State};
use crate::mistakes::Mistake;

impl Small {
    /// Effects take so long that the held status is written meanwhile.
    pub(super) fn write_while_busy(&self, state: &mut State) {
        state.budget.slow -= 1;
        self.write_held(state);
    }

    pub(super) fn write_held(&self, state: &mut State) -> bool {
        if let Some(status) = state.reconcile.as_ref().map(|reconcile| reconcile.view.status.clone()) {
            self.write(state, status);
        }
        true
    }

    pub(super) fn record(&self, state: &mut State, status: TenantStatus) {
        if let Some(reconcile) = &mut state.reconcile {
            reconcile.observed.recorded(&reconcile.view.status, &status);
        }
        self.write(state, status);
    }

    pub(super) fn write(&self, state: &mut State, status: TenantStatus) {
        let Some(reconcile) = &mut state.reconcile else { return };
        if !reconcile.fresh(&state.tenant) && self.mistake != Some(Mistake::StaleWritesAccepted) {
            // Kubernetes refuses the write: the object has changed.
            state.reconcile = None;
            return;
        }
        reconcile.view.status = status.clone();
        reconcile.last = None;
        state.before = Some(Box::new(state.tenant.clone()));
        if let Some(config) = &status.config {
            let unknown = state.tenant.status.config.is_none();
            state.plan_lost |= unknown && state.in_force.as_ref().is_some_and(|plan| **plan != *config.plan);
            state.in_force = Some(config.plan.to_string());
            state.had_larger |= &*config.plan == LARGER;
        }
        if self.outbox {
            state.beside.recorded(&state.tenant.status, &status);
        }
        state.transition_lost |= status.transitions.len() < state.tenant.status.transitions.len();
        match status.phase {
            Some(Phase::Deleting | Phase::Deleted) => state.closed_at = state.closed_at.or(Some(state.now)),
            _ => state.closed_at = None,
        }
        let suspended = |status: &TenantStatus| status.phase == Some(Phase::Suspended);
        let meant = state.tenant.spec.desired == Desired::Suspended;
        state.misjudged |= state.stranger && !meant && suspended(&status) && !suspended(&state.tenant.status);
        // Begun against the wish.
        let begins = status.erasure.is_some() && state.tenant.status.erasure.is_none();
        state.erased |= begins && state.tenant.erasure.is_none() && state.tenant.spec.desired != Desired::Deleted;
        state.tenant.status = status;
    }
}

//! The state that the world reaches when nothing more goes wrong, and whether it is the right one.

use tenant_operator::api::conditions::{get, is_true};
use tenant_operator::api::plan::PriceChanges;
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{ConditionStatus, Phase};
use tenant_operator::lifecycle::{Notice, SessionState};

use super::{Budget, LARGER, SMALLER, Small, State};

impl Small {
    /// From here on nothing goes wrong and the customer pays: where does it end, and does it stay there?
    pub(super) fn converges(&self, state: &State) -> bool {
        let mut s = state.clone();
        let mut run = self.converged.run();
        let (mut quiet, mut steps) = (0, 0);
        for _ in 0..400 {
            let before = (s.tenant.clone(), s.now);
            loop {
                // Neither matters to what follows.
                (s.before, s.budget) = (None, Budget::default());
                if let Some(well) = run.comes_to(&s) {
                    return run.ends(well);
                }
                if !self.advance(&mut s) {
                    break;
                }
                steps += 1;
                if steps > 1000 {
                    return run.ends(false);
                }
            }
            s.environment(self.login);
            quiet = if (s.tenant.clone(), s.now) == before { quiet + 1 } else { 0 };
            if quiet == 3 {
                return run.ends(self.desired(&s));
            }
        }
        run.ends(false)
    }

    fn desired(&self, s: &State) -> bool {
        if self.outbox && !s.gone && !s.beside.has_all(&s.tenant.status) {
            return false;
        }
        let erased = s.tenant.erasure.is_some();
        if s.gone && !s.tenant.erase && !erased && s.had_something() {
            return !s.erased && !s.cancelled;
        }
        if s.gone {
            let billing = self.mode == BillingMode::Manual || !s.subscribed || s.cancelled;
            let told = !erased || s.sent.contains_key(&Notice::Erased);
            return billing && told && !s.namespace && !s.secret && !s.beside.files;
        }
        let suspended = s.tenant.spec.is_suspended();
        // A tenant that was erased stays erased, even if the spec asks for something else afterwards.
        if s.tenant.spec.desired == Desired::Deleted || s.tenant.erasure.is_some() {
            let left =
                s.namespace || s.secret || (s.customers > 0 && !s.customer_gone) || (s.subscribed && !s.cancelled);
            let left = left || s.beside.files;
            let told = s.sent.contains_key(&Notice::Erased);
            return s.tenant.status.phase == Some(Phase::Deleted) && !left && told && s.tenant.erasure.is_some();
        }
        match s.tenant.status.phase {
            // A signup that an admin has suspended is not sold.
            Some(Phase::PendingPayment) => {
                let open = matches!(s.session, Some((_, SessionState::Open)));
                suspended && self.mode == BillingMode::Stripe && !open && (!s.subscribed || s.cancelled)
            }
            Some(Phase::Suspended) => {
                let charged = self.mode == BillingMode::Stripe && !s.cancelled && !s.paused;
                let told = s.sent.keys().any(|m| matches!(m, Notice::Suspended(_)));
                suspended && !charged && told && s.namespace && s.secret
            }
            Some(Phase::Active) if suspended || (s.cancelled && self.mode == BillingMode::Stripe) => false,
            Some(Phase::Active) => {
                let in_force = s.tenant.status.api_key_generation == Some(s.tenant.spec.api_key_generation);
                let parts = s.namespace && s.stored && s.has_key() && in_force && !s.paused && !s.ends;
                let wish = s.tenant.spec.plan.as_str();
                let in_force = s.tenant.plan_in_force();
                let declined = s.declined && wish == LARGER && in_force == SMALLER;
                let follows = self.plan.price_changes == PriceChanges::Follow;
                let shown = get(&s.tenant.status.conditions, "PriceAsPlanned");
                let told = s.sent.keys().any(|m| matches!(m, Notice::PriceAlert(_)));
                let shown = told && shown.is_some_and(|c| c.status == ConditionStatus::False);
                let billed = self.mode == BillingMode::Manual || s.billed == in_force || (shown && !follows);
                if !billed || (wish != in_force && !declined) {
                    return false;
                }
                if !s.beside.is_over(&s.tenant) {
                    return false;
                }
                let welcomed =
                    s.sent.contains_key(&Notice::Welcome) && is_true(&s.tenant.status.conditions, "WelcomeEmailSent");
                let told = welcomed || (self.mute && s.sent.contains_key(&Notice::WelcomeFailedAlert));
                parts && told && is_true(&s.tenant.status.conditions, "Ready")
            }
            Some(Phase::Failed) => {
                let stopped = s.paused || s.cancelled;
                let paid = self.mode == BillingMode::Manual || (s.refunds == s.charges && stopped);
                let mail = s.sent.keys().any(|m| matches!(m, Notice::FailedMail(_)));
                let alert = s.sent.keys().any(|m| matches!(m, Notice::FailedAlert(_)));
                let answered = s.tenant.status.provisioning.as_ref().and_then(|p| p.retry_token.as_ref());
                let heard = answered == s.tenant.retry_token.as_ref();
                paid && mail && alert && heard && is_true(&s.tenant.status.conditions, "Stalled")
            }
            _ => false,
        }
    }
}

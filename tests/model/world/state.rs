//! What there is in the world, and what others than the controller do to it.

use std::collections::BTreeSet;

use tenant_operator::api::tenant::StripeRefs;
use tenant_operator::api::{TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Effect, Holdings, Notice, Observed, ObservedBilling, ObservedSession, ObservedSubscription, Outcome, SessionState,
    View,
};

use super::{CLOSED, LARGER, PERIOD_END, Reconcile, State};

impl State {
    /// The tenant as it is at the API server.
    pub fn tenant(&self) -> &View {
        &self.tenant
    }

    pub(super) fn start(&mut self, view: View) {
        if !self.gone {
            let right = self.secret && self.key == view.spec.api_key_generation;
            let observed = Observed { api_key: Some(right), resync: self.hint, ..Observed::default() };
            let pending = BTreeSet::new();
            self.reconcile = Some(Box::new(Reconcile { view, observed, pending, overtaken: false, last: None }));
        }
    }

    /// Keeps a status in the controller's memory.
    pub(super) fn hold(&mut self, status: TenantStatus) {
        if let Some(reconcile) = &mut self.reconcile {
            reconcile.observed.recorded(&reconcile.view.status, &status);
            reconcile.last = Some(Box::new(std::mem::replace(&mut reconcile.view.status, status)));
        }
    }

    pub(super) fn learn(&mut self, effect: &Effect, outcome: Outcome) {
        if let Some(reconcile) = &mut self.reconcile {
            reconcile.pending.remove(effect);
            reconcile.observed.learn(effect, outcome);
        }
    }

    /// Advances the time to that moment, and ends what ends by then.
    pub(super) fn pass(&mut self, moment: i64) {
        self.now = self.now.max(moment);
        if self.ends && self.now >= PERIOD_END {
            (self.cancelled, self.ends, self.hint) = (true, false, true);
        }
    }

    /// What each provider holds.
    pub(super) fn holdings(&self) -> Holdings {
        Holdings {
            namespaces: self.namespace.into(),
            vectors: self.stored.into(),
            secrets: self.secret.into(),
            subscriptions: (self.subscribed && !self.cancelled).into(),
            customers: (self.customers > 0 && !self.customer_gone).into(),
            kept_customers: 0,
            exports: self.beside.files.into(),
        }
    }

    /// Whether the Secret holds the key that the spec asks for.
    pub(super) fn has_key(&self) -> bool {
        self.secret && self.key == self.tenant.spec.api_key_generation
    }

    /// Whether the tenant was paid for or set up.
    pub(super) fn had_something(&self) -> bool {
        let spec = &self.tenant.spec;
        spec.plan_in_force.is_some() || spec.billing.stripe.as_ref().is_some_and(|refs| refs.subscription_id.is_some())
    }

    pub(super) fn write_object(&mut self, effect: &Effect) {
        let tenant = &mut self.tenant;
        let refs = |t: &mut View| -> StripeRefs { t.spec.billing.stripe.clone().unwrap_or_default() };
        match effect {
            Effect::AssignIdentity { plan } => {
                tenant.spec.plan_in_force = plan.clone().or(tenant.spec.plan_in_force.take());
                tenant.finalizer = true;
                (tenant.credentials.proof, tenant.credentials.labelled) = (true, true);
                tenant.spec.tenant_id = Some("t".into());
            }
            Effect::NextCheckout { attempt } => {
                tenant.spec.billing.stripe = Some(StripeRefs { checkout_attempt: Some(*attempt), ..refs(tenant) });
            }
            Effect::StoreStripeIds { customer, subscription } => {
                tenant.spec.billing.stripe = Some(StripeRefs {
                    customer_id: Some(customer.clone()),
                    subscription_id: subscription.clone(),
                    ..refs(tenant)
                });
                if subscription.is_some() {
                    tenant.spec.plan_in_force = Some(tenant.plan_in_force().to_owned());
                }
            }
            Effect::FollowPaidPlan { plan } => tenant.spec.plan.clone_from(plan),
            Effect::RecordPlan { plan } => {
                tenant.spec.plan_in_force = Some(plan.clone());
                self.in_force = Some(plan.clone());
            }
            Effect::EraseIdentity => {
                tenant.erasure.clone_from(&tenant.status.erasure);
                (tenant.credentials.labelled, tenant.email_verified, tenant.spec.login) = (false, false, None);
                tenant.sent.clear();
            }
            Effect::MarkSent(sent) => tenant.sent.extend(sent.iter().map(Notice::key)),
            Effect::RemoveFinalizer => self.gone = true,
            _ => tenant.deleting = true,
        }
    }

    pub(super) fn billing(&self) -> ObservedBilling {
        let subscription = self.subscribed.then(|| ObservedSubscription {
            id: format!("sub_{}", self.ended + 1),
            status: match (self.cancelled, self.settled) {
                (true, _) => "canceled",
                (_, true) => "active",
                _ => "incomplete",
            }
            .into(),
            payment_method: true,
            paused: self.paused,
            trial_ends_at: None,
            plan: Some(self.billed.into()),
            price: Some(if self.billed == LARGER { "price_2" } else { "price_1" }.into()),
            billed_plan: Some(self.billed.into()),
            unconfirmed: None,
            period_ends_at: Some(Timestamp::from_second(PERIOD_END)),
            cycle: None,
            plan_before: self.billed_before.filter(|_| self.now < PERIOD_END).map(ToOwned::to_owned),
            ends: self.ends,
            closed_at: self.ends.then_some(Timestamp::from_second(CLOSED)),
            elsewhere: false,
            renews: !self.ends && !self.cancelled,
        });
        let session = self.session.map(|(attempt, state)| ObservedSession {
            id: format!("cs_{attempt}"),
            url: Some("https://pay".into()),
            state,
            expires_at: Timestamp::from_second(0),
            attempt,
            plan: None,
            elsewhere: false,
        });
        let customer_id = (self.customers > 0).then(|| "cus_1".into());
        ObservedBilling { customer_id, subscription, session, ..ObservedBilling::default() }
    }

    pub(super) fn expire_checkout(&mut self) {
        if let Some((_, session @ SessionState::Open)) = &mut self.session {
            *session = SessionState::Expired;
        }
    }

    pub(super) fn pay(&mut self) {
        if let Some((_, session @ SessionState::Open)) = &mut self.session {
            *session = SessionState::Complete;
            self.subscribed = true;
            if self.cancelled {
                // A new subscription beside the one that ended.
                (self.cancelled, self.settled, self.paused) = (false, false, false);
                self.ended += 1;
            }
        }
    }

    /// The bank says yes, some time after Checkout is complete.
    pub(super) fn settle(&mut self) {
        if self.subscribed && !self.settled && !self.cancelled {
            self.settled = true;
            self.charges += 1;
        }
    }

    /// Web tells the Tenant of the ids, as a hint.
    pub(super) fn webhook(&mut self) {
        let before = self.tenant.spec.billing.stripe.clone().unwrap_or_default();
        self.tenant.spec.billing.stripe =
            Some(StripeRefs { customer_id: Some("cus_1".into()), subscription_id: Some("sub_1".into()), ..before });
        self.hint = true;
        self.overtake();
    }

    /// A writer other than the controller has changed the object.
    pub(super) fn overtake(&mut self) {
        if let Some(reconcile) = &mut self.reconcile {
            reconcile.overtaken = true;
        }
    }

    /// Whether the tenant was served, as far as that outlives a lost status.
    pub(super) fn served(&self) -> bool {
        self.tenant.noted(&Notice::Welcome)
    }

    /// Whether the customer has an e-mail with the link.
    pub(super) fn told_to_confirm(&self) -> bool {
        self.sent.keys().any(|notice| matches!(notice, Notice::Link(_)))
    }

    pub(super) fn confirm(&mut self) {
        self.tenant.email_verified = true;
        self.overtake();
    }

    pub(super) fn environment(&mut self, login: bool) {
        self.ahead = 0;
        // A person corrects the key.
        self.stranger = false;
        // Pinecone comes back. Where it was broken from the start, an admin mends it.
        self.broken &= !self.served();
        if login && !self.tenant.email_verified && self.told_to_confirm() {
            self.confirm();
        }
        self.pay();
        self.settle();
        self.visible |= self.stored;
        self.hint = true;
        if self.beside.task.running {
            self.beside.end();
        }
    }
}

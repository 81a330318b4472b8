//! A tenant in some phase, and what was observed of it.

use std::collections::BTreeSet;

use tenant_operator::api::conditions::get;
use tenant_operator::api::plan::{LimitChanges, Limits, Models, Money};
use tenant_operator::api::status::Provisioning;
use tenant_operator::api::tenant::{Billing, BillingMode, Login, StripeRefs};
use tenant_operator::api::{
    ConditionStatus, Phase, PlanSpec, SampleData, SampleDocument, TenantSpec, TenantStatus, Timestamp,
};
use tenant_operator::lifecycle::{
    Blame, Credentials, Decision, Effect, Failure, Fault, Found, Input, Notice, Observed, ObservedBilling,
    ObservedRefund, ObservedSession, ObservedSubscription, Outcome, Policy, Provider, Reason, SessionState, View,
    decide,
};

pub const NOW: i64 = 1_000_000;

/// All that a decision rests on, to be changed where a test differs.
#[derive(Clone)]
pub struct Case {
    pub view: View,
    /// The plan that is in force.
    pub plan: Option<PlanSpec>,
    /// The plan that the spec names, if it differs.
    pub wanted: Option<PlanSpec>,
    pub observed: Observed,
    pub policy: Policy,
    /// The present by the clock that is behind.
    pub earliest: i64,
}

pub fn plan() -> PlanSpec {
    PlanSpec {
        display_name: None,
        stripe_price_id: Some("price_1".into()),
        usage_prices: Vec::new(),
        monthly_price: Money { amount: 4900, currency: "usd".into() },
        trial_days: 14,
        limit_changes: LimitChanges::default(),
        upgrades: Default::default(),
        downgrades: Default::default(),
        price_changes: Default::default(),
        retention_days: 30,
        deletion_policy: None,
        limits: Limits::default(),
        quota: Default::default(),
        features: Vec::new(),
        models: Models::default(),
        region: "us-east-1".into(),
        sample_data: SampleData::Required,
        sample_question: "What is RAG?".into(),
        sample_documents: vec![SampleDocument {
            id: "sample_1".into(),
            text: "RAG".into(),
            metadata: Default::default(),
        }],
    }
}

impl Case {
    /// A tenant that pays by Stripe and is known to the controller. It is paid for if its phase says so.
    pub fn new(phase: Option<Phase>) -> Self {
        let begun = !matches!(phase, None | Some(Phase::PendingPayment));
        let refs = StripeRefs {
            customer_id: Some("cus_1".into()),
            subscription_id: Some("sub_1".into()),
            checkout_attempt: None,
        };
        let spec = TenantSpec {
            plan_in_force: None,
            data: None,
            export_request: None,
            wish: None,
            suspension: None,
            deletion_policy: None,
            company_name: "Analytical Engines".into(),
            admin_email: "ada@example.com".into(),
            plan: "starter".into(),
            billing: Billing { mode: BillingMode::Stripe, approved: false, stripe: begun.then_some(refs) },
            tenant_id: Some("t1".into()),
            login: None,
            terms: None,
            desired: Default::default(),
            settings: Default::default(),
            api_key_generation: 1,
        };
        let started_at = Timestamp::from_second(NOW - 10);
        let run = Provisioning {
            attempts: 0,
            started_at,
            next_retry_at: None,
            held_since: None,
            failed_step: None,
            reason: None,
            last_error: None,
            retry_token: None,
        };
        let status = TenantStatus {
            phase,
            observed_generation: Some(1),
            region: Some("us-east-1".into()),
            paid_at: begun.then_some(started_at),
            provisioning: begun.then_some(run),
            provisioned_at: (phase == Some(Phase::Active)).then_some(started_at),
            ..TenantStatus::default()
        };
        let view = View {
            namespace: "shop".into(),
            name: "acme".into(),
            uid: "t1".into(),
            generation: Some(1),
            created_at: Timestamp::from_second(NOW - 60),
            deleting: false,
            finalizer: true,
            credentials: Credentials { proof: true, labelled: true, ..Credentials::default() },
            retry_token: None,
            force_delete: false,
            erase: true,
            keep_data: false,
            legal_hold: None,
            chosen: None,
            accepted_dispute: None,
            waived_refund: None,
            confirmed: None,
            link_asked: None,
            erasure: None,
            email_verified: false,
            mail_requests: Vec::new(),
            unsubscribed: false,
            marketing: false,
            asked: false,
            completed_at: None,
            stored: false,
            usage: Default::default(),
            sent: BTreeSet::new(),
            spec,
            status,
        };
        let changing = matches!(phase, Some(Phase::Upgrading | Phase::Downgrading));
        Self {
            view,
            plan: Some(plan()),
            wanted: None,
            observed: Observed { api_key: changing.then_some(true), found: Some(Vec::new()), ..Observed::default() },
            policy: Policy { outbox: false, upload_limit: 60, ..Policy::default() },
            earliest: NOW,
        }
    }

    pub fn manual(mut self, approved: bool) -> Self {
        self.view.spec.billing = Billing { mode: BillingMode::Manual, approved, stripe: None };
        self
    }

    pub fn signed_up(mut self) -> Self {
        self.view.spec.login = Some(Login { secret_name: "t1-login".into() });
        self
    }

    /// That has confirmed the e-mail address.
    pub fn confirmed(mut self) -> Self {
        self.view.email_verified = true;
        self.signed_up()
    }

    pub fn sent(mut self, notice: &Notice) -> Self {
        self.view.sent.insert(notice.key());
        self
    }

    pub fn billing(mut self, subscription: Option<ObservedSubscription>, session: Option<ObservedSession>) -> Self {
        self.observed.billing = Some(ObservedBilling {
            customer_id: Some("cus_1".into()),
            subscription,
            session,
            ..ObservedBilling::default()
        });
        self
    }

    /// What is decided with the plan in force written down, which `next` asks for first where it is missing.
    pub fn decide(&self) -> Decision {
        match self.next() {
            Decision::Act(effects) if matches!(effects[..], [Effect::RecordPlan { .. }]) => {
                let mut case = self.clone();
                for effect in effects {
                    let Effect::RecordPlan { plan } = effect else { continue };
                    case.view.spec.plan_in_force = Some(plan);
                }
                case.next()
            }
            other => other,
        }
    }

    /// What is decided.
    pub fn next(&self) -> Decision {
        let (tenant, plan, observed, policy) = (&self.view, self.plan.as_ref(), &self.observed, &self.policy);
        let earliest = Timestamp::from_second(self.earliest);
        let wanted = if tenant.spec.plan == tenant.plan_in_force() { plan } else { self.wanted.as_ref() };
        decide(&Input { tenant, plan, wanted, observed, now: Timestamp::from_second(NOW), earliest, policy })
    }

    /// The effects that are wanted now, or once the status says what is.
    /// What it does next, if that is an effect.
    pub fn effects_or_none(&self) -> Vec<Effect> {
        if let Decision::Act(effects) = self.decide() { effects } else { Vec::new() }
    }

    pub fn effects(&self) -> Vec<Effect> {
        let mut case = self.clone();
        for _ in 0..5 {
            match case.decide() {
                Decision::Act(effects) => return effects,
                Decision::Record(status) if status.phase == case.view.status.phase => {
                    case.observed.recorded(&case.view.status, &status);
                    case.view.status = *status;
                }
                other => panic!("not an act: {other:#?}"),
            }
        }
        panic!("it is written again and again: {:#?}", case.view.status);
    }

    /// In whose reconcile this effect has failed.
    pub fn failed(mut self, effect: &Effect, failure: Failure) -> Self {
        self.observed.learn(effect, Outcome::Failed(failure));
        self
    }

    /// The status that is written now.
    pub fn recorded(&self) -> TenantStatus {
        match self.decide() {
            Decision::Record(status) => *status,
            other => panic!("not a status: {other:#?}"),
        }
    }

    /// What is decided once that status has been written.
    pub fn after_record(mut self) -> Decision {
        let status = self.recorded();
        self.observed.recorded(&self.view.status, &status);
        self.view.status = status;
        self.decide()
    }

    /// As it is once everything was written that is to be written now.
    pub fn at_rest(mut self) -> Self {
        for _ in 0..10 {
            let Decision::Record(status) = self.decide() else { return self };
            self.observed.recorded(&self.view.status, &status);
            self.view.status = *status;
        }
        panic!("it is written again and again: {:#?}", self.view.status);
    }

    /// The first decision of that kind on the way to rest, where everything goes well.
    pub fn on_the_way(mut self, wanted: impl Fn(&Decision) -> bool) -> Option<Decision> {
        for _ in 0..30 {
            let decision = self.decide();
            if wanted(&decision) {
                return Some(decision);
            }
            match decision {
                Decision::Record(status) => {
                    self.observed.recorded(&self.view.status, &status);
                    self.view.status = *status;
                }
                Decision::Act(effects) => effects.iter().for_each(|effect| self.perform(effect)),
                Decision::Wait(_) => return None,
            }
        }
        panic!("it never comes to rest: {:#?}", self.decide());
    }

    pub fn perform(&mut self, effect: &Effect) {
        let outcome = match effect {
            Effect::MarkSent(sent) => return self.view.sent.extend(sent.iter().map(Notice::key)),
            Effect::ReadBilling => {
                let subscription = Some(subscription("active"));
                let customer_id = Some("cus_1".into());
                Outcome::Billing(Box::new(ObservedBilling { customer_id, subscription, ..ObservedBilling::default() }))
            }
            Effect::Refund => Outcome::Refunded(ObservedRefund::default()),
            Effect::FindData => {
                let generation = self.view.data_generation();
                Outcome::Found(vec![Found { generation, vectors: 10, documents: true }])
            }
            _ => Outcome::Done,
        };
        self.observed.learn(effect, outcome);
    }

    /// The phase that is written now, if a status is.
    pub fn decide_phase(&self) -> Option<Phase> {
        match self.decide() {
            Decision::Record(status) => status.phase,
            _ => None,
        }
    }

    /// What is decided in the end, where a status may be written first.
    pub fn after_record_or_wait(&self) -> Decision {
        match self.decide() {
            Decision::Record(_) => self.clone().after_record(),
            other => other,
        }
    }
}

pub fn subscription(status: &str) -> ObservedSubscription {
    ObservedSubscription {
        id: "sub_1".into(),
        status: status.into(),
        payment_method: true,
        paused: false,
        trial_ends_at: Some(Timestamp::from_second(NOW + 14 * 24 * 3600)),
        plan: Some("starter".into()),
        price: Some("price_1".into()),
        billed_plan: Some("starter".into()),
        unconfirmed: None,
        ends: false,
        closed_at: None,
        elsewhere: false,
        renews: true,
        period_ends_at: Some(Timestamp::from_second(NOW + 10 * 24 * 3600)),
        cycle: None,
        plan_before: None,
    }
}

/// A subscription that ends because its tenant was closed at that second.
pub fn ending(closed_at: i64) -> ObservedSubscription {
    let closed_at = Some(Timestamp::from_second(closed_at));
    ObservedSubscription { ends: true, renews: false, closed_at, ..subscription("active") }
}

pub fn session(state: SessionState, attempt: u32) -> ObservedSession {
    let url = (state == SessionState::Open).then(|| "https://pay.example/cs_1".to_owned());
    ObservedSession {
        id: format!("cs_{attempt}"),
        url,
        state,
        expires_at: Timestamp::from_second(NOW + 3600),
        attempt,
        plan: Some("starter".into()),
        elsewhere: false,
    }
}

pub fn failure(step: &str, retryable: bool) -> Failure {
    Failure {
        step: step.parse().expect("a step"),
        reason: Reason::Provider(Provider::VectorStore, Fault::ProviderError),
        message: "Pinecone: answered 500".into(),
        blame: Blame::Call,
        retryable,
        retry_after: None,
    }
}

/// Something that only the operator of the service can fix.
pub fn operator_fault(step: &str) -> Failure {
    Failure {
        reason: Reason::Provider(Provider::VectorStore, Fault::QuotaExceeded),
        blame: Blame::Admin,
        ..failure(step, false)
    }
}

/// A provider that is known to be away, and back in some seconds at best.
pub fn outage(step: &str) -> Failure {
    Failure {
        reason: Reason::Provider(Provider::VectorStore, Fault::Unavailable),
        blame: Blame::Outage,
        retry_after: Some(5),
        ..failure(step, true)
    }
}

/// Whether it is decided to do that now, among others.
pub fn does(decision: &Decision, effect: &Effect) -> bool {
    matches!(decision, Decision::Act(effects) if effects.contains(effect))
}

/// Status and reason of a condition.
pub fn condition(status: &TenantStatus, type_: &str) -> Option<(ConditionStatus, String)> {
    get(&status.conditions, type_).map(|c| (c.status, c.reason.to_string()))
}

pub fn holds(status: &TenantStatus, type_: &str, reason: &str) -> bool {
    condition(status, type_) == Some((ConditionStatus::True, reason.into()))
}

pub fn fails(status: &TenantStatus, type_: &str, reason: &str) -> bool {
    condition(status, type_) == Some((ConditionStatus::False, reason.into()))
}

//! The small world: what each effect does to it, and what may go wrong.

use std::collections::BTreeSet;

use stateright::{Model, Property};
use tenant_operator::api::conditions::is_true;
use tenant_operator::api::plan::{Limits, Models, Money};
use tenant_operator::api::tenant::{Billing, BillingMode, StripeRefs};
use tenant_operator::api::{Phase, PlanSpec, SampleData, SampleDocument, TenantSpec, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    BillingFact, Decision, Effect, Facts, Failure, Input, Notice, Outcome, Policy, RefundFact, SessionFact,
    SessionState, SubscriptionFact, View, decide,
};

use crate::mistakes::Mistake;

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// The controller dies.
    pub crashes: u8,
    /// A call is refused, or done and its answer lost.
    pub faults: u8,
    /// A pass starts from the object as it was before the last write.
    pub stale: u8,
    /// Somebody wipes the status.
    pub wipes: u8,
    /// Somebody deletes the Secret.
    pub secrets: u8,
    /// A Checkout session expires.
    pub expiries: u8,
    /// Somebody mends the broken provider and asks for a retry.
    pub repairs: u8,
    /// Somebody deletes the Tenant.
    pub deletions: u8,
    /// A webhook writes Stripe's ids into the spec: late, repeated, in the middle of a pass.
    pub webhooks: u8,
    /// A pass runs while many other tenants are being provisioned.
    pub rushes: u8,
}

/// A pass of the controller: what it holds in memory, and loses in a crash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pass {
    view: View,
    facts: Facts,
    pending: BTreeSet<Effect>,
    /// Somebody else has written the object since it was read.
    overtaken: bool,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    tenant: View,
    gone: bool,
    before: Option<Box<View>>,
    pass: Option<Box<Pass>>,
    now: i64,
    budget: Budget,
    broken: bool,
    namespace: bool,
    namespaces_made: u8,
    stored: bool,
    visible: bool,
    seen: bool,
    secret: bool,
    customers: u8,
    session: Option<(u32, SessionState)>,
    subscribed: bool,
    settled: bool,
    cancelled: bool,
    paused: bool,
    charges: u8,
    refunds: u8,
    mails: BTreeSet<Notice>,
    transition_lost: bool,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Start,
    StartInRush,
    StartStale,
    Decide,
    Do(Effect),
    Refuse(Effect),
    LoseAnswer(Effect),
    Crash,
    Pay,
    Settle,
    Webhook,
    Propagate,
    Expire,
    WipeStatus,
    DeleteSecret,
    RepairAndRetry,
    Delete,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Small {
    pub mode: BillingMode,
    pub budget: Budget,
    /// Pinecone refuses every upsert until it is mended.
    pub broken: bool,
    pub mistake: Option<Mistake>,
    pub plan: PlanSpec,
    pub policy: Policy,
}

impl Small {
    pub fn new(mode: BillingMode, budget: Budget) -> Self {
        let sample = SampleDocument { id: "sample_1".into(), text: "RAG".into(), metadata: Default::default() };
        let plan = PlanSpec {
            display_name: None,
            stripe_price_id: Some("price_1".into()),
            monthly_price: Money { amount: 1, currency: "usd".into() },
            trial_days: 0,
            limits: Limits::default(),
            features: Vec::new(),
            models: Models::default(),
            region: "here".into(),
            sample_data: SampleData::Required,
            sample_documents: vec![sample],
        };
        let policy = Policy { retry_waits: vec![60], jitter_percent: 0, slow_after: i64::MAX, ..Policy::default() };
        Self { mode, budget, broken: false, mistake: None, plan, policy }
    }

    fn decide(&self, state: &State) -> Decision {
        let Some(pass) = &state.pass else { return Decision::Wait(None) };
        let (mut view, mut facts) = (pass.view.clone(), pass.facts.clone());
        if let Some(mistake) = self.mistake {
            mistake.tamper(&mut view, &mut facts);
        }
        let now = Timestamp::from_second(state.now);
        decide(&Input { tenant: &view, plan: Some(&self.plan), facts: &facts, now, policy: &self.policy })
    }

    /// The controller's next move without any fault.
    fn advance(&self, state: &mut State) -> bool {
        let Some(pass) = &state.pass else {
            state.start(state.tenant.clone());
            return !state.gone;
        };
        if let Some(effect) = pass.pending.iter().find(|e| state.can(e)).cloned() {
            self.perform(state, &effect, true);
            return true;
        }
        if !pass.pending.is_empty() {
            return false;
        }
        match self.decide(state) {
            Decision::Act(effects) => {
                if let Some(pass) = &mut state.pass {
                    pass.pending = effects.into_iter().collect();
                }
                true
            }
            Decision::Record(status) => {
                self.record(state, *status);
                true
            }
            Decision::Wait(_) => {
                state.pass = None;
                // Time passes only while nothing else can.
                if let Some(at) = state.tenant.status.provisioning.as_ref().and_then(|p| p.next_retry_at) {
                    state.now = state.now.max(at.as_second());
                }
                false
            }
        }
    }

    fn record(&self, state: &mut State, status: TenantStatus) {
        let Some(pass) = &mut state.pass else { return };
        if (pass.overtaken || pass.view != state.tenant) && self.mistake != Some(Mistake::StaleWritesAccepted) {
            // Kubernetes refuses the write: the object has changed.
            state.pass = None;
            return;
        }
        pass.facts.recorded();
        pass.view.status = status.clone();
        state.before = Some(Box::new(state.tenant.clone()));
        state.transition_lost |= status.transitions.len() < state.tenant.status.transitions.len();
        state.tenant.status = status;
    }

    /// Does an effect; without an answer the pass learns of a failure.
    fn perform(&self, state: &mut State, effect: &Effect, answered: bool) {
        let Some(pass) = state.pass.clone() else { return };
        // A note of what was sent holds whatever else has changed; every other write needs the object as it was read.
        let fresh = !pass.overtaken && pass.view == state.tenant || matches!(effect, Effect::MarkSent(_));
        if writes_object(effect) {
            if !fresh || state.gone {
                state.pass = None;
                return;
            }
            state.before = Some(Box::new(state.tenant.clone()));
            state.write_object(effect);
            if answered && !state.gone {
                let tenant = state.tenant.clone();
                state.learn(effect, Outcome::Done);
                if let Some(pass) = &mut state.pass {
                    (pass.view, pass.overtaken) = (tenant, false);
                }
            } else {
                state.pass = None;
            }
            return;
        }
        let outcome = if Self::broken_call(state, effect) { failure() } else { self.change(state, &pass, effect) };
        state.learn(effect, if answered { outcome } else { failure() });
    }

    fn broken_call(state: &State, effect: &Effect) -> bool {
        state.broken && *effect == Effect::StoreSamples
    }

    fn change(&self, state: &mut State, pass: &Pass, effect: &Effect) -> Outcome {
        let repeated = self.mistake == Some(Mistake::NewKeyEachTime);
        match effect {
            Effect::ReadBilling => return Outcome::Billing(state.billing()),
            Effect::OpenCheckout { attempt } => {
                if state.customers == 0 || repeated {
                    state.customers += 1;
                }
                if state.session.is_none_or(|(made, _)| made < *attempt) {
                    state.session = Some((*attempt, SessionState::Open));
                }
                return Outcome::Billing(state.billing());
            }
            Effect::EnsureNamespace if !state.namespace => {
                state.namespace = true;
                state.namespaces_made += 1;
            }
            Effect::EnsureApiKey => state.secret = true,
            Effect::StoreSamples => state.stored = true,
            Effect::VerifySamples => state.seen = true,
            Effect::Notify(notice) => {
                state.mails.insert(notice.clone());
            }
            Effect::Refund => {
                // Stripe itself refuses a second refund of a charge.
                state.refunds = state.charges;
                return Outcome::Refunded(RefundFact { amount: i64::from(state.refunds), currency: None });
            }
            Effect::PauseCollection => {
                state.paused = pass.facts.billing.as_ref().is_some_and(|b| b.subscription.is_some());
            }
            Effect::ResumeCollection => state.paused = false,
            Effect::CancelBilling => {
                state.cancelled = true;
                if let Some((_, session @ SessionState::Open)) = &mut state.session {
                    *session = SessionState::Expired;
                }
            }
            Effect::DeleteNamespace => (state.namespace, state.stored, state.visible) = (false, false, false),
            Effect::DeleteSecrets => state.secret = false,
            _ => {}
        }
        Outcome::Done
    }

    /// From here on nothing goes wrong and the customer pays: where does it end, and does it stay there?
    fn converges(&self, state: &State) -> bool {
        let mut s = state.clone();
        let (mut quiet, mut steps) = (0, 0);
        for _ in 0..400 {
            let before = (s.tenant.clone(), s.now);
            while self.advance(&mut s) {
                steps += 1;
                if steps > 1000 {
                    return false;
                }
            }
            s.environment();
            quiet = if (s.tenant.clone(), s.now) == before { quiet + 1 } else { 0 };
            if quiet == 3 {
                return self.desired(&s);
            }
        }
        false
    }

    fn desired(&self, s: &State) -> bool {
        if s.gone {
            let billing = self.mode == BillingMode::Manual || !s.subscribed || s.cancelled;
            return billing && !s.namespace && !s.secret;
        }
        match s.tenant.status.phase {
            Some(Phase::Active) => {
                let parts = s.namespace && s.stored && s.secret && !s.paused;
                let told =
                    s.mails.contains(&Notice::Welcome) && is_true(&s.tenant.status.conditions, "WelcomeEmailSent");
                parts && told && is_true(&s.tenant.status.conditions, "Ready")
            }
            Some(Phase::Failed) => {
                let paid = self.mode == BillingMode::Manual || (s.refunds == s.charges && s.paused);
                let told = s.mails.iter().any(|m| matches!(m, Notice::FailedMail(_)));
                paid && told && is_true(&s.tenant.status.conditions, "Stalled")
            }
            _ => false,
        }
    }
}

fn failure() -> Outcome {
    Outcome::Failed(Failure {
        step: "SampleData".into(),
        reason: "Injected".into(),
        message: "injected".into(),
        retryable: true,
        retry_after: None,
    })
}

fn writes_object(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::AssignIdentity
            | Effect::NextCheckout { .. }
            | Effect::StoreStripeIds { .. }
            | Effect::MarkSent(_)
            | Effect::RemoveFinalizer
            | Effect::DeleteTenant
    )
}

impl State {
    fn start(&mut self, view: View) {
        if !self.gone {
            let facts = Facts { api_key: Some(self.secret), ..Facts::default() };
            self.pass = Some(Box::new(Pass { view, facts, pending: BTreeSet::new(), overtaken: false }));
        }
    }

    fn learn(&mut self, effect: &Effect, outcome: Outcome) {
        if let Some(pass) = &mut self.pass {
            pass.pending.remove(effect);
            pass.facts.learn(effect, outcome);
        }
    }

    /// A query for the samples waits until they can be seen.
    fn can(&self, effect: &Effect) -> bool {
        *effect != Effect::VerifySamples || self.visible
    }

    fn write_object(&mut self, effect: &Effect) {
        let tenant = &mut self.tenant;
        let refs = |t: &mut View| -> StripeRefs { t.spec.billing.stripe.clone().unwrap_or_default() };
        match effect {
            Effect::AssignIdentity => {
                (tenant.finalizer, tenant.labelled) = (true, true);
                tenant.spec.tenant_id = Some("t".into());
            }
            Effect::NextCheckout { attempt } => {
                tenant.spec.billing.stripe = Some(StripeRefs { checkout_attempt: Some(*attempt), ..refs(tenant) });
            }
            Effect::StoreStripeIds { customer, subscription } => {
                tenant.spec.billing.stripe = Some(StripeRefs {
                    customer_id: Some(customer.clone()),
                    subscription_id: Some(subscription.clone()),
                    ..refs(tenant)
                });
            }
            Effect::MarkSent(sent) => tenant.sent.extend(sent.iter().map(Notice::key)),
            Effect::RemoveFinalizer => self.gone = true,
            _ => tenant.deleting = true,
        }
    }

    fn billing(&self) -> BillingFact {
        let subscription = self.subscribed.then(|| SubscriptionFact {
            id: "sub_1".into(),
            status: match (self.cancelled, self.settled) {
                (true, _) => "canceled",
                (_, true) => "active",
                _ => "incomplete",
            }
            .into(),
            payment_method: true,
            paused: self.paused,
            trial_ends_at: None,
        });
        let session = self.session.map(|(attempt, state)| SessionFact {
            id: format!("cs_{attempt}"),
            url: Some("https://pay".into()),
            state,
            expires_at: Timestamp::from_second(0),
            attempt,
        });
        BillingFact { customer_id: (self.customers > 0).then(|| "cus_1".into()), subscription, session }
    }

    fn pay(&mut self) {
        if let Some((_, session @ SessionState::Open)) = &mut self.session {
            *session = SessionState::Complete;
            self.subscribed = true;
        }
    }

    /// The bank says yes, some time after Checkout is complete.
    fn settle(&mut self) {
        if self.subscribed && !self.settled && !self.cancelled {
            self.settled = true;
            self.charges += 1;
        }
    }

    /// Web tells the Tenant of the ids, as a hint.
    fn webhook(&mut self) {
        let before = self.tenant.spec.billing.stripe.clone().unwrap_or_default();
        self.tenant.spec.billing.stripe =
            Some(StripeRefs { customer_id: Some("cus_1".into()), subscription_id: Some("sub_1".into()), ..before });
        self.overtake();
    }

    /// Somebody other than the controller has written the object.
    fn overtake(&mut self) {
        if let Some(pass) = &mut self.pass {
            pass.overtaken = true;
        }
    }

    fn environment(&mut self) {
        self.pay();
        self.settle();
        self.visible |= self.stored;
    }
}

impl Model for Small {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let spec = TenantSpec {
            company_name: "A".into(),
            admin_email: "a@b.cd".into(),
            plan: "p".into(),
            billing: Billing { mode: self.mode, approved: true, stripe: None },
            tenant_id: None,
            login: None,
            terms: None,
            api_key_generation: 1,
        };
        let tenant = View {
            name: "t".into(),
            uid: "t".into(),
            generation: Some(1),
            created_at: Timestamp::from_second(0),
            deleting: false,
            finalizer: false,
            labelled: false,
            retry_token: None,
            force_delete: false,
            sent: BTreeSet::new(),
            spec,
            status: TenantStatus::default(),
        };
        vec![State {
            tenant,
            gone: false,
            before: None,
            pass: None,
            now: 1_000_000,
            budget: self.budget,
            broken: self.broken,
            namespace: false,
            namespaces_made: 0,
            stored: false,
            visible: false,
            seen: false,
            secret: false,
            customers: 0,
            session: None,
            subscribed: false,
            settled: false,
            cancelled: false,
            paused: false,
            charges: 0,
            refunds: 0,
            mails: BTreeSet::new(),
            transition_lost: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        if s.gone {
            return;
        }
        let mut may = |left: u8, action: Action| {
            if left > 0 {
                actions.push(action);
            }
        };
        let b = s.budget;
        may(u8::from(matches!(s.session, Some((_, SessionState::Open)))), Action::Pay);
        may(u8::from(s.subscribed && !s.settled && !s.cancelled), Action::Settle);
        may(b.webhooks * u8::from(s.subscribed), Action::Webhook);
        may(u8::from(s.stored && !s.visible), Action::Propagate);
        may(b.expiries * u8::from(matches!(s.session, Some((_, SessionState::Open)))), Action::Expire);
        may(b.wipes * u8::from(s.tenant.status.phase.is_some() && !s.tenant.deleting), Action::WipeStatus);
        may(b.secrets * u8::from(s.secret), Action::DeleteSecret);
        may(b.repairs * u8::from(s.tenant.status.phase == Some(Phase::Failed)), Action::RepairAndRetry);
        may(b.deletions * u8::from(!s.tenant.deleting), Action::Delete);
        match &s.pass {
            None => {
                may(1, Action::Start);
                may(b.rushes, Action::StartInRush);
                may(b.stale * u8::from(s.before.is_some()), Action::StartStale);
            }
            Some(pass) => {
                may(b.crashes, Action::Crash);
                if pass.pending.is_empty() {
                    may(1, Action::Decide);
                }
                for effect in pass.pending.iter().filter(|e| s.can(e)) {
                    may(1, Action::Do(effect.clone()));
                    may(b.faults, Action::LoseAnswer(effect.clone()));
                    may(b.faults * u8::from(!writes_object(effect)), Action::Refuse(effect.clone()));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        match action {
            Action::Start => s.start(s.tenant.clone()),
            Action::StartInRush => {
                s.budget.rushes -= 1;
                s.start(s.tenant.clone());
                s.pass.as_mut()?.facts.busy = true;
            }
            Action::StartStale => {
                s.budget.stale -= 1;
                let view = s.before.clone()?;
                s.start(*view);
            }
            Action::Decide => {
                self.advance(&mut s);
            }
            Action::Do(effect) => self.perform(&mut s, &effect, true),
            Action::LoseAnswer(effect) => {
                s.budget.faults -= 1;
                self.perform(&mut s, &effect, false);
            }
            Action::Refuse(effect) => {
                s.budget.faults -= 1;
                s.learn(&effect, failure());
            }
            Action::Crash => {
                s.budget.crashes -= 1;
                s.pass = None;
            }
            Action::Pay => s.pay(),
            Action::Settle => s.settle(),
            Action::Webhook => {
                s.budget.webhooks -= 1;
                s.webhook();
            }
            Action::Propagate => s.visible = true,
            Action::Expire => {
                s.budget.expiries -= 1;
                s.session = s.session.map(|(attempt, _)| (attempt, SessionState::Expired));
            }
            Action::WipeStatus => {
                s.budget.wipes -= 1;
                s.tenant.status = TenantStatus::default();
                s.overtake();
            }
            Action::DeleteSecret => {
                s.budget.secrets -= 1;
                s.secret = false;
            }
            Action::RepairAndRetry => {
                s.budget.repairs -= 1;
                s.broken = false;
                s.tenant.retry_token = Some("again".into());
                s.overtake();
            }
            Action::Delete => {
                s.budget.deletions -= 1;
                if s.tenant.finalizer {
                    s.tenant.deleting = true;
                } else {
                    s.gone = true;
                }
                s.overtake();
                s.pass = s.pass.filter(|_| !s.gone);
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one customer, one charge, one refund, one namespace", |_, s: &State| {
                s.customers <= 1 && s.charges <= 1 && s.refunds <= s.charges && s.namespaces_made <= 1
            }),
            Property::always("one welcome e-mail", |_, s: &State| {
                s.mails.iter().filter(|m| **m == Notice::Welcome).count() <= 1
            }),
            Property::always("Active only after the samples were seen", |_, s: &State| {
                s.tenant.status.phase != Some(Phase::Active) || s.seen
            }),
            Property::always("each phase change once, in order", |_, s: &State| {
                !s.transition_lost && in_order(&s.tenant.status)
            }),
            Property::always("eventually stable reconciliation", |model: &Self, s: &State| model.converges(s)),
            Property::sometimes("Active is reached", |_, s: &State| {
                s.tenant.status.phase == Some(Phase::Active) || s.broken || s.budget.repairs > 0
            }),
        ]
    }
}

fn in_order(status: &TenantStatus) -> bool {
    let mut before = None;
    let mut seq = 0;
    for t in &status.transitions {
        if t.from_state != before || t.seq <= seq || Some(t.to_state) == before {
            return false;
        }
        (before, seq) = (Some(t.to_state), t.seq);
    }
    before == status.phase
}

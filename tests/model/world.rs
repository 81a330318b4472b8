//! The small world, and what each effect of the controller does to it.

mod beside;
mod explore;
mod stable;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use tenant_operator::api::plan::{LimitChanges, Limits, Models, Money};
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{Phase, PlanSpec, SampleData, SampleDocument, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Blame, Decision, Effect, Failure, Fault, Found, Input, Notice, Observed, ObservedRefund, Outcome, Policy,
    Proration, Provider, Reason, SessionState, Step, Stored, View, decide, may_merge, may_precede,
};

use self::beside::Beside;
use crate::converged::Converged;
use crate::mistakes::Mistake;

/// The names of the plans.
pub const SMALLER: &str = "p";
pub const LARGER: &str = "q";
/// When the first period ends, some time after the beginning of the world.
pub const PERIOD_END: i64 = 2_000_000;
/// When customers close their accounts, as far as it is written down. They come back a second later.
pub const CLOSED: i64 = 1;
/// How long the data of a customer who leaves is kept, in seconds.
const RETENTION: i64 = 30 * 24 * 3600;

/// How long the files of an export are kept, in seconds.
const EXPORTS_KEPT: i64 = 7 * 24 * 3600;

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// The controller dies.
    pub crashes: u8,
    /// A call is refused, or done and its answer lost.
    pub faults: u8,
    /// A reconcile starts from the object as it was before the last write.
    pub stale: u8,
    /// The status is wiped.
    pub wipes: u8,
    /// The Secret is deleted.
    pub secrets: u8,
    /// A Checkout session expires.
    pub expiries: u8,
    /// An admin fixes the broken provider and asks for a retry.
    pub repairs: u8,
    /// An admin deletes the Tenant.
    pub deletions: u8,
    /// A webhook writes Stripe's ids into the spec: late, repeated, in the middle of a reconcile.
    pub webhooks: u8,
    /// An admin deletes the Tenant without the intent to erase the customer.
    pub accidents: u8,
    /// Stripe ends the subscription of an Active tenant.
    pub lapses: u8,
    /// An admin suspends the tenant, and may resume it.
    pub suspensions: u8,
    /// The customer asks for the other plan: the larger one, or back.
    pub wishes: u8,
    /// The customer's card is declined from then on.
    pub declines: u8,
    /// The customer switches to the larger plan at Stripe, where it is charged.
    pub switches: u8,
    /// The customer leaves, and may come back before the erasure.
    pub leavings: u8,
    /// The customer asks for an export.
    pub exports: u8,
    /// A reconcile runs while many other tenants are being provisioned.
    pub overloads: u8,
    /// Effects take so long that a status which is held is written meanwhile.
    pub slow: u8,
    /// The clock of the controller's machine jumps by a year.
    pub jumps: u8,
    /// The customer replaces the API key.
    pub keys: u8,
    /// The controller starts again with a key of another Stripe account.
    pub strangers: u8,
    /// Pinecone refuses every upsert once the tenant was served, until it is back.
    pub breaks: u8,
}

/// A reconcile of the controller: what it holds in memory, and loses in a crash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reconcile {
    view: View,
    observed: Observed,
    pending: BTreeSet<Effect>,
    /// Another writer has changed the object since it was read.
    overtaken: bool,
    /// The status as it is at the API server, while the view has one that is held.
    last: Option<Box<TenantStatus>>,
}

impl Reconcile {
    /// Whether the object is still as it was read.
    fn fresh(&self, tenant: &View) -> bool {
        let Some(last) = &self.last else { return !self.overtaken && self.view == *tenant };
        !self.overtaken
            && **last == tenant.status
            && self.view == View { status: self.view.status.clone(), ..tenant.clone() }
    }
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    tenant: View,
    gone: bool,
    before: Option<Box<View>>,
    reconcile: Option<Box<Reconcile>>,
    /// By the API server's clock.
    now: i64,
    /// Seconds by which the controller's machine is ahead of it.
    ahead: i64,
    budget: Budget,
    broken: bool,
    namespace: bool,
    namespaces_made: u8,
    stored: bool,
    visible: bool,
    seen: bool,
    secret: bool,
    /// The generation of the key in the Secret.
    key: u32,
    customers: u8,
    session: Option<(u32, SessionState)>,
    subscribed: bool,
    /// Subscriptions that ended, each followed by another.
    ended: u8,
    settled: bool,
    cancelled: bool,
    paused: bool,
    charges: u8,
    /// The plan that Stripe bills.
    billed: &'static str,
    /// The plan that Stripe keeps as the one in force until the period ends.
    billed_before: Option<&'static str>,
    /// The plan that was last in force.
    in_force: Option<String>,
    /// The larger plan was in force.
    had_larger: bool,
    /// A lost status has put another plan in force.
    plan_lost: bool,
    /// How often the larger plan was charged.
    upgrades: u8,
    declined: bool,
    /// The subscription ends with its period.
    ends: bool,
    /// When the tenant was closed.
    closed_at: Option<i64>,
    /// Stripe's customer was deleted.
    customer_gone: bool,
    refunds: u8,
    /// How often each was really sent.
    sent: BTreeMap<Notice, u8>,
    /// The bulk resync saw a difference.
    hint: bool,
    transition_lost: bool,
    /// Something of a customer was erased without the wish to.
    erased: bool,
    /// The key is of an account that does not know the tenant.
    stranger: bool,
    /// The tenant was suspended for that.
    misjudged: bool,
    beside: Beside,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Start,
    StartOverloaded,
    StartStale,
    Decide,
    /// The effects take long enough for a status that is held to be written.
    WriteHeld,
    Do(Effect),
    Refuse(Effect),
    LoseAnswer(Effect),
    Crash,
    Pay,
    Settle,
    Confirm,
    Lapse,
    Suspend,
    Resume,
    Wish,
    Decline,
    SwitchAtStripe,
    Leave,
    TakeBack,
    Webhook,
    Propagate,
    Expire,
    WipeStatus,
    DeleteSecret,
    RepairAndRetry,
    Delete,
    DeleteByAccident,
    AskExport,
    ExportGoesOn,
    ExportEnds,
    ClockJumps(i64),
    ReplaceKey,
    Estrange,
    Break,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Small {
    pub mode: BillingMode,
    /// The tenant signed up on a page, and has to confirm the e-mail address.
    pub login: bool,
    /// The deletion of the object is meant to erase the customer.
    pub erase: bool,
    pub budget: Budget,
    /// Transitions are shipped to an event store.
    pub outbox: bool,
    /// Pinecone refuses every upsert until it is fixed.
    pub broken: bool,
    /// No mail server takes the welcome.
    pub mute: bool,
    pub mistake: Option<Mistake>,
    pub plan: PlanSpec,
    /// Larger and dearer than `plan`.
    pub larger: PlanSpec,
    pub policy: Policy,
    pub converged: Converged,
}

impl Small {
    /// With an event store, which may be full or away.
    pub fn shipping(mode: BillingMode, budget: Budget) -> Self {
        let small = Self::new(mode, budget);
        Self { outbox: true, policy: Policy { outbox: true, ..small.policy }, ..small }
    }

    pub fn new(mode: BillingMode, budget: Budget) -> Self {
        let sample = SampleDocument { id: "sample_1".into(), text: "RAG".into(), metadata: Default::default() };
        let plan = PlanSpec {
            usage_prices: Vec::new(),
            display_name: None,
            stripe_price_id: Some("price_1".into()),
            monthly_price: Money { amount: 1, currency: "usd".into() },
            trial_days: 0,
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
            region: "here".into(),
            sample_data: SampleData::Required,
            sample_question: "What is RAG?".into(),
            sample_documents: vec![sample],
        };
        let larger = PlanSpec {
            stripe_price_id: Some("price_2".into()),
            monthly_price: Money { amount: 2, currency: "usd".into() },
            ..plan.clone()
        };
        let policy = Policy {
            upload_limit: 0,
            retry_waits: vec![60],
            jitter_percent: 0,
            slow_after: i64::MAX,
            outbox: false,
            exports_kept: (budget.exports > 0).then_some(EXPORTS_KEPT),
            ..Policy::default()
        };
        Self {
            mode,
            login: false,
            outbox: false,
            erase: budget.accidents == 0,
            budget,
            broken: false,
            mute: false,
            mistake: None,
            plan,
            larger,
            policy,
            converged: Converged::default(),
        }
    }

    fn decide(&self, state: &State) -> Decision {
        let Some(reconcile) = &state.reconcile else { return Decision::Wait(None) };
        let (mut view, mut observed) = (reconcile.view.clone(), reconcile.observed.clone());
        if let Some(mistake) = self.mistake {
            mistake.tamper(&mut view, &mut observed);
        }
        let (now, own) = (Timestamp::from_second(state.now), Timestamp::from_second(state.now + state.ahead));
        let believed = self.mistake == Some(Mistake::OwnClockBelieved);
        let (now, earliest) = if believed { (own, own) } else { (now, now.min(own)) };
        let plan = |name: &str| Some(if name == LARGER { &self.larger } else { &self.plan });
        let (plan, wanted) = (plan(view.plan_in_force()), plan(&view.spec.plan));
        let input = Input { tenant: &view, plan, wanted, observed: &observed, now, earliest, policy: &self.policy };
        let decision = decide(&input);
        self.mistake.map_or(decision.clone(), |mistake| mistake.distort(&reconcile.view, decision))
    }

    /// The controller's next move without any fault.
    fn advance(&self, state: &mut State) -> bool {
        let Some(reconcile) = &state.reconcile else {
            state.start(state.tenant.clone());
            return !state.gone;
        };
        if let Some(effect) = reconcile.pending.iter().find(|e| self.can(state, e)).cloned() {
            self.perform(state, &effect, true);
            return true;
        }
        if !reconcile.pending.is_empty() {
            return false;
        }
        match self.decide(state) {
            Decision::Wait(_) if reconcile.last.is_some() => self.write_held(state),
            Decision::Act(effects)
                if reconcile.last.is_some()
                    && !may_precede(&effects)
                    && self.mistake != Some(Mistake::HeldOvertaken) =>
            {
                self.write_held(state)
            }
            Decision::Act(effects) => {
                if let Some(reconcile) = &mut state.reconcile {
                    reconcile.pending = effects.into_iter().collect();
                }
                true
            }
            Decision::Record(status) => {
                // Every fact that a condition shows is in its field.
                assert_eq!((*status).clone().with_facts_of_conditions(), *status);
                if reconcile.last.is_none() && may_merge(&reconcile.view.status, &status) {
                    state.hold(*status);
                } else {
                    self.record(state, *status);
                }
                true
            }
            Decision::Wait(_) => {
                state.hint &= reconcile.observed.billing.is_none();
                state.reconcile = None;
                // Time reconciles only while nothing else can.
                if let Some(at) = state.tenant.status.provisioning.as_ref().and_then(|p| p.next_retry_at) {
                    state.now = state.now.max(at.as_second());
                }
                if let Some(at) = Beside::due(&state.tenant.status) {
                    state.now = state.now.max(at.as_second());
                }
                if let Some(at) = state.tenant.status.erases_at {
                    state.pass(at.as_second());
                }
                if let Some(at) = state.tenant.status.plan_change.as_ref().and_then(|c| c.effective_at) {
                    state.now = state.now.max(at.as_second());
                }
                false
            }
        }
    }

    /// Effects take so long that the held status is written meanwhile.
    fn write_while_busy(&self, state: &mut State) {
        state.budget.slow -= 1;
        self.write_held(state);
    }

    fn write_held(&self, state: &mut State) -> bool {
        if let Some(status) = state.reconcile.as_ref().map(|reconcile| reconcile.view.status.clone()) {
            self.write(state, status);
        }
        true
    }

    fn record(&self, state: &mut State, status: TenantStatus) {
        if let Some(reconcile) = &mut state.reconcile {
            reconcile.observed.recorded(&reconcile.view.status, &status);
        }
        self.write(state, status);
    }

    fn write(&self, state: &mut State, status: TenantStatus) {
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

    /// Does an effect; without an answer the reconcile learns of a failure.
    fn perform(&self, state: &mut State, effect: &Effect, answered: bool) {
        let Some(reconcile) = state.reconcile.clone() else { return };
        // A note of what was sent is written even if the object has changed; every other write needs the object as it
        // was read.
        let fresh = reconcile.fresh(&state.tenant) || matches!(effect, Effect::MarkSent(_));
        if writes_object(effect) {
            if !fresh || state.gone {
                state.reconcile = None;
                return;
            }
            state.before = Some(Box::new(state.tenant.clone()));
            state.write_object(effect);
            if state.gone && self.outbox {
                state.beside.gone(&state.tenant.status);
            }
            if answered && !state.gone {
                let tenant = state.tenant.clone();
                state.learn(effect, Outcome::Done);
                let right = state.has_key();
                if let Some(reconcile) = &mut state.reconcile {
                    // Perhaps with the wish for another key.
                    reconcile.observed.api_key = reconcile.observed.api_key.map(|there| there && right);
                    (reconcile.view, reconcile.overtaken) = (tenant, false);
                }
            } else {
                state.reconcile = None;
            }
            return;
        }
        let outcome = if self.broken_call(state, effect) { failure() } else { self.change(state, &reconcile, effect) };
        state.learn(effect, if answered { outcome } else { failure() });
    }

    /// A query for the samples waits until they are visible. In a world with an event store it may come earlier, and is
    /// repeated.
    fn can(&self, state: &State, effect: &Effect) -> bool {
        *effect != Effect::VerifySamples || state.visible || self.outbox
    }

    fn broken_call(&self, state: &State, effect: &Effect) -> bool {
        (state.broken && *effect == Effect::StoreSamples) || (self.mute && *effect == Effect::Notify(Notice::Welcome))
    }

    fn switch_price(&self, state: &mut State, plan: &str, proration: Proration) -> Outcome {
        let wanted = if plan == LARGER { LARGER } else { SMALLER };
        let charged = proration == Proration::ChargeNow;
        if charged && state.declined {
            return Outcome::Failed(declined());
        }
        if charged && (state.billed != wanted || self.mistake == Some(Mistake::ChargedBlindly)) {
            state.upgrades = state.upgrades.saturating_add(1);
        }
        state.billed_before = (proration == Proration::AtPeriodEnd && state.billed != wanted).then_some(state.billed);
        state.billed = wanted;
        Outcome::Billing(state.billing().into())
    }

    fn change(&self, state: &mut State, reconcile: &Reconcile, effect: &Effect) -> Outcome {
        if state.stranger && calls_stripe(effect) {
            let believed = self.mistake == Some(Mistake::UnknownCountsAsDeleted) && *effect == Effect::ReadBilling;
            return if believed { Outcome::Billing(Box::default()) } else { Outcome::Failed(unknown()) };
        }
        let repeated = self.mistake == Some(Mistake::NewKeyEachTime);
        let customer = state.had_something();
        let erases = matches!(
            effect,
            Effect::DeleteNamespace | Effect::CancelBilling | Effect::DeleteSecrets | Effect::EraseBilling
        );
        // The wish to leave, once its day has come.
        let due = state.closed_at.is_some_and(|at| at + RETENTION <= state.now);
        state.erased |= erases && customer && !state.tenant.erase && !due;
        match effect {
            Effect::ReadBilling => return Outcome::Billing(state.billing().into()),
            Effect::OpenCheckout { attempt } => {
                if state.customers == 0 || repeated {
                    state.customers = state.customers.saturating_add(1);
                }
                state.customer_gone = false;
                if state.session.is_none_or(|(made, _)| made < *attempt) {
                    state.session = Some((*attempt, SessionState::Open));
                }
                return Outcome::Billing(state.billing().into());
            }
            Effect::EnsureNamespace if !state.namespace => {
                state.namespace = true;
                state.namespaces_made = state.namespaces_made.saturating_add(1);
            }
            Effect::EnsureApiKey => {
                (state.secret, state.key) = (true, reconcile.view.spec.api_key_generation);
            }
            Effect::StoreSamples => state.stored = true,
            Effect::VerifySamples if !state.visible => return Outcome::NotYet,
            Effect::VerifySamples => state.seen = true,
            Effect::Notify(notice) => {
                let count = state.sent.entry(notice.clone()).or_default();
                *count = count.saturating_add(1);
            }
            Effect::Refund => {
                // The controller looks at the refunds first, so it refunds no charge twice.
                if state.refunds < state.charges || self.mistake == Some(Mistake::RefundedBlindly) {
                    state.refunds = state.refunds.saturating_add(1);
                }
                return Outcome::Refunded(ObservedRefund {
                    amount: i64::from(state.refunds),
                    ..ObservedRefund::default()
                });
            }
            Effect::SwitchPrice { plan, proration } => return self.switch_price(state, plan, *proration),
            // Stripe refuses to change a subscription that is over.
            Effect::PauseCollection
            | Effect::ResumeCollection
            | Effect::CollectAnew
            | Effect::RenewAgain
            | Effect::ForgetClosing
                if state.subscribed && state.cancelled =>
            {
                return failure();
            }
            Effect::PauseCollection => {
                state.paused = reconcile.observed.billing.as_ref().is_some_and(|b| b.subscription.is_some());
            }
            Effect::ResumeCollection => state.paused = false,
            Effect::CollectAnew => {
                // The controller looks at the charges first, so it begins collection once.
                let given_back = state.paused && state.refunds == state.charges;
                state.charges = state.charges.saturating_add(u8::from(given_back));
                state.paused = false;
            }
            Effect::ExpireCheckout => state.expire_checkout(),
            Effect::StopRenewal => {
                state.ends |= state.subscribed && state.settled && !state.cancelled;
                state.cancelled |= state.subscribed && !state.settled;
                state.expire_checkout();
            }
            Effect::RenewAgain => state.ends = false,
            Effect::CountHoldings => return Outcome::Holdings(state.holdings()),
            Effect::CountStored => return Outcome::Stored(Stored::Counted { documents: 0, bytes: 0 }),
            Effect::EraseBilling => {
                (state.cancelled, state.customer_gone) = (true, true);
                state.expire_checkout();
            }
            Effect::CancelBilling => {
                state.cancelled = true;
                state.expire_checkout();
            }
            Effect::DeleteNamespace => {
                (state.namespace, state.stored, state.visible, state.namespaces_made) = (false, false, false, 0);
            }
            Effect::FindData => {
                let there = Found { generation: 1, vectors: u64::from(state.stored), documents: false };
                return Outcome::Found(state.namespace.then_some(there).into_iter().collect());
            }
            Effect::DeleteSecrets => state.secret = false,
            Effect::ShipTransitions => return state.beside.ship(&reconcile.view),
            Effect::Export => return state.beside.export(),
            Effect::DeleteExports => state.beside.delete_exports(self.mistake),
            _ => {}
        }
        Outcome::Done
    }
}

fn injected() -> Failure {
    Failure {
        step: Step::SampleData,
        reason: Reason::Provider(Provider::Models, Fault::ProviderError),
        message: "injected".into(),
        blame: Blame::Call,
        retryable: true,
        retry_after: None,
    }
}

fn failure() -> Outcome {
    Outcome::Failed(injected())
}

/// What Stripe says of a card that is declined.
fn declined() -> Failure {
    Failure { step: Step::Billing, retryable: false, ..injected() }
}

/// What the operator makes of an account that does not know its tenants.
fn unknown() -> Failure {
    Failure {
        step: Step::Billing,
        reason: Reason::Provider(Provider::Stripe, Fault::AccountMismatch),
        blame: Blame::Mismatch,
        ..injected()
    }
}

fn calls_stripe(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::ReadBilling
            | Effect::OpenCheckout { .. }
            | Effect::SwitchPrice { .. }
            | Effect::Refund
            | Effect::PauseCollection
            | Effect::ResumeCollection
            | Effect::CollectAnew
            | Effect::UpdateCustomer
            | Effect::ExpireCheckout
            | Effect::StopRenewal
            | Effect::RenewAgain
            | Effect::ForgetClosing
            | Effect::EraseBilling
            | Effect::CancelBilling
            | Effect::CountHoldings
    )
}

fn writes_object(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::AssignIdentity { .. }
            | Effect::NextCheckout { .. }
            | Effect::StoreStripeIds { .. }
            | Effect::FollowPaidPlan { .. }
            | Effect::RecordPlan { .. }
            | Effect::MarkSent(_)
            | Effect::EraseIdentity
            | Effect::RemoveFinalizer
            | Effect::DeleteTenant
    )
}

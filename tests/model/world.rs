//! The small world, and what the controller does in it without any fault.

mod beside;
mod effects;
mod explore;
mod stable;
mod state;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use tenant_operator::api::plan::{LimitChanges, Limits, Models, Money};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{PlanSpec, SampleData, SampleDocument, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Decision, Effect, Input, Notice, Observed, Policy, SessionState, View, decide, may_merge, may_precede,
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
}

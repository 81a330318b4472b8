//! The world as stateright explores it: the beginnings, what may happen next, and what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};
use tenant_operator::api::tenant::{Billing, BillingMode, Desired, Login, Wish};
use tenant_operator::api::{Phase, TenantSpec, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{Notice, View};

use super::beside::Beside;
use super::effects::{failure, writes_object};
use super::{Action, CLOSED, LARGER, PERIOD_END, SMALLER, SessionState, Small, State};

const YEAR: i64 = 365 * 24 * 3600;
/// One more than the retries of the policy, and the first of those without limit.
const MOST_ATTEMPTS: u32 = 3;

impl Model for Small {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let spec = TenantSpec {
            export_request: None,
            wish: None,
            suspension: None,
            plan_in_force: None,
            data: None,
            deletion_policy: None,
            company_name: "A".into(),
            admin_email: "a@b.cd".into(),
            plan: SMALLER.into(),
            billing: Billing { mode: self.mode, approved: true, stripe: None },
            tenant_id: None,
            login: self.login.then(|| Login { secret_name: "t-login".into() }),
            terms: None,
            desired: Default::default(),
            settings: Default::default(),
            api_key_generation: 1,
        };
        let tenant = View {
            namespace: "n".into(),
            name: "t".into(),
            uid: "t".into(),
            generation: Some(1),
            created_at: Timestamp::from_second(1_000_000),
            deleting: false,
            finalizer: false,
            credentials: Default::default(),
            retry_token: None,
            force_delete: false,
            erase: self.erase,
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
            status: TenantStatus::default(),
        };
        vec![State {
            tenant,
            gone: false,
            before: None,
            reconcile: None,
            now: 1_000_000,
            ahead: 0,
            budget: self.budget,
            broken: self.broken,
            namespace: false,
            namespaces_made: 0,
            stored: false,
            visible: false,
            seen: false,
            secret: false,
            key: 0,
            customers: 0,
            session: None,
            subscribed: false,
            ended: 0,
            settled: false,
            cancelled: false,
            paused: false,
            charges: 0,
            billed: SMALLER,
            billed_before: None,
            in_force: None,
            had_larger: false,
            plan_lost: false,
            upgrades: 0,
            declined: false,
            ends: false,
            closed_at: None,
            customer_gone: false,
            refunds: 0,
            sent: BTreeMap::new(),
            hint: false,
            transition_lost: false,
            erased: false,
            stranger: false,
            misjudged: false,
            beside: Beside::default(),
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
        may(u8::from(self.login && !s.tenant.email_verified && s.told_to_confirm()), Action::Confirm);
        may(b.repairs * u8::from(s.tenant.status.phase == Some(Phase::Failed)), Action::RepairAndRetry);
        let active = s.tenant.status.phase == Some(Phase::Active);
        let suspended = s.tenant.spec.is_suspended();
        let resumable =
            suspended && s.tenant.spec.desired != Desired::Deleted && b.suspensions < self.budget.suspensions;
        let paid_for = matches!(s.tenant.status.phase, Some(Phase::Provisioning | Phase::Active | Phase::Failed));
        may(b.lapses * u8::from(paid_for && s.settled && !s.cancelled), Action::Lapse);
        may(b.breaks * u8::from(s.served() && !s.broken), Action::Break);
        may(b.suspensions * u8::from(!suspended), Action::Suspend);
        may(u8::from(resumable), Action::Resume);
        // In other phases the API server refuses it.
        may(b.wishes * u8::from(active), Action::Wish);
        may(b.declines * u8::from(!s.declined), Action::Decline);
        let settled = s.settled && !s.cancelled && s.tenant.status.plan_change.is_none();
        may(b.switches * u8::from(active && settled && s.billed == SMALLER), Action::SwitchAtStripe);
        let leaves = s.tenant.spec.desired == Desired::Deleted;
        may(b.leavings * u8::from(!leaves), Action::Leave);
        // Once the erasure has begun, the API server refuses it.
        may(u8::from(leaves && s.tenant.status.erasure.is_none()), Action::TakeBack);
        may(b.deletions * u8::from(!s.tenant.deleting), Action::Delete);
        may(b.accidents * u8::from(!s.tenant.deleting), Action::DeleteByAccident);
        may(b.exports, Action::AskExport);
        may(b.keys * u8::from(active), Action::ReplaceKey);
        may(b.strangers, Action::Estrange);
        may(b.jumps, Action::ClockJumps(YEAR));
        may(b.jumps, Action::ClockJumps(-YEAR));
        may(u8::from(s.beside.task.running && !s.beside.files), Action::ExportGoesOn);
        may(u8::from(s.beside.task.running), Action::ExportEnds);
        match &s.reconcile {
            None => {
                may(1, Action::Start);
                may(b.overloads, Action::StartOverloaded);
                may(b.stale * u8::from(s.before.is_some()), Action::StartStale);
            }
            Some(reconcile) => {
                may(b.crashes, Action::Crash);
                may(b.slow * u8::from(reconcile.last.is_some() && !reconcile.pending.is_empty()), Action::WriteHeld);
                if reconcile.pending.is_empty() {
                    may(1, Action::Decide);
                }
                for effect in reconcile.pending.iter().filter(|e| self.can(s, e)) {
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
            Action::StartOverloaded => {
                s.budget.overloads -= 1;
                s.start(s.tenant.clone());
                s.reconcile.as_mut()?.observed.overloaded = true;
            }
            Action::StartStale => {
                s.budget.stale -= 1;
                let view = s.before.clone()?;
                s.start(*view);
            }
            Action::Decide => {
                self.advance(&mut s);
            }
            Action::WriteHeld => self.write_while_busy(&mut s),
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
                s.reconcile = None;
                s.beside.crash();
            }
            Action::Pay => s.pay(),
            Action::Settle => s.settle(),
            Action::Confirm => s.confirm(),
            Action::Lapse => {
                s.budget.lapses -= 1;
                (s.cancelled, s.hint) = (true, true);
            }
            Action::Suspend
            | Action::Resume
            | Action::TakeBack
            | Action::Wish
            | Action::Leave
            | Action::AskExport
            | Action::ReplaceKey => {
                wish(&mut s, &action);
                s.overtake();
            }
            Action::Decline => {
                s.budget.declines -= 1;
                s.declined = true;
            }
            Action::SwitchAtStripe => {
                s.budget.switches -= 1;
                (s.billed, s.upgrades, s.hint) = (LARGER, s.upgrades + 1, true);
            }
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
            Action::ClockJumps(seconds) => {
                s.budget.jumps -= 1;
                s.ahead += seconds;
            }
            Action::Estrange => {
                s.budget.strangers -= 1;
                (s.stranger, s.hint, s.reconcile) = (true, true, None);
                s.beside.crash();
            }
            Action::Break => {
                s.budget.breaks -= 1;
                // What was stored is to be stored again by a tenant that is set up again.
                s.broken = true;
            }
            Action::ExportGoesOn => s.beside.go_on(),
            Action::ExportEnds => s.beside.end(),
            Action::Delete | Action::DeleteByAccident => delete(&mut s, &action),
        }
        Some(s)
    }

    /// A customer who was served is tried without limit while a provider is away, and each attempt looks like the last.
    fn within_boundary(&self, s: &State) -> bool {
        s.tenant.status.provisioning.as_ref().is_none_or(|run| run.attempts <= MOST_ATTEMPTS)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one customer, one charge, one refund, one namespace", |_, s: &State| {
                // Each subscription that ended was paid for, and so is the one after it.
                s.customers <= 1
                    && s.charges <= 1 + s.ended + s.refunds
                    && s.refunds <= s.charges
                    && s.namespaces_made <= 1
            }),
            Property::always("no notice is sent again without a reason", |model: &Self, s: &State| {
                // SMTP cannot be exactly-once: a crash or a lost answer between the send and its note repeats it.
                let (all, left) = (model.budget, s.budget);
                // A controller that starts again with another key has crashed as well.
                let crashes = (all.crashes - left.crashes) + (all.strangers - left.strangers);
                let lost = crashes + (all.faults - left.faults) + (all.stale - left.stale);
                s.sent.values().all(|count| *count <= 1 + lost)
            }),
            Property::always("Active only after the samples were seen", |_, s: &State| {
                s.tenant.status.phase != Some(Phase::Active) || s.seen
            }),
            Property::always("Active only after the payment", |model: &Self, s: &State| {
                let paid = model.mode == BillingMode::Manual || s.settled;
                s.tenant.status.phase != Some(Phase::Active) || paid
            }),
            Property::always("no tenant is set up for an unconfirmed address", |model: &Self, s: &State| {
                !model.login || s.tenant.email_verified || (s.namespaces_made == 0 && !s.secret)
            }),
            Property::always("a served customer has paid and was not refunded", |model: &Self, s: &State| {
                let served = s.tenant.status.phase == Some(Phase::Active);
                !served || model.mode == BillingMode::Manual || s.charges > s.refunds
            }),
            Property::always("a tenant that was served does not fail for an outage", |_, s: &State| {
                !s.served() || s.tenant.status.phase != Some(Phase::Failed)
            }),
            Property::always("the subscription of a customer who has left does not renew", |_, s: &State| {
                let told = s.sent.keys().any(|notice| matches!(notice, Notice::DeletionRequested(_)));
                let left = s.tenant.spec.desired == Desired::Deleted && s.tenant.status.phase == Some(Phase::Deleting);
                !(told && left) || s.ends || s.cancelled || !s.settled
            }),
            Property::always("a larger plan is charged once", |model: &Self, s: &State| {
                // Each second wish is one back to the smaller plan.
                let switches = model.budget.switches - s.budget.switches;
                s.upgrades <= (model.budget.wishes - s.budget.wishes).div_ceil(2) + switches
            }),
            Property::always("a larger plan is in force only after its payment", |model: &Self, s: &State| {
                let larger = s.tenant.status.config.as_ref().is_some_and(|config| &*config.plan == LARGER);
                model.mode == BillingMode::Manual || !larger || s.upgrades > 0
            }),
            Property::always("who has the larger plan is served by it to the end of the period", |_, s: &State| {
                let smaller = s.tenant.status.config.as_ref().is_some_and(|config| &*config.plan == SMALLER);
                !(s.had_larger && smaller) || s.now >= PERIOD_END
            }),
            Property::always("a lost status puts no other plan in force", |_, s: &State| !s.plan_lost),
            Property::always("an account that does not know the tenant suspends nothing", |_, s: &State| !s.misjudged),
            Property::always("nothing is erased without the wish to", |_, s: &State| !s.erased),
            Property::always("what must outlive the status is in the spec", |model: &Self, s: &State| {
                let kept = s.tenant.spec.billing.stripe.as_ref().is_some_and(|r| r.subscription_id.is_some());
                let needed = matches!(s.tenant.status.phase, Some(Phase::Provisioning | Phase::Active | Phase::Failed));
                !needed || model.mode == BillingMode::Manual || kept
            }),
            Property::always("each phase change once, in order", |_, s: &State| {
                !s.transition_lost && in_order(&s.tenant.status)
            }),
            Property::always("no transition goes before it is shipped", |_, s: &State| !s.beside.lost),
            Property::always("what is shipped has happened", |model: &Self, s: &State| {
                !model.outbox || !s.beside.invented
            }),
            Property::always("nothing of an export outlives the erasure", |_, s: &State| {
                let erased = s.tenant.status.erasure.as_ref().is_some_and(|erasure| erasure.erased_at.is_some());
                !erased || (!s.beside.files && !s.beside.task.running)
            }),
            Property::always("eventually stable reconciliation", |model: &Self, s: &State| model.converges(s)),
            Property::sometimes("Active is reached", |_, s: &State| {
                s.tenant.status.phase == Some(Phase::Active) || s.broken || s.budget.repairs > 0
            }),
        ]
    }
}

/// The object is deleted, with or without the wish to erase its tenant.
fn delete(s: &mut State, action: &Action) {
    let left = if *action == Action::Delete { &mut s.budget.deletions } else { &mut s.budget.accidents };
    *left -= 1;
    if s.tenant.finalizer {
        s.tenant.deleting = true;
    } else {
        s.gone = true;
    }
    s.overtake();
    s.reconcile = s.reconcile.take().filter(|_| !s.gone);
}

/// A customer or an admin edits the spec.
fn wish(s: &mut State, action: &Action) {
    let spec = &mut s.tenant.spec;
    match action {
        Action::Suspend => {
            s.budget.suspensions -= 1;
            spec.desired = Desired::Suspended;
            spec.suspension = Some(Wish::of_admin(Desired::Suspended, None, None, Timestamp::from_second(0)));
        }
        Action::Resume => {
            spec.desired = Desired::Active;
            spec.suspension = None;
            spec.wish = Some(Wish::of_admin(Desired::Active, None, None, Timestamp::from_second(CLOSED + 1)));
        }
        Action::Leave => {
            s.budget.leavings -= 1;
            spec.desired = Desired::Deleted;
            spec.wish = Some(Wish::of_customer(Desired::Deleted, Timestamp::from_second(CLOSED)));
        }
        Action::Wish => {
            s.budget.wishes -= 1;
            spec.plan = if spec.plan == LARGER { SMALLER } else { LARGER }.into();
        }
        Action::AskExport => {
            s.budget.exports -= 1;
            spec.export_request = Some("one".into());
        }
        Action::ReplaceKey => {
            s.budget.keys -= 1;
            spec.api_key_generation += 1;
        }
        // A customer who comes back: the suspension of an admin stays.
        _ => {
            spec.desired = Desired::Active;
            spec.wish = Some(Wish::of_customer(Desired::Active, Timestamp::from_second(CLOSED + 1)));
        }
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

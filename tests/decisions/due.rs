//! What is due is done even if other concerns wait or fail. Combines each thing that may hold a tenant up with each
//! thing that is due.

use serde_json::json;
use tenant_operator::api::conditions::set;
use tenant_operator::api::migration::{EmbeddingSize, MigrationState};
use tenant_operator::api::status::{PlanChangeState, PlanConfig};
use tenant_operator::api::tenant::{Desired, StripeRefs};
use tenant_operator::api::usage::Quota;
use tenant_operator::api::{Condition, ConditionStatus, LinkKind, MailRequest, Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Decision, Dispute, Effect, Notice, ObservedBilling, ObservedDispute, ObservedExport, ObservedMigration,
    ObservedSession, ObservedSubscription, Outcome, Policy, SessionState,
};

use crate::case::{Case, NOW, fails, failure, holds, outage, session, subscription};
use crate::migration::{LARGE, moving, seen};
use crate::plan_change::{noted, wishing};

/// What a tenant may wait for.
pub struct Obstacle {
    pub name: &'static str,
    pub arrange: fn(&mut Case),
    /// The effects that fail, however often they are tried.
    pub fails: fn(&Effect) -> bool,
}

/// What is to be done now.
pub struct Due {
    pub name: &'static str,
    pub arrange: fn(&mut Case),
    pub done: fn(&Seen) -> bool,
}

/// What happened until the tenant came to rest.
#[derive(Default)]
pub struct Seen {
    effects: Vec<Effect>,
    written: Vec<TenantStatus>,
}

impl Seen {
    pub fn did(&self, effect: &Effect) -> bool {
        self.effects.contains(effect)
    }

    pub fn told(&self, kind: &str) -> bool {
        let key = |e: &Effect| matches!(e, Effect::Notify(n) if n.key().split('.').next() == Some(kind));
        self.effects.iter().any(key)
    }

    pub fn wrote(&self, wanted: impl Fn(&TenantStatus) -> bool) -> bool {
        self.written.iter().any(wanted)
    }
}

pub fn nothing(_: &mut Case) {}

fn unwelcomed(case: &mut Case) {
    case.view.sent.remove("welcome");
}

pub fn never(_: &Effect) -> bool {
    false
}

pub fn stripe(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::ReadBilling
            | Effect::UpdateCustomer
            | Effect::SwitchPrice { .. }
            | Effect::PauseCollection
            | Effect::ResumeCollection
            | Effect::RenewAgain
            | Effect::ForgetClosing
    )
}

pub fn pinecone(effect: &Effect) -> bool {
    matches!(effect, Effect::CheckNamespace | Effect::EnsureNamespace | Effect::DropNamespace { .. })
}

/// The status of a tenant that has been Active for some days and got all automatic notices.
fn settled(phase: Phase) -> Case {
    let mut case = wishing(phase, 19_900);
    case.view.spec.plan = "middle".into();
    case.view.spec.plan_in_force = Some("middle".into());
    case.view.status.api_key_generation = Some(1);
    case.view.status.namespace = Some("tenant_t1".into());
    case.policy = Policy { nudge_after: 0, ..case.policy };
    case.view.status.admin_email = Some("ada@example.com".into());
    case
}

fn obstacles() -> Vec<Obstacle> {
    let obstacle = |name, arrange, fails| Obstacle { name, arrange, fails };
    vec![
        obstacle("nothing", nothing, never),
        obstacle("a welcome that no mail server takes", unwelcomed, |e| *e == Effect::Notify(Notice::Welcome)),
        obstacle(
            "a welcome that is held",
            |c| {
                c.view.sent.remove("welcome");
                c.observed.overloaded = true;
                c.view.status.provisioned_at = Some(Timestamp::from_second(NOW));
            },
            never,
        ),
        obstacle("a mail server and an alert webhook that refuse everything", unwelcomed, |e| {
            matches!(e, Effect::Notify(_))
        }),
        obstacle("a note of an e-mail that is refused", unwelcomed, |e| matches!(e, Effect::MarkSent(_))),
        obstacle("Stripe is away", |c| c.observed.resync = true, stripe),
        obstacle(
            "Stripe refuses the customer",
            |c| c.view.status.admin_email = Some("before@example.com".into()),
            |e| *e == Effect::UpdateCustomer,
        ),
        obstacle("Pinecone is away", |c| c.observed.resync = true, pinecone),
        obstacle("a Secret in the way", |c| c.observed.api_key = Some(false), |e| *e == Effect::EnsureApiKey),
        obstacle(
            "a namespace that is gone",
            |c| (c.observed.resync, c.observed.namespace_missing) = (true, true),
            never,
        ),
        obstacle(
            "a payment that is late",
            |c| {
                let status = subscription("past_due");
                *c = c.clone().billing(Some(status), None).at_rest();
            },
            |e| matches!(e, Effect::Notify(_)),
        ),
        obstacle("a plan that does not exist", |c| (c.view.spec.plan, c.wanted) = ("other".into(), None), never),
        obstacle(
            "a plan that Stripe does not bill",
            |c| c.view.spec.plan = "other".into(),
            |e| matches!(e, Effect::SwitchPrice { .. } | Effect::ReadBilling),
        ),
        obstacle(
            "a scheduled plan that cannot be undone",
            |c| {
                *c = noted(c.clone(), PlanChangeState::Scheduled);
                c.observed.billing =
                    Some(ObservedBilling { subscription: Some(subscription("active")), ..Default::default() });
            },
            |e| matches!(e, Effect::SwitchPrice { .. }),
        ),
        obstacle(
            "data that moves",
            |c| {
                *c = seen(moving(c.clone(), 2, MigrationState::Copying), false, false, None);
                c.view.spec.settings.embedding = Some(EmbeddingSize::Large);
                c.plan.iter_mut().for_each(|p| p.models.embedding_large = Some(LARGE.into()));
                c.view.status.config = c.plan.as_ref().map(|p| PlanConfig::of("middle", p));
            },
            never,
        ),
        obstacle("old data that cannot be deleted", |c| *c = moving(c.clone(), 3, MigrationState::Copying), pinecone),
        obstacle(
            "exports that cannot be deleted",
            |c| {
                let export = crate::export::ready(NOW - 30 * 24 * 3600);
                (c.view.status.export, c.policy.exports_kept) = (export.view.status.export, Some(600));
            },
            |e| *e == Effect::DeleteExports,
        ),
        obstacle("a disputed payment", dispute, |e| matches!(e, Effect::Notify(_))),
    ]
}

fn dispute(case: &mut Case) {
    let dispute = Dispute {
        id: "du_1".into(),
        cause: "fraudulent".into(),
        amount: 1,
        currency: "usd".into(),
        lost: false,
        due_by: None,
    };
    case.observed.dispute = ObservedDispute::Disputed(dispute);
}

/// All documents of the plan are stored.
fn full(case: &mut Case) {
    let limit = case.plan.as_ref().map_or(1, |plan| plan.limits.documents);
    let (observed_at, period_end) = (Timestamp::from_second(NOW), Timestamp::from_second(NOW).plus_months(1));
    let documents = json!({"used": limit});
    let usage = json!({
        "observedAt": observed_at, "periodStart": observed_at, "periodEnd": period_end, "documents": documents,
    });
    case.view.status.usage = serde_json::from_value(usage).expect("a usage");
}

fn dues() -> Vec<Due> {
    let due = |name, arrange, done| Due { name, arrange, done };
    vec![
        due(
            "a key that was replaced",
            |c| {
                (c.view.spec.api_key_generation, c.observed.api_key) = (2, Some(false));
            },
            |s| s.wrote(|status| status.api_key_generation == Some(2)),
        ),
        due(
            "a suspension by an admin",
            |c| c.view.spec.desired = Desired::Suspended,
            |s| s.wrote(|status| status.phase == Some(Phase::Suspended)),
        ),
        due(
            "a payment that came",
            |c| {
                let late = Condition {
                    type_: "PaymentReceived".into(),
                    status: ConditionStatus::False,
                    reason: "PaymentPastDue".into(),
                    message: "A payment failed; Stripe tries again".into(),
                    last_transition_time: Timestamp::from_second(NOW - 60),
                    observed_generation: Some(1),
                };
                c.view.status.payment_late_since = Some(late.last_transition_time);
                set(&mut c.view.status.conditions, late);
                let paid = ObservedSubscription { price: Some("price_4900".into()), ..subscription("active") };
                *c = c.clone().billing(Some(paid), None);
            },
            |s| s.wrote(|status| holds(status, "PaymentReceived", "Recovered")),
        ),
        due(
            "a payment that failed",
            |c| {
                *c = c.clone().billing(Some(subscription("past_due")), None);
            },
            |s| s.wrote(|status| fails(status, "PaymentReceived", "PaymentPastDue")),
        ),
        due(
            "a subscription that ended",
            |c| *c = c.clone().billing(Some(subscription("canceled")), None),
            |s| s.wrote(|status| status.phase == Some(Phase::Suspended)),
        ),
        due("what is to be read at Stripe", |c| c.observed.resync = true, |s| s.did(&Effect::ReadBilling)),
        due("a look at Pinecone", |c| c.observed.resync = true, |s| s.did(&Effect::CheckNamespace)),
        due(
            "limits that were edited",
            |c| c.plan.iter_mut().for_each(|plan| plan.limits.documents = 7),
            |s| s.wrote(|status| status.config.as_ref().is_some_and(|c| c.limits.documents == 7)),
        ),
        due(
            "the next period",
            |c| {
                if let Some(quota) = &mut c.view.status.quota {
                    *quota = Quota::begin(None, Timestamp::from_second(NOW - Quota::PERIOD - 5));
                }
            },
            |s| s.wrote(|status| status.quota.as_ref().is_some_and(|q| q.period_start.as_second() == NOW - 5)),
        ),
        due(
            "a link to log in",
            |c| {
                *c = c.clone().signed_up();
                c.view.mail_requests = vec![MailRequest { kind: LinkKind::LoginLink, at: Timestamp::from_second(NOW) }];
            },
            |s| s.told("login-link"),
        ),
        due(
            "the notice to an address that was replaced",
            |c| c.view.status.admin_email = Some("before@example.com".into()),
            |s| s.told("address-changed"),
        ),
        due(
            "an export",
            |c| (c.view.spec.export_request, c.policy.exports_kept) = (Some("new".into()), Some(600)),
            |s| s.wrote(|status| status.export.as_ref().is_some_and(|e| &*e.request == "new")),
        ),
        due("the welcome", unwelcomed, |s| s.told("welcome")),
        due("an e-mail about a limit that is reached", full, |s| s.told("usage-100")),
        due("an alert about a dispute", dispute, |s| s.told("dispute-alert")),
        due(
            "news of another plan",
            |c| {
                *c = noted(c.clone(), PlanChangeState::Applied);
                c.view.status.plan_change.iter_mut().for_each(|change| change.plan = "middle".into());
            },
            |s| s.told("plan-changed"),
        ),
    ]
}

/// What an obstacle makes impossible or needless, because it is about the very same thing.
fn same(obstacle: &str, due: &str) -> bool {
    match obstacle {
        "a Secret in the way" => due == "a key that was replaced",
        // It waits for a short while by design: other tenants wait for their parts meanwhile.
        "a welcome that is held" => due == "the welcome",
        "a namespace that is gone" => due == "a look at Pinecone",
        // Read already, and written down.
        "a payment that is late" => matches!(due, "what is to be read at Stripe" | "a payment that failed"),
        "a scheduled plan that cannot be undone" => due == "what is to be read at Stripe",
        // The news of the plan before are over.
        "a plan that does not exist" => due == "news of another plan",
        _ => false,
    }
}

/// Runs to rest, or until it has seen enough, with what fails failing each time.
pub fn run(mut case: Case, obstacle: &Obstacle, next: fn(&Case) -> Decision, enough: impl Fn(&Seen) -> bool) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..60 {
        match next(&case) {
            Decision::Wait(_) => return seen,
            _ if enough(&seen) => return seen,
            Decision::Record(status) => {
                case.observed.recorded(&case.view.status, &status);
                case.view.status = (*status).clone();
                seen.written.push(*status);
            }
            Decision::Act(effects) => {
                for effect in effects {
                    // A try counts: whether it was taken is the other side's.
                    seen.effects.push(effect.clone());
                    if (obstacle.fails)(&effect) {
                        let step = if matches!(effect, Effect::Notify(_)) { "Notice" } else { "Billing" };
                        let failure = if obstacle.name.contains("away") { outage(step) } else { failure(step, true) };
                        case.observed.learn(&effect, Outcome::Failed(failure));
                        continue;
                    }
                    match &effect {
                        Effect::RecordPlan { plan } => case.view.spec.plan_in_force = Some(plan.clone()),
                        Effect::StoreStripeIds { customer, subscription } => {
                            case.view.spec.billing.stripe = Some(StripeRefs {
                                customer_id: Some(customer.clone()),
                                subscription_id: subscription.clone(),
                                checkout_attempt: None,
                            });
                        }
                        Effect::SwitchPrice { .. } => {
                            let after = ObservedSubscription {
                                price: Some("price_19900".into()),
                                plan: Some("other".into()),
                                ..subscription("active")
                            };
                            case = case.billing(Some(after), None);
                        }
                        Effect::OpenCheckout { .. } => {
                            let ended = Some(subscription("canceled"));
                            let open = ObservedSession { plan: None, ..session(SessionState::Open, 1) };
                            case = case.billing(ended, Some(open));
                        }
                        Effect::Export => {
                            let running = ObservedExport::Running { files: 0, bytes: 0, problem: None };
                            case.observed.learn(&effect, Outcome::Export(running));
                        }
                        Effect::Migrate { last, .. } => {
                            case.observed.learn(&effect, Outcome::Migration(ObservedMigration::begun(*last)));
                        }
                        _ => case.perform(&effect),
                    }
                }
            }
        }
    }
    panic!("{}: it never comes to rest: {:#?}", obstacle.name, case.next());
}

/// What is not done, and beside what.
fn hidden(next: fn(&Case) -> Decision) -> Vec<String> {
    let mut hidden = Vec::new();
    for obstacle in obstacles() {
        for due in dues().iter().filter(|due| !same(obstacle.name, due.name)) {
            let mut case = settled(Phase::Active).at_rest();
            (obstacle.arrange)(&mut case);
            (due.arrange)(&mut case);
            if !(due.done)(&run(case, &obstacle, next, |_| false)) {
                hidden.push(format!("{} hides {}", obstacle.name, due.name));
            }
        }
    }
    hidden
}

#[test]
fn no_concern_that_waits_or_fails_hides_another_that_is_due() {
    let hidden = hidden(Case::next);
    assert!(hidden.is_empty(), "{hidden:#?}");
}

/// The same search finds each concern that would silence the others, by its failure or by its wait.
#[test]
fn a_concern_that_silences_the_others_is_found() {
    let hides = |hidden: &[String], obstacle: &str, due: &str| hidden.contains(&format!("{obstacle} hides {due}"));
    let failure = hidden(|case| if case.observed.failed.is_empty() { case.next() } else { Decision::Wait(Some(60)) });
    assert!(hides(&failure, "a Secret in the way", "a suspension by an admin"), "{failure:#?}");
    let unsent = hidden(|case| if case.observed.unsent.is_empty() { case.next() } else { Decision::Wait(Some(60)) });
    assert!(hides(&unsent, "a mail server and an alert webhook that refuse everything", "an export"), "{unsent:#?}");
    let moves = hidden(|case| match case.view.status.migration {
        None => case.next(),
        Some(_) => Decision::Wait(Some(60)),
    });
    assert!(hides(&moves, "data that moves", "a key that was replaced"), "{moves:#?}");
}

/// A change of plan whose documents are embedded anew takes hours, and the tenant is served meanwhile.
#[test]
fn a_key_is_replaced_in_the_middle_of_a_change_of_plan() {
    for (name, failing) in [("nothing", never as fn(&Effect) -> bool), ("Stripe is away", stripe)] {
        let mut case = noted(settled(Phase::Upgrading), PlanChangeState::Running);
        case.view.spec.plan = "other".into();
        (case.view.spec.api_key_generation, case.observed.api_key) = (2, Some(false));
        let seen = run(case, &Obstacle { name, arrange: nothing, fails: failing }, Case::next, |_| false);
        assert!(seen.wrote(|status| status.api_key_generation == Some(2)), "{name}");
    }
}

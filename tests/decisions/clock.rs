//! What cannot be undone waits until its moment has come by the API server's clock and by the controller's.

use tenant_operator::api::migration::MigrationState;
use tenant_operator::api::status::{Export, ExportState, PlanChangeState};
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, SessionState};

use crate::case::{Case, NOW, does, outage, session};
use crate::{dunning, leaving, migration, plan_change, verification};

const DAY: i64 = 24 * 3600;

fn phase(case: &Case) -> Option<Phase> {
    match case.decide() {
        Decision::Record(status) => status.phase,
        _ => None,
    }
}

/// It happens now, and not as long as one of the clocks is behind; when it is to be looked at again, by that clock.
fn waits_for_both(what: &str, mut case: Case, happens: impl Fn(&Case) -> bool) {
    assert!(happens(&case), "{what}: {:?}", case.decide());
    case.earliest = NOW - DAY;
    assert!(!happens(&case), "{what}, although a clock is a day behind");
    // The controller looks at the tenant again in time, even if other things are due first.
    let wait = case.after_record_or_wait();
    assert!(matches!(wait, Decision::Wait(Some(1..=DAY)) | Decision::Act(_)), "{what}: {wait:?}");
}

#[test]
fn no_tenant_is_erased_before_the_day() {
    waits_for_both("an erasure", leaving::closed(0), |case| does(&case.decide(), &Effect::CountHoldings));
    let mut refused = leaving::closed(0);
    refused.earliest = NOW - DAY;
    refused.view.spec.desired = Default::default();
    let back = refused.recorded();
    assert_eq!(
        (back.phase, back.erases_at),
        (Some(Phase::Suspended), None),
        "a customer who comes back in time is taken back"
    );
    let mut unpaid = Case::new(Some(Phase::PendingPayment));
    unpaid.view.spec.desired = tenant_operator::api::tenant::Desired::Deleted;
    unpaid.earliest = NOW - DAY;
    let erases_at = unpaid.recorded().erases_at;
    assert_eq!(erases_at, Some(Timestamp::from_second(NOW - DAY)), "who has nothing to lose need not wait for a clock");
}

#[test]
fn no_tenant_is_suspended_before_the_grace_is_over() {
    let mut late = dunning::late(0);
    late = dunning::late(late.policy.payment_grace);
    waits_for_both("a suspension", late, |case| phase(case) == Some(Phase::Suspended));
}

#[test]
fn no_signup_is_removed_before_its_time() {
    let mut unpaid = Case::new(Some(Phase::PendingPayment)).signed_up();
    unpaid = unpaid.billing(None, Some(session(SessionState::Open, 1)));
    unpaid.policy.signup_ttl = 30;
    waits_for_both("a signup", unpaid, |case| does(&case.decide(), &Effect::DeleteTenant));
    let unconfirmed = verification::unconfirmed();
    waits_for_both("an address", unconfirmed, |case| phase(case) == Some(Phase::Failed));
}

#[test]
fn no_tenant_fails_before_the_limit_of_a_hold() {
    let mut held = Case::new(Some(Phase::Provisioning));
    held.observed.failure = Some(outage("SampleData"));
    let run = held.view.status.provisioning.as_mut().expect("a run");
    run.held_since = Some(Timestamp::from_second(NOW - held.policy.hold_limit));
    waits_for_both("a hold", held, |case| phase(case) == Some(Phase::Failed));
}

#[test]
fn no_plan_is_cut_before_the_end_of_the_period() {
    let mut scheduled = plan_change::noted(plan_change::wishing(Phase::Active, 900), PlanChangeState::Scheduled);
    scheduled = scheduled.manual(true);
    if let Some(change) = &mut scheduled.view.status.plan_change {
        change.effective_at = Some(Timestamp::from_second(NOW));
    }
    waits_for_both("a smaller plan", scheduled, |case| phase(case) == Some(Phase::Downgrading));
}

#[test]
fn nothing_is_deleted_before_its_time() {
    let mut old = migration::switched();
    let since = old.view.status.migration.as_ref().expect("a move").since;
    old.policy.migration_overlap = NOW - since.as_second();
    assert!(matches!(old.view.status.migration.as_ref().map(|m| m.state), Some(MigrationState::Switched)));
    waits_for_both("old vectors", old, |case| does(&case.decide(), &Effect::DropNamespace { generation: 1 }));
    let mut files = crate::export::ready(NOW - DAY);
    let export: &mut Export = files.view.status.export.as_mut().expect("an export");
    assert_eq!(export.state, ExportState::Ready);
    export.expires_at = Some(Timestamp::from_second(NOW));
    waits_for_both("an export", files, |case| does(&case.decide(), &Effect::DeleteExports));
}

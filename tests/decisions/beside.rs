//! A provider that is away delays only what needs it.

use tenant_operator::api::Phase;
use tenant_operator::api::status::{ExportState, PlanChangeState};
use tenant_operator::api::tenant::Desired;
use tenant_operator::lifecycle::{Decision, Effect, Notice};

use crate::case::{Case, NOW, does, failure, holds};
use crate::{export, plan_change};

#[test]
fn another_plan_waits_for_no_pinecone() {
    let begun = |d: &Decision| matches!(d, Decision::Record(status) if status.phase == Some(Phase::Upgrading));
    let mut case = plan_change::wishing(Phase::Active, 19_900);
    case.observed.resync = true;
    let first = case.on_the_way(|d| begun(d) || does(d, &Effect::CheckNamespace));
    assert!(first.as_ref().is_some_and(begun), "{first:?}");
}

#[test]
fn a_customer_with_another_plan_is_told_of_it_without_pinecone() {
    let mut case = plan_change::noted(plan_change::wishing(Phase::Active, 19_900), PlanChangeState::Applied);
    case.view.spec.plan = "middle".into();
    if let Some(change) = &mut case.view.status.plan_change {
        (change.from, change.plan) = ("small".into(), "middle".into());
    }
    case.observed.failure = Some(failure("Namespace", true));
    let told =
        |d: &Decision| matches!(d, Decision::Act(e) if matches!(e[..], [Effect::Notify(Notice::PlanChanged(_))]));
    assert!(case.on_the_way(told).is_some());
}

#[test]
fn a_storage_of_exports_that_is_away_holds_up_no_suspension() {
    let mut case = export::ready(NOW - 30 * 24 * 3600).sent(&Notice::ExportReady("customer-1".into()));
    assert_eq!(case.view.status.export.as_ref().map(|e| e.state), Some(ExportState::Ready));
    assert_eq!(case.effects(), [Effect::DeleteExports]);
    case.view.spec.desired = Desired::Suspended;
    assert_eq!(case.recorded().phase, Some(Phase::Suspended));
}

#[test]
fn a_key_that_leaked_waits_for_no_address() {
    let mut case = Case::new(Some(Phase::Active)).sent(&Notice::Welcome);
    case.view.status.admin_email = Some("before@example.com".into());
    case.view.status.provisioned_at = Some(case.view.created_at);
    case.observed.api_key = Some(false);
    assert_eq!(case.effects(), [Effect::EnsureApiKey]);
    case.observed.api_key = Some(true);
    let shown = |d: &Decision| matches!(d, Decision::Record(status) if holds(status, "ApiKeyReady", "Present"));
    let first = case.on_the_way(|d| shown(d) || does(d, &Effect::UpdateCustomer));
    assert!(first.as_ref().is_some_and(shown), "{first:?}");
}
